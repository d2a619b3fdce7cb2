// Layer and group normalisation. With xhat = (x - mean) * rstd, z = xhat * gamma + beta and
// dz = dy (times silu'(z) where fused):
//   dx = rstd * (a - mean(a) - xhat * mean(a * xhat)), a = dz * gamma;  dgamma = sum(dz * xhat);  dbeta = sum(dz)
#include <math.h>

#include "common/tensor/ref/ref.h"

// The elements that share one mean: `rows` runs of `run` elements, `step` apart, from `first`.
typedef struct Set {
    int64_t first, rows, run, step;
    double mean, rstd;
} Set;

static int64_t set_count(const Set *set) { return set->rows * set->run; }
static int64_t set_place(const Set *set, int64_t k) {
    return set->first + k / set->run * set->step + k % set->run;
}

static void set_statistics(Set *set, const RefIn *x, double eps) {
    double n = (double)set_count(set), sum = 0, square = 0;
    for (int64_t k = 0; k < set_count(set); k++) sum += ref_get(x, set_place(set, k));
    set->mean = sum / n;
    for (int64_t k = 0; k < set_count(set); k++) {
        double d = ref_get(x, set_place(set, k)) - set->mean;
        square += d * d;
    }
    set->rstd = 1 / sqrt(square / n + eps);
}

static double xhat_at(const Set *set, const RefIn *x, int64_t i) {
    return (ref_get(x, i) - set->mean) * set->rstd;
}

// A layer norm is the group norm of (rows, C) with one group: both are written once.
typedef struct Norm {
    RefIn x, gamma, beta;
    int64_t n, rows, c; // x as (n, rows, c)
    int groups;
    double eps;
    bool silu;
} Norm;

static Norm layer_of(const Step *s, int x, int gamma, int beta) {
    Norm m = {ref_in(s, x), ref_in(s, gamma), ref_in(s, beta)};
    m.c = m.x.t->shape.dim[m.x.t->shape.rank - 1];
    m.n = shape_count(m.x.t->shape) / m.c;
    m.rows = m.groups = 1;
    m.eps = s->node->attr.norm.eps;
    return m;
}

static Norm group_of(const Step *s, int x, int gamma, int beta) {
    Norm m = layer_of(s, x, gamma, beta);
    m.n = m.x.t->shape.dim[0];
    m.rows = shape_count(m.x.t->shape) / (m.n * m.c);
    m.groups = s->node->attr.norm.groups;
    m.silu = s->node->attr.norm.silu;
    return m;
}

static Set set_of(const Norm *m, int64_t n, int group) {
    Set set = {.rows = m->rows, .run = m->c / m->groups, .step = m->c};
    set.first = n * m->rows * m->c + group * set.run;
    set_statistics(&set, &m->x, m->eps);
    return set;
}

static double gamma_at(const Norm *m, int64_t i) {
    return m->gamma.t ? ref_get(&m->gamma, i % m->c) : 1;
}
static double z_at(const Norm *m, const Set *set, int64_t i) {
    double beta = m->beta.t ? ref_get(&m->beta, i % m->c) : 0;
    return xhat_at(set, &m->x, i) * gamma_at(m, i) + beta;
}
static double sigmoid(double z) { return 1 / (1 + exp(-z)); }

static double dz_at(const Norm *m, const Set *set, const RefIn *dy, int64_t i) {
    if (!m->silu) return ref_get(dy, i);
    double z = z_at(m, set, i);
    return ref_get(dy, i) * sigmoid(z) * (1 + z * (1 - sigmoid(z)));
}

static void forward(Step *s, Norm m) {
    for (int64_t n = 0; n < m.n; n++)
        for (int g = 0; g < m.groups; g++) {
            Set set = set_of(&m, n, g);
            for (int64_t k = 0; k < set_count(&set); k++) {
                int64_t i = set_place(&set, k);
                double z = z_at(&m, &set, i);
                ref_put(s, i, m.silu ? z * sigmoid(z) : z);
            }
        }
}

static void backward(Step *s, Norm m) {
    RefIn dy = ref_in(s, 0);
    for (int64_t n = 0; n < m.n; n++)
        for (int g = 0; g < m.groups; g++) {
            Set set = set_of(&m, n, g);
            double mean_a = 0, mean_ax = 0, cnt = (double)set_count(&set);
            for (int64_t k = 0; k < set_count(&set); k++) {
                int64_t i = set_place(&set, k);
                double a = dz_at(&m, &set, &dy, i) * gamma_at(&m, i);
                mean_a += a / cnt;
                mean_ax += a * xhat_at(&set, &m.x, i) / cnt;
            }
            for (int64_t k = 0; k < set_count(&set); k++) {
                int64_t i = set_place(&set, k);
                double a = dz_at(&m, &set, &dy, i) * gamma_at(&m, i);
                ref_put(s, i, set.rstd * (a - mean_a - xhat_at(&set, &m.x, i) * mean_ax));
            }
        }
}

// (2, C): dgamma, dbeta
static void parameters(Step *s, Norm m) {
    RefIn dy = ref_in(s, 0);
    double *dgamma = ref_zero(s), *dbeta = dgamma + m.c;
    for (int64_t n = 0; n < m.n; n++)
        for (int g = 0; g < m.groups; g++) {
            Set set = set_of(&m, n, g);
            for (int64_t k = 0; k < set_count(&set); k++) {
                int64_t i = set_place(&set, k);
                double dz = dz_at(&m, &set, &dy, i);
                dgamma[i % m.c] += dz * xhat_at(&set, &m.x, i);
                dbeta[i % m.c] += dz;
            }
        }
}

enum { NONE = TENSOR_INPUTS_MAX }; // no such input
REF_OP(layernorm) { forward(s, layer_of(s, 0, 1, 2)); }
REF_OP(layernorm_dx) { backward(s, layer_of(s, 1, 2, NONE)); }
REF_OP(layernorm_dp) { parameters(s, layer_of(s, 1, NONE, NONE)); }
REF_OP(groupnorm) { forward(s, group_of(s, 0, 1, 2)); }
REF_OP(groupnorm_dx) { backward(s, group_of(s, 1, 2, 3)); }
REF_OP(groupnorm_dp) { parameters(s, group_of(s, 1, 2, 3)); }
