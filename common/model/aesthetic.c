// aesthetic: CLIP's image tower, unit length, an affine head.
//
//   pixels (N, 1, S, S, 3) -> clip_vision -> e (N, P) -> e / |e|
//   layers.0 -> layers.2 -> layers.4 -> layers.6 -> layers.7 -> score (N)
//   (the numbers missing are dropouts, identity here)
#include "common/model/aesthetic.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/format/model_dir.h"

enum { LAYERS = 5 };
static const int layer_number[LAYERS] = {0, 2, 4, 6, 7};

struct Aesthetic {
    ClipVisionConfig config;
    ModelPart *clip_part, *head_part;
    Params *clip, *head;
    int64_t width[LAYERS + 1]; // of the head: in, ..., 1
};

// The head has no config: its widths are those of its matrices. Params then checks that they fit together.
static Err read_widths(Aesthetic *a) {
    for (int i = 0; i < LAYERS; i++) {
        char key[32];
        const SafetensorsEntry *e;
        snprintf(key, sizeof key, "layers.%d.weight", layer_number[i]);
        TRY(model_dir_want(a->head_part, key, &e));
        if (e->rank != 2)
            FAIL(ERR_FORMAT, "%s: %s has %d dims, want a matrix", e->path, key, e->rank);
        if (i == 0) a->width[0] = e->dim[1];
        a->width[i + 1] = e->dim[0];
    }
    const char *path = a->head_part->weights;
    if (a->width[LAYERS] != 1)
        FAIL(ERR_FORMAT, "%s: layers.7.weight has %lld rows, want 1", path,
             (long long)a->width[LAYERS]);
    if (a->width[0] != a->config.projection)
        FAIL(ERR_FORMAT, "%s: layers.0.weight takes %lld values, but the CLIP tower gives %d", path,
             (long long)a->width[0], a->config.projection);
    return ERR_OK;
}

static Err open_parts(Aesthetic *a, const char *clip, const char *head) {
    TRY(model_dir_open(&a->clip_part, clip, NULL, "CLIPVisionModelWithProjection|CLIPModel", NULL));
    TRY(clip_vision_config(&a->config, a->clip_part->config));
    TRY(params_of_part(&a->clip, a->clip_part, ""));
    TRY(model_dir_open(&a->head_part, head, NULL, NULL, NULL));
    TRY(read_widths(a));
    return params_of_part(&a->head, a->head_part, "");
}

Err aesthetic_open(Aesthetic **out, const char *clip, const char *head) {
    Aesthetic *a = calloc(1, sizeof *a);
    die_unless(a, "aesthetic: out of memory");
    Err err = open_parts(a, clip, head);
    if (err) aesthetic_close(a);
    *out = err ? NULL : a;
    return err;
}

void aesthetic_close(Aesthetic *a) {
    if (!a) return;
    params_close(a->clip);
    params_close(a->head);
    model_dir_close(a->clip_part);
    model_dir_close(a->head_part);
    free(a);
}

const ClipVisionConfig *aesthetic_config(const Aesthetic *a) { return &a->config; }

void aesthetic_build(Aesthetic *a, Graph *g, Tensor *pixels, bool recompute, AestheticScore *out) {
    NN clip = {.g = g, .params = a->clip}, head = {.g = g, .params = a->head};
    *out = (AestheticScore){0};
    out->image_embeds = clip_vision_build(&clip, &a->config, recompute, pixels);
    Tensor *x = op_l2_normalize(g, out->image_embeds);
    for (int i = 0; i < LAYERS && x; i++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%d", layer_number[i]);
        x = nn_linear(&head, name, x, a->width[i + 1], true, NULL);
    }
    if (x) out->score = op_reshape(g, x, SHAPE(x->shape.dim[0]));
}

Err aesthetic_finish(const Aesthetic *a) {
    TRY(params_finish(a->clip));
    return params_finish(a->head);
}
