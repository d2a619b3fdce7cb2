// config_check: what keys mean together.
#include <string.h>

#include "common/config/config.h"

#define WANT(cond, ...)                            \
    do {                                           \
        if (!(cond)) FAIL(ERR_USAGE, __VA_ARGS__); \
    } while (0)

static Err check_window(const Config *c) {
    long long steps = 0, at = 0;
    char rest;
    bool to_end = !strcmp(c->window_steps, "to_end");
    WANT(to_end || (sscanf(c->window_steps, "%lld%c", &steps, &rest) == 1 && steps >= 1),
         "%s: window.steps is \"%s\", want a number of steps or to_end", c->file, c->window_steps);
    bool random = !strcmp(c->window_at, "random");
    if (random) {
        WANT(c->window_range.cnt == 2 && c->window_range.item[0] <= c->window_range.item[1],
             "%s: window.at is random: window.range must be [lowest, highest]", c->file);
        at = c->window_range.item[1];
    } else if (strcmp(c->window_at, "last") && strcmp(c->window_at, "gain")) {
        WANT(sscanf(c->window_at, "%lld%c", &at, &rest) == 1 && at >= 0,
             "%s: window.at is \"%s\", want last, gain, random or an index", c->file, c->window_at);
    }
    WANT(at + (to_end ? 1 : steps) <= c->steps,
         "%s: the window [%lld, %lld) is past the last of %lld steps", c->file, at, at + steps,
         (long long)c->steps);
    return ERR_OK;
}

static Err check_rewards(const Config *c) {
    static const char *const form[] = {[CONFIG_FORM_LOG_PROB] = "log_prob",
                                       [CONFIG_FORM_PROB] = "prob",
                                       [CONFIG_FORM_SCORE] = "score",
                                       [CONFIG_FORM_ABS_TARGET] = "abs_target"};
    long long n = 0;
    char rest;
    bool one = !strcmp(c->grad_frames, "random 1"), alt = !strcmp(c->grad_frames, "alt");
    bool known =
        one || alt || !strcmp(c->grad_frames, "all") ||
        (sscanf(c->grad_frames, "window %lld%c", &n, &rest) == 1 && n >= 1 && n <= c->frames);
    WANT(
        known,
        "%s: decode.grad_frames is \"%s\", want all, window n (n <= video.frames), random 1 or alt",
        c->file, c->grad_frames);
    bool with_first = alt || !strcmp(c->grad_frames, "all") || n == c->frames || c->frames == 1;
    WANT(c->seam == CONFIG_SEAM_KEEP || c->segments == 1 ||
             (with_first && c->frames >= (alt ? 3 : 2)),
         "%s: decode.grad_frames is \"%s\" of %lld frames; video.seam: drop_first leaves out the "
         "first one of a segment and scores the others: want all, or alt of at least 3",
         c->file, c->grad_frames, (long long)c->frames);
    for (int i = 0; i < c->reward_cnt; i++) {
        const ConfigReward *r = &c->reward[i];
        bool picture = r->model == CONFIG_REWARD_FIRST_FRAME;
        WANT(*r->path || picture, "%s: reward.%d.path is missing", c->file, i);
        WANT(!*r->path || !picture, "%s: reward.%d.path is \"%s\", but first_frame reads no model",
             c->file, i, r->path);
        WANT(!picture || with_first,
             "%s: decode.grad_frames is \"%s\", which may leave out the frame that reward.%d, "
             "first_frame, is about: want all or alt",
             c->file, c->grad_frames, i);
        WANT(r->model == CONFIG_REWARD_AESTHETIC || !one,
             "%s: decode.grad_frames: random 1 leaves one frame, reward.%d needs a video", c->file,
             i);
        WANT(r->model != CONFIG_REWARD_VIDEOMAE || *r->label, "%s: reward.%d.class is missing",
             c->file, i);
        WANT(r->model != CONFIG_REWARD_AESTHETIC || *r->head, "%s: reward.%d.head is missing",
             c->file, i);
        bool prob = r->form == CONFIG_FORM_LOG_PROB || r->form == CONFIG_FORM_PROB;
        bool aims = r->form == CONFIG_FORM_ABS_TARGET;
        WANT(prob == (r->model == CONFIG_REWARD_VIDEOMAE) &&
                 (!aims || r->model == CONFIG_REWARD_AESTHETIC),
             "%s: reward.%d.form is %s for %s; want log_prob or prob for videomae, score or "
             "abs_target for aesthetic, score for vjepa and first_frame",
             c->file, i, form[r->form], config_reward_name(r));
    }
    return ERR_OK;
}

static Err check_vjepa(const Config *c) {
    long long n;
    char rest;
    bool linspace = !strcmp(c->vjepa_windows, "linspace");
    WANT(linspace || !strcmp(c->vjepa_windows, "seam") ||
             (sscanf(c->vjepa_windows, "slide %lld%c", &n, &rest) == 1 && n >= 1),
         "%s: vjepa.windows is \"%s\", want seam, linspace or slide n", c->file, c->vjepa_windows);
    if (c->vjepa_gradient == CONFIG_VJEPA_SEGMENTED) {
        WANT(!linspace,
             "%s: vjepa.gradient: segmented needs frames in order: vjepa.windows seam or slide",
             c->file);
        WANT(c->segments > 1, "%s: vjepa.gradient: segmented needs at least 2 segments", c->file);
    }
    return ERR_OK;
}

static Err check_eval(const Config *c) {
    WANT(!c->eval_images.cnt || !*c->eval_list, "%s: give eval.images or eval.list, not both",
         c->file);
    WANT(!c->eval_real.cnt || *c->eval_vjepa,
         "%s: eval.real is there to compare V-JEPA's loss: eval.vjepa is missing", c->file);
    WANT(!c->eval_real.cnt || !c->eval_images.cnt || c->eval_real.cnt == c->eval_images.cnt,
         "%s: eval.real has %d videos, eval.images %d pictures: want one for each", c->file,
         c->eval_real.cnt, c->eval_images.cnt);
    return ERR_OK;
}

Err config_check(const Config *c) {
    WANT(*c->model, "%s: model is missing", c->file);
    WANT(c->data_images.cnt || *c->data_list, "%s: no images: data.images or data.list", c->file);
    WANT(!c->data_images.cnt || !*c->data_list, "%s: give data.images or data.list, not both",
         c->file);
    WANT(!c->cross_segment_gradient,
         "%s: video.cross_segment_gradient is not built: gradient stops at the hand-over frame",
         c->file);
    WANT(c->handover == CONFIG_HANDOVER_LEARNER || c->lag >= 1,
         "%s: video.handover: sampler needs optim.lag of at least 1", c->file);
    WANT(
        c->guidance_max > 1 || c->guidance_min >= 1,
        "%s: guidance.min %g with guidance.max %g: guidance is off when max <= 1, so min must be 1",
        c->file, c->guidance_min, c->guidance_max);
    WANT(c->guidance_min <= c->guidance_max, "%s: guidance.min %g is above guidance.max %g",
         c->file, c->guidance_min, c->guidance_max);
    WANT(c->decode_chunk <= c->frames, "%s: decode.chunk %lld is above video.frames %lld", c->file,
         (long long)c->decode_chunk, (long long)c->frames);
    WANT(c->seam == CONFIG_SEAM_KEEP || c->frames > 1,
         "%s: video.seam: drop_first needs at least 2 frames", c->file);
    TRY(check_window(c));
    TRY(check_rewards(c));
    TRY(check_vjepa(c));
    return check_eval(c);
}
