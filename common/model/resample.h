// resample: tap tables for op_resize, one per axis, and the resize of a tensor by them.
//
// Every filter here is linear and separable: out[i] = sum_a tap[i][a] in[start[i] + a] along H, then
// along W. Taps are computed in double and rounded to F32 once. What reaches past an edge is clamped
// (or reflected) into the table, so a kernel only ever reads inside the image; the gradient is the
// transpose of the same table.
//
//     Tensor *small = resample(g, frames, RESAMPLE_BILINEAR_AA, 224, 224);   // (N, T, 224, 224, 3)
//
// The rules, with s = in / out, u the source position of output i:
//   nearest      in[floor(i s)]
//   bilinear     u = max(0, (i + .5) s - .5), two taps                (align_corners=False)
//   bicubic      u = (i + .5) s - .5, four taps, Keys a = -0.75       (align_corners=False)
//   *_aa         Pillow's: the kernel is stretched by max(s, 1) around (i + .5) s, weights sum to 1,
//                cubic a = -0.5. torchvision's Resize(antialias=True) and PIL agree on it.
//   svd          diffusers' _resize_with_antialiasing: Gaussian blur, sigma = max((s - 1) / 2, .001),
//                reflected at the edges, then bicubic a = -0.75 at u = i (in - 1) / (out - 1)
//                (align_corners=True). Blur and bicubic are multiplied into one table.
// Public sources: PyTorch UpSample.h, Pillow Resample.c, diffusers pipeline_stable_video_diffusion.py.
#ifndef COMMON_MODEL_RESAMPLE_H
#define COMMON_MODEL_RESAMPLE_H

#include "common/tensor/graph.h"

typedef enum ResampleKind {
    RESAMPLE_NEAREST,
    RESAMPLE_BILINEAR,
    RESAMPLE_BICUBIC,
    RESAMPLE_BILINEAR_AA,
    RESAMPLE_BICUBIC_AA,
    RESAMPLE_SVD,
    RESAMPLE_CNT,
} ResampleKind;

// One axis. Taps past the last real one of a row are zero; start[i] + taps may exceed `in`.
typedef struct ResampleTable {
    int64_t in, out;
    int64_t taps;
    int32_t *start; // (out)
    float *tap;     // (out, taps)
} ResampleTable;

// "nearest", "bilinear", "bicubic", "bilinear_aa", "bicubic_aa", "svd".
const char *resample_name(ResampleKind kind);

// Memory of the arena. in, out >= 1; for RESAMPLE_SVD the blur must reach less than `in` (always so
// unless out is tiny against in), else the process ends.
ResampleTable resample_table(Arena *a, ResampleKind kind, int64_t in, int64_t out);

// x (N, T, H, W, C) -> (N, T, h, w, C). The tables live in the graph's arena. Not even a copy when the
// size is right already: at in = out every rule is the identity.
Tensor *resample(Graph *g, Tensor *x, ResampleKind kind, int64_t h, int64_t w);

#endif
