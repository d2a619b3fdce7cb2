// vjepa: encoder, predictor and target encoder of V-JEPA 1, and the loss between them.
//
//   encoder, target_encoder (one architecture, two sets of weights)
//     clips (N, T, S, S, 3) -> conv (tubelet, P, P), stride the same, bias -> (N, L, D), order (t, h, w)
//     + pos_embed (1, L, D) from the file
//     encoder only: gather C -> (N, |C|, D)
//     blocks.0..depth-1 (pre-norm, fused qkv, gelu, eps 1e-6) -> norm
//   predictor, width d < D, as many heads
//     predictor_embed(context) + positions[C] | mask_tokens.j + positions[M] -> (N, |C| + |M|, d)
//     predictor_blocks -> predictor_norm -> the last |M| tokens -> predictor_proj -> (N, |M|, D)
#include "common/model/vjepa.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/model/vit.h"
#include "common/tensor/grad.h"

enum { PART_ENCODER, PART_PREDICTOR, PART_TARGET, PART_CNT };
static const char *const part_name[PART_CNT] = {"encoder", "predictor", "target_encoder"};

struct Vjepa {
    VjepaConfig config;
    bool is_borrowed;         // params are the caller's
    bool is_checkpoint;       // three dictionaries of one zip, opened one by one
    Params *params[PART_CNT]; // of a folder: all the same
};

static const VitKeys KEYS = {
    .norm1 = "norm1",
    .norm2 = "norm2",
    .qkv = "attn.qkv",
    .proj = "attn.proj",
    .fc1 = "mlp.fc1",
    .fc2 = "mlp.fc2",
};
static const double EPS = 1e-6, TARGET_EPS = 1e-5;

// ---- Config and weights ----

static Err check(const Json *j, const VjepaConfig *c) {
    const char *at = json_label(j);
    if (c->depth < 1 || c->predictor_depth < 1 || c->predictor_width < 1 || !(c->mlp_ratio > 0))
        FAIL(
            ERR_FORMAT,
            "%s: depth %d, pred_depth %d, pred_embed_dim %d, mlp_ratio %g: want more than 0 of each",
            at, c->depth, c->predictor_depth, c->predictor_width, c->mlp_ratio);
    if (c->heads < 1 || c->width < 1 || c->width % c->heads || c->predictor_width % c->heads)
        FAIL(ERR_FORMAT, "%s: num_heads %d must divide embed_dim %d and pred_embed_dim %d", at,
             c->heads, c->width, c->predictor_width);
    if (c->patch < 1 || c->image_h < c->patch || c->image_h % c->patch || c->image_w < c->patch ||
        c->image_w % c->patch)
        FAIL(ERR_FORMAT, "%s: crop_size %d x %d is not a multiple of patch_size %d", at, c->image_h,
             c->image_w, c->patch);
    if (c->tubelet < 1 || c->frames < c->tubelet || c->frames % c->tubelet)
        FAIL(ERR_FORMAT, "%s: num_frames %d is not a multiple of tubelet_size %d", at, c->frames,
             c->tubelet);
    if (c->mask_tokens < 2)
        FAIL(ERR_FORMAT, "%s: num_mask_tokens is %d, want at least 2", at, c->mask_tokens);
    return ERR_OK;
}

static Err read_size(Json *j, VjepaConfig *c) {
    int64_t size[2];
    int cnt;
    if (json_kind(j, "crop_size") != JSON_KIND_ARRAY) {
        TRY(json_want_int(j, "crop_size", &c->image_h));
        c->image_w = c->image_h;
        return ERR_OK;
    }
    TRY(json_want_i64s(j, "crop_size", size, 2, &cnt));
    if (cnt != 2 || size[0] < 1 || size[1] < 1 || size[0] > 1 << 20 || size[1] > 1 << 20)
        FAIL(ERR_FORMAT, "%s: crop_size wants a number or [height, width]", json_label(j));
    c->image_h = (int)size[0];
    c->image_w = (int)size[1];
    return ERR_OK;
}

