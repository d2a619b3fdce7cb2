// evaluation: a table of metrics; sums over seeds, intervals over images; JSON and text.
#include "launch/tool/evaluation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/atomic_file.h"
#include "common/base/strbuf.h"
#include "common/format/json.h"
#include "common/measure/features.h"

// What a model can give up, or overdo, to please a reward.
typedef struct Kept {
    double least, most; // shares of the base model's mean
    const char *sign;   // what one sees outside of them; NULL: nothing of the kind
} Kept;

typedef struct Row {
    const char *name, *unit, *better, *about;
    Kept kept;
} Row;

// clang-format off
static const Row rows[EVALUATION_TERM] = {
    [EVALUATION_REWARD]           = {"reward", "", "up", "weighted sum of the rewards"},
    [EVALUATION_CLASS_PROB]       = {"class_prob", "", "up", "probability of the wanted class, by the reward's classifier"},
    [EVALUATION_JUDGE_PROB]       = {"judge_prob", "", "up", "the same by a second classifier, which was never a reward"},
    [EVALUATION_JUDGE_AGREES]     = {"judge_agrees", "", "up", "share of videos whose most probable class by the judge is the wanted one"},
    [EVALUATION_MOTION]           = {"motion", "", "", "mean absolute difference of neighbouring frames, of values in [0, 1]", {0.7, INFINITY, "videos that stand still"}},
    [EVALUATION_DIVERSITY]        = {"diversity", "", "up", "variance over the seeds of an image of a classifier's pooled features, mean over features", {0.7, INFINITY, "the same video whatever the noise"}},
    [EVALUATION_SHIFT_X]          = {"shift_x", "px", "", "motion of the content to the right, per frame; median over frames"},
    [EVALUATION_SHIFT_Y]          = {"shift_y", "px", "", "motion of the content downwards, per frame; median over frames"},
    [EVALUATION_ZOOM]             = {"zoom", "%", "", "growth of the content, per frame; median over frames"},
    [EVALUATION_CONSISTENCY]      = {"consistency", "", "up", "cosine of the image encoder's embeddings of neighbouring frames"},
    [EVALUATION_SHARPNESS]        = {"sharpness", "", "up", "energy of the Laplacian of luma in [0, 1]", {0.8, 1.5, "blur, or by grain that no camera saw"}},
    [EVALUATION_CONTRAST]         = {"contrast", "", "", "standard deviation of luma over a frame", {0, 1.4, "glare"}},
    [EVALUATION_CHROMA]           = {"chroma", "", "", "how colourful: largest minus smallest of R, G and B, mean over pixels", {0, 1.4, "garish colours"}},
    [EVALUATION_FIRST_FRAME_PSNR] = {"first_frame_psnr", "dB", "up", "likeness of the first frame and the image"},
    [EVALUATION_VJEPA_LOSS]       = {"vjepa_loss", "", "down", "V-JEPA's masked prediction loss, without repeated frames, same masks for all"},
};
// clang-format on
static const char *const side_names[EVALUATION_SIDES] = {"base", "tuned"};
static const char *const headroom_names[EVALUATION_HEADROOMS] = {"real", "base", "frozen",
                                                                 "blurred"};

static Row row_of(const Evaluation *e, int m) {
    if (m < EVALUATION_TERM) return rows[m];
    bool up = e->about.cfg->reward[m - EVALUATION_TERM].weight >= 0;
    return (Row){.name = e->name[m],
                 .unit = "",
                 .better = up ? "up" : "down",
                 .about = "a term of the reward, unweighted"};
}

// ---- Samples ----

