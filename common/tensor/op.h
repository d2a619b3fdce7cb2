// op: the builders of every operator, with its equation, shapes and gradient class.
//
// All take borrowed tensors of the same graph, append one node (some append a few) and return it, or
// NULL after recording an error in the graph (graph.h). "..." stands for any leading dims. Unless a
// line says otherwise tensors are F32, the result is contiguous, and every float input has a gradient.
// An input that must be contiguous and is not is copied first, silently. A node's in[] are the builder's
// tensor arguments in order.
//
// Ops whose name ends in _dx, _dw, _dp, _back are appended by the gradient rules; models do not call
// them, tests do.
#ifndef COMMON_TENSOR_OP_H
#define COMMON_TENSOR_OP_H

#include "common/tensor/graph.h"

typedef enum UnaryKind {
#define UNARY(name, f, df) UNARY_##name,
#include "common/tensor/unary.def"
#undef UNARY
    UNARY_COUNT,
} UnaryKind;
const char *op_unary_name(UnaryKind kind);

// Floating point operations of one run of t (a multiply-add is 2); one per element where arithmetic is free.
double op_flops(const Tensor *t);

// ---- Views: no kernel, no memory ---------------------------------------------------------------

// Same elements, other dims. One dim may be -1. A non-contiguous x is copied first.
Tensor *op_reshape(Graph *g, Tensor *x, Shape shape);
// x[..., start : start+len, ...] along axis. Negative axis counts from the end. Gradient: pad.
Tensor *op_slice(Graph *g, Tensor *x, int axis, int64_t start, int64_t len);

// ---- Data movement -----------------------------------------------------------------------------

// A contiguous copy of any view, converted to dtype (F32 from F16/BF16 and back; F32 otherwise).
Tensor *op_copy(Graph *g, Tensor *x, DType dtype);
// y.dim[i] = x.dim[perm[i]]
Tensor *op_permute(Graph *g, Tensor *x, const int *perm);
// Zeros: lo[i] in front and hi[i] behind along axis i (rank entries each).
Tensor *op_pad(Graph *g, Tensor *x, const int64_t *lo, const int64_t *hi);
// Along axis; all other dims equal. 1 to 6 inputs.
Tensor *op_concat(Graph *g, int axis, int cnt, Tensor *const *x);
// Broadcasts dims of size 1 to `shape` (same rank). Gradient: sum.
Tensor *op_expand(Graph *g, Tensor *x, Shape shape);
// y[..., j, ...] = x[..., idx[j], ...] along axis; idx is I32 (M) or, per batch, (N, M) with axis 1.
// x is read as (outer, L, inner), outer = product of dims before axis. idx (N, M): N = outer.
// An index outside [0, L) is an error of the run on every backend (die). Gradient: scatter_add.
Tensor *op_gather(Graph *g, Tensor *x, Tensor *idx, int axis);
// The transpose: x (outer, M, inner) is added at rows idx of zeros (outer, len, inner); duplicates add
// up in the order of j. Gradient: gather.
Tensor *op_scatter_add(Graph *g, Tensor *x, Tensor *idx, int axis, int64_t len);
// x (N, T, H, W, C) -> (N, L, C*pt*ph*pw), L = (T/pt)(H/ph)(W/pw) in order (t, h, w); one row is laid out
// (C, pt, ph, pw), as the weight of a Conv3d with stride = kernel is, so that patch embedding is
// op_linear(patchify(x), weight viewed as (D, C*pt*ph*pw)).
Tensor *op_patchify(Graph *g, Tensor *x, int pt, int ph, int pw);
// The transpose and inverse: (N, L, C*pt*ph*pw) -> (N, T, H, W, C).
Tensor *op_unpatchify(Graph *g, Tensor *x, int pt, int ph, int pw, int64_t t, int64_t h, int64_t w,
                      int64_t c);
