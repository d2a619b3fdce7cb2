// scoring: the rewards of a config, as the rewarder and `vader eval` open them.
//
//     Rewards *r;
//     TRY(scoring_open(&r, cfg, each));
//     Tensor *frames = graph_input(g, "frames", DTYPE_F32, SHAPE(1, cfg->segments * each, cfg->height, cfg->width, 3));
//     Tensor *pictures = scoring_pictures(g, cfg, r);
//     TRY(reward_build(r, g, scoring_frames(g, cfg, frames), pictures, recompute, &out));
#ifndef COMMON_STAGES_SCORING_H
#define COMMON_STAGES_SCORING_H

#include "common/config/config.h"
#include "common/model/reward.h"

// The reward models of the config, for videos of `each` frames a segment. ERR_USAGE when it has none. Caller closes.
Err scoring_open(Rewards **out, const Config *cfg, int64_t each);

// How the config cuts a video of `frames` frames in all into V-JEPA's windows.
RewardVideo scoring_video(const Config *cfg, int64_t frames);

// The frames that are scored, of those of all segments (1, S each, H, W, 3): with video.seam: drop_first without the
// repeated frame at each seam, frame 0 of every segment but the first.
Tensor *scoring_frames(Graph *g, const Config *cfg, Tensor *frames);

// An input for the pictures that the segments begin with, (1, S, H, W, 3) in [0, 1]; NULL when no reward wants them.
Tensor *scoring_pictures(Graph *g, const Config *cfg, const Rewards *r);

#endif
