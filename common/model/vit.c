// vit: the shared pre-norm block.
//
//   x (N, L, D)
//     norm1 -> q, k, v = Linear(D -> D) each, or one Linear(D -> 3D) cut in three
//           -> softmax(q k^T / sqrt(D / heads)) v over all L tokens -> proj -> + x
//     norm2 -> fc1 (D -> hidden) -> act -> fc2 (hidden -> D) -> + x
#include "common/model/vit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const vit_config_ignored[] = {
    "architectures", "attention_dropout",   "attention_probs_dropout_prob", "dropout",
    "dtype",         "hidden_dropout_prob", "initializer_factor",           "initializer_range",
    "model_type",    "torch_dtype",         "transformers_version",         NULL,
};

static Tensor *param(NN *nn, const char *stem, const char *ending, Shape shape) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", stem, ending);
    return nn_param(nn, name, shape);
}

// A linear whose bias has a name of its own, or none. Towers are frozen and carry no adapter.
static Tensor *project(NN *nn, const char *stem, const char *bias, Tensor *x, int64_t width) {
    Tensor *w = param(nn, stem, ".weight", SHAPE(width, width));
    Tensor *b = bias ? nn_param(nn, bias, SHAPE(width)) : NULL;
    return op_linear(nn->g, x, w, b, NULL);
}

static Tensor *attention(NN *nn, const VitBlock *b, Tensor *x) {
    const VitKeys *k = b->keys;
    Tensor *part[3];
    if (k->qkv) {
        Tensor *all = nn_linear(nn, k->qkv, x, 3 * b->width, true, NULL);
        for (int i = 0; i < 3; i++) part[i] = op_slice(nn->g, all, -1, i * b->width, b->width);
    } else {
        part[0] = project(nn, k->q, k->q_bias, x, b->width);
        part[1] = project(nn, k->k, k->k_bias, x, b->width);
        part[2] = project(nn, k->v, k->v_bias, x, b->width);
    }
    double scale = 1 / sqrt((double)b->width / b->heads);
    return op_sdpa(nn->g, part[0], part[1], part[2], b->heads, 2, scale, false);
}

Tensor *vit_block(NN *nn, const VitBlock *b, Tensor *x) {
    if (!x) return NULL;
    Shape tokens = x->shape; // (N, L, D); attention wants (N, 1, L, D)
    x = op_reshape(nn->g, x, SHAPE(tokens.dim[0], 1, tokens.dim[1], tokens.dim[2]));
    Tensor *a = attention(nn, b, nn_layernorm(nn, b->keys->norm1, x, b->eps));
    x = nn_linear(nn, b->keys->proj, a, b->width, true, x);
    Tensor *m = nn_linear(nn, b->keys->fc1, nn_layernorm(nn, b->keys->norm2, x, b->eps), b->hidden,
                          true, NULL);
    x = nn_linear(nn, b->keys->fc2, op_unary(nn->g, b->act, m), b->width, true, x);
    return op_reshape(nn->g, x, tokens);
}

Tensor *vit_blocks(NN *nn, const VitBlock *b, const char *stem, int depth, bool recompute,
                   Tensor *x) {
    for (int i = 0; i < depth && x; i++) {
        nn_push(nn, "%s.%d", stem, i);
        if (recompute) graph_segment_begin(nn->g);
        x = vit_block(nn, b, x);
        if (recompute) graph_segment_end(nn->g);
        nn_pop(nn);
    }
    return x;
}

// "<prefix>.<name><ending>"
static const char *key_of(const NN *nn, char out[512], const char *name, const char *ending) {
    snprintf(out, 512, "%s%s%s%s", nn->prefix, *nn->prefix ? "." : "", name, ending);
    return out;
}

Tensor *vit_patch_embed(NN *nn, const char *name, Tensor *x, int64_t width, int pt, int ph,
                        int pw) {
    if (!x) return NULL;
    char key[512];
    int64_t c = x->shape.dim[4], t = pt ? pt : 1;
    Shape stored = pt ? SHAPE(width, c, pt, ph, pw) : SHAPE(width, c, ph, pw);
    Shape rows = SHAPE(width, c * t * ph * pw); // op_patchify lays rows out as the kernel lies
    Tensor *w = params_get_as(nn->params, nn->g, key_of(nn, key, name, ".weight"), stored, rows);
    Tensor *b = pt ? param(nn, name, ".bias", SHAPE(width)) : NULL;
    return op_linear(nn->g, op_patchify(nn->g, x, (int)t, ph, pw), w, b, NULL);
}

Tensor *vit_table(NN *nn, const char *name, Shape stored, Shape as) {
    char key[512];
    return params_get_f32(nn->params, nn->g, key_of(nn, key, name, ""), stored, as);
}

Err vit_activation(Json *config, const char *key, UnaryKind *out) {
    static const struct {
        const char *name;
        UnaryKind kind;
    } known[] = {
        {"gelu", UNARY_gelu_erf},      {"quick_gelu", UNARY_quick_gelu},
        {"gelu_new", UNARY_gelu_tanh}, {"gelu_pytorch_tanh", UNARY_gelu_tanh},
        {"relu", UNARY_relu},          {"silu", UNARY_silu},
    };
    const char *name = NULL;
    TRY(json_get_str(config, key, &name));
    if (!name) return ERR_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) {
            *out = known[i].kind;
            return ERR_OK;
        }
    FAIL(ERR_FORMAT,
         "%s: %s is '%s', want gelu, quick_gelu, gelu_new, gelu_pytorch_tanh, relu or silu",
         json_label(config), key, name);
}