static Err read_config(Json *j, VjepaConfig *c) {
    *c = (VjepaConfig){.patch = 16,
                       .frames = 16,
                       .tubelet = 2,
                       .predictor_width = 384,
                       .predictor_depth = 12,
                       .mlp_ratio = 4,
                       .uniform_power = true,
                       .mask_tokens = 2};
    TRY(json_only_str(j, "model_type", "vjepa"));
    TRY(read_size(j, c));
    TRY(json_get_int(j, "patch_size", &c->patch));
    TRY(json_get_int(j, "num_frames", &c->frames));
    TRY(json_get_int(j, "tubelet_size", &c->tubelet));
    TRY(json_want_int(j, "embed_dim", &c->width));
    TRY(json_want_int(j, "depth", &c->depth));
    TRY(json_want_int(j, "num_heads", &c->heads));
    TRY(json_get_f64(j, "mlp_ratio", &c->mlp_ratio));
    TRY(json_get_int(j, "pred_embed_dim", &c->predictor_width));
    TRY(json_get_int(j, "pred_depth", &c->predictor_depth));
    TRY(json_get_bool(j, "uniform_power", &c->uniform_power));
    TRY(json_only_bool(j, "use_mask_tokens", true));
    TRY(json_get_int(j, "num_mask_tokens", &c->mask_tokens));
    double loss_exp = 1;
    TRY(json_get_f64(j, "loss_exp", &loss_exp));
    if (loss_exp != 1 && loss_exp != 2)
        FAIL(ERR_FORMAT, "%s: loss_exp is %g, want 1 or 2", json_label(j), loss_exp);
    c->squared = loss_exp == 2;
    TRY(json_finish(j, vit_config_ignored));
    return check(j, c);
}

// The folder of a weight file; in the arena.
static const char *folder_of(Arena *a, const char *file) {
    char *dir = arena_strdup(a, file), *slash = strrchr(dir, '/');
    if (!slash) return ".";
    *slash = 0;
    return dir;
}

static Err open_config(VjepaConfig *c, const char *path, bool is_folder) {
    Arena a = {0};
    Json *j = NULL;
    Err err = ERR_OK;
    const char *dir = is_folder ? path : folder_of(&a, path);
    TRY_OUT(json_open(&j, arena_printf(&a, "%s/config.json", dir)));
    TRY_OUT(read_config(j, c));
out:
    json_close(j);
    arena_free(&a);
    return err;
}

static Err open_files(Vjepa *v, const char *path) {
    struct stat st;
    if (stat(path, &st)) FAIL(ERR_IO, "%s: no such file or folder", path);
    v->is_checkpoint = !S_ISDIR(st.st_mode) && !strstr(path, ".safetensors");
    TRY(open_config(&v->config, path, S_ISDIR(st.st_mode)));
    for (int i = 0; i < PART_CNT; i++) {
        if (v->is_checkpoint)
            TRY(params_open(&v->params[i], path, "module.backbone.", part_name[i]));
        else if (i == 0)
            TRY(params_open(&v->params[0], path, "", NULL));
        else
            v->params[i] = v->params[0];
    }
    return ERR_OK;
}

Err vjepa_open(Vjepa **out, const char *path) {
    Vjepa *v = calloc(1, sizeof *v);
    die_unless(v, "vjepa: out of memory");
    Err err = open_files(v, path);
    if (err) vjepa_close(v);
    *out = err ? NULL : v;
    return err;
}

Err vjepa_of_params(Vjepa **out, Json *config, Params *params) {
    Vjepa *v = calloc(1, sizeof *v);
    die_unless(v, "vjepa: out of memory");
    v->is_borrowed = true;
    for (int i = 0; i < PART_CNT; i++) v->params[i] = params;
    Err err = read_config(config, &v->config);
    if (err) vjepa_close(v);
    *out = err ? NULL : v;
    return err;
}

void vjepa_close(Vjepa *v) {
    if (!v) return;
    for (int i = 0; i < PART_CNT; i++)
        if (!v->is_borrowed && (i == 0 || v->is_checkpoint)) params_close(v->params[i]);
    free(v);
}

const VjepaConfig *vjepa_config(const Vjepa *v) { return &v->config; }

Err vjepa_finish(const Vjepa *v) {
    for (int i = 0; i < PART_CNT; i++)
        if (i == 0 || v->is_checkpoint) TRY(params_finish(v->params[i]));
    return ERR_OK;
}

// ---- Options ----

