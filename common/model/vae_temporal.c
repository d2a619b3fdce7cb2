// vae_temporal: Stable Video Diffusion's VAE.
//
//   encoder (per image):  x = conv_in(image)
//                         level i: layers x Res2D;  zeros right and below, conv stride 2 (not the last)
//                         x = Res2D(attn(Res2D(x)))
//                         mean = first half of quant_conv(conv_out(silu(norm(x))))
//   decoder (per video):  x = conv_in(z);  x = STRes(attn(STRes(x)))
//                         level i, innermost first: (layers + 1) x STRes;  nearest x2, conv (not the last)
//                         frames = time_conv_out(conv_out(silu(norm(x))))
//   Res2D:  spatial res block, eps 1e-6, no time embedding
//   STRes:  s = Res2D(x);  s + a t, t the temporal res block's addition, eps 1e-5, a = sigmoid(mix_factor)
//   attn:   x + to_out(softmax(q k / sqrt(C)) v), one head over the pixels of a frame, norm eps 1e-6
#include "common/model/vae_temporal.h"

#include <math.h>
#include <string.h>

#define EPS_SPACE 1e-6
#define EPS_TIME 1e-5

enum { GROUPS = 32 };

// ---- Config ----

Err vae_temporal_config(VaeTemporalConfig *out, Json *j) {
    VaeTemporalConfig c = {.in_channels = 3, .out_channels = 3, .scaling_factor = 0.18215};
    int64_t channels[VAE_TEMPORAL_LEVELS_MAX];
    const char *type[VAE_TEMPORAL_LEVELS_MAX];
    int type_cnt;
    TRY(json_only_str(j, "_class_name", "AutoencoderKLTemporalDecoder"));
    TRY(json_get_int(j, "in_channels", &c.in_channels));
    TRY(json_get_int(j, "out_channels", &c.out_channels));
    TRY(json_want_int(j, "latent_channels", &c.latent_channels));
    TRY(json_want_int(j, "layers_per_block", &c.layers));
    TRY(json_get_f64(j, "scaling_factor", &c.scaling_factor));
    TRY(json_want_i64s(j, "block_out_channels", channels, VAE_TEMPORAL_LEVELS_MAX, &c.level_cnt));
    TRY(json_want_strs(j, "down_block_types", type, VAE_TEMPORAL_LEVELS_MAX, &type_cnt));
    if (c.level_cnt < 1 || type_cnt != c.level_cnt)
        FAIL(ERR_FORMAT, "%s: block_out_channels has %d entries and down_block_types %d",
             json_label(j), c.level_cnt, type_cnt);
    for (int i = 0; i < c.level_cnt; i++) {
        if (channels[i] < 1 || channels[i] % GROUPS || channels[i] > 1 << 20)
            FAIL(ERR_FORMAT, "%s: block_out_channels has %lld, want multiples of %d", json_label(j),
                 (long long)channels[i], GROUPS);
        if (strcmp(type[i], "DownEncoderBlock2D"))
            FAIL(ERR_FORMAT, "%s: down_block_types has \"%s\", want \"DownEncoderBlock2D\"",
                 json_label(j), type[i]);
        c.channels[i] = (int)channels[i];
    }
    if (c.in_channels < 1 || c.out_channels < 1 || c.latent_channels < 1 || c.layers < 1 ||
        !(c.scaling_factor > 0))
        FAIL(ERR_FORMAT,
             "%s: in_channels %d, out_channels %d, latent_channels %d, layers_per_block %d and "
             "scaling_factor %g must be positive",
             json_label(j), c.in_channels, c.out_channels, c.latent_channels, c.layers,
             c.scaling_factor);
    TRY(json_finish(j, (const char *const[]){"sample_size", "force_upcast", NULL}));
    *out = c;
    return ERR_OK;
}

int vae_temporal_stride(const VaeTemporalConfig *cfg) { return 1 << (cfg->level_cnt - 1); }

