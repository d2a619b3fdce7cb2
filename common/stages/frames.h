// frames: which frames of a segment are decoded with gradient and scored, and in which chunks.
//
// decode.grad_frames: all; window n (n in a row, starting at a place drawn per rollout); random 1 (the same
// with n = 1); alt (every other latent frame, decoded as one video). decode.chunk cuts them into videos
// of their own: part of the mathematics (svd.md: GroupNorm and time convolutions see a chunk only), the same
// in decode and pull.
#ifndef COMMON_STAGES_FRAMES_H
#define COMMON_STAGES_FRAMES_H

#include "common/config/config.h"
#include "common/transport/slot.h"

// Frames of a segment that are scored: F'.
int64_t frames_scored(const Config *cfg);

// Frames of one decode call; the last chunk may be shorter.
int64_t frames_chunk(const Config *cfg);

// Latent frame of scored frame i of a segment of a rollout.
int64_t frames_latent(const Config *cfg, const SlotHeader *header, uint32_t segment, int64_t i);

#endif