static const char *const gradient_names[VJEPA_GRADIENT_CNT] = {
    [VJEPA_STOP_TARGET] = "stop_target",
    [VJEPA_FULL] = "full",
    [VJEPA_TARGET_ONLY] = "target_only",
    [VJEPA_SEGMENTED] = "segmented",
};

const char *vjepa_gradient_name(VjepaGradient option) { return gradient_names[option]; }

Err vjepa_gradient_parse(const char *name, VjepaGradient *out) {
    for (int i = 0; i < VJEPA_GRADIENT_CNT; i++)
        if (!strcmp(name, gradient_names[i])) {
            *out = (VjepaGradient)i;
            return ERR_OK;
        }
    FAIL(ERR_USAGE, "V-JEPA gradient '%s', want stop_target, full, target_only or segmented", name);
}

// ---- Towers ----

static NN part_nn(Vjepa *v, Graph *g, int part) {
    NN nn = {.g = g, .params = v->params[part]};
    if (!v->is_checkpoint) nn_push(&nn, "%s.module.backbone", part_name[part]);
    return nn;
}

// The first `tokens` rows of a table (1, slots, width): short clips use the first time steps. (tokens, width)
static Tensor *positions(NN *nn, const char *name, int64_t slots, int64_t tokens, int64_t width) {
    Tensor *t = vit_table(nn, name, SHAPE(1, slots, width), SHAPE(slots, width));
    return op_slice(nn->g, t, 0, 0, tokens);
}

static int64_t table_tokens(const VjepaConfig *c) {
    return (int64_t)(c->frames / c->tubelet) * (c->image_h / c->patch) * (c->image_w / c->patch);
}

// clips (N, T, S, S, 3) -> (N, |context| or L, D)
static Tensor *encode(Vjepa *v, Graph *g, int part, Tensor *clips, Tensor *context,
                      bool recompute) {
    const VjepaConfig *c = &v->config;
    NN nn = part_nn(v, g, part);
    VitBlock block = {&KEYS,    c->width, (int64_t)(c->width * c->mlp_ratio),
                      c->heads, EPS,      UNARY_gelu_erf};
    Tensor *x =
        vit_patch_embed(&nn, "patch_embed.proj", clips, c->width, c->tubelet, c->patch, c->patch);
    if (!x) return NULL;
    x = op_add(g, x, positions(&nn, "pos_embed", table_tokens(c), x->shape.dim[1], c->width));
    if (context) x = op_gather(g, x, context, 1);
    x = vit_blocks(&nn, &block, "blocks", c->depth, recompute, x);
    return nn_layernorm(&nn, "norm", x, EPS);
}

// Rows idx (N, M) of table (L, d) -> (N, M, d)
static Tensor *lookup(Graph *g, Tensor *table, Tensor *idx) {
    if (!table || !idx) return NULL;
    int64_t n = idx->shape.dim[0], m = idx->shape.dim[1];
    Tensor *rows = op_gather(g, table, op_reshape(g, idx, SHAPE(n * m)), 0);
    return op_reshape(g, rows, SHAPE(n, m, table->shape.dim[1]));
}

// ctx (N, |C|, D) -> (N, |M|, D)
static Tensor *predict(Vjepa *v, Graph *g, Tensor *ctx, const VjepaMask *mask, int j,
                       int64_t tokens, bool recompute) {
    const VjepaConfig *c = &v->config;
    int64_t d = c->predictor_width, n_ctx = mask->context->shape.dim[1],
            n_tgt = mask->masked->shape.dim[1];
    char token[32];
    snprintf(token, sizeof token, "mask_tokens.%d", j);
    NN nn = part_nn(v, g, PART_PREDICTOR);
    VitBlock block = {&KEYS, d, (int64_t)((double)d * c->mlp_ratio), c->heads, EPS, UNARY_gelu_erf};
    Tensor *table = positions(&nn, "predictor_pos_embed", table_tokens(c), tokens, d);
    Tensor *x = nn_linear(&nn, "predictor_embed", ctx, d, true, lookup(g, table, mask->context));
    Tensor *y = op_add(g, lookup(g, table, mask->masked),
                       vit_table(&nn, token, SHAPE(1, 1, d), SHAPE(1, 1, d)));
    x = op_concat(g, 1, 2, (Tensor *[]){x, y});
    x = vit_blocks(&nn, &block, "predictor_blocks", c->predictor_depth, recompute, x);
    x = nn_layernorm(&nn, "predictor_norm", op_slice(g, x, 1, n_ctx, n_tgt), EPS);
    return nn_linear(&nn, "predictor_proj", x, c->width, true, NULL);
}