// ---- Blocks ----

static Tensor *res(NN *nn, const char *name, Tensor *x, int64_t out, VaeTemporalOptions opt) {
    if (opt.recompute) graph_segment_begin(nn->g);
    nn_push(nn, "%s", name);
    x = nn_res_space(nn, x, NULL, out, EPS_SPACE);
    nn_pop(nn);
    if (opt.recompute) graph_segment_end(nn->g);
    return x;
}

static Tensor *st_res(NN *nn, const char *name, Tensor *x, int64_t out, VaeTemporalOptions opt) {
    if (opt.recompute) graph_segment_begin(nn->g);
    nn_push(nn, "%s", name);
    nn_push(nn, "spatial_res_block");
    Tensor *s = nn_res_space(nn, x, NULL, out, EPS_SPACE);
    nn_pop(nn);
    nn_push(nn, "temporal_res_block");
    Tensor *t = nn_res_time(nn, s, NULL, EPS_TIME); // s + its addition
    nn_pop(nn);
    Tensor *a = op_unary(nn->g, UNARY_sigmoid, nn_param(nn, "time_mixer.mix_factor", SHAPE(1)));
    x = op_lerp(nn->g, s, t, a);
    nn_pop(nn);
    if (opt.recompute) graph_segment_end(nn->g);
    return x;
}

// The linear `name`, or what checkpoints of diffusers before 0.18 call it.
static Tensor *linear(NN *nn, const char *name, const char *old, Tensor *x, Tensor *residual) {
    char key[64], old_key[64];
    if (!x) return NULL;
    snprintf(key, sizeof key, "%s.weight", name);
    snprintf(old_key, sizeof old_key, "%s.weight", old);
    if (!nn_has(nn, key) && nn_has(nn, old_key)) name = old;
    return nn_linear(nn, name, x, x->shape.dim[x->shape.rank - 1], true, residual);
}

static Tensor *attention(NN *nn, Tensor *x) {
    if (!x) return NULL;
    Graph *g = nn->g;
    const Shape s = x->shape;
    Shape tokens = SHAPE(s.dim[0], s.dim[1], s.dim[2] * s.dim[3], s.dim[4]);
    nn_push(nn, "attentions.0");
    Tensor *h = nn_groupnorm(nn, "group_norm", x, GROUPS, EPS_SPACE, false, false);
    h = op_reshape(g, h, tokens);
    Tensor *q = linear(nn, "to_q", "query", h, NULL);
    Tensor *k = linear(nn, "to_k", "key", h, NULL);
    Tensor *v = linear(nn, "to_v", "value", h, NULL);
    h = op_sdpa(g, q, k, v, 1, 2, 1 / sqrt((double)s.dim[4]), false);
    x = linear(nn, "to_out.0", "proj_attn", h, op_reshape(g, x, tokens));
    nn_pop(nn);
    return op_reshape(g, x, s);
}

typedef Tensor *ResBlock(NN *nn, const char *name, Tensor *x, int64_t out, VaeTemporalOptions opt);

static Tensor *middle(NN *nn, Tensor *x, ResBlock *block, int64_t width, VaeTemporalOptions opt) {
    nn_push(nn, "mid_block");
    x = block(nn, "resnets.0", x, width, opt);
    x = attention(nn, x);
    x = block(nn, "resnets.1", x, width, opt);
    nn_pop(nn);
    return x;
}

// The decoder's middle has as many residual blocks as layers_per_block says, but its forward pass zips all
// after the first with the one attention: with one layer the attention never runs, of three or more
// the rest.
static Tensor *decoder_middle(NN *nn, const VaeTemporalConfig *cfg, Tensor *x, int64_t width,
                              VaeTemporalOptions opt) {
    if (cfg->layers > 1) {
        params_ignore(nn->params, "decoder.mid_block.resnets.[!01]*");

        return middle(nn, x, st_res, width, opt);
    }
    params_ignore(nn->params, "decoder.mid_block.attentions.*");
    nn_push(nn, "mid_block");
    x = st_res(nn, "resnets.0", x, width, opt);
    nn_pop(nn);
    return x;
}