void evaluation_init(Evaluation *e, const EvaluationAbout *about) {
    *e = (Evaluation){.about = *about};
    const Config *cfg = about->cfg;
    bool moves = cfg->frames > 1, aims = about->classes.cnt && about->classes.target >= 0;
    for (int m = 0; m < EVALUATION_METRICS; m++)
        e->present[m] = m < EVALUATION_TERM + cfg->reward_cnt;
    for (int m = 0; m < EVALUATION_TERM; m++) e->name[m] = rows[m].name;
    for (int i = 0; i < cfg->reward_cnt; i++)
        e->name[EVALUATION_TERM + i] =
            arena_printf(&e->arena, "%s.%d", config_reward_name(&cfg->reward[i]), i);
    e->present[EVALUATION_CLASS_PROB] = aims;
    e->present[EVALUATION_JUDGE_PROB] = e->present[EVALUATION_JUDGE_AGREES] =
        aims && about->has_judge;
    e->present[EVALUATION_MOTION] = e->present[EVALUATION_CONSISTENCY] = moves;
    e->present[EVALUATION_SHIFT_X] = e->present[EVALUATION_SHIFT_Y] = e->present[EVALUATION_ZOOM] =
        moves;
    e->present[EVALUATION_DIVERSITY] = about->feature_dim && about->seed_cnt > 1;
    e->present[EVALUATION_VJEPA_LOSS] = about->has_vjepa;
    int cnt = about->image_cnt * about->seed_cnt;
    e->sample = arena_array(&e->arena, EvaluationSample, cnt);
    e->real = arena_array(&e->arena, double, about->image_cnt);
    for (int i = 0; i < cnt; i++)
        for (int s = 0; s < EVALUATION_SIDES; s++)
            e->sample[i].features[s] = arena_array(&e->arena, float, about->feature_dim + 1);
}

void evaluation_fini(Evaluation *e) {
    arena_free(&e->arena);
    *e = (Evaluation){0};
}

static bool of_samples(const Evaluation *e, int m) {
    return e->present[m] && m != EVALUATION_DIVERSITY;
}

Err evaluation_check(Evaluation *e, int i) {
    const EvaluationAbout *a = &e->about;
    const EvaluationSample *v = &e->sample[i];
    for (int s = 0; s < EVALUATION_SIDES; s++)
        for (int m = 0; m < EVALUATION_METRICS; m++)
            if (of_samples(e, m) && !isfinite(v->value[s][m]))
                FAIL(ERR_NUMERIC, "%s, seed %d, %s video: %s is %s", a->image[i / a->seed_cnt],
                     i % a->seed_cnt, side_names[s], e->name[m],
                     isnan(v->value[s][m]) ? "NaN" : "infinite");
    if (!isfinite(v->frozen) || !isfinite(v->blurred))
        FAIL(ERR_NUMERIC, "%s, seed %d: V-JEPA's loss of the frozen or blurred video is not finite",
             a->image[i / a->seed_cnt], i % a->seed_cnt);
    return ERR_OK;
}

// ---- Means and intervals ----

static BootstrapInterval interval(const Evaluation *e, const double *of_image) {
    RngKey key = {.seed = (uint64_t)e->about.cfg->seed,
                  .sample = rng_sample(RNG_EVAL, 0),
                  .use = rng_use(RNG_RESAMPLE, 0, 0, 0, 0)};
    return bootstrap_mean(of_image, e->about.image_cnt, key);
}

// A metric's value for an image: the mean over its seeds; diversity is a property of all of them.
static double of_image(const Evaluation *e, int image, int side, int m) {
    int seeds = e->about.seed_cnt;
    const EvaluationSample *v = e->sample + image * seeds;
    if (m == EVALUATION_DIVERSITY) {
        const float *vector[seeds];
        for (int k = 0; k < seeds; k++) vector[k] = v[k].features[side];
        return features_variance(vector, seeds, e->about.feature_dim);
    }
    double sum = 0;
    for (int k = 0; k < seeds; k++) sum += v[k].value[side][m];
    return sum / seeds;
}

static Err summarise_metric(Evaluation *e, int m, double *value[EVALUATION_SIDES], double *change) {
    for (int i = 0; i < e->about.image_cnt; i++) {
        for (int s = 0; s < EVALUATION_SIDES; s++) {
            value[s][i] = of_image(e, i, s, m);
            if (!isfinite(value[s][i]))
                FAIL(ERR_NUMERIC, "%s, %s videos: %s is not finite", e->about.image[i],
                     side_names[s], e->name[m]);
        }
        change[i] = value[EVALUATION_TUNED][i] - value[EVALUATION_BASE][i];
    }
    for (int s = 0; s < EVALUATION_SIDES; s++) e->summary[m].side[s] = interval(e, value[s]);
    e->summary[m].difference = interval(e, change);
    return ERR_OK;
}

