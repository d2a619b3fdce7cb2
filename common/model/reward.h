// reward: R from the frames of a video, and dR/dframes: what the rewarder computes.
//
// R is a weighted sum of terms, each one model's opinion or a measure that needs no model. Frames come as the VAE
// decodes them, about [-1, 1]; the clamp to [0, 1], the resize and the normalisation of each model belong to its
// term, so that dR/dframes is what the decoder's vjp wants.
//
//     Rewards *r;
//     TRY(reward_open(&r, spec, spec_cnt, &video));
//     RewardGraph out;
//     TRY(reward_build(r, g, frames, pictures, true, &out)); // frames (1, L, H, W, 3); appends the gradient too
//     ... plan_new ...
//     TRY(reward_draw(r, plan, key));                        // per sample: V-JEPA's masks
//     TRY(plan_run(plan));                                   // out.total, out.term[i], out.d_frames
//
// Terms, each of shape (1) before its weight:
//   videomae   log p or p of a class, p = softmax(logits); all frames, less those that do not fill a tubelet
//   aesthetic  mean (or sum) over frames of the score, or of -scale |score - target|
//   vjepa      -L, averaged over windows of the video and both mask generators; windows over L frames:
//              seam: one around the first frame of each segment but the first (of the middle, if there is
//              one segment); linspace: one of frames round(j (L-1)/(F-1)); slide(n): every n frames
//   first_frame -mean((first frame - picture)^2) of values in [0, 1], over the first frames of all segments; of one
//              segment it is -10^(-PSNR/10). Beside a classifier it keeps light, colours and texture where the
//              picture has them while the motion is learned. Nothing is clamped: a colour that has left [0, 1] is
//              called back, too. A repeated frame that is not scored does not count.
#ifndef COMMON_MODEL_REWARD_H
#define COMMON_MODEL_REWARD_H

#include "common/model/pixels.h"
#include "common/model/vjepa.h"
#include "common/tensor/plan.h"

typedef enum RewardModel {
    REWARD_VIDEOMAE,
    REWARD_VJEPA,
    REWARD_AESTHETIC,
    REWARD_FIRST_FRAME
} RewardModel;
typedef enum RewardForm {
    REWARD_LOG_PROB,
    REWARD_PROB,
    REWARD_SCORE,
    REWARD_ABS_TARGET
} RewardForm;
typedef enum RewardWindows { REWARD_SEAM, REWARD_LINSPACE, REWARD_SLIDE } RewardWindows;

typedef struct RewardSpec {
    RewardModel model;
    const char *path; // its folder or checkpoint; first_frame: not read
    const char *head; // aesthetic
    double weight;
    RewardForm form;   // videomae: LOG_PROB, PROB; others: SCORE, aesthetic also ABS_TARGET
    const char *label; // videomae: class by name or number
    double target, scale;
    PixelFit fit;
    bool antialias;
    bool sum_frames; // aesthetic: sum instead of mean
} RewardSpec;

typedef struct RewardVideo {
    // frames in all (L). Segments are equally long; or (L one more than a multiple of their number) all but the
    // first have lost the frame that repeats the one before.
    int64_t frames, segments;
    bool unit; // frames are in [0, 1] already, no clamp
    RewardWindows windows;
    int64_t slide;
    VjepaGradient gradient;
} RewardVideo;

enum { REWARD_TERMS_MAX = 8 };

typedef struct RewardGraph {
    Tensor *total;                      // (1) R
    Tensor *term[REWARD_TERMS_MAX];     // (1) before weighting
    Tensor *logits[REWARD_TERMS_MAX];   // videomae: (1, classes); else NULL
    Tensor *features[REWARD_TERMS_MAX]; // videomae: (1, width), what its head reads; else NULL
    Tensor *d_frames;                   // dR/dframes, of the frames' shape
} RewardGraph;

typedef struct Rewards Rewards;

// Opens all models. Settings that do not go together are ERR_USAGE. Caller closes, after every plan.
Err reward_open(Rewards **out, const RewardSpec *spec, int cnt, const RewardVideo *video);
void reward_close(Rewards *r);

// The classes of a videomae term, by number, and the one that is rewarded. Owned by r. cnt 0: another model.
typedef struct RewardClasses {
    int cnt, target;
    const char **name;
} RewardClasses;
RewardClasses reward_classes(const Rewards *r, int term);

// Does a term (first_frame) compare with the pictures that the segments begin with?
bool reward_wants_pictures(const Rewards *r);

// Appends everything to g; the tensors of *out belong to it and are not marked as outputs. frames (1, L, H, W, 3).
// pictures (1, S, H, W, 3) in [0, 1]: what each of the S segments was conditioned on; they get no gradient; NULL is
// fine when none are wanted. recompute: block by block. Frames or pictures of another shape are ERR_SHAPE; a video too
// short for a model, or pictures that are wanted and missing, ERR_USAGE; a weight that is left over, ERR_FORMAT.
Err reward_build(Rewards *r, Graph *g, Tensor *frames, Tensor *pictures, bool recompute,
                 RewardGraph *out);

// Writes the masks of one sample into a plan of the graph built last. key: its `use` is replaced.
Err reward_draw(Rewards *r, Plan *plan, RngKey key);

#endif