// ---- The loss ----

static bool clips_fit(Graph *g, const VjepaConfig *c, const Tensor *clips, VjepaGradient option,
                      int64_t first) {
    char text[96];
    Shape s = clips->shape;
    if (!shape_equal(s, SHAPE(s.dim[0], s.dim[1], c->image_h, c->image_w, 3)) ||
        s.dim[1] % c->tubelet || s.dim[1] > c->frames)
        return graph_fail(
                   g, ERR_SHAPE,
                   "V-JEPA: clips are %s, want (N, T, %d, %d, 3), T a multiple of %d up to %d",
                   shape_text(s, text), c->image_h, c->image_w, c->tubelet, c->frames),
               false;
    if (option == VJEPA_SEGMENTED && (first <= 0 || first >= s.dim[1] || first % c->tubelet))
        return graph_fail(
                   g, ERR_USAGE,
                   "V-JEPA: the new segment begins at frame %lld of %lld, want a multiple of %d "
                   "(a seam may not split a tubelet)",
                   (long long)first, (long long)s.dim[1], c->tubelet),
               false;
    return true;
}

static bool masks_fit(Graph *g, const Tensor *clips, const VjepaMask *mask, int cnt) {
    char a[96], b[96];
    for (int j = 0; j < cnt; j++) {
        if (!mask[j].context || !mask[j].masked) return false;
        Shape c = mask[j].context->shape, m = mask[j].masked->shape;
        if (c.rank != 2 || m.rank != 2 || c.dim[0] != clips->shape.dim[0] ||
            m.dim[0] != clips->shape.dim[0])
            return graph_fail(g, ERR_SHAPE, "V-JEPA: masks are %s and %s, want (%lld, count)",
                              shape_text(c, a), shape_text(m, b), (long long)clips->shape.dim[0]),
                   false;
    }
    return true;
}

// Where clips enter each path. Entries are copies of their own, so that gradient can be asked for at one only.
static void split_pixels(Graph *g, Tensor *clips, VjepaGradient option, int64_t first,
                         VjepaLoss *out, Tensor **for_z, Tensor **for_h) {
    *for_z = *for_h = clips;
    out->entry_frame = 0;
    if (option == VJEPA_SEGMENTED) {
        Tensor *part[2] = {
            op_slice(g, clips, 1, 0, first),
            op_copy(g, op_slice(g, clips, 1, first, clips->shape.dim[1] - first), DTYPE_F32)};
        *for_h = op_concat(g, 1, 2, part);
        out->entry[out->entry_cnt++] = part[1];
        out->entry_frame = first;
        return;
    }
    if (option != VJEPA_TARGET_ONLY)
        out->entry[out->entry_cnt++] = *for_z = op_copy(g, clips, DTYPE_F32);
    if (option == VJEPA_FULL)
        *for_h = *for_z;
    else if (option == VJEPA_TARGET_ONLY)
        out->entry[out->entry_cnt++] = *for_h = op_copy(g, clips, DTYPE_F32);
}

void vjepa_build(Vjepa *v, Graph *g, Tensor *clips, const VjepaMask *mask, int mask_cnt,
                 VjepaGradient option, int64_t first_frame, bool recompute, VjepaLoss *out) {
    *out = (VjepaLoss){0};
    die_unless(mask_cnt >= 1 && mask_cnt <= 2, "vjepa: %d masks", mask_cnt);
    if (!clips || !clips_fit(g, &v->config, clips, option, first_frame) ||
        !masks_fit(g, clips, mask, mask_cnt))
        return;
    Tensor *for_z, *for_h, *sum = NULL;
    split_pixels(g, clips, option, first_frame, out, &for_z, &for_h);
    Tensor *h = encode(v, g, PART_TARGET, for_h, NULL, recompute);
    out->h = op_layernorm(g, h, NULL, NULL, TARGET_EPS);
    for (int j = 0; j < mask_cnt && out->h; j++) {
        Tensor *ctx = encode(v, g, PART_ENCODER, for_z, mask[j].context, recompute);
        out->z[j] = predict(v, g, ctx, &mask[j], j, out->h->shape.dim[1], recompute);
        Tensor *diff = op_sub(g, out->z[j], op_gather(g, out->h, mask[j].masked, 1));
        Tensor *mean =
            op_mean(g, op_unary(g, v->config.squared ? UNARY_square : UNARY_abs, diff), 7);
        sum = sum ? op_add(g, sum, mean) : mean;
    }
    out->loss = op_reshape(
        g, sum ? op_affine(g, sum, (v->config.squared ? 0.5 : 1) / mask_cnt, 0) : NULL, SHAPE(1));
}

