// videomae: the classifier.
//
//   pixels (N, T, S, S, 3)
//   embeddings.patch_embeddings.projection   conv (tubelet, P, P), stride the same, bias -> (N, L, D),
//                                            tokens in the order (t, h, w)
//   + table (L, D): column 2i is sin(l / 10000^(2i/D)), column 2i+1 its cos; l counts tokens
//   encoder.layer.0..depth-1                 pre-norm blocks, eps of the config; q and v have a bias, k none
//   mean over L -> fc_norm (eps 1e-5) -> classifier -> logits (N, labels)
//   (without mean pooling: videomae.layernorm, token 0 -> classifier)
#include "common/model/videomae.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/vit.h"

static const VitKeys KEYS = {
    .norm1 = "layernorm_before",
    .norm2 = "layernorm_after",
    .q = "attention.attention.query",
    .k = "attention.attention.key",
    .v = "attention.attention.value",
    .q_bias = "attention.attention.q_bias",
    .v_bias = "attention.attention.v_bias",
    .proj = "attention.output.dense",
    .fc1 = "intermediate.dense",
    .fc2 = "output.dense",
};

// Of the pretraining decoder, and what only names things.
static const char *const IGNORED[] = {
    "architectures",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "initializer_range",
    "model_type",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "norm_pix_loss",
    "decoder_hidden_size",
    "decoder_intermediate_size",
    "decoder_num_attention_heads",
    "decoder_num_hidden_layers",
    "label2id",
    "problem_type",
    "finetuning_task",
    NULL,
};

static Err read_labels(Json *j, int *labels) {
    Json *names;
    TRY(json_get_int(j, "num_labels", labels));
    TRY(json_get_object(j, "id2label", &names));
    if (!names) return ERR_OK;
    *labels = (int)json_count(names);
    const char *key, *unused;
    for (void *it = NULL; (key = json_next(names, &it));) TRY(json_get_str(names, key, &unused));
    return ERR_OK;
}

static Err check(const Json *j, const VideoMaeConfig *c) {
    const char *at = json_label(j);
    if (c->width < 1 || c->hidden < 1 || c->depth < 1 || c->labels < 1)
        FAIL(
            ERR_FORMAT,
            "%s: hidden_size %d, intermediate_size %d, num_hidden_layers %d, %d labels: want at least 1 "
            "of each",
            at, c->width, c->hidden, c->depth, c->labels);
    if (c->heads < 1 || c->width % c->heads)
        FAIL(ERR_FORMAT, "%s: num_attention_heads %d does not divide hidden_size %d", at, c->heads,
             c->width);
    if (c->patch < 1 || c->tubelet < 1 || c->image < c->patch || c->image % c->patch)
        FAIL(ERR_FORMAT, "%s: image_size %d is not a multiple of patch_size %d (tubelet_size %d)",
             at, c->image, c->patch, c->tubelet);
    return ERR_OK;
}

Err videomae_config(VideoMaeConfig *c, Json *j) {
    *c = (VideoMaeConfig){.width = 768,
                          .hidden = 3072,
                          .depth = 12,
                          .heads = 12,
                          .image = 224,
                          .patch = 16,
                          .tubelet = 2,
                          .frames = 16,
                          .labels = 2,
                          .qv_bias = true,
                          .mean_pooling = true,
                          .eps = 1e-12,
                          .act = UNARY_gelu_erf}; // VideoMAEConfig()
    TRY(json_get_int(j, "hidden_size", &c->width));
    TRY(json_get_int(j, "intermediate_size", &c->hidden));
    TRY(json_get_int(j, "num_hidden_layers", &c->depth));
    TRY(json_get_int(j, "num_attention_heads", &c->heads));
    TRY(json_get_int(j, "image_size", &c->image));
    TRY(json_get_int(j, "patch_size", &c->patch));
    TRY(json_get_int(j, "tubelet_size", &c->tubelet));
    TRY(json_get_int(j, "num_frames", &c->frames));
    TRY(json_get_bool(j, "qkv_bias", &c->qv_bias));
    TRY(json_get_bool(j, "qv_bias", &c->qv_bias)); // its name in newer releases
    TRY(json_get_f64(j, "layer_norm_eps", &c->eps));
    TRY(json_only_i64(j, "num_channels", 3));
    TRY(json_get_bool(j, "use_mean_pooling", &c->mean_pooling));
    TRY(vit_activation(j, "hidden_act", &c->act));
    TRY(read_labels(j, &c->labels));
    TRY(json_finish(j, IGNORED));
    return check(j, c);
}

