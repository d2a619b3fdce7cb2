// optim: AdamW, element by element.
#include "common/tensor/optim.h"

#include <math.h>

double optim_norm(int64_t cnt, const float *grad) {
    double sum = 0;
    for (int64_t i = 0; i < cnt; i++) sum += (double)grad[i] * grad[i];
    return sqrt(sum);
}

double optim_clip(double norm, double max_norm) {
    return max_norm > 0 && norm > max_norm ? max_norm / norm : 1;
}

void optim_adamw(const OptimAdamw *cfg, int64_t step, int64_t cnt, double scale, const float *grad,
                 const OptimState *before, const OptimState *after) {
    double c1 = 1 - pow(cfg->beta1, (double)step), c2 = 1 - pow(cfg->beta2, (double)step);
    double decay = 1 - cfg->lr * cfg->weight_decay, sign = cfg->maximize ? -scale : scale;
    for (int64_t i = 0; i < cnt; i++) {
        double g = sign * grad[i];
        double m = cfg->beta1 * before->m[i] + (1 - cfg->beta1) * g;
        double v = cfg->beta2 * before->v[i] + (1 - cfg->beta2) * g * g;
        after->theta[i] =
            (float)(decay * before->theta[i] - cfg->lr * (m / c1) / (sqrt(v / c2) + cfg->eps));
        after->m[i] = (float)m;
        after->v[i] = (float)v;
    }
}