static void summarise_headroom(Evaluation *e, double *value) {
    int images = e->about.image_cnt, seeds = e->about.seed_cnt;
    e->headroom[EVALUATION_ROLLOUT] = e->summary[EVALUATION_VJEPA_LOSS].side[EVALUATION_BASE];
    e->headroom[EVALUATION_REAL] = interval(e, e->real);
    for (int frozen = 0; frozen < 2; frozen++) {
        for (int i = 0; i < images; i++) {
            value[i] = 0;
            for (int k = i * seeds; k < (i + 1) * seeds; k++)
                value[i] += (frozen ? e->sample[k].frozen : e->sample[k].blurred) / seeds;
        }
        e->headroom[frozen ? EVALUATION_FROZEN : EVALUATION_BLURRED] = interval(e, value);
    }
}

Err evaluation_summarise(Evaluation *e) {
    int images = e->about.image_cnt;
    double *value[EVALUATION_SIDES] = {arena_array(&e->arena, double, images),
                                       arena_array(&e->arena, double, images)};
    double *change = arena_array(&e->arena, double, images);
    for (int m = 0; m < EVALUATION_METRICS; m++)
        if (e->present[m]) TRY(summarise_metric(e, m, value, change));
    if (e->about.has_vjepa) summarise_headroom(e, change);
    return ERR_OK;
}

static double share_of_class(const Evaluation *e, int side, int class_idx) {
    int cnt = e->about.image_cnt * e->about.seed_cnt, hits = 0;
    for (int i = 0; i < cnt; i++) hits += e->sample[i].most_probable[side] == class_idx;
    return (double)hits / cnt;
}

// ---- The table ----

static void print_interval(FILE *out, BootstrapInterval v, bool sign) {
    char mean[32];
    snprintf(mean, sizeof mean, sign ? "%+.4g" : "%.4g", v.mean);
    fprintf(out, " %9s [%9.4g,%9.4g]", mean, v.low, v.high);
}

static void print_metrics(Evaluation *e, FILE *out) {
    fprintf(out, "%-20s %-31s %-31s %s\n", "mean [95 % interval]", "base model", "with the adapter",
            "difference");
    for (int m = 0; m < EVALUATION_METRICS; m++) {
        if (!e->present[m]) continue;
        Row r = row_of(e, m);
        char name[64];
        snprintf(name, sizeof name, "%s%s%s", r.name, *r.unit ? " " : "", r.unit);
        fprintf(out, "%-20s", name);
        for (int s = 0; s < EVALUATION_SIDES; s++)
            print_interval(out, e->summary[m].side[s], false);
        print_interval(out, e->summary[m].difference, true);
        fputc('\n', out);
    }
}

static void print_classes(Evaluation *e, FILE *out) {
    const RewardClasses *c = &e->about.classes;
    if (!c->cnt) return;
    fprintf(out, "\n%-20s base  tuned   share of the videos\n", "most probable class");
    for (int k = 0; k < c->cnt; k++) {
        double base = share_of_class(e, EVALUATION_BASE, k),
               tuned = share_of_class(e, EVALUATION_TUNED, k);
        if (base + tuned > 0)
            fprintf(out, "%-20s %3.0f %%  %3.0f %%%s\n", c->name[k], 100 * base, 100 * tuned,
                    k == c->target ? "   wanted" : "");
    }
}

static void print_headroom(Evaluation *e, FILE *out) {
    const BootstrapInterval *h = e->headroom, *v = e->summary[EVALUATION_VJEPA_LOSS].side;
    if (!e->about.has_vjepa) return;
    fprintf(out, "\n%-20s\n", "V-JEPA's loss of");
    static const char *const what[] = {"real continuations", "the base's videos",
                                       "their first frame", "them, blurred"};
    for (int k = 0; k < EVALUATION_HEADROOMS; k++) {
        if (k == EVALUATION_REAL && !e->about.has_real) continue;
        fprintf(out, "%-20s", what[k]);
        print_interval(out, h[k], false);
        fputc('\n', out);
    }
    double gap = h[EVALUATION_ROLLOUT].mean - h[EVALUATION_REAL].mean;
    if (e->about.has_real && gap > 0)
        fprintf(out, "%-20s %8.0f %% of the gap between the base's videos and real ones closed\n",
                "with the adapter",
                100 * (v[EVALUATION_BASE].mean - v[EVALUATION_TUNED].mean) / gap);
}