// ---- Encoder ----

static Tensor *check_image(NN *nn, const VaeTemporalConfig *cfg, Tensor *x, int channels,
                           int multiple) {
    char text[96];
    if (!x) return NULL;
    const Shape s = x->shape;
    if (s.rank != 5 || s.dim[4] != channels || s.dim[2] % multiple || s.dim[3] % multiple)
        return graph_fail(nn->g, ERR_SHAPE,
                          "VAE: got %s, want (N, T, H, W, %d) with H and W multiples of %d",
                          shape_text(s, text), channels, multiple);
    return x;
}

Tensor *vae_temporal_encode(NN *nn, const VaeTemporalConfig *cfg, Tensor *x,
                            VaeTemporalOptions opt) {
    int last = cfg->level_cnt - 1;
    char name[32];
    if (!check_image(nn, cfg, x, cfg->in_channels, vae_temporal_stride(cfg))) return NULL;
    nn_push(nn, "encoder");
    x = nn_conv2d(nn, "conv_in", x, NULL, cfg->channels[0], 3, 1, false, NULL);
    for (int i = 0; i <= last; i++) {
        nn_push(nn, "down_blocks.%d", i);
        for (int j = 0; j < cfg->layers; j++) {
            snprintf(name, sizeof name, "resnets.%d", j);
            x = res(nn, name, x, cfg->channels[i], opt);
        }
        if (i < last)
            x = nn_conv2d(nn, "downsamplers.0.conv", x, NULL, cfg->channels[i], 3, 2, true, NULL);
        nn_pop(nn);
    }
    x = middle(nn, x, res, cfg->channels[last], opt);
    x = nn_groupnorm(nn, "conv_norm_out", x, GROUPS, EPS_SPACE, true, false);
    x = nn_conv2d(nn, "conv_out", x, NULL, 2 * cfg->latent_channels, 3, 1, false, NULL);
    nn_pop(nn);
    x = nn_conv2d(nn, "quant_conv", x, NULL, 2 * cfg->latent_channels, 1, 1, false, NULL);
    return op_slice(nn->g, x, 4, 0, cfg->latent_channels); // mean; behind it lies log variance
}

// ---- Decoder ----

Tensor *vae_temporal_decode(NN *nn, const VaeTemporalConfig *cfg, Tensor *x,
                            VaeTemporalOptions opt) {
    int last = cfg->level_cnt - 1;
    char name[32];
    if (!check_image(nn, cfg, x, cfg->latent_channels, 1)) return NULL;
    nn_push(nn, "decoder");
    x = nn_conv2d(nn, "conv_in", x, NULL, cfg->channels[last], 3, 1, false, NULL);
    x = decoder_middle(nn, cfg, x, cfg->channels[last], opt);
    for (int i = 0; i <= last; i++) {
        int64_t width = cfg->channels[last - i];
        nn_push(nn, "up_blocks.%d", i);
        for (int j = 0; j <= cfg->layers; j++) {
            snprintf(name, sizeof name, "resnets.%d", j);
            x = st_res(nn, name, x, width, opt);
        }
        if (i < last) {
            x = op_upsample2x(nn->g, x);
            x = nn_conv2d(nn, "upsamplers.0.conv", x, NULL, width, 3, 1, false, NULL);
        }
        nn_pop(nn);
    }
    x = nn_groupnorm(nn, "conv_norm_out", x, GROUPS, EPS_SPACE, true, false);
    x = nn_conv2d(nn, "conv_out", x, NULL, cfg->out_channels, 3, 1, false, NULL);
    x = nn_conv_time(nn, "time_conv_out", x, NULL, cfg->out_channels, NULL);
    nn_pop(nn);
    return x;
}
