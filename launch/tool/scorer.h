// scorer: what models think of a finished video: rewards, a judge, V-JEPA. Forward only.
//
//     Scorer *s;
//     TRY(scorer_open(&s, cfg, threads));
//     TRY_OUT(scorer_score(s, frames, pictures, &score, NULL)); // frames of all segments, raw
//     if (scorer_has_vjepa(s)) TRY_OUT(scorer_vjepa(s, frames, &loss));
//
// Masks of V-JEPA are drawn once, from the config's seed and RNG_EVAL: the same for every video that is scored.
#ifndef LAUNCH_TOOL_SCORER_H
#define LAUNCH_TOOL_SCORER_H

#include "common/config/config.h"
#include "common/model/reward.h"

typedef struct Scorer Scorer;

// The config's rewards, eval.judge and eval.vjepa. threads: of each operator. ERR_USAGE: no rewards; a judge whose classes
// are not those of the reward's classifier; fewer frames than V-JEPA needs. cfg is borrowed until close.
Err scorer_open(Scorer **out, const Config *cfg, int threads);
void scorer_close(Scorer *s); // NULL is fine

// Memory that one needs, in bytes, without opening it.
Err scorer_memory(const Config *cfg, uint64_t *bytes);

// The classes that videos are sorted into: of the reward's first VideoMAE term (target: the class it wants), else of the
// judge (target -1). cnt 0: there is neither.
RewardClasses scorer_classes(const Scorer *s);
bool scorer_has_judge(const Scorer *s);
bool scorer_has_vjepa(const Scorer *s);
// Width of a video's features: of the judge, who was not optimised, else of the reward's classifier; 0 without either.
int scorer_feature_dim(const Scorer *s);

typedef struct ScorerScore {
    double reward, term[REWARD_TERMS_MAX]; // the weighted sum; each before weighting
    int most_probable;                     // of scorer_classes
    double class_prob;                     // of the target
    double judge_prob;                     // the judge's, for the target
    bool judge_agrees;                     // its most probable class is the target
} ScorerScore;

// frames (S F, H, W, 3) raw; pictures (S, H, W, 3) in [0, 1], what each segment began with (NULL is fine when no reward
// wants them). What does not apply stays 0. features (scorer_feature_dim) may be NULL when that is 0.
Err scorer_score(Scorer *s, const float *frames, const float *pictures, ScorerScore *out,
                 float *features);

// Frames that V-JEPA sees: all of a video but those that repeat the one before, frame 0 of every segment but the first.
int64_t scorer_vjepa_frames(const Scorer *s);
// Its masked prediction loss. frames (S F, H, W, 3) raw, of which the repeated ones are left out here; or, `joined`,
// (scorer_vjepa_frames, H, W, 3) without any.
Err scorer_vjepa(Scorer *s, const float *frames, bool joined, double *loss);

#endif
