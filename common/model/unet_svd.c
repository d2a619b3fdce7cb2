// unet_svd: Stable Video Diffusion's denoiser.
//
//   emb  = time_embedding(sincos(t)) + add_embedding(sincos(ids))     one vector per video
//   x    = conv_in(sample)                                                               push x
//   down level i:  layers x [STRes, STAttn?] push each;  conv stride 2, push (not the last level)
//   mid:           STRes, STAttn, STRes
//   up level i:    (layers + 1) x [concat(x, pop), STRes, STAttn?];  nearest x2, conv (not the last level)
//   out  = conv_out(silu(norm(x)))
//   STRes:  s = spatial res block (per frame);  t = s + temporal res block(s);   a s + (1 - a) t
//   STAttn: h = proj_in(norm(x));  x + proj_out(h) after each of the layers has done
//           h = block(h);  m = time block(h + pos_f);  h = a h + (1 - a) m
//   block:  h += attn1(ln h);  h += attn2(context);  h += ff(ln h)        over the pixels of a frame
//   time block: m += ff_in(ln m), then the same over the frames of a pixel
//   a = sigmoid(mix_factor) of each STRes and STAttn
#include "common/model/unet_svd.h"

#include <math.h>
#include <string.h>

// Which norm has which eps is in no config: it follows from the constructors of diffusers.
#define EPS_RES_ATTN \
    1e-6 // residual blocks of a level with attention on the way down, and all on the way up
#define EPS_RES 1e-5    // those of a level without, and of the middle
#define EPS_TOKENS 1e-6 // GroupNorm in front of a transformer
#define EPS_LN 1e-5
#define EPS_OUT 1e-5

enum { GROUPS = 32, SKIPS_MAX = 128 };

// ---- Config ----

// An int for all levels, or a list with one for each.
static Err per_level(Json *j, const char *key, int level_cnt, int *out) {
    int64_t v[UNET_SVD_LEVELS_MAX];
    int cnt = 1;
    if (json_kind(j, key) == JSON_KIND_ARRAY)
        TRY(json_want_i64s(j, key, v, UNET_SVD_LEVELS_MAX, &cnt));
    else
        TRY(json_want_i64(j, key, v));
    if (cnt != 1 && cnt != level_cnt)
        FAIL(ERR_FORMAT, "%s: %s has %d entries, want %d", json_label(j), key, cnt, level_cnt);
    for (int i = 0; i < level_cnt; i++) {
        int64_t x = v[cnt == 1 ? 0 : i];
        if (x < 1 || x > 1 << 20)
            FAIL(ERR_FORMAT, "%s: %s holds %lld", json_label(j), key, (long long)x);
        out[i] = (int)x;
    }
    return ERR_OK;
}

// Level i attends when its block type is `with`; `without` is the other one that exists.
static Err block_types(Json *j, const char *key, int level_cnt, const char *with,
                       const char *without, bool *out) {
    const char *type[UNET_SVD_LEVELS_MAX];
    int cnt;
    TRY(json_want_strs(j, key, type, UNET_SVD_LEVELS_MAX, &cnt));
    if (cnt != level_cnt)
        FAIL(ERR_FORMAT, "%s: %s has %d entries, want %d", json_label(j), key, cnt, level_cnt);
    for (int i = 0; i < cnt; i++) {
        out[i] = !strcmp(type[i], with);
        if (!out[i] && strcmp(type[i], without))
            FAIL(ERR_FORMAT, "%s: %s has \"%s\", want \"%s\" or \"%s\"", json_label(j), key,
                 type[i], with, without);
    }
    return ERR_OK;
}

static Err check_widths(const UnetSvdConfig *c, Json *j) {
    for (int i = 0; i < c->level_cnt; i++) {
        if (c->channels[i] % GROUPS)
            FAIL(ERR_FORMAT, "%s: block_out_channels has %d, want multiples of %d", json_label(j),
                 c->channels[i], GROUPS);
        bool attends =
            c->down_attends[i] || c->up_attends[c->level_cnt - 1 - i] || i == c->level_cnt - 1;
        if (attends && c->channels[i] % c->heads[i])
            FAIL(ERR_FORMAT, "%s: %d channels do not split into %d heads", json_label(j),
                 c->channels[i], c->heads[i]);
    }
    return ERR_OK;
}

