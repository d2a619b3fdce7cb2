// clip_vision: CLIP's image tower with projection, as transformers' CLIPVisionModelWithProjection.
//
// Serves SVD's image conditioning (ViT-H/14, gelu), the aesthetic reward (ViT-L/14, quick_gelu) and any
// other size: everything comes from config.json. A CLIPModel folder works too: its `vision_config` counts
// and its text half is passed over.
//
//     ClipVisionConfig c;
//     TRY(clip_vision_config(&c, part->config));
//     NN nn = {.g = g, .params = params};
//     Tensor *e = clip_vision_build(&nn, &c, false, pixels);     // (N, projection)
//     TRY(params_finish(params));
//
// Radford et al. 2021, arXiv:2103.00020; transformers modeling_clip.py.
#ifndef COMMON_MODEL_CLIP_VISION_H
#define COMMON_MODEL_CLIP_VISION_H

#include "common/format/json.h"
#include "common/model/nn.h"
#include "common/model/pixels.h"

typedef struct ClipVisionConfig {
    int width, hidden, depth,
        heads; // hidden_size, intermediate_size, num_hidden_layers, num_attention_heads
    int image, patch, channels; // pixels
    int projection; // of the embedding; has no default that is safe: must be in the file
    double eps;
    UnaryKind act;
} ClipVisionConfig;

// Reads and checks every key: one that changes the result and is unknown here is an error.
Err clip_vision_config(ClipVisionConfig *out, Json *config);

// pixels (N, 1, image, image, 3), normalised -> image_embeds (N, projection), not of unit length.
// recompute: each block is a recompute segment.
Tensor *clip_vision_build(NN *nn, const ClipVisionConfig *c, bool recompute, Tensor *pixels);

// What the pipeline does to an image before the tower: image (N, 1, H, W, 3) in [0, 1] -> *resized
// (N, 1, image, image, 3) in about [0, 1] (RESAMPLE_SVD), returned normalised. resized may be NULL.
Tensor *clip_vision_prepare(Graph *g, const ClipVisionConfig *c, Tensor *image, Tensor **resized);

#endif
