// pixels: the way of frames into a vision tower: clamp, resize, normalise.
//
// What a VAE decodes lies about [-1, 1] and may overshoot. Rewards see p = clamp(x/2 + 1/2, 0, 1), whose
// gradient is 1 (times 1/2) on the closed interval and 0 outside; then p is resized and (p - mean) / std
// goes into the tower. Images from files and golden inputs are in [0, 1] already: `unit`.
//
//     PixelSpec spec = {.resize = RESAMPLE_BILINEAR_AA, .height = 224, .width = 224,
//                       .mean = PIXELS_IMAGENET_MEAN, .std = PIXELS_IMAGENET_STD};
//     Tensor *y = pixels_enter(g, frames, &spec);    // (N, T, 224, 224, 3)
#ifndef COMMON_MODEL_PIXELS_H
#define COMMON_MODEL_PIXELS_H

#include "common/model/resample.h"

#define PIXELS_CLIP_MEAN \
    { 0.48145466, 0.4578275, 0.40821073 }
#define PIXELS_CLIP_STD \
    { 0.26862954, 0.26130258, 0.27577711 }
#define PIXELS_IMAGENET_MEAN \
    { 0.485, 0.456, 0.406 }
#define PIXELS_IMAGENET_STD \
    { 0.229, 0.224, 0.225 }

typedef enum PixelFit {
    PIXELS_SQUASH, // the aspect ratio is not kept
    PIXELS_CROP,   // shortest side to size, the longer one follows; then the centre
} PixelFit;

typedef struct PixelSpec {
    bool unit; // frames are in [0, 1]: no clamp, no shift
    PixelFit fit;
    ResampleKind resize;
    int64_t height, width; // of the result; PIXELS_CROP wants them equal
    double mean[3], std[3];
} PixelSpec;

// frames (N, T, H, W, 3) -> (N, T, height, width, 3), normalised.
Tensor *pixels_enter(Graph *g, Tensor *frames, const PixelSpec *spec);

// The same in parts. clamp(x/2 + 1/2, 0, 1)
Tensor *pixels_to_unit(Graph *g, Tensor *frames);
// Resized by spec->fit and spec->resize.
Tensor *pixels_fit(Graph *g, Tensor *frames, const PixelSpec *spec);
// (p - mean) / std per channel, of any (..., 3).
Tensor *pixels_normalize(Graph *g, Tensor *p, const double mean[3], const double std[3]);

#endif
