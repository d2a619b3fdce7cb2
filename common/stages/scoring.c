// scoring: config to reward specifications.
#include "common/stages/scoring.h"

#include <stdlib.h>
#include <string.h>

static RewardSpec spec_of(const ConfigReward *r) {
    static const RewardModel model[] = {[CONFIG_REWARD_VIDEOMAE] = REWARD_VIDEOMAE,
                                        [CONFIG_REWARD_VJEPA] = REWARD_VJEPA,
                                        [CONFIG_REWARD_AESTHETIC] = REWARD_AESTHETIC,
                                        [CONFIG_REWARD_FIRST_FRAME] = REWARD_FIRST_FRAME};
    static const RewardForm form[] = {[CONFIG_FORM_LOG_PROB] = REWARD_LOG_PROB,
                                      [CONFIG_FORM_PROB] = REWARD_PROB,
                                      [CONFIG_FORM_SCORE] = REWARD_SCORE,
                                      [CONFIG_FORM_ABS_TARGET] = REWARD_ABS_TARGET};
    return (RewardSpec){.model = model[r->model],
                        .path = r->path,
                        .head = *r->head ? r->head : NULL,
                        .weight = r->weight,
                        .form = form[r->form],
                        .label = r->label,
                        .target = r->target,
                        .scale = r->scale,
                        .fit = r->resize == CONFIG_RESIZE_CROP ? PIXELS_CROP : PIXELS_SQUASH,
                        .antialias = r->antialias,
                        .sum_frames = r->per_frame == CONFIG_PER_FRAME_SUM};
}

RewardVideo scoring_video(const Config *cfg, int64_t frames) {
    static const VjepaGradient gradient[] = {[CONFIG_VJEPA_STOP_TARGET] = VJEPA_STOP_TARGET,
                                             [CONFIG_VJEPA_FULL] = VJEPA_FULL,
                                             [CONFIG_VJEPA_TARGET_ONLY] = VJEPA_TARGET_ONLY,
                                             [CONFIG_VJEPA_SEGMENTED] = VJEPA_SEGMENTED};
    RewardVideo video = {
        .frames = frames, .segments = cfg->segments, .gradient = gradient[cfg->vjepa_gradient]};
    if (!strcmp(cfg->vjepa_windows, "linspace")) {
        video.windows = REWARD_LINSPACE;
    } else if (!strncmp(cfg->vjepa_windows, "slide", 5)) {
        video.windows = REWARD_SLIDE;
        video.slide = atoll(cfg->vjepa_windows + 5);
    }
    return video;
}

Err scoring_open(Rewards **out, const Config *cfg, int64_t each) {
    RewardSpec spec[CONFIG_REWARDS_MAX];
    int64_t repeated = cfg->seam == CONFIG_SEAM_DROP_FIRST ? cfg->segments - 1 : 0;
    RewardVideo video = scoring_video(cfg, cfg->segments * each - repeated);
    if (!cfg->reward_cnt) FAIL(ERR_USAGE, "%s: no reward is given", cfg->file);
    for (int i = 0; i < cfg->reward_cnt; i++) spec[i] = spec_of(&cfg->reward[i]);
    return reward_open(out, spec, cfg->reward_cnt, &video);
}

Tensor *scoring_frames(Graph *g, const Config *cfg, Tensor *frames) {
    if (!frames || cfg->seam != CONFIG_SEAM_DROP_FIRST) return frames;
    int64_t each = frames->shape.dim[1] / cfg->segments;
    for (int64_t s = cfg->segments - 1; s > 0 && frames; s--) {
        int64_t len = frames->shape.dim[1], at = s * each;
        Tensor *part[2] = {op_slice(g, frames, 1, 0, at),
                           op_slice(g, frames, 1, at + 1, len - at - 1)};
        frames = op_concat(g, 1, 2, part);
    }
    return frames;
}

Tensor *scoring_pictures(Graph *g, const Config *cfg, const Rewards *r) {
    if (!reward_wants_pictures(r)) return NULL;
    return graph_input(g, "pictures", DTYPE_F32,
                       SHAPE(1, cfg->segments, cfg->height, cfg->width, 3));
}