Err videomae_class(Json *j, const char *label, int *out) {
    Json *names;
    const char *key, *name;
    TRY(json_want_object(j, "id2label", &names));
    for (void *it = NULL; (key = json_next(names, &it));) {
        TRY(json_want_str(names, key, &name));
        if (strcasecmp(name, label) && strcmp(key, label)) continue;
        *out = (int)strtol(key, NULL, 10);
        return ERR_OK;
    }
    FAIL(ERR_USAGE, "%s: no class '%s'; want a name in id2label or a number from 0 to %zu",
         json_label(j), label, json_count(names) - 1);
}

Err videomae_class_names(Json *j, const VideoMaeConfig *c, Arena *a, const char **name) {
    Json *names;
    const char *key, *text;
    for (int i = 0; i < c->labels; i++) name[i] = arena_printf(a, "%d", i);
    TRY(json_get_object(j, "id2label", &names));
    if (!names) return ERR_OK;
    for (void *it = NULL; (key = json_next(names, &it));) {
        char *end;
        long i = strtol(key, &end, 10);
        TRY(json_want_str(names, key, &text));
        if (end == key || *end || i < 0 || i >= c->labels)
            FAIL(ERR_FORMAT, "%s: class number \"%s\", want 0 to %d", json_label(names), key,
                 c->labels - 1);
        name[i] = arena_strdup(a, text);
    }
    return ERR_OK;
}

// (L, D), evaluated in double.
static Tensor *position_table(Graph *g, int64_t tokens, int64_t width) {
    float *t = arena_array(&g->arena, float, tokens *width);
    for (int64_t l = 0; l < tokens; l++)
        for (int64_t j = 0; j < width; j++) {
            double angle = (double)l / pow(10000, (double)(j / 2 * 2) / (double)width);
            t[l * width + j] = (float)(j % 2 ? cos(angle) : sin(angle));
        }
    return graph_weight(g, "videomae.positions", DTYPE_F32, SHAPE(tokens, width), t);
}

// (N, L, D) -> (N, 1, D): what the head reads.
static Tensor *pool(NN *nn, const VideoMaeConfig *c, Tensor *x) {
    if (c->mean_pooling) return op_mean(nn->g, x, 1u << 1);
    return nn_layernorm(nn, "layernorm", op_slice(nn->g, x, 1, 0, 1), c->eps);
}

Tensor *videomae_features(NN *nn, const VideoMaeConfig *c, bool recompute, Tensor *pixels) {
    if (!pixels) return NULL;
    char text[96];
    Graph *g = nn->g;
    Shape s = pixels->shape, want = SHAPE(s.dim[0], s.dim[1], c->image, c->image, 3);
    if (!shape_equal(s, want) || s.dim[1] % c->tubelet)
        return graph_fail(g, ERR_SHAPE,
                          "VideoMAE: pixels are %s, want (N, T, %d, %d, 3), T a multiple of %d",
                          shape_text(s, text), c->image, c->image, c->tubelet);
    VitKeys keys = KEYS;
    if (!c->qv_bias) keys.q_bias = keys.v_bias = NULL;
    VitBlock block = {&keys, c->width, c->hidden, c->heads, c->eps, c->act};
    nn_push(nn, "videomae");
    Tensor *x = vit_patch_embed(nn, "embeddings.patch_embeddings.projection", pixels, c->width,
                                c->tubelet, c->patch, c->patch);
    if (x) x = op_add(g, x, position_table(g, x->shape.dim[1], c->width));
    nn_push(nn, "encoder");
    x = vit_blocks(nn, &block, "layer", c->depth, recompute, x);
    nn_pop(nn);
    x = pool(nn, c, x);
    nn_pop(nn);
    x = op_reshape(g, x, SHAPE(s.dim[0], c->width));
    return c->mean_pooling ? nn_layernorm(nn, "fc_norm", x, 1e-5) : x;
}

Tensor *videomae_head(NN *nn, const VideoMaeConfig *c, Tensor *features) {
    return nn_linear(nn, "classifier", features, c->labels, true, NULL);
}

Tensor *videomae_build(NN *nn, const VideoMaeConfig *c, bool recompute, Tensor *pixels) {
    return videomae_head(nn, c, videomae_features(nn, c, recompute, pixels));
}

Tensor *videomae_log_prob(Graph *g, Tensor *logits, int class_idx) {
    if (!logits) return NULL;
    int64_t n = logits->shape.dim[0], labels = logits->shape.dim[1];
    if (class_idx < 0 || class_idx >= labels)
        return graph_fail(g, ERR_USAGE, "VideoMAE: class %d, want 0 to %lld", class_idx,
                          (long long)labels - 1);
    return op_reshape(g, op_slice(g, op_log_softmax(g, logits), -1, class_idx, 1), SHAPE(n));
}
