// evaluation: the numbers of `vader eval`: base model and adapter side by side, means with intervals, eval.json, a table.
//
// A sample is one image and one seed; both of its sides have the same noise. The clusters of the intervals are the
// images: what is resampled is the mean over the seeds of an image (bootstrap.h), on all metrics and sides alike.
//
//     Evaluation e;
//     evaluation_init(&e, &about);
//     e.sample[i].value[EVALUATION_TUNED][EVALUATION_REWARD] = ...;   // every metric that is present, every sample
//     TRY_OUT(evaluation_check(&e, i));
//     TRY_OUT(evaluation_summarise(&e));
//     evaluation_print(&e, stdout);
//     TRY_OUT(evaluation_write(&e, "runs/demo/eval.json"));
//   out:
//     evaluation_fini(&e);
#ifndef LAUNCH_TOOL_EVALUATION_H
#define LAUNCH_TOOL_EVALUATION_H

#include <stdio.h>

#include "common/config/config.h"
#include "common/measure/bootstrap.h"
#include "common/model/reward.h"

typedef enum EvaluationSide { EVALUATION_BASE, EVALUATION_TUNED, EVALUATION_SIDES } EvaluationSide;

// In the order in which they are shown: what tells of reward hacking stands beside the reward.
typedef enum EvaluationMetric {
    EVALUATION_REWARD,
    EVALUATION_CLASS_PROB,
    EVALUATION_JUDGE_PROB,
    EVALUATION_JUDGE_AGREES,
    EVALUATION_MOTION,
    EVALUATION_DIVERSITY, // of the seeds of an image: computed here from features
    EVALUATION_SHIFT_X,
    EVALUATION_SHIFT_Y,
    EVALUATION_ZOOM,
    EVALUATION_CONSISTENCY,
    EVALUATION_SHARPNESS,
    EVALUATION_CONTRAST,
    EVALUATION_CHROMA,
    EVALUATION_FIRST_FRAME_PSNR,
    EVALUATION_VJEPA_LOSS,
    EVALUATION_TERM, // of reward 0; those of the others follow
    EVALUATION_METRICS = EVALUATION_TERM + CONFIG_REWARDS_MAX
} EvaluationMetric;

// V-JEPA's loss of other videos than the tuned ones, to tell how far it can fall and by what.
typedef enum EvaluationHeadroom {
    EVALUATION_REAL,    // what really comes after the image, one for each image
    EVALUATION_ROLLOUT, // the base model's videos
    EVALUATION_FROZEN,  // their first frame, over and over
    EVALUATION_BLURRED, // each of their frames, blurred
    EVALUATION_HEADROOMS
} EvaluationHeadroom;

// What is evaluated; borrowed.
typedef struct EvaluationAbout {
    const Config *cfg;
    const char *adapter;      // how messages and eval.json call it
    int64_t updates;          // that made it; -1: not known
    const char *const *image; // [image_cnt] names
    const char *const *video; // [image_cnt] "eval/lake": videos are <this>-<seed>.mp4
    int image_cnt, seed_cnt;
    RewardClasses classes; // cnt 0: no classifier; target -1: none is wanted
    bool has_judge, has_vjepa, has_real;
    int feature_dim; // 0: none
} EvaluationAbout;

typedef struct EvaluationSample {
    double value[EVALUATION_SIDES][EVALUATION_METRICS];
    double frozen, blurred; // V-JEPA's loss
    int most_probable[EVALUATION_SIDES];
    float *features[EVALUATION_SIDES]; // (feature_dim)
} EvaluationSample;

typedef struct EvaluationSummary {
    BootstrapInterval side[EVALUATION_SIDES], difference; // tuned - base
} EvaluationSummary;

typedef struct Evaluation {
    EvaluationAbout about;
    bool present[EVALUATION_METRICS];
    const char
        *name[EVALUATION_METRICS]; // in eval.json: "reward", "videomae.0" as in metrics.jsonl
    EvaluationSample *sample;      // image i, seed k at i * seed_cnt + k; written by the caller
    double *real;                  // [image_cnt] V-JEPA's loss; written by the caller
    EvaluationSummary summary[EVALUATION_METRICS];
    BootstrapInterval headroom[EVALUATION_HEADROOMS];
    Arena arena;
} Evaluation;

// Decides which metrics are present, and makes room for all samples.
void evaluation_init(Evaluation *e, const EvaluationAbout *about);
void evaluation_fini(Evaluation *e); // a zeroed one is fine

// Every number of a complete sample is finite, else ERR_NUMERIC names image, seed, side and metric. Any thread.
Err evaluation_check(Evaluation *e, int sample);

// Means and intervals. ERR_NUMERIC as above.
Err evaluation_summarise(Evaluation *e);

// Warns of what was given up, or overdone, to please the reward; eval.json says of each such metric ("kept") between which
// shares of the base model's mean it has to stay ("least", "most"; no "most": no bound), and what one sees otherwise ("sign").
void evaluation_print(Evaluation *e, FILE *out);
Err evaluation_write(Evaluation *e, const char *path);

#endif
