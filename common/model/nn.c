// nn: finds a layer's parameters by name, checks their shapes and appends its ops.
#include "common/model/nn.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { GROUPS = 32 }; // of every GroupNorm in a diffusers residual block

typedef char Path[320];

// "<prefix>.<name><end>" into out.
static const char *path_of(const NN *nn, Path out, const char *name, const char *end) {
    snprintf(out, sizeof(Path), "%s%s%s%s", nn->prefix, *nn->prefix ? "." : "", name, end);
    return out;
}

// Names the nodes that follow after a layer, or after the module itself (NULL).
static void scope(NN *nn, const char *name) {
    Path path;
    if (name)
        graph_scope(nn->g, "%s", path_of(nn, path, name, ""));
    else
        graph_scope(nn->g, *nn->prefix ? "%s" : NULL, nn->prefix);
}

void nn_push(NN *nn, const char *fmt, ...) {
    size_t len = strlen(nn->prefix), room = sizeof nn->prefix - len;
    die_unless(nn->depth < (int)(sizeof nn->length / sizeof *nn->length), "nn: %s is too deep",
               nn->prefix);
    nn->length[nn->depth++] = (int)len;
    if (len) nn->prefix[len++] = '.', room--;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(nn->prefix + len, room, fmt, ap);
    va_end(ap);
    die_unless(n >= 0 && (size_t)n < room, "nn: the name %s is too long", nn->prefix);
    scope(nn, NULL);
}

void nn_pop(NN *nn) {
    die_unless(nn->depth > 0, "nn: pop without push");
    nn->prefix[nn->length[--nn->depth]] = 0;
    scope(nn, NULL);
}

bool nn_has(const NN *nn, const char *name) {
    Path path;
    return params_has(nn->params, path_of(nn, path, name, ""));
}

Tensor *nn_param(NN *nn, const char *name, Shape shape) {
    Path path;
    return params_get(nn->params, nn->g, path_of(nn, path, name, ""), shape);
}

// "<prefix>.<name>.bias" (out)
static Tensor *bias_of(NN *nn, const char *name, int64_t out) {
    Path path;
    return params_get(nn->params, nn->g, path_of(nn, path, name, ".bias"), SHAPE(out));
}

static int64_t width(const Tensor *x) { return x->shape.dim[x->shape.rank - 1]; }

// ---- Linear ----

// With dropout the adapter reads other numbers than the layer, so A and B cannot be merged into W:
// y = x W^T + bias + residual, then y + (scale B)(A drop(x)); B is scaled, which is small.
static Tensor *lora_dropped(NN *nn, const char *path, Tensor *x, Tensor *w, Tensor *a, Tensor *b,
                            Tensor *bias, Tensor *residual) {
    Graph *g = nn->g;
    Tensor *key = lora_key(nn->lora, g, path);
    Tensor *dropped = op_dropout(g, x, key, lora_config(nn->lora)->dropout);
    Tensor *narrow = op_linear(g, dropped, a, NULL, NULL); // (..., r)
    Tensor *y = op_linear(g, x, w, bias, residual);
    return op_linear(g, narrow, op_affine(g, b, lora_scale(nn->lora), 0), NULL, y);
}

Tensor *nn_linear_extra(NN *nn, const char *name, Tensor *x, Tensor *extra, int64_t out, bool bias,
                        Tensor *residual) {
    if (!x) return NULL;
    Graph *g = nn->g;
    Path path, key;
    path_of(nn, path, name, "");
    graph_scope(g, "%s", path);
    int64_t in = width(x);
    Tensor *w = params_get(nn->params, g, path_of(nn, key, name, ".weight"), SHAPE(out, in));
    Tensor *b = bias ? bias_of(nn, name, out) : NULL, *y;
    if (!w || (bias && !b)) return NULL;
    if (extra) b = b ? op_add(g, extra, b) : extra;
    if (nn->lora && lora_wants(nn->lora, path)) {
        Tensor *down, *up;
        lora_attach(nn->lora, g, path, in, out, &down, &up);
        if (nn->dropout && lora_config(nn->lora)->dropout > 0)
            y = lora_dropped(nn, path, x, w, down, up, b, residual);
        else
            y = op_lora_linear(g, x, w, down, up, lora_scale(nn->lora), b, residual);
    } else {
        y = op_linear(g, x, w, b, residual);
    }
    scope(nn, NULL);
    return y;
}

Tensor *nn_linear(NN *nn, const char *name, Tensor *x, int64_t out, bool bias, Tensor *residual) {
    return nn_linear_extra(nn, name, x, NULL, out, bias, residual);
}

// ---- Convolution ----

