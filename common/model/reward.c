// reward: one small builder per term, their weighted sum, and one vjp for all of them.
#include "common/model/reward.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/model/aesthetic.h"
#include "common/model/videomae.h"
#include "common/tensor/grad.h"

typedef struct Masks {
    VjepaMaskShape shape;
    VjepaMask input;
} Masks;

typedef struct Term {
    RewardSpec spec;
    ModelPart *part; // videomae
    Params *params;
    VideoMaeConfig videomae;
    RewardClasses classes;
    Aesthetic *aesthetic;
    Vjepa *vjepa;
    int64_t windows, clip_frames, first_frame; // of V-JEPA
    Masks mask[2];
    Tensor *clips; // of the graph built last
    VjepaLoss loss;
} Term;

struct Rewards {
    RewardVideo video;
    int cnt;
    Term term[REWARD_TERMS_MAX];
    Arena arena; // names of classes
};

// ---- Opening ----

static Err check_form(const RewardSpec *s, int i) {
    static const char *const models[] = {"videomae", "vjepa", "aesthetic", "first_frame"};
    bool prob = s->form == REWARD_LOG_PROB || s->form == REWARD_PROB;
    if (prob != (s->model == REWARD_VIDEOMAE) ||
        (s->form == REWARD_ABS_TARGET && s->model != REWARD_AESTHETIC))
        FAIL(ERR_USAGE,
             "reward.%d: form of %s, want log_prob or prob for videomae, score or abs_target for "
             "aesthetic, score for vjepa and first_frame",
             i, models[s->model]);
    return ERR_OK;
}

static Err open_videomae(Term *t, Arena *a) {
    RewardClasses *c = &t->classes;
    TRY(model_dir_open(&t->part, t->spec.path, NULL, "VideoMAEForVideoClassification", NULL));
    TRY(videomae_config(&t->videomae, t->part->config));
    TRY(videomae_class(t->part->config, t->spec.label, &c->target));
    c->cnt = t->videomae.labels;
    c->name = arena_array(a, const char *, c->cnt);
    TRY(videomae_class_names(t->part->config, &t->videomae, a, c->name));
    return params_of_part(&t->params, t->part, "");
}

static Err open_term(Term *t, Arena *a) {
    const RewardSpec *s = &t->spec;
    switch (s->model) {
    case REWARD_VIDEOMAE: return open_videomae(t, a);
    case REWARD_AESTHETIC: return aesthetic_open(&t->aesthetic, s->path, s->head);
    case REWARD_VJEPA: return vjepa_open(&t->vjepa, s->path);
    case REWARD_FIRST_FRAME: return ERR_OK;
    }
    die("reward: model %d", s->model);
}

static Err open_all(Rewards *r, const RewardSpec *spec) {
    for (int i = 0; i < r->cnt; i++) {
        r->term[i].spec = spec[i];
        TRY(check_form(&spec[i], i));
        TRY(open_term(&r->term[i], &r->arena));
    }
    return ERR_OK;
}

Err reward_open(Rewards **out, const RewardSpec *spec, int cnt, const RewardVideo *video) {
    if (cnt < 1 || cnt > REWARD_TERMS_MAX)
        FAIL(ERR_USAGE, "reward: %d terms, want 1 to %d", cnt, REWARD_TERMS_MAX);
    if (video->segments < 1 ||
        (video->frames % video->segments && video->frames % video->segments != 1))
        FAIL(ERR_USAGE, "reward: %lld frames are not %lld equal segments", (long long)video->frames,
             (long long)video->segments);
    Rewards *r = calloc(1, sizeof *r);
    die_unless(r, "reward: out of memory");
    r->video = *video;
    r->cnt = cnt;
    Err err = open_all(r, spec);
    if (err) reward_close(r);
    *out = err ? NULL : r;
    return err;
}

