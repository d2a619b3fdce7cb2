// clip_vision: the image tower of CLIP.
//
//   pixels (N, 1, S, S, 3)
//   embeddings.patch_embedding     conv P x P stride P, no bias -> (N, (S/P)^2, D), row-major
//   [class_embedding, patches]     -> (N, L, D), L = 1 + (S/P)^2
//   + position_embedding (L, D)
//   pre_layrnorm                   (the name is spelt so in every checkpoint)
//   encoder.layers.0..depth-1      pre-norm blocks, q k v out with bias, fc1 act fc2
//   token 0 -> post_layernorm -> visual_projection (no bias) -> image_embeds (N, projection)
#include "common/model/clip_vision.h"

#include "common/model/vit.h"

static const VitKeys KEYS = {
    .norm1 = "layer_norm1",
    .norm2 = "layer_norm2",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .q_bias = "self_attn.q_proj.bias",
    .k_bias = "self_attn.k_proj.bias",
    .v_bias = "self_attn.v_proj.bias",
    .proj = "self_attn.out_proj",
    .fc1 = "mlp.fc1",
    .fc2 = "mlp.fc2",
};

static Err read_tower(Json *j, ClipVisionConfig *c) {
    TRY(json_get_int(j, "hidden_size", &c->width));
    TRY(json_get_int(j, "intermediate_size", &c->hidden));
    TRY(json_get_int(j, "num_hidden_layers", &c->depth));
    TRY(json_get_int(j, "num_attention_heads", &c->heads));
    TRY(json_get_int(j, "image_size", &c->image));
    TRY(json_get_int(j, "patch_size", &c->patch));
    TRY(json_get_int(j, "num_channels", &c->channels));
    TRY(json_get_f64(j, "layer_norm_eps", &c->eps));
    TRY(vit_activation(j, "hidden_act", &c->act));
    return ERR_OK;
}

static Err check(const Json *j, const ClipVisionConfig *c) {
    const char *at = json_label(j);
    if (c->width < 1 || c->hidden < 1 || c->depth < 1 || c->projection < 1)
        FAIL(
            ERR_FORMAT,
            "%s: hidden_size %d, intermediate_size %d, num_hidden_layers %d, projection_dim %d: want "
            "at least 1 of each",
            at, c->width, c->hidden, c->depth, c->projection);
    if (c->heads < 1 || c->width % c->heads)
        FAIL(ERR_FORMAT, "%s: num_attention_heads %d does not divide hidden_size %d", at, c->heads,
             c->width);
    if (c->patch < 1 || c->image < c->patch || c->image % c->patch)
        FAIL(ERR_FORMAT, "%s: image_size %d is not a multiple of patch_size %d", at, c->image,
             c->patch);
    if (c->channels != 3) FAIL(ERR_FORMAT, "%s: num_channels is %d, want 3", at, c->channels);
    return ERR_OK;
}

// A CLIPModel's config: the tower is a child whose remaining keys are defaults of every transformers model.
static Err read_nested(Json *j, ClipVisionConfig *c) {
    Json *tower;
    TRY(json_want_object(j, "vision_config", &tower));
    TRY(read_tower(tower, c));
    TRY(json_want_int(j, "projection_dim", &c->projection));
    return check(j, c);
}

Err clip_vision_config(ClipVisionConfig *c, Json *j) {
    *c = (ClipVisionConfig){.width = 768,
                            .hidden = 3072,
                            .depth = 12,
                            .heads = 12,
                            .image = 224,
                            .patch = 32,
                            .channels = 3,
                            .projection = 512,
                            .eps = 1e-5,
                            .act = UNARY_quick_gelu}; // CLIPVisionConfig()
    if (json_kind(j, "vision_config") == JSON_KIND_OBJECT) return read_nested(j, c);
    TRY(read_tower(j, c));
    TRY(json_want_int(j, "projection_dim", &c->projection));
    TRY(json_finish(j, vit_config_ignored));
    return check(j, c);
}

static Tensor *embed(NN *nn, const ClipVisionConfig *c, Tensor *pixels) {
    Graph *g = nn->g;
    int64_t n = pixels->shape.dim[0],
            patches = (int64_t)(c->image / c->patch) * (c->image / c->patch);
    nn_push(nn, "embeddings");
    Tensor *x = vit_patch_embed(nn, "patch_embedding", pixels, c->width, 0, c->patch, c->patch);
    Tensor *cls = vit_table(nn, "class_embedding", SHAPE(c->width), SHAPE(1, 1, c->width));
    Shape table = SHAPE(1 + patches, c->width);
    Tensor *pos = vit_table(nn, "position_embedding.weight", table, table);
    nn_pop(nn);
    cls = op_expand(g, cls, SHAPE(n, 1, c->width));
    return op_add(g, op_concat(g, 1, 2, (Tensor *[]){cls, x}), pos); // (N, L, D)
}

Tensor *clip_vision_build(NN *nn, const ClipVisionConfig *c, bool recompute, Tensor *pixels) {
    if (!pixels) return NULL;
    char text[96];
    Shape s = pixels->shape, want = SHAPE(s.dim[0], 1, c->image, c->image, 3);
    if (!shape_equal(s, want))
        return graph_fail(nn->g, ERR_SHAPE, "CLIP vision: pixels are %s, want (N, 1, %d, %d, 3)",
                          shape_text(s, text), c->image, c->image);
    VitBlock block = {&KEYS, c->width, c->hidden, c->heads, c->eps, c->act};
    params_ignore(nn->params, "*embeddings.position_ids"); // a buffer of old checkpoints
    params_ignore(nn->params, "text_model.*");             // the other half of a CLIPModel
    params_ignore(nn->params, "text_projection.weight");
    params_ignore(nn->params, "logit_scale");
    nn_push(nn, "vision_model");
    Tensor *x = nn_layernorm(nn, "pre_layrnorm", embed(nn, c, pixels), c->eps);
    nn_push(nn, "encoder");
    x = vit_blocks(nn, &block, "layers", c->depth, recompute, x);
    nn_pop(nn);
    x = op_reshape(nn->g, op_slice(nn->g, x, 1, 0, 1), SHAPE(s.dim[0], c->width));
    x = nn_layernorm(nn, "post_layernorm", x, c->eps);
    nn_pop(nn);
    return nn_linear(nn, "visual_projection", x, c->projection, false, NULL);
}

Tensor *clip_vision_prepare(Graph *g, const ClipVisionConfig *c, Tensor *image, Tensor **resized) {
    // The pipeline resizes 2 image - 1 and maps back: the same, as every row of taps sums to 1.
    Tensor *x = resample(g, image, RESAMPLE_SVD, c->image, c->image);
    if (resized) *resized = x;
    return pixels_normalize(g, x, (const double[3])PIXELS_CLIP_MEAN,
                            (const double[3])PIXELS_CLIP_STD);
}