// Nearest neighbour: (N, T, H, W, C) -> (N, T, 2H, 2W, C); _dx sums each 2x2.
Tensor *op_upsample2x(Graph *g, Tensor *x);
Tensor *op_upsample2x_dx(Graph *g, Tensor *dy);
// Separable resampling (any filter, antialiased or not; resample.h of the models makes the tables):
//   y[n,t,i,j,c] = sum_a sum_b h_tap[i,a] w_tap[j,b] x[n,t, h_start[i]+a, w_start[j]+b, c]
// h_start (Ho) I32, h_tap (Ho, Kh), w_start (Wo) I32, w_tap (Wo, Kw): constants (no gradient). Taps that
// reach past the edge must be zero-weighted (start+K may exceed the size; such taps are not read).
Tensor *op_resize(Graph *g, Tensor *x, Tensor *h_start, Tensor *h_tap, Tensor *w_start,
                  Tensor *w_tap);
// The transpose: dy (N, T, Ho, Wo, C) -> (N, T, h, w, C).
Tensor *op_resize_dx(Graph *g, Tensor *dy, Tensor *h_start, Tensor *h_tap, Tensor *w_start,
                     Tensor *w_tap, int64_t h, int64_t w);

// ---- Elementwise -------------------------------------------------------------------------------

Tensor *op_unary(Graph *g, UnaryKind kind, Tensor *x);
Tensor *op_unary_dx(Graph *g, UnaryKind kind, Tensor *dy, Tensor *x); // dy * f'(x)
// a x + b
Tensor *op_affine(Graph *g, Tensor *x, double a, double b);
// min(max(x, lo), hi); gradient 1 on the closed interval [lo, hi], else 0.
Tensor *op_clamp(Graph *g, Tensor *x, double lo, double hi);
Tensor *op_clamp_dx(Graph *g, Tensor *dy, Tensor *x, double lo, double hi);
// Broadcasting as in numpy (ranks aligned at the end).
Tensor *op_add(Graph *g, Tensor *a, Tensor *b);
Tensor *op_sub(Graph *g, Tensor *a, Tensor *b);
Tensor *op_mul(Graph *g, Tensor *a, Tensor *b);
Tensor *op_div(Graph *g, Tensor *a, Tensor *b);
// a + w (b - a), w of one element, a and b of one shape.
Tensor *op_lerp(Graph *g, Tensor *a, Tensor *b, Tensor *w);
// x (..., 2D) -> (..., D): x[:D] * gelu_erf(x[D:])
Tensor *op_geglu(Graph *g, Tensor *x);
Tensor *op_geglu_dx(Graph *g, Tensor *dy, Tensor *x); // (..., 2D)
// x / (1-p) where a Philox uniform of element i is >= p, else 0. key (8) I32: the words of an RngKey
// (rng.h). Gradient: the same op on dy with the same key. Element order is row-major order of x.
Tensor *op_dropout(Graph *g, Tensor *x, Tensor *key, double p);
// t (n) -> (n, dim): [cos(t w_j) | sin(t w_j)], w_j = 10000^(-j/(dim/2)), j < dim/2; evaluated in double.
Tensor *op_sinusoid(Graph *g, Tensor *t, int64_t dim);
Tensor *op_sinusoid_dx(Graph *g, Tensor *dy, Tensor *t); // (n)

// ---- Reductions --------------------------------------------------------------------------------

// Sums over the axes whose bit is set (1 << axis), which stay as dims of size 1.
Tensor *op_sum(Graph *g, Tensor *x, unsigned axes);
Tensor *op_mean(Graph *g, Tensor *x, unsigned axes); // sum, affine
// Over the last axis, kept as size 1. No gradient.
Tensor *op_max(Graph *g, Tensor *x);
Tensor *op_argmax(Graph *g, Tensor *x); // I32, first of equals
// Over the last axis.
Tensor *op_softmax(Graph *g, Tensor *x);
Tensor *op_softmax_dx(Graph *g, Tensor *dy, Tensor *y); // y = softmax(x)
Tensor *op_log_softmax(Graph *g, Tensor *x);
Tensor *op_log_softmax_dx(Graph *g, Tensor *dy, Tensor *y); // y = log_softmax(x)
// x / |x|_2 over the last axis (unary, sum, mul).
Tensor *op_l2_normalize(Graph *g, Tensor *x);

// ---- Normalisation -----------------------------------------------------------------------------

// Over the last axis; gamma, beta (C) or both NULL.
Tensor *op_layernorm(Graph *g, Tensor *x, Tensor *gamma, Tensor *beta, double eps);
Tensor *op_layernorm_dx(Graph *g, Tensor *dy, Tensor *x, Tensor *gamma,
                        double eps);                                  // gamma may be NULL
