// optim: AdamW on flat blocks of parameters, with clipping by global norm.
//
// Loshchilov & Hutter 2019, arXiv:1711.05101. One block holds all trainable parameters one after the
// other in f32 (the master copy). The update is out of place, so that the version before it stays
// readable while it is made; input and output may also be the same memory.
//
//     double norm = optim_norm(cnt, grad);
//     double scale = optim_clip(norm, 1.0);                         // 1 or 1.0 / norm
//     optim_adamw(&cfg, step, cnt, scale, grad, &before, &after);   // step counts from 1
//
// We ascend the reward: pass the gradient of -R, or set cfg.maximize.
#ifndef COMMON_TENSOR_OPTIM_H
#define COMMON_TENSOR_OPTIM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct OptimAdamw {
    double lr, beta1, beta2, eps, weight_decay;
    bool maximize;
} OptimAdamw;

typedef struct OptimState {
    float *theta; // (cnt)
    float *m, *v; // (cnt) first and second moments
} OptimState;

// sqrt(sum g^2), summed in double in index order; NaN or Inf travel into the result for the caller to see.
double optim_norm(int64_t cnt, const float *grad);

// Factor that brings norm down to max_norm; 1 if it is below or max_norm is 0.
double optim_clip(double norm, double max_norm);

// m' = b1 m + (1-b1) g,  v' = b2 v + (1-b2) g^2,  theta' = theta (1 - lr wd) - lr mhat / (sqrt(vhat) + eps)
// with g = scale * grad (negated if maximize), mhat = m'/(1-b1^step), vhat = v'/(1-b2^step). Each element is computed
// in double and rounded once: the same bits on every machine.
void optim_adamw(const OptimAdamw *cfg, int64_t step, int64_t cnt, double scale, const float *grad,
                 const OptimState *before, const OptimState *after);

#endif
