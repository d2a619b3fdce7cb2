// Scaled dot product attention and its gradient, one query at a time.
#include <math.h>

#include "common/tensor/ref/ref.h"

// One query of one head: where its channels and those of the keys begin. The workspace holds one number per key.
typedef struct Query {
    RefIn q, k, v;
    int64_t q_at, d, keys, seen; // seen: keys it may look at
    int64_t k_at, k_step;        // key j begins at k_at + j*k_step, in k and v alike
    double scale;
    double *p; // [keys] probabilities
} Query;

typedef void QueryFn(Step *s, const Query *u);

static double score(const Query *u, int64_t j) {
    double dot = 0;
    for (int64_t i = 0; i < u->d; i++)
        dot += ref_get(&u->q, u->q_at + i) * ref_get(&u->k, u->k_at + j * u->k_step + i);
    return dot * u->scale;
}

static void fill_probabilities(const Query *u) {
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < u->seen; j++) max = fmax(max, u->p[j] = score(u, j));
    for (int64_t j = 0; j < u->seen; j++) sum += u->p[j] = exp(u->p[j] - max);
    for (int64_t j = 0; j < u->keys; j++) u->p[j] = j < u->seen ? u->p[j] / sum : 0;
}

// Calls fn for every (b, other axis, head, query); q is input `first`.
static void each_query(Step *s, int first, QueryFn *fn) {
    const Tensor *t = s->node;
    Query u = {ref_in(s, first), ref_in(s, first + 1), ref_in(s, first + 2)};
    Shape q = u.q.t->shape, k = u.k.t->shape;
    int axis = t->attr.sdpa.axis, other = 3 - axis;
    u.d = q.dim[3] / t->attr.sdpa.heads;
    u.keys = k.dim[axis];
    u.k_step = axis == 2 ? k.dim[3] : k.dim[2] * k.dim[3];
    u.scale = t->attr.sdpa.scale;
    u.p = s->work;
    for (int64_t b = 0; b < q.dim[0]; b++)
        for (int64_t e = 0; e < q.dim[other]; e++)
            for (int64_t head = 0; head < t->attr.sdpa.heads; head++)
                for (int64_t i = 0; i < q.dim[axis]; i++) {
                    int64_t at[TENSOR_DIMS_MAX] = {[0] = b, [3] = head * u.d};
                    at[other] = e;
                    u.k_at = ref_index(k, at);
                    at[axis] = i;
                    u.q_at = ref_index(q, at);
                    u.seen = t->attr.sdpa.causal ? i + 1 : u.keys;
                    fill_probabilities(&u);
                    fn(s, &u);
                }
}

static Err sdpa_prepare(Backend *be, Step *s) {
    const Tensor *k = s->node->in[s->node->op == OP_sdpa ? 1 : 2];
    s->work_bytes = sizeof(double) * (size_t)k->shape.dim[s->node->attr.sdpa.axis];
    return ERR_OK;
}

static void attend(Step *s, const Query *u) {
    for (int64_t c = 0; c < u->d; c++) {
        double sum = 0;
        for (int64_t j = 0; j < u->seen; j++)
            sum += u->p[j] * ref_get(&u->v, u->k_at + j * u->k_step + c);
        ref_put(s, u->q_at + c, sum);
    }
}

REF_OP_WORK(sdpa, sdpa_prepare) { each_query(s, 0, attend); }

// dp_j = <dy, v_j>, ds_j = p_j (dp_j - sum p dp) scale, dq = sum ds_j k_j, dk_j += ds_j q, dv_j += p_j dy
static void attend_back(Step *s, const Query *u) {
    RefIn dy = ref_in(s, 0);
    double *dq = ref_out(s), *dk = dq + shape_count(u->q.t->shape), mean = 0;
    double *dv = dk + shape_count(u->k.t->shape);
    for (int64_t j = 0; j < u->seen; j++)
        for (int64_t c = 0; c < u->d; c++)
            mean +=
                u->p[j] * ref_get(&dy, u->q_at + c) * ref_get(&u->v, u->k_at + j * u->k_step + c);
    for (int64_t j = 0; j < u->seen; j++) {
        int64_t key = u->k_at + j * u->k_step;
        double dp = 0;
        for (int64_t c = 0; c < u->d; c++)
            dp += ref_get(&dy, u->q_at + c) * ref_get(&u->v, key + c);
        double ds = u->p[j] * (dp - mean) * u->scale;
        for (int64_t c = 0; c < u->d; c++) {
            dq[u->q_at + c] += ds * ref_get(&u->k, key + c);
            dk[key + c] += ds * ref_get(&u->q, u->q_at + c);
            dv[key + c] += u->p[j] * ref_get(&dy, u->q_at + c);
        }
    }
}

REF_OP_WORK(sdpa_back, sdpa_prepare) {
    ref_zero(s);
    each_query(s, 1, attend_back);
}
