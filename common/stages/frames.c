// frames: arithmetic on decode.grad_frames.
#include "common/stages/frames.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"

int64_t frames_scored(const Config *cfg) {
    if (!strncmp(cfg->grad_frames, "window ", 7)) return atoll(cfg->grad_frames + 7);
    if (!strcmp(cfg->grad_frames, "random 1")) return 1;
    if (!strcmp(cfg->grad_frames, "alt")) return (cfg->frames + 1) / 2;
    return cfg->frames;
}

int64_t frames_chunk(const Config *cfg) {
    int64_t n = frames_scored(cfg);
    return cfg->decode_chunk && cfg->decode_chunk < n ? cfg->decode_chunk : n;
}

int64_t frames_latent(const Config *cfg, const SlotHeader *h, uint32_t segment, int64_t i) {
    if (!strcmp(cfg->grad_frames, "alt")) return 2 * i;
    int64_t n = frames_scored(cfg);
    if (n == cfg->frames) return i;
    RngStream r = rng_stream((RngKey){.seed = (uint64_t)cfg->seed,
                                      .sample = slot_rng_sample(h),
                                      .segment = segment,
                                      .use = rng_use(RNG_FRAMES, 0, 0, 0, 0)});
    return (int64_t)rng_u32_below(&r, (uint32_t)(cfg->frames - n + 1)) + i;
}