Err unet_svd_config(UnetSvdConfig *out, Json *j) {
    UnetSvdConfig c = {0};
    int64_t channels[UNET_SVD_LEVELS_MAX];
    int ids_width, context_dim[UNET_SVD_LEVELS_MAX];
    TRY(json_only_str(j, "_class_name", "UNetSpatioTemporalConditionModel"));
    TRY(json_want_int(j, "in_channels", &c.in_channels));
    TRY(json_want_int(j, "out_channels", &c.out_channels));
    TRY(json_want_i64s(j, "block_out_channels", channels, UNET_SVD_LEVELS_MAX, &c.level_cnt));
    if (c.level_cnt < 1) FAIL(ERR_FORMAT, "%s: block_out_channels is empty", json_label(j));
    TRY(per_level(j, "block_out_channels", c.level_cnt, c.channels));
    TRY(per_level(j, "layers_per_block", c.level_cnt, c.layers));
    TRY(per_level(j, "num_attention_heads", c.level_cnt, c.heads));
    TRY(per_level(j, "transformer_layers_per_block", c.level_cnt, c.transformer_layers));
    TRY(per_level(j, "cross_attention_dim", c.level_cnt, context_dim));
    TRY(block_types(j, "down_block_types", c.level_cnt, "CrossAttnDownBlockSpatioTemporal",
                    "DownBlockSpatioTemporal", c.down_attends));
    TRY(block_types(j, "up_block_types", c.level_cnt, "CrossAttnUpBlockSpatioTemporal",
                    "UpBlockSpatioTemporal", c.up_attends));
    TRY(json_want_int(j, "addition_time_embed_dim", &c.ids_dim));
    TRY(json_want_int(j, "projection_class_embeddings_input_dim", &ids_width));
    c.context_dim = context_dim[0];
    for (int i = 1; i < c.level_cnt; i++)
        if (context_dim[i] != c.context_dim)
            FAIL(ERR_FORMAT, "%s: cross_attention_dim differs between levels: not supported",
                 json_label(j));
    if (c.in_channels < 1 || c.out_channels < 1)
        FAIL(ERR_FORMAT, "%s: in_channels is %d and out_channels %d", json_label(j), c.in_channels,
             c.out_channels);
    if (c.ids_dim < 2 || c.ids_dim % 2 || ids_width < c.ids_dim || ids_width % c.ids_dim)
        FAIL(ERR_FORMAT,
             "%s: projection_class_embeddings_input_dim is %d, want a multiple of the even "
             "addition_time_embed_dim %d",
             json_label(j), ids_width, c.ids_dim);
    c.ids_cnt = ids_width / c.ids_dim;
    TRY(check_widths(&c, j));
    TRY(json_finish(j, (const char *const[]){"sample_size", "num_frames", NULL}));
    *out = c;
    return ERR_OK;
}

// ---- What all blocks see ----

typedef struct Unet {
    NN *nn;
    Graph *g;
    const UnetSvdConfig *cfg;
    bool recompute;
    Tensor *emb;     // (B, 4 C0), after silu
    Tensor *context; // (B, context_dim)
    Tensor *frame;   // (F): 0, 1, 2, ...
    Tensor *skip[SKIPS_MAX];
    int skip_cnt;
} Unet;

static void begin(const Unet *u) {
    if (u->recompute) graph_segment_begin(u->g);
}
static void end(const Unet *u) {
    if (u->recompute) graph_segment_end(u->g);
}

static int64_t channels(const Tensor *x) { return x->shape.dim[x->shape.rank - 1]; }

// sigmoid(mix_factor) (1)
static Tensor *mix(Unet *u) {
    return op_unary(u->g, UNARY_sigmoid, nn_param(u->nn, "time_mixer.mix_factor", SHAPE(1)));
}

// linear_2(silu(linear_1(x)))
static Tensor *mlp(NN *nn, const char *name, Tensor *x, int64_t mid, int64_t out) {
    nn_push(nn, "%s", name);
    x = nn_linear(nn, "linear_1", x, mid, true, NULL);
    x = op_unary(nn->g, UNARY_silu, x);
    x = nn_linear(nn, "linear_2", x, out, true, NULL);
    nn_pop(nn);
    return x;
}