void reward_close(Rewards *r) {
    if (!r) return;
    for (int i = 0; i < r->cnt; i++) {
        params_close(r->term[i].params);
        model_dir_close(r->term[i].part);
        aesthetic_close(r->term[i].aesthetic);
        vjepa_close(r->term[i].vjepa);
    }
    arena_free(&r->arena);
    free(r);
}

RewardClasses reward_classes(const Rewards *r, int term) { return r->term[term].classes; }

bool reward_wants_pictures(const Rewards *r) {
    bool any = false;
    for (int i = 0; i < r->cnt; i++) any |= r->term[i].spec.model == REWARD_FIRST_FRAME;
    return any;
}

// ---- Pixels ----

static Tensor *enter(const Rewards *r, const Term *t, Graph *g, Tensor *frames, int h, int w,
                     bool clip_colours) {
    PixelSpec imagenet = {.mean = PIXELS_IMAGENET_MEAN, .std = PIXELS_IMAGENET_STD};
    PixelSpec clip = {.mean = PIXELS_CLIP_MEAN, .std = PIXELS_CLIP_STD},
              p = clip_colours ? clip : imagenet;
    p.unit = r->video.unit;
    p.fit = t->spec.fit;
    p.resize = t->spec.antialias ? RESAMPLE_BILINEAR_AA : RESAMPLE_BILINEAR;
    p.height = h;
    p.width = w;
    return pixels_enter(g, frames, &p);
}

// ---- VideoMAE and aesthetic ----

static Tensor *build_videomae(Rewards *r, Term *t, Graph *g, Tensor *frames, bool recompute,
                              Tensor **logits, Tensor **features) {
    int64_t len = frames->shape.dim[1];
    NN nn = {.g = g, .params = t->params};
    if (len < t->videomae.tubelet)
        return graph_fail(g, ERR_USAGE, "VideoMAE: %lld frames, want at least %d", (long long)len,
                          t->videomae.tubelet);
    frames = op_slice(g, frames, 1, 0, len - len % t->videomae.tubelet);
    Tensor *pixels = enter(r, t, g, frames, t->videomae.image, t->videomae.image, false);
    *features = videomae_features(&nn, &t->videomae, recompute, pixels);
    *logits = videomae_head(&nn, &t->videomae, *features);
    Tensor *log_prob = videomae_log_prob(g, *logits, t->classes.target);
    return t->spec.form == REWARD_PROB ? op_unary(g, UNARY_exp, log_prob) : log_prob;
}

static Tensor *build_aesthetic(Rewards *r, Term *t, Graph *g, Tensor *frames, bool recompute) {
    const Shape s = frames->shape; // (1, L, H, W, 3): every frame is an image of a batch
    AestheticScore a;
    frames = op_reshape(g, frames, SHAPE(s.dim[1], 1, s.dim[2], s.dim[3], 3));
    int image = aesthetic_config(t->aesthetic)->image;
    Tensor *pixels = enter(r, t, g, frames, image, image, true);
    aesthetic_build(t->aesthetic, g, pixels, recompute, &a);
    Tensor *x = a.score; // (L)
    if (x && t->spec.form == REWARD_ABS_TARGET)
        x = op_affine(g, op_unary(g, UNARY_abs, op_affine(g, x, 1, -t->spec.target)),
                      -t->spec.scale, 0);
    return t->spec.sum_frames ? op_sum(g, x, 1) : op_mean(g, x, 1);
}

// ---- Segments ----

// With repeated frames left out, the first frames of later segments are missing.
static bool seams_repeat(const Rewards *r) { return r->video.frames % r->video.segments == 0; }

// The first frame of segment s within all frames.
static int64_t seam_frame(const Rewards *r, int64_t s) {
    int64_t len = r->video.frames, cnt = r->video.segments;
    if (seams_repeat(r)) return s * (len / cnt);
    int64_t each = (len + cnt - 1) / cnt; // the others are one frame shorter
    return s ? each + (s - 1) * (each - 1) : 0;
}

