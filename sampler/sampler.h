// sampler: the steps before the gradient window. Owns the image encoder, and the denoiser with theta of a fixed lag.
//
// sample: PIXELS, COND of the segment -> EMBED (the image embedding) and X_K (the latents before the window);
// with sampler hand-over, and in previews, it goes on without gradient and writes X_AHEAD, its own clean latents.
#ifndef SAMPLER_SAMPLER_H
#define SAMPLER_SAMPLER_H

#include "common/model/lora.h"
#include "common/proc/stage.h"

extern const Stage sampler_stage;

// ---- For whoever opens the stage in its own process without a board (`vader sample`, `vader eval`) ----
// self: as sampler_stage.open gave it, not dry.

// The adapter of tuned samples. Its values (lora_theta) may be changed before the first of them.
Lora *sampler_lora(void *self);

// The image encoder alone: pixels (H, W, 3) in [0, 1] of the config's size -> embedding (sampler_embed_dim). Both 64-byte
// aligned.
Err sampler_embed(void *self, const float *pixels, float *embedding);
int64_t sampler_embed_dim(const void *self);

#endif
