// videomae: a video classifier, as transformers' VideoMAEForVideoClassification.
//
//     VideoMaeConfig c;
//     TRY(videomae_config(&c, part->config));
//     Tensor *logits = videomae_build(&nn, &c, false, pixels);   // (N, labels)
//
// The number of frames is that of the input, not of the config: the position table is a formula of the
// token's index, so 4 or 25 frames work with the weights for 16 (any multiple of the tubelet).
//
// Tong et al. 2022, arXiv:2203.12602; transformers modeling_videomae.py.
#ifndef COMMON_MODEL_VIDEOMAE_H
#define COMMON_MODEL_VIDEOMAE_H

#include "common/format/json.h"
#include "common/model/nn.h"

typedef struct VideoMaeConfig {
    int width, hidden, depth, heads;
    int image, patch, tubelet; // pixels, pixels, frames
    int frames;                // the number the weights were trained with
    int labels;                // classes: entries of id2label
    bool qv_bias;              // q and v have a bias; k never has
    bool mean_pooling;         // else the head reads token 0, after a LayerNorm of the encoder
    double eps;                // of the blocks; fc_norm has 1e-5
    UnaryKind act;
} VideoMaeConfig;

// Reads and checks every key: one that changes the result and is unknown here is an error.
Err videomae_config(VideoMaeConfig *out, Json *config);

// The class that `label` names in the config's id2label (any case), or its number. ERR_USAGE when there is none.
Err videomae_class(Json *config, const char *label, int *out);

// The names of all classes by number, c->labels of them: those of id2label, the number where it has none. In the arena.
Err videomae_class_names(Json *config, const VideoMaeConfig *c, Arena *a, const char **name);

// pixels (N, T, image, image, 3), normalised; T a multiple of tubelet -> logits (N, labels).
Tensor *videomae_build(NN *nn, const VideoMaeConfig *c, bool recompute, Tensor *pixels);

// In two parts: what the head reads, pooled over tokens and normalised (N, width); and the head.
Tensor *videomae_features(NN *nn, const VideoMaeConfig *c, bool recompute, Tensor *pixels);
Tensor *videomae_head(NN *nn, const VideoMaeConfig *c, Tensor *features);

// log softmax(logits)[class]: (N). The probability is its exp.
Tensor *videomae_log_prob(Graph *g, Tensor *logits, int class_idx);

#endif