// ---- STRes ----

// x (B, F, H, W, I) -> (B, F, H, W, out)
static Tensor *st_res(Unet *u, const char *name, Tensor *x, int64_t out, double eps) {
    NN *nn = u->nn;
    begin(u);
    nn_push(nn, "%s", name);
    nn_push(nn, "spatial_res_block");
    Tensor *s = nn_res_space(nn, x, u->emb, out, eps);
    nn_pop(nn);
    nn_push(nn, "temporal_res_block");
    Tensor *t = nn_res_time(nn, s, u->emb, eps);
    nn_pop(nn);
    x = op_lerp(u->g, t, s, mix(u));
    nn_pop(nn);
    end(u);
    return x;
}

// ---- STAttn ----

// x + ff(norm(x)): the gate is the second half of net.0.proj.
static Tensor *feed_forward(NN *nn, const char *norm, const char *name, Tensor *x) {
    if (!x) return NULL;
    int64_t c = channels(x);
    Tensor *h = nn_layernorm(nn, norm, x, EPS_LN);
    nn_push(nn, "%s", name);
    h = op_geglu(nn->g, nn_linear(nn, "net.0.proj", h, 8 * c, true, NULL));
    h = nn_linear(nn, "net.2", h, c, true, x);
    nn_pop(nn);
    return h;
}

// A matrix that has no effect: its shape and values are checked, an adapter on it is dead.
static void dead_linear(NN *nn, const char *name, int64_t in, int64_t out) {
    char key[64], path[320];
    snprintf(key, sizeof key, "%s.weight", name);
    snprintf(path, sizeof path, "%s.%s", nn->prefix, name);
    nn_param(nn, key, SHAPE(out, in));
    if (nn->lora && lora_wants(nn->lora, path)) lora_attach_dead(nn->lora, path, in, out);
}

// Softmax over one token is 1: attn2(x, context) = to_out(to_v(context)) (B, C), whatever x is.
static Tensor *cross_attention(Unet *u, int64_t c) {
    NN *nn = u->nn;
    if (!u->context) return NULL;
    nn_param(nn, "norm2.weight", SHAPE(c));
    nn_param(nn, "norm2.bias", SHAPE(c));
    nn_push(nn, "attn2");
    dead_linear(nn, "to_q", c, c);
    dead_linear(nn, "to_k", channels(u->context), c);
    Tensor *v = nn_linear(nn, "to_v", u->context, c, false, NULL);
    v = nn_linear(nn, "to_out.0", v, c, true, NULL);
    nn_pop(nn);
    return v;
}

// x + attn1(norm1(x)) + attn2(context): tokens (B, F, S, C), attention over axis 2 (S) or 1 (F).
static Tensor *attend(Unet *u, Tensor *x, int heads, int axis) {
    NN *nn = u->nn;
    Graph *g = u->g;
    if (!x) return NULL;
    int64_t c = channels(x), videos = x->shape.dim[0];
    Tensor *cross = cross_attention(u, c);
    Tensor *h = nn_layernorm(nn, "norm1", x, EPS_LN);
    nn_push(nn, "attn1");
    Tensor *q = nn_linear(nn, "to_q", h, c, false, NULL);
    Tensor *k = nn_linear(nn, "to_k", h, c, false, NULL);
    Tensor *v = nn_linear(nn, "to_v", h, c, false, NULL);
    h = op_sdpa(g, q, k, v, heads, axis, 1 / sqrt((double)c / heads), false);
    // One video: the vector joins the bias. More: it differs between rows.
    if (videos == 1) {
        x = nn_linear_extra(nn, "to_out.0", h, op_reshape(g, cross, SHAPE(c)), c, true, x);
    } else {
        x = nn_linear(nn, "to_out.0", h, c, true, x);
        x = op_add(g, x, op_reshape(g, cross, SHAPE(videos, 1, 1, c)));
    }
    nn_pop(nn);
    return x;
}

static Tensor *space_block(Unet *u, Tensor *h, int layer, int heads) {
    nn_push(u->nn, "transformer_blocks.%d", layer);
    h = attend(u, h, heads, 2);
    h = feed_forward(u->nn, "norm3", "ff", h);
    nn_pop(u->nn);
    return h;
}