// ---- The picture a segment begins with ----

static Tensor *build_first_frame(Rewards *r, Graph *g, Tensor *frames, Tensor *pictures) {
    int64_t cnt = seams_repeat(r) ? r->video.segments : 1;
    int32_t *first = arena_array(&g->arena, int32_t, cnt);
    for (int64_t s = 0; s < cnt; s++) first[s] = (int32_t)seam_frame(r, s);
    Tensor *idx = graph_weight(g, "first_frame.frames", DTYPE_I32, SHAPE(cnt), first);
    Tensor *x = op_gather(g, frames, idx, 1);
    if (!r->video.unit) x = op_affine(g, x, 0.5, 0.5);
    Tensor *d = op_sub(g, x, op_slice(g, pictures, 1, 0, cnt));
    Tensor *mse = op_mean(g, op_mul(g, d, d), 0x1f);
    return op_affine(g, op_reshape(g, mse, SHAPE(1)), -1, 0);
}

// ---- V-JEPA over a long video ----

static int64_t clamp64(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

// First frames of the windows; returns how many. room of L entries. Not for linspace, whose one window is spread.
static int64_t window_starts(const Rewards *r, int64_t clip, int64_t *start) {
    int64_t len = r->video.frames, last = len - clip, cnt = 0;
    if (r->video.windows == REWARD_SLIDE) {
        for (int64_t at = 0; at <= last; at += r->video.slide > 0 ? r->video.slide : 1)
            start[cnt++] = at;
    } else if (r->video.segments == 1) {
        start[cnt++] = last / 2;
    } else {
        for (int64_t s = 1; s < r->video.segments; s++)
            start[cnt++] = clamp64(seam_frame(r, s) - clip / 2, 0, last);
    }
    return cnt;
}

// The frames of all windows, one after the other, as an index tensor (windows * clip).
static Tensor *window_index(Rewards *r, Term *t, Graph *g) {
    int64_t len = r->video.frames, clip = t->clip_frames;
    int64_t *start = arena_array(&g->arena, int64_t, len + 1);
    bool spread = r->video.windows == REWARD_LINSPACE;
    t->windows = spread ? 1 : window_starts(r, clip, start);
    int32_t *idx = arena_array(&g->arena, int32_t, t->windows * clip);
    for (int64_t w = 0; w < t->windows; w++)
        for (int64_t j = 0; j < clip; j++) {
            double even = clip > 1 ? (double)j * (double)(len - 1) / (double)(clip - 1) : 0;
            idx[w * clip + j] = (int32_t)(spread ? rint(even) : (double)(start[w] + j));
        }
    return graph_weight(g, "vjepa.frames", DTYPE_I32, SHAPE(t->windows * clip), idx);
}

// Segmented: where the newer segment begins within each window, the same for all.
static Err find_seam(Rewards *r, Term *t) {
    int64_t len = r->video.frames, clip = t->clip_frames;
    t->first_frame = 0;
    if (r->video.gradient != VJEPA_SEGMENTED) return ERR_OK;
    if (r->video.windows != REWARD_SEAM || r->video.segments < 2)
        FAIL(ERR_USAGE,
             "vjepa.gradient: segmented needs vjepa.windows: seam and at least 2 segments");
    for (int64_t s = 1; s < r->video.segments; s++) {
        int64_t first = seam_frame(r, s), seam = first - clamp64(first - clip / 2, 0, len - clip);
        if (t->first_frame && seam != t->first_frame)
            FAIL(
                ERR_USAGE,
                "vjepa.gradient: segmented wants every seam at the same frame of its window; segments are "
                "too short for windows of %lld frames",
                (long long)clip);
        t->first_frame = seam;
    }
    return ERR_OK;
}

static Err mask_inputs(Term *t, Graph *g) {
    const VjepaConfig *c = vjepa_config(t->vjepa);
    for (unsigned j = 0; j < 2; j++) {
        Masks *m = &t->mask[j];
        char name[32];
        m->shape = (VjepaMaskShape){.t = t->clip_frames / c->tubelet,
                                    .grid_h = c->image_h / c->patch,
                                    .grid_w = c->image_w / c->patch,
                                    .from_time = t->first_frame / c->tubelet};
        TRY(vjepa_mask_counts(&vjepa_masks[j], (RngKey){.use = rng_use(RNG_MASKS, 0, 0, 0, j)},
                              &m->shape));
        snprintf(name, sizeof name, "vjepa.context.%u", j);
        m->input.context = graph_input(g, name, DTYPE_I32, SHAPE(t->windows, m->shape.context_cnt));
        snprintf(name, sizeof name, "vjepa.masked.%u", j);
        m->input.masked = graph_input(g, name, DTYPE_I32, SHAPE(t->windows, m->shape.masked_cnt));
    }
    return ERR_OK;
}

static Err build_vjepa(Rewards *r, Term *t, Graph *g, Tensor *frames, bool recompute,
                       Tensor **term) {
    const VjepaConfig *c = vjepa_config(t->vjepa);
    int64_t len = r->video.frames;
    t->clip_frames = len < c->frames ? len - len % c->tubelet : c->frames;
    if (t->clip_frames < c->tubelet)
        FAIL(ERR_USAGE, "V-JEPA: %lld frames, want at least %d", (long long)len, c->tubelet);
    TRY(find_seam(r, t));
    Tensor *idx = window_index(r, t, g);
    TRY(mask_inputs(t, g));
    Tensor *pixels = op_gather(g, enter(r, t, g, frames, c->image_h, c->image_w, false), idx,
                               1); // resized once per frame
    t->clips = op_reshape(g, pixels, SHAPE(t->windows, t->clip_frames, c->image_h, c->image_w, 3));
    VjepaMask mask[2] = {t->mask[0].input, t->mask[1].input};
    vjepa_build(t->vjepa, g, t->clips, mask, 2, r->video.gradient, t->first_frame, recompute,
                &t->loss);
    *term = op_affine(g, t->loss.loss, -1, 0);
    return ERR_OK;
}

// ---- All terms ----

static Tensor *constant(Graph *g, const char *name, double x) {
    float *data = arena_new(&g->arena, float);
    *data = (float)x;
    return graph_weight(g, name, DTYPE_F32, SHAPE(1), data);
}

static Err build_term(Rewards *r, int i, Graph *g, Tensor *frames, Tensor *pictures, bool recompute,
                      RewardGraph *out) {
    Term *t = &r->term[i];
    Tensor **term = &out->term[i];
    switch (t->spec.model) {
    case REWARD_VIDEOMAE:
        *term = build_videomae(r, t, g, frames, recompute, &out->logits[i], &out->features[i]);
        TRY(graph_check(g));
        return params_finish(t->params);
    case REWARD_AESTHETIC:
        *term = build_aesthetic(r, t, g, frames, recompute);
        TRY(graph_check(g));
        return aesthetic_finish(t->aesthetic);
    case REWARD_VJEPA:
        TRY(build_vjepa(r, t, g, frames, recompute, term));
        TRY(graph_check(g));
        return vjepa_finish(t->vjepa);
    case REWARD_FIRST_FRAME:
        *term = build_first_frame(r, g, frames, pictures);
        return graph_check(g);
    }
    die("reward: model %d", t->spec.model);
}

// V-JEPA's cotangent is first brought to its clips, past the places where gradient is stopped; from there, as
// from every other term, one vjp leads to the frames.
static Err build_gradient(Rewards *r, Graph *g, Tensor *frames, RewardGraph *out) {
    Tensor *root[REWARD_TERMS_MAX], *cot[REWARD_TERMS_MAX];
    int cnt = 0;
    for (int i = 0; i < r->cnt; i++) {
        Term *t = &r->term[i];
        bool vjepa = t->spec.model == REWARD_VJEPA;
        Tensor *c = constant(g, "reward.weight", vjepa ? -t->spec.weight : t->spec.weight);
        root[cnt] = vjepa ? t->clips : out->term[i];
        cot[cnt] = c;
        if (vjepa) TRY(vjepa_grad(g, &t->loss, c, t->clips, &cot[cnt]));
        cnt += cot[cnt] != NULL;
    }
    TRY(grad_build(g, cnt, root, cot, 1, &frames, &out->d_frames));
    return ERR_OK;
}

// V-JEPA's clips have rules of their own (build_vjepa).
static Err check_length(const Rewards *r, const Term *t, int i) {
    int64_t want = t->spec.model == REWARD_VIDEOMAE ? t->videomae.tubelet : 1;
    if (r->video.frames < want)
        FAIL(ERR_USAGE, "reward %d: %s needs a video of at least %lld frames, this one has %lld", i,
             t->spec.path, (long long)want, (long long)r->video.frames);
    return ERR_OK;
}

static Err check_pictures(const Rewards *r, const Tensor *frames, const Tensor *pictures) {
    char found[96], want[96];
    if (!reward_wants_pictures(r)) return ERR_OK;
    if (!pictures) FAIL(ERR_USAGE, "reward: first_frame without the pictures it compares with");
    const int64_t *d = frames->shape.dim;
    Shape s = SHAPE(1, r->video.segments, d[2], d[3], 3);
    if (!shape_equal(pictures->shape, s))
        FAIL(ERR_SHAPE, "reward: pictures are %s, want %s", shape_text(pictures->shape, found),
             shape_text(s, want));
    return ERR_OK;
}

Err reward_build(Rewards *r, Graph *g, Tensor *frames, Tensor *pictures, bool recompute,
                 RewardGraph *out) {
    *out = (RewardGraph){0};
    TRY(graph_check(g));
    for (int i = 0; i < r->cnt; i++) TRY(check_length(r, &r->term[i], i));
    char text[96];
    Shape s = frames->shape;
    if (s.rank != 5 || s.dim[0] != 1 || s.dim[1] != r->video.frames || s.dim[4] != 3)
        FAIL(ERR_SHAPE, "reward: frames are %s, want (1, %lld, H, W, 3)", shape_text(s, text),
             (long long)r->video.frames);
    TRY(check_pictures(r, frames, pictures));
    for (int i = 0; i < r->cnt; i++) {
        TRY(build_term(r, i, g, frames, pictures, recompute, out));
        Tensor *weighted = op_affine(g, out->term[i], r->term[i].spec.weight, 0);
        out->total = out->total ? op_add(g, out->total, weighted) : weighted;
    }
    TRY(graph_check(g));
    return build_gradient(r, g, frames, out);
}

static Err draw_term(const Term *t, Plan *plan, RngKey key, unsigned j) {
    VjepaMaskShape s = t->mask[j].shape;
    int64_t room = t->windows * s.t * s.grid_h * s.grid_w;
    int32_t *list = malloc(2 * sizeof *list * (size_t)room);
    die_unless(list, "reward: out of memory for masks");
    Err err = ERR_OK;
    key.use = rng_use(RNG_MASKS, 0, 0, 0, j);
    TRY_OUT(vjepa_mask_draw(&vjepa_masks[j], key, t->windows, &s, list, list + room));
    TRY_OUT(plan_write(plan, t->mask[j].input.context, list));
    TRY_OUT(plan_write(plan, t->mask[j].input.masked, list + room));
out:
    free(list);
    return err;
}

Err reward_draw(Rewards *r, Plan *plan, RngKey key) {
    for (int i = 0; i < r->cnt; i++)
        for (unsigned j = 0; j < 2 && r->term[i].spec.model == REWARD_VJEPA; j++)
            TRY(draw_term(&r->term[i], plan, key, j));
    return ERR_OK;
}
