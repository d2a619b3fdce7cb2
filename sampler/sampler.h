// sampler: the steps before the gradient window. Owns the image encoder, and the denoiser with theta of a fixed lag.
//
// sample: PIXELS, COND of the segment -> EMBED (the image embedding) and X_K (the latents before the window);
// with sampler hand-over, and in previews, it goes on without gradient and writes X_AHEAD, its own clean latents.
#ifndef SAMPLER_SAMPLER_H
#define SAMPLER_SAMPLER_H

#include "common/proc/stage.h"

extern const Stage sampler_stage;

#endif