static Tensor *time_block(Unet *u, Tensor *m, int layer, int heads) {
    nn_push(u->nn, "temporal_transformer_blocks.%d", layer);
    m = feed_forward(u->nn, "norm_in", "ff_in", m);
    m = attend(u, m, heads, 1);
    m = feed_forward(u->nn, "norm3", "ff", m);
    nn_pop(u->nn);
    return m;
}

// x (B, F, H, W, C); level: whose heads and layers it has.
static Tensor *st_attn(Unet *u, const char *name, Tensor *x, int level) {
    NN *nn = u->nn;
    Graph *g = u->g;
    if (!x) return NULL;
    const Shape s = x->shape;
    int64_t c = channels(x), frames = s.dim[1];
    begin(u);
    nn_push(nn, "%s", name);
    Tensor *pos = mlp(nn, "time_pos_embed", op_sinusoid(g, u->frame, c), 4 * c, c);
    pos = op_reshape(g, pos, SHAPE(1, frames, 1, c));
    Tensor *h = nn_groupnorm(nn, "norm", x, GROUPS, EPS_TOKENS, false, false);
    h = op_reshape(g, h, SHAPE(s.dim[0], frames, s.dim[2] * s.dim[3], c));
    h = nn_linear(nn, "proj_in", h, c, true, NULL);
    Tensor *a = mix(u);
    for (int i = 0; i < u->cfg->transformer_layers[level]; i++) {
        h = space_block(u, h, i, u->cfg->heads[level]);
        Tensor *m = time_block(u, op_add(g, h, pos), i, u->cfg->heads[level]);
        h = op_lerp(g, m, h, a);
    }
    x = op_reshape(g, x, SHAPE(s.dim[0], frames, s.dim[2] * s.dim[3], c));
    x = nn_linear(nn, "proj_out", h, c, true, x);
    x = op_reshape(g, x, s);
    nn_pop(nn);
    end(u);
    return x;
}

// ---- Levels ----

static void push_skip(Unet *u, Tensor *x) {
    die_unless(u->skip_cnt < SKIPS_MAX, "unet: more than %d skips", SKIPS_MAX);
    u->skip[u->skip_cnt++] = x;
}

// The two parts of layer j of a level; skip (may be NULL) is joined behind x's channels.
static Tensor *layer(Unet *u, int j, Tensor *x, Tensor *skip, int level, bool attends, double eps) {
    char name[32];
    if (skip && x) x = op_concat(u->g, 4, 2, (Tensor *[]){x, skip});
    snprintf(name, sizeof name, "resnets.%d", j);
    x = st_res(u, name, x, u->cfg->channels[level], eps);
    snprintf(name, sizeof name, "attentions.%d", j);
    return attends ? st_attn(u, name, x, level) : x;
}

static Tensor *down(Unet *u, Tensor *x, int level) {
    const UnetSvdConfig *c = u->cfg;
    double eps = c->down_attends[level] ? EPS_RES_ATTN : EPS_RES;
    nn_push(u->nn, "down_blocks.%d", level);
    for (int j = 0; j < c->layers[level]; j++) {
        x = layer(u, j, x, NULL, level, c->down_attends[level], eps);
        push_skip(u, x);
    }
    if (level < c->level_cnt - 1) {
        x = nn_conv2d(u->nn, "downsamplers.0.conv", x, NULL, c->channels[level], 3, 2, false, NULL);
        push_skip(u, x);
    }
    nn_pop(u->nn);
    return x;
}

static Tensor *middle(Unet *u, Tensor *x) {
    int last = u->cfg->level_cnt - 1;
    nn_push(u->nn, "mid_block");
    x = layer(u, 0, x, NULL, last, true, EPS_RES);
    x = layer(u, 1, x, NULL, last, false, EPS_RES);
    nn_pop(u->nn);
    return x;
}

static Tensor *up(Unet *u, Tensor *x, int i) {
    const UnetSvdConfig *c = u->cfg;
    int level = c->level_cnt - 1 - i;
    nn_push(u->nn, "up_blocks.%d", i);
    for (int j = 0; j <= c->layers[level]; j++)
        x = layer(u, j, x, u->skip[--u->skip_cnt], level, c->up_attends[i], EPS_RES_ATTN);
    if (level > 0) {
        x = op_upsample2x(u->g, x);
        x = nn_conv2d(u->nn, "upsamplers.0.conv", x, NULL, c->channels[level], 3, 1, false, NULL);
    }
    nn_pop(u->nn);
    return x;
}