Err vjepa_grad(Graph *g, const VjepaLoss *out, Tensor *cot, Tensor *clips, Tensor **d_clips) {
    Tensor *d[2] = {0}, *sum = NULL;
    Tensor *loss = out->loss;
    TRY(grad_build(g, 1, &loss, &cot, out->entry_cnt, out->entry, d));
    for (int i = 0; i < out->entry_cnt; i++)
        if (d[i]) sum = sum ? op_add(g, sum, d[i]) : d[i];
    int64_t lo[5] = {0, out->entry_frame}, hi[5] = {0};
    *d_clips = out->entry_frame && sum ? op_pad(g, sum, lo, hi) : sum;
    return graph_check(g);
}

// ---- Position tables ----

// One axis: columns [at, at + m) of each row: sin then cos of pos * 10000^(-k / (m/2)).
static void sincos_axis(float *row, int64_t width, int64_t at, int64_t m, double pos) {
    for (int64_t k = 0; k < m; k++) {
        int64_t half = m / 2;
        double angle = pos * pow(10000, -(double)(k % half) / (double)half);
        if (at + k < width) row[at + k] = (float)(k < half ? sin(angle) : cos(angle));
    }
}

float *vjepa_positions(Arena *a, int64_t t, int64_t grid_h, int64_t grid_w, int64_t width,
                       bool uniform_power) {
    int64_t frame = grid_h * grid_w, even = 2 * ((width + 5) / 6);
    int64_t m_time = uniform_power ? even : width / 2, m_space = uniform_power ? even : width / 4;
    float *table = arena_array(a, float, t *frame *width);
    for (int64_t l = 0; l < t * frame; l++) {
        float *row = table + l * width;
        sincos_axis(row, width, 0, m_time, (double)(l / frame));
        sincos_axis(row, width, m_time, m_space, (double)(l / grid_w % grid_h));
        sincos_axis(row, width, m_time + m_space, m_space, (double)(l % grid_w));
    }
    return table;
}

// ---- Masks ----

const VjepaMaskSpec vjepa_masks[2] = {{8, 0.15, 0.75, 1.5}, {2, 0.7, 0.75, 1.5}};

typedef struct MaskDraw {
    RngStream rng;                 // moves with every draw
    int64_t grid_h, grid_w, frame; // frame = grid_h * grid_w
    int64_t h, w;                  // of a block
    bool all_context;              // uncovered or not: what lies before the masked part is context
    uint8_t *hidden;               // (grid_h, grid_w) of the clip at hand
} MaskDraw;

static void draw_size(MaskDraw *d, const VjepaMaskSpec *spec) {
    double u = rng_uniform(&d->rng, 0);
    d->rng.element++;
    double aspect = spec->aspect_min + u * (spec->aspect_max - spec->aspect_min);
    double area = floor((double)d->frame * spec->scale);
    d->h = (int64_t)rint(sqrt(area * aspect));
    d->w = (int64_t)rint(sqrt(area / aspect));
    if (d->h < 1) d->h = 1;
    if (d->w < 1) d->w = 1;
    if (d->h > d->grid_h) d->h = d->grid_h;
    if (d->w > d->grid_w) d->w = d->grid_w;
}

static void draw_blocks(MaskDraw *d, int blocks) {
    memset(d->hidden, 0, (size_t)d->frame);
    for (int b = 0; b < blocks; b++) {
        int64_t top = rng_u32_below(&d->rng, (uint32_t)(d->grid_h - d->h + 1));
        int64_t left = rng_u32_below(&d->rng, (uint32_t)(d->grid_w - d->w + 1));
        for (int64_t i = 0; i < d->h; i++)
            memset(d->hidden + (top + i) * d->grid_w + left, 1, (size_t)d->w);
    }
}