// stored: the shape of the weight in the file; kernel (kt, kh, kw).
static Tensor *conv(NN *nn, const char *name, Tensor *x, Tensor *extra, Shape stored,
                    const int64_t kernel[3], ConvSpec spec, Tensor *residual) {
    if (!x) return NULL;
    Graph *g = nn->g;
    Path path, key;
    path_of(nn, path, name, "");
    if (nn->lora && lora_wants(nn->lora, path))
        return graph_fail(g, ERR_USAGE, "%s: an adapter of a convolution is not supported", path);
    graph_scope(g, "%s", path);
    int64_t out = stored.dim[0];
    Tensor *w = params_get_as(nn->params, g, path_of(nn, key, name, ".weight"), stored,
                              SHAPE(out, width(x), kernel[0], kernel[1], kernel[2]));
    Tensor *bias = bias_of(nn, name, out);
    if (!w || !bias) return NULL;
    if (extra) bias = op_add(g, extra, bias); // (N, out)
    Tensor *y = op_conv(g, x, w, bias, residual, spec);
    scope(nn, NULL);
    return y;
}

Tensor *nn_conv2d(NN *nn, const char *name, Tensor *x, Tensor *extra, int64_t out, int k,
                  int stride, bool asymmetric, Tensor *residual) {
    if (!x) return NULL;
    int lo = asymmetric ? 0 : k / 2, hi = asymmetric ? 1 : k / 2;
    ConvSpec spec = {.stride = {1, stride, stride}, .lo = {0, lo, lo}, .hi = {0, hi, hi}};
    return conv(nn, name, x, extra, SHAPE(out, width(x), k, k), (int64_t[]){1, k, k}, spec,
                residual);
}

Tensor *nn_conv_time(NN *nn, const char *name, Tensor *x, Tensor *extra, int64_t out,
                     Tensor *residual) {
    if (!x) return NULL;
    ConvSpec spec = {.lo = {1, 0, 0}, .hi = {1, 0, 0}};
    return conv(nn, name, x, extra, SHAPE(out, width(x), 3, 1, 1), (int64_t[]){3, 1, 1}, spec,
                residual);
}

// ---- Norms ----

Tensor *nn_layernorm(NN *nn, const char *name, Tensor *x, double eps) {
    if (!x) return NULL;
    Path path;
    Tensor *gain =
        params_get(nn->params, nn->g, path_of(nn, path, name, ".weight"), SHAPE(width(x)));
    Tensor *bias = bias_of(nn, name, width(x));
    if (!gain || !bias) return NULL;
    scope(nn, name);
    Tensor *y = op_layernorm(nn->g, x, gain, bias, eps);
    scope(nn, NULL);
    return y;
}

Tensor *nn_groupnorm(NN *nn, const char *name, Tensor *x, int groups, double eps, bool silu,
                     bool span_frames) {
    if (!x) return NULL;
    Path path;
    const Shape s = x->shape; // (N, T, H, W, C)
    Tensor *gain =
        params_get(nn->params, nn->g, path_of(nn, path, name, ".weight"), SHAPE(width(x)));
    Tensor *bias = bias_of(nn, name, width(x));
    if (!gain || !bias) return NULL;
    scope(nn, name);
    if (!span_frames)
        x = op_reshape(nn->g, x, SHAPE(s.dim[0] * s.dim[1], s.dim[2], s.dim[3], s.dim[4]));
    Tensor *y = op_groupnorm(nn->g, x, gain, bias, groups, eps, silu);
    y = op_reshape(nn->g, y, s);
    scope(nn, NULL);
    return y;
}

// ---- Residual blocks ----

// (N, E) -> (N, out): what conv1 adds to its bias.
static Tensor *time_shift(NN *nn, Tensor *emb, int64_t out) {
    return emb ? nn_linear(nn, "time_emb_proj", emb, out, true, NULL) : NULL;
}

Tensor *nn_res_space(NN *nn, Tensor *x, Tensor *emb, int64_t out, double eps) {
    if (!x) return NULL;
    Tensor *h = nn_groupnorm(nn, "norm1", x, GROUPS, eps, true, false);
    h = nn_conv2d(nn, "conv1", h, time_shift(nn, emb, out), out, 3, 1, false, NULL);
    h = nn_groupnorm(nn, "norm2", h, GROUPS, eps, true, false);
    if (width(x) != out) x = nn_conv2d(nn, "conv_shortcut", x, NULL, out, 1, 1, false, NULL);
    return nn_conv2d(nn, "conv2", h, NULL, out, 3, 1, false, x);
}

Tensor *nn_res_time(NN *nn, Tensor *x, Tensor *emb, double eps) {
    if (!x) return NULL;
    int64_t c = width(x);
    Tensor *h = nn_groupnorm(nn, "norm1", x, GROUPS, eps, true, true);
    h = nn_conv_time(nn, "conv1", h, time_shift(nn, emb, c), c, NULL);
    h = nn_groupnorm(nn, "norm2", h, GROUPS, eps, true, true);
    return nn_conv_time(nn, "conv2", h, NULL, c, x);
}