// ---- Inputs ----

static bool check_io(const Unet *u, UnetSvdIo io) {
    const UnetSvdConfig *c = u->cfg;
    const Shape x = io.sample->shape, t = io.timestep->shape, ctx = io.context->shape,
                ids = io.time_ids->shape;
    int64_t b = x.dim[0], step = 1 << (c->level_cnt - 1);
    char text[4][96];
    bool ok = x.rank == 5 && x.dim[4] == c->in_channels && x.dim[2] % step == 0 &&
              x.dim[3] % step == 0 && t.rank == 1 && (t.dim[0] == 1 || t.dim[0] == b) &&
              ctx.rank == 3 && ctx.dim[0] == b && ctx.dim[1] == 1 && ctx.dim[2] == c->context_dim &&
              ids.rank == 2 && ids.dim[0] == b && ids.dim[1] == c->ids_cnt;
    if (!ok)
        graph_fail(
            u->g, ERR_SHAPE,
            "denoiser: want sample (B, F, h, w, %d) with h and w multiples of %lld, timestep "
            "(B) or (1), context (B, 1, %d), time ids (B, %d); got %s, %s, %s, %s",
            c->in_channels, (long long)step, c->context_dim, c->ids_cnt, shape_text(x, text[0]),
            shape_text(t, text[1]), shape_text(ctx, text[2]), shape_text(ids, text[3]));
    return ok;
}

static Tensor *embed(Unet *u, UnetSvdIo io) {
    const UnetSvdConfig *c = u->cfg;
    int64_t width = 4 * c->channels[0], b = io.time_ids->shape.dim[0];
    Tensor *t = op_sinusoid(u->g, io.timestep, c->channels[0]);
    t = mlp(u->nn, "time_embedding", t, width, width);
    Tensor *ids =
        op_sinusoid(u->g, op_reshape(u->g, io.time_ids, SHAPE(b * c->ids_cnt)), c->ids_dim);
    ids = op_reshape(u->g, ids, SHAPE(b, c->ids_cnt * c->ids_dim));
    ids = mlp(u->nn, "add_embedding", ids, width, width);
    return op_unary(u->g, UNARY_silu, op_add(u->g, ids, t));
}

static Tensor *frame_numbers(Graph *g, int64_t cnt) {
    float *f = arena_array(&g->arena, float, cnt);
    for (int64_t i = 0; i < cnt; i++) f[i] = (float)i;
    return graph_weight(g, "frame", DTYPE_F32, SHAPE(cnt), f);
}

Tensor *unet_svd_build(NN *nn, const UnetSvdConfig *cfg, UnetSvdIo io, UnetSvdOptions opt) {
    Unet u = {.nn = nn, .g = nn->g, .cfg = cfg, .recompute = opt.recompute};
    if (!io.sample || !io.timestep || !io.context || !io.time_ids || !check_io(&u, io)) return NULL;
    int last = cfg->level_cnt - 1;
    u.emb = embed(&u, io);
    u.context = op_reshape(u.g, io.context, SHAPE(io.context->shape.dim[0], cfg->context_dim));
    u.frame = frame_numbers(u.g, io.sample->shape.dim[1]);
    Tensor *x = nn_conv2d(nn, "conv_in", io.sample, NULL, cfg->channels[0], 3, 1, false, NULL);
    push_skip(&u, x);
    for (int i = 0; i <= last; i++) x = down(&u, x, i);
    x = middle(&u, x);
    for (int i = 0; i <= last; i++) x = up(&u, x, i);
    x = nn_groupnorm(nn, "conv_norm_out", x, GROUPS, EPS_OUT, true, false);
    return nn_conv2d(nn, "conv_out", x, NULL, cfg->out_channels, 3, 1, false, NULL);
}

Tensor *unet_svd_denoiser(const void *self, NN *nn, Tensor *sample, Tensor *timestep,
                          Tensor *context, Tensor *time_ids) {
    const UnetSvdDenoiser *u = self;
    return unet_svd_build(nn, &u->cfg, (UnetSvdIo){sample, timestep, context, time_ids}, u->opt);
}