// The tokens with the given state from time step `first` to `end`, ascending. Returns how many.
static int64_t list_tokens(const MaskDraw *d, bool hidden, int64_t first, int64_t end,
                           int32_t *out) {
    int64_t cnt = 0, frame = d->frame;
    for (int64_t i = first * frame; i < end * frame; i++)
        if (hidden == d->hidden[i % frame] || (!hidden && d->all_context)) out[cnt++] = (int32_t)i;
    return cnt;
}

static Err draw_clip(MaskDraw *d, int blocks, const VjepaMaskShape *s, int32_t *context,
                     int64_t *n_context, int32_t *masked, int64_t *n_masked) {
    for (int attempt = 0; attempt < 1000; attempt++) {
        draw_blocks(d, blocks);
        *n_context = list_tokens(d, false, 0, s->from_time ? s->from_time : s->t, context);
        *n_masked = list_tokens(d, true, s->from_time, s->t, masked);
        if (*n_context && *n_context >= s->context_cnt && *n_masked >= s->masked_cnt) return ERR_OK;
    }
    FAIL(ERR_USAGE,
         "V-JEPA masks: no draw of %d blocks %lldx%lld on %lldx%lld leaves %lld context and %lld "
         "masked tokens",
         blocks, (long long)d->h, (long long)d->w, (long long)d->grid_h, (long long)d->grid_w,
         (long long)s->context_cnt, (long long)s->masked_cnt);
}

// Moves rows of `stride` entries together to rows of cnt.
static void close_rows(int32_t *rows, int64_t batch, int64_t stride, int64_t cnt) {
    for (int64_t n = 1; n < batch; n++)
        memmove(rows + n * cnt, rows + n * stride, sizeof *rows * (size_t)cnt);
}

Err vjepa_mask_draw(const VjepaMaskSpec *spec, RngKey key, int64_t batch, VjepaMaskShape *s,
                    int32_t *context, int32_t *masked) {
    int64_t all = s->t * s->grid_h * s->grid_w, least_context = all, least_masked = all, c, m;
    MaskDraw d = {.rng = rng_stream(key),
                  .grid_h = s->grid_h,
                  .grid_w = s->grid_w,
                  .frame = s->grid_h * s->grid_w,
                  .all_context = s->from_time > 0};
    Err err = ERR_OK;
    d.hidden = malloc((size_t)d.frame);
    die_unless(d.hidden, "vjepa: out of memory for a mask");
    draw_size(&d, spec);
    for (int64_t n = 0; n < batch; n++) {
        TRY_OUT(draw_clip(&d, spec->blocks, s, context + n * all, &c, masked + n * all, &m));
        if (c < least_context) least_context = c;
        if (m < least_masked) least_masked = m;
    }
    if (!s->context_cnt) s->context_cnt = least_context;
    if (!s->masked_cnt) s->masked_cnt = least_masked;
    close_rows(context, batch, all, s->context_cnt);
    close_rows(masked, batch, all, s->masked_cnt);
out:
    free(d.hidden);
    return err;
}

// Each draw has a block size of its own: 64 keys, not one batch of 64.
Err vjepa_mask_counts(const VjepaMaskSpec *spec, RngKey key, VjepaMaskShape *s) {
    int64_t all = s->t * s->grid_h * s->grid_w, least_context = all, least_masked = all;
    int32_t *room = malloc(2 * sizeof *room * (size_t)all);
    die_unless(room, "vjepa: out of memory for masks");
    Err err = ERR_OK;
    for (uint64_t i = 0; i < 64; i++, key.sample++) {
        VjepaMaskShape one = {
            .t = s->t, .grid_h = s->grid_h, .grid_w = s->grid_w, .from_time = s->from_time};
        TRY_OUT(vjepa_mask_draw(spec, key, 1, &one, room, room + all));
        if (one.context_cnt < least_context) least_context = one.context_cnt;
        if (one.masked_cnt < least_masked) least_masked = one.masked_cnt;
    }
    s->context_cnt = least_context;
    s->masked_cnt = least_masked;
out:
    free(room);
    return err;
}