// What a reward is won by without being what was meant.
static void print_warnings(Evaluation *e, FILE *out) {
    for (int m = 0; m < EVALUATION_TERM; m++) {
        const Kept *k = &rows[m].kept;
        if (!e->present[m] || !k->sign) continue;
        const BootstrapInterval *side = e->summary[m].side;
        double share = side[EVALUATION_TUNED].mean / side[EVALUATION_BASE].mean;
        if (share < k->least || share > k->most)
            fprintf(out, "warning: %s is %.0f %% of the base model's: look at the videos\n",
                    e->name[m], 100 * share);
    }
    if (!e->about.has_vjepa) return;
    const BootstrapInterval *h = e->headroom;
    for (int k = EVALUATION_FROZEN; k <= EVALUATION_BLURRED; k++)
        if (h[k].mean < h[EVALUATION_ROLLOUT].mean)
            fprintf(out,
                    "note: V-JEPA's loss is lower for %s video than for the base model's: "
                    "alone, it can be won by that\n",
                    headroom_names[k]);
}

void evaluation_print(Evaluation *e, FILE *out) {
    const EvaluationAbout *a = &e->about;
    fprintf(out, "%d images, %d seeds each; adapter: %s", a->image_cnt, a->seed_cnt, a->adapter);
    if (a->classes.cnt && a->classes.target >= 0)
        fprintf(out, "; wanted class: %s", a->classes.name[a->classes.target]);
    fputs("\n\n", out);
    print_metrics(e, out);
    print_classes(e, out);
    print_headroom(e, out);
    print_warnings(e, out);
}

// ---- JSON ----

static void put_text(Evaluation *e, StrBuf *b, const char *text) {
    const char *quoted = json_quote(&e->arena, text);
    strbuf_add(b, quoted ? quoted : "\"(not UTF-8)\"");
}