Tensor *op_layernorm_dp(Graph *g, Tensor *dy, Tensor *x, double eps); // (2, C): dgamma, dbeta
// x (N, ..., C): statistics per n and group of C/groups channels over all middle dims; silu: then x*sigmoid(x).
// Per-frame statistics of a video: reshape to (N*T, H, W, C) first.
Tensor *op_groupnorm(Graph *g, Tensor *x, Tensor *gamma, Tensor *beta, int groups, double eps,
                     bool silu);
Tensor *op_groupnorm_dx(Graph *g, Tensor *dy, Tensor *x, Tensor *gamma, Tensor *beta, int groups,
                        double eps, bool silu);
Tensor *op_groupnorm_dp(Graph *g, Tensor *dy, Tensor *x, Tensor *gamma, Tensor *beta, int groups,
                        double eps,
                        bool silu); // (2, C): dgamma, dbeta

// ---- Dense -------------------------------------------------------------------------------------

// y (..., N) = x (..., K) W^T + bias (N) + residual (..., N); bias and residual may be NULL.
// W (N, K), F32/F16/BF16, a weight or any tensor (then it is packed at each run).
Tensor *op_linear(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual);
// The same with W used the other way round: y (..., K) = x (..., N) W. The data gradient of op_linear.
Tensor *op_linear_t(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual);
// (N, K) = sum over rows of dy (..., N)^T x (..., K)
Tensor *op_linear_dw(Graph *g, Tensor *dy, Tensor *x);
// y = x (W + scale B A)^T + bias + residual; a (r, K), b (N, r) F32. Hu et al. 2021, arXiv:2106.09685.
// Kernels may merge B A into W at each run: scale = alpha / r. Gradients of a and b are low rank
// products and never form an (N, K) matrix.
Tensor *op_lora_linear(Graph *g, Tensor *x, Tensor *w, Tensor *a, Tensor *b, double scale,
                       Tensor *bias, Tensor *residual);
Tensor *op_lora_linear_t(Graph *g, Tensor *x, Tensor *w, Tensor *a, Tensor *b, double scale,
                         Tensor *bias, Tensor *residual);
// Per leading index: op(a) op(b), op = transpose of the last two axes if ta / tb. Leading dims equal.
Tensor *op_bmm(Graph *g, Tensor *a, Tensor *b, bool ta, bool tb);

// Convolution over (T, H, W), zero padded. x (N, T, H, W, I), w (O, I, kt, kh, kw) as PyTorch stores it,
// bias (O) or (N, O) (one vector per n: bias plus time embedding), residual of the result's shape.
// A 2-D convolution has kt = 1; SVD's temporal one is (3, 1, 1).
typedef struct ConvSpec {
    int stride[3];    // (T, H, W); 0 counts as 1
    int lo[3], hi[3]; // zeros in front and behind
} ConvSpec;
Tensor *op_conv(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual, ConvSpec spec);
Tensor *op_conv_dx(Graph *g, Tensor *dy, Tensor *w, ConvSpec spec,
                   const int64_t in[3]); // in = (T, H, W) of x
Tensor *op_conv_dw(Graph *g, Tensor *dy, Tensor *x, ConvSpec spec,
                   const int64_t kernel[3]); // (O, I, kt, kh, kw)

// ---- Attention ---------------------------------------------------------------------------------

// softmax(scale q k^T) v per head, over tokens on one axis of (B, T, S, heads*d):
//   axis 2: for each (b, t), tokens are s (spatial; plain transformers use T = 1)
//   axis 1: for each (b, s), tokens are t (temporal)
// q (B, T, S, A*d); k, v have the same dims but their own length along axis. causal: query i sees keys <= i.
// q, k, v may be slices of the last axis. Dao et al. 2022, arXiv:2205.14135 for why scores are not kept.
Tensor *op_sdpa(Graph *g, Tensor *q, Tensor *k, Tensor *v, int heads, int axis, double scale,
                bool causal);
// One flat tensor [dq | dk | dv], each contiguous in the shape of q, k, v.
Tensor *op_sdpa_back(Graph *g, Tensor *dy, Tensor *q, Tensor *k, Tensor *v, int heads, int axis,
                     double scale, bool causal);

#endif
