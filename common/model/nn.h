// nn: layers with parameters, as model files name them. A thin hand between params, lora and op.
//
//     NN nn = {.g = g, .params = p, .lora = lora};
//     nn_push(&nn, "down_blocks.0");
//     x = nn_conv2d(&nn, "conv_in", x, NULL, 320, 3, 1, false, NULL);
//     x = nn_linear(&nn, "attn1.to_q", x, 320, false, NULL);   // with its LoRA, if it carries one
//     nn_pop(&nn);
//
// Keys are "<prefix>.<name>.weight" and ".bias". Feature maps are (N, T, H, W, C), tokens (..., D).
// Every call returns NULL after a failure, which the graph remembers.
#ifndef COMMON_MODEL_NN_H
#define COMMON_MODEL_NN_H

#include "common/model/lora.h"
#include "common/model/params.h"
#include "common/tensor/op.h"

typedef struct NN {
    Graph *g;
    Params *params;
    Lora *lora;   // NULL: no adapter
    bool dropout; // draw the adapter's dropout masks (learner); lora_write_keys fills their keys
    char prefix[256]; // of keys and names; "" at the top
    int depth;        // of nn_push
    int length[16];   // of the prefix before each
} NN;

// Descends into / returns from a sub-module; also names the graph's nodes. A pushed name may hold dots
// ("attentions.0"): one nn_pop undoes one nn_push.
void nn_push(NN *nn, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void nn_pop(NN *nn);

// Is there a parameter "<prefix>.<name>"?
bool nn_has(const NN *nn, const char *name);

// The parameter "<prefix>.<name>".
Tensor *nn_param(NN *nn, const char *name, Shape shape);

// x (..., in) -> (..., out) with weight (out, in), optional bias, optional residual added in the epilogue,
// and the module's LoRA when it has one.
Tensor *nn_linear(NN *nn, const char *name, Tensor *x, int64_t out, bool bias, Tensor *residual);
// The same with `extra` (out) added to the bias; may be NULL.
Tensor *nn_linear_extra(NN *nn, const char *name, Tensor *x, Tensor *extra, int64_t out, bool bias,
                        Tensor *residual);

// 2-D convolution k x k over (N, T, H, W, C), weight (out, in, k, k); zero padding k/2, or with pad_lo 0
// (right and bottom only) if `asymmetric`. extra (N, out): added to the bias (time embedding); may be NULL.
Tensor *nn_conv2d(NN *nn, const char *name, Tensor *x, Tensor *extra, int64_t out, int k,
                  int stride, bool asymmetric, Tensor *residual);
// Convolution over frames, weight (out, in, 3, 1, 1), zero padding 1.
Tensor *nn_conv_time(NN *nn, const char *name, Tensor *x, Tensor *extra, int64_t out,
                     Tensor *residual);

Tensor *nn_layernorm(NN *nn, const char *name, Tensor *x, double eps);
// Statistics per frame (span_frames false) or over all frames of x; then silu if asked.
Tensor *nn_groupnorm(NN *nn, const char *name, Tensor *x, int groups, double eps, bool silu,
                     bool span_frames);

// The spatial residual block of diffusers, norms of 32 groups, per frame,
// x (N, T, H, W, I) -> (N, T, H, W, out):
//   a = conv1(silu(norm1(x))) + time_emb_proj(emb);  shortcut(x) + conv2(silu(norm2(a)))
// where shortcut is conv_shortcut (1x1) if I != out. emb (N, E) after its silu; NULL: a block without one.
Tensor *nn_res_space(NN *nn, Tensor *x, Tensor *emb, int64_t out, double eps);
// The temporal one, convolutions over frames and statistics over all of them: the same with C -> C and
// residual x.
Tensor *nn_res_time(NN *nn, Tensor *x, Tensor *emb, double eps);

#endif