// Always a JSON real, never an integer.
static void put_real(StrBuf *b, double x) {
    char text[32];
    snprintf(text, sizeof text, "%.10g", x);
    strbuf_printf(b, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static void put_interval(StrBuf *b, BootstrapInterval v) {
    strbuf_add(b, "{\"mean\": ");
    put_real(b, v.mean);
    strbuf_add(b, ", \"low\": ");
    put_real(b, v.low);
    strbuf_add(b, ", \"high\": ");
    put_real(b, v.high);
    strbuf_add(b, "}");
}

static void put_head(Evaluation *e, StrBuf *b) {
    const EvaluationAbout *a = &e->about;
    strbuf_add(b, "{\"version\": 1");
    if (a->updates >= 0) strbuf_printf(b, ", \"updates\": %lld", (long long)a->updates);
    strbuf_add(b, ", \"adapter\": ");
    put_text(e, b, a->adapter);
    if (a->classes.cnt && a->classes.target >= 0) {
        strbuf_add(b, ", \"target\": ");
        put_text(e, b, a->classes.name[a->classes.target]);
    }
    strbuf_add(b, ", \"images\": [");
    for (int i = 0; i < a->image_cnt; i++) {
        strbuf_add(b, i ? ", " : "");
        put_text(e, b, a->image[i]);
    }
    strbuf_printf(b, "], \"seeds\": %d, \"fps\": %lld,\n", a->seed_cnt,
                  (long long)a->cfg->preview_fps);
}

static void put_kept(Evaluation *e, StrBuf *b, const Kept *k) {
    strbuf_add(b, ", \"kept\": {\"sign\": ");
    put_text(e, b, k->sign);
    strbuf_add(b, ", \"least\": ");
    put_real(b, k->least);
    if (isfinite(k->most)) {
        strbuf_add(b, ", \"most\": ");
        put_real(b, k->most);
    }
    strbuf_add(b, "}");
}

static void put_metrics(Evaluation *e, StrBuf *b) {
    const char *comma = "";
    strbuf_add(b, "\"metrics\": [");
    for (int m = 0; m < EVALUATION_METRICS; m++) {
        if (!e->present[m]) continue;
        Row r = row_of(e, m);
        strbuf_printf(
            b, "%s\n {\"name\": \"%s\", \"unit\": \"%s\", \"better\": \"%s\", \"about\": ", comma,
            r.name, r.unit, r.better);
        put_text(e, b, r.about);
        if (r.kept.sign) put_kept(e, b, &r.kept);
        strbuf_add(b, "}");
        comma = ",";
    }
    strbuf_add(b, "],\n");
}

static void put_sample(Evaluation *e, StrBuf *b, int i) {
    const EvaluationAbout *a = &e->about;
    int image = i / a->seed_cnt, seed = i % a->seed_cnt;
    strbuf_add(b, "\n {\"image\": ");
    put_text(e, b, a->image[image]);
    strbuf_printf(b, ", \"seed\": %d, \"video\": ", seed);
    put_text(e, b, arena_printf(&e->arena, "%s-%d.mp4", a->video[image], seed));
    for (int s = 0; s < EVALUATION_SIDES; s++) {
        const char *comma = "";
        strbuf_printf(b, ",\n  \"%s\": {", side_names[s]);
        for (int m = 0; m < EVALUATION_METRICS; m++) {
            if (!of_samples(e, m)) continue;
            strbuf_printf(b, "%s\"%s\": ", comma, e->name[m]);
            put_real(b, e->sample[i].value[s][m]);
            comma = ", ";
        }
        strbuf_add(b, "}");
    }
    strbuf_add(b, "}");
}

static void put_summary(Evaluation *e, StrBuf *b) {
    const char *comma = "";
    strbuf_add(b, "\"summary\": {");
    for (int m = 0; m < EVALUATION_METRICS; m++) {
        if (!e->present[m]) continue;
        strbuf_printf(b, "%s\n \"%s\": {", comma, e->name[m]);
        comma = ",";
        for (int s = 0; s < EVALUATION_SIDES; s++) {
            strbuf_printf(b, "\"%s\": ", side_names[s]);
            put_interval(b, e->summary[m].side[s]);
            strbuf_add(b, ", ");
        }
        strbuf_add(b, "\"difference\": ");
        put_interval(b, e->summary[m].difference);
        strbuf_add(b, "}");
    }
    strbuf_add(b, "}");
}

static void put_headroom(Evaluation *e, StrBuf *b) {
    const char *comma = "";
    strbuf_add(b, ",\n\"headroom\": {");
    for (int k = 0; k < EVALUATION_HEADROOMS; k++) {
        if (k == EVALUATION_REAL && !e->about.has_real) continue;
        strbuf_printf(b, "%s\"%s\": ", comma, headroom_names[k]);
        put_interval(b, e->headroom[k]);
        comma = ", ";
    }
    strbuf_add(b, "}");
}

static void put_classes(Evaluation *e, StrBuf *b) {
    const RewardClasses *c = &e->about.classes;
    strbuf_add(b, ",\n\"classes\": {");
    for (int s = 0; s < EVALUATION_SIDES; s++) {
        strbuf_printf(b, "%s\"%s\": {", s ? ", " : "", side_names[s]);
        for (int k = 0; k < c->cnt; k++) {
            strbuf_add(b, k ? ", " : "");
            put_text(e, b, c->name[k]);
            strbuf_add(b, ": ");
            put_real(b, share_of_class(e, s, k));
        }
        strbuf_add(b, "}");
    }
    strbuf_add(b, "}");
}

Err evaluation_write(Evaluation *e, const char *path) {
    StrBuf b = {0};
    put_head(e, &b);
    put_metrics(e, &b);
    strbuf_add(&b, "\"samples\": [");
    for (int i = 0; i < e->about.image_cnt * e->about.seed_cnt; i++) {
        strbuf_add(&b, i ? "," : "");
        put_sample(e, &b, i);
    }
    strbuf_add(&b, "],\n");
    put_summary(e, &b);
    if (e->about.has_vjepa) put_headroom(e, &b);
    if (e->about.classes.cnt) put_classes(e, &b);
    strbuf_add(&b, "}\n");
    Err err = atomic_file_put(path, strbuf_text(&b), b.len, ATOMIC_FILE_DURABLE);
    strbuf_fini(&b);
    return err;
}
