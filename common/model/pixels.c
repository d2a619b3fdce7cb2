// pixels: a few elementwise nodes around resample.
#include "common/model/pixels.h"

#include <math.h>

#include "common/tensor/op.h"

Tensor *pixels_to_unit(Graph *g, Tensor *frames) {
    return op_clamp(g, op_affine(g, frames, 0.5, 0.5), 0, 1);
}

// As torchvision: the longer side is truncated, the crop's corner rounds half to even.
static Tensor *fit_crop(Graph *g, Tensor *x, const PixelSpec *s) {
    int64_t h = x->shape.dim[2], w = x->shape.dim[3], size = s->height;
    if (s->width != size)
        return graph_fail(g, ERR_USAGE, "crop to %lld x %lld: want a square", (long long)size,
                          (long long)s->width);
    int64_t long_side = (int64_t)((double)size * (double)(h > w ? h : w) / (double)(h > w ? w : h));
    x = resample(g, x, s->resize, h > w ? long_side : size, h > w ? size : long_side);
    int64_t corner = (int64_t)rint((double)(long_side - size) / 2);
    return op_slice(g, x, h > w ? 2 : 3, corner, size);
}

Tensor *pixels_fit(Graph *g, Tensor *x, const PixelSpec *s) {
    if (!x) return NULL;
    char text[96];
    if (x->shape.rank != 5 || x->shape.dim[4] != 3)
        return graph_fail(g, ERR_SHAPE, "%s is %s, want frames (N, T, H, W, 3)", x->name,
                          shape_text(x->shape, text));
    if (s->fit == PIXELS_CROP) return fit_crop(g, x, s);
    return resample(g, x, s->resize, s->height, s->width);
}

static Tensor *constant3(Graph *g, const char *name, double a, double b, double c) {
    float *data = arena_array(&g->arena, float, 3);
    data[0] = (float)a, data[1] = (float)b, data[2] = (float)c;
    return graph_weight(g, name, DTYPE_F32, SHAPE(3), data);
}

Tensor *pixels_normalize(Graph *g, Tensor *p, const double m[3], const double s[3]) {
    if (!p) return NULL;
    p = op_sub(g, p, constant3(g, "pixels.mean", m[0], m[1], m[2]));
    return op_mul(g, p, constant3(g, "pixels.scale", 1 / s[0], 1 / s[1], 1 / s[2]));
}

Tensor *pixels_enter(Graph *g, Tensor *frames, const PixelSpec *spec) {
    if (!spec->unit) frames = pixels_to_unit(g, frames);
    return pixels_normalize(g, pixels_fit(g, frames, spec), spec->mean, spec->std);
}
