// diffusion: schedules, window and guidance.
#include "common/model/diffusion.h"

#include <math.h>
#include <string.h>

// ---- Euler ----

typedef struct EulerConfig {
    double sigma_min, sigma_max, rho;
} EulerConfig;

// Keys that only matter for schedules made from betas; ours is made of sigma_min, sigma_max and rho.
static const char *const euler_ignore[] = {"num_train_timesteps",
                                           "beta_start",
                                           "beta_end",
                                           "beta_schedule",
                                           "trained_betas",
                                           "interpolation_type",
                                           "timestep_spacing",
                                           "steps_offset",
                                           "set_alpha_to_one",
                                           "skip_prk_steps",
                                           NULL};

static Err euler_config(EulerConfig *out, Json *j) {
    EulerConfig c = {.rho = 7};
    bool karras = false;
    const char *prediction = "epsilon", *type = "discrete";
    TRY(json_get_str(j, "prediction_type", &prediction));
    TRY(json_get_str(j, "timestep_type", &type));
    TRY(json_get_bool(j, "use_karras_sigmas", &karras));
    if (!karras || strcmp(prediction, "v_prediction") || strcmp(type, "continuous"))
        FAIL(
            ERR_FORMAT,
            "%s: use_karras_sigmas is %s, prediction_type \"%s\", timestep_type \"%s\"; want true, "
            "\"v_prediction\", \"continuous\"",
            json_label(j), karras ? "true" : "false", prediction, type);
    TRY(json_want_f64(j, "sigma_min", &c.sigma_min));
    TRY(json_want_f64(j, "sigma_max", &c.sigma_max));
    TRY(json_only_bool(j, "use_exponential_sigmas", false));
    TRY(json_only_bool(j, "use_beta_sigmas", false));
    TRY(json_only_bool(j, "rescale_betas_zero_snr", false));
    TRY(json_only_bool(j, "clip_sample", false));
    TRY(json_only_str(j, "final_sigmas_type", "zero"));
    TRY(json_finish(j, euler_ignore));
    *out = c;
    return ERR_OK;
}

// Coefficients from noise level s to s2 in the v-parametrisation; also what gains are computed with.
static void euler_step(double s, double s2, double *a, double *b) {
    double r = s2 / s;
    *a = r + (1 - r) / (s * s + 1);
    *b = -(s - s2) / sqrt(s * s + 1);
}

static Err euler_schedule(DiffusionSchedule *out, Json *j, const DiffusionOptions *opt) {
    EulerConfig c = {0};
    TRY(euler_config(&c, j));
    if (opt->sigma_min) c.sigma_min = opt->sigma_min;
    if (opt->sigma_max) c.sigma_max = opt->sigma_max;
    if (opt->rho) c.rho = opt->rho;
    if (!(c.sigma_min > 0 && c.sigma_max >= c.sigma_min && c.rho > 0))
        FAIL(ERR_USAGE, "sigma_min %g, sigma_max %g, rho %g: want 0 < min <= max and rho > 0",
             c.sigma_min, c.sigma_max, c.rho);
    double hi = pow(c.sigma_max, 1 / c.rho), lo = pow(c.sigma_min, 1 / c.rho);
    int n = out->cnt;
    for (int i = 0; i < n; i++) {
        double at = n > 1 ? (double)i / (n - 1) : 0;
        out->step[i].sigma = (float)pow(hi + at * (lo - hi), c.rho);
    }
    for (int i = 0; i < n; i++) {
        DiffusionStep *k = &out->step[i];
        double s = k->sigma, root = sqrt(s * s + 1);
        k->t = (float)(0.25 * log(s));
        k->c_in = 1 / root;
        k->clean_x = 1 / (s * s + 1);
        k->clean_v = -s / root;
        euler_step(s, i + 1 < n ? out->step[i + 1].sigma : 0, &k->a, &k->b);
    }
    out->sampler = "euler";
    out->prediction = "v_prediction";
    out->init_noise_sigma = sqrt(out->step[0].sigma * out->step[0].sigma + 1);
    return ERR_OK;
}

// ---- DDIM ----

typedef struct DdimConfig {
    int train_steps, offset;
    double beta_start, beta_end;
    bool scaled; // betas linear in their square roots
    bool alpha_to_one, v_prediction;
    const char *spacing;
} DdimConfig;

static Err ddim_config(DdimConfig *out, Json *j) {
    DdimConfig c = {.train_steps = 1000,
                    .beta_start = 1e-4,
                    .beta_end = 0.02,
                    .alpha_to_one = true,
                    .spacing = "leading"};
    const char *betas = "linear", *prediction = "epsilon";
    bool clip = true; // diffusers' default
    TRY(json_get_int(j, "num_train_timesteps", &c.train_steps));
    TRY(json_get_int(j, "steps_offset", &c.offset));
    TRY(json_get_f64(j, "beta_start", &c.beta_start));
    TRY(json_get_f64(j, "beta_end", &c.beta_end));
    TRY(json_get_str(j, "beta_schedule", &betas));
    TRY(json_get_str(j, "prediction_type", &prediction));
    TRY(json_get_str(j, "timestep_spacing", &c.spacing));
    TRY(json_get_bool(j, "set_alpha_to_one", &c.alpha_to_one));
    TRY(json_get_bool(j, "clip_sample", &clip));
    TRY(json_only_bool(j, "thresholding", false));
    TRY(json_only_bool(j, "rescale_betas_zero_snr", false));
    c.scaled = !strcmp(betas, "scaled_linear");
    c.v_prediction = !strcmp(prediction, "v_prediction");
    if (clip) FAIL(ERR_FORMAT, "%s: clip_sample is true, want false", json_label(j));
    if (!c.scaled && strcmp(betas, "linear"))
        FAIL(ERR_FORMAT, "%s: beta_schedule is \"%s\", want \"linear\" or \"scaled_linear\"",
             json_label(j), betas);
    if (!c.v_prediction && strcmp(prediction, "epsilon"))
        FAIL(ERR_FORMAT, "%s: prediction_type is \"%s\", want \"epsilon\" or \"v_prediction\"",
             json_label(j), prediction);
    if (c.train_steps < 1 || c.train_steps > 100000 || c.offset < 0 || !(c.beta_start > 0) ||
        !(c.beta_end >= c.beta_start) || !(c.beta_end < 1))
        FAIL(ERR_FORMAT, "%s: num_train_timesteps %d, steps_offset %d, betas %g to %g",
             json_label(j), c.train_steps, c.offset, c.beta_start, c.beta_end);
    static const char *const ignore[] = {"dynamic_thresholding_ratio", "clip_sample_range",
                                         "sample_max_value", "skip_prk_steps", NULL};
    TRY(json_finish(j, ignore));
    *out = c;
    return ERR_OK;
}

// Cumulative alphas of the training steps.
static double *ddim_alphas(Arena *a, const DdimConfig *c) {
    double *alpha = arena_array(a, double, c->train_steps), product = 1;
    double lo = c->scaled ? sqrt(c->beta_start) : c->beta_start;
    double hi = c->scaled ? sqrt(c->beta_end) : c->beta_end;
    for (int i = 0; i < c->train_steps; i++) {
        double x = lo + (hi - lo) * (c->train_steps > 1 ? (double)i / (c->train_steps - 1) : 0);
        alpha[i] = product *= 1 - (c->scaled ? x * x : x);
    }
    return alpha;
}

// Training step of sampling step i, as the three spacings of diffusers have it. rint: ties to even, as
// numpy.
static Err ddim_time(const DdimConfig *c, int n, int i, int *t) {
    int last = c->train_steps - 1;
    if (!strcmp(c->spacing, "leading"))
        *t = (n - 1 - i) * (c->train_steps / n) + c->offset;
    else if (!strcmp(c->spacing, "trailing"))
        *t = (int)rint(c->train_steps - i * ((double)c->train_steps / n)) - 1;
    else if (!strcmp(c->spacing, "linspace"))
        *t = n > 1 ? (int)rint((n - 1 - i) * ((double)last / (n - 1))) : 0;
    else
        FAIL(ERR_FORMAT, "timestep_spacing is \"%s\", want leading, trailing or linspace",
             c->spacing);
    if (*t < 0 || *t > last)
        FAIL(ERR_USAGE, "%d steps need training step %d of %d", n, *t, c->train_steps);
    return ERR_OK;
}

static void ddim_step(DiffusionStep *k, double A, double A2, double eta, bool v_prediction) {
    double c = eta * sqrt((1 - A2) / (1 - A) * (1 - A / A2));
    double direction = sqrt(fmax(1 - A2 - c * c, 0));
    k->sigma = sqrt((1 - A) / A);
    k->c_in = 1;
    k->z = c;
    if (v_prediction) {
        k->clean_x = sqrt(A);
        k->clean_v = -sqrt(1 - A);
        k->a = sqrt(A2) * k->clean_x + direction * sqrt(1 - A);
        k->b = sqrt(A2) * k->clean_v + direction * sqrt(A);
    } else {
        k->clean_x = 1 / sqrt(A);
        k->clean_v = -sqrt((1 - A) / A);
        k->a = sqrt(A2) * k->clean_x;
        k->b = sqrt(A2) * k->clean_v + direction;
    }
}

static Err ddim_schedule(DiffusionSchedule *out, Arena *arena, Json *j,
                         const DiffusionOptions *opt) {
    DdimConfig c = {0};
    TRY(ddim_config(&c, j));
    int n = out->cnt;
    if (n > c.train_steps)
        FAIL(ERR_USAGE, "%d steps, but the model was trained with %d", n, c.train_steps);
    if (!(opt->eta >= 0 && opt->eta <= 1)) FAIL(ERR_USAGE, "eta is %g, want 0 to 1", opt->eta);
    double *alpha = ddim_alphas(arena, &c);
    bool one = opt->final_alpha ? opt->final_alpha == DIFFUSION_FINAL_ONE : c.alpha_to_one;
    double end = one ? 1 : alpha[0];
    for (int i = 0; i < n; i++) {
        int t, before;
        TRY(ddim_time(&c, n, i, &t));
        before = t - c.train_steps / n;
        ddim_step(&out->step[i], alpha[t], before >= 0 ? alpha[before] : end, opt->eta,
                  c.v_prediction);
        out->step[i].t = t;
    }
    int last, before;
    TRY(ddim_time(&c, n, n - 1, &last));
    before = last - c.train_steps / n;
    double A = before >= 0 ? alpha[before] : end;
    out->last_sigma = sqrt((1 - A) / A);
    out->sampler = "ddim";
    out->prediction = c.v_prediction ? "v_prediction" : "epsilon";
    out->init_noise_sigma = 1;
    out->stochastic = opt->eta > 0;
    return ERR_OK;
}

// ---- Both ----

static void set_gains(DiffusionSchedule *s) {
    double later = 1;
    for (int i = s->cnt - 1; i >= 0; i--) {
        double a, b;
        euler_step(s->step[i].sigma, i + 1 < s->cnt ? s->step[i + 1].sigma : s->last_sigma, &a, &b);
        s->step[i].gain = fabs(b) * later;
        later *= a;
    }
}

Err diffusion_schedule(DiffusionSchedule *out, Arena *arena, Json *config,
                       const DiffusionOptions *opt) {
    DiffusionSchedule s = {.cnt = opt->steps};
    const char *class;
    if (opt->steps < 1 || opt->steps > DIFFUSION_STEPS_MAX)
        FAIL(ERR_USAGE, "%d sampling steps, want 1 to %d", opt->steps, DIFFUSION_STEPS_MAX);
    s.step = arena_array(arena, DiffusionStep, s.cnt);
    TRY(json_want_str(config, "_class_name", &class));
    if (!strcmp(class, "EulerDiscreteScheduler"))
        TRY(euler_schedule(&s, config, opt));
    else if (!strcmp(class, "DDIMScheduler"))
        TRY(ddim_schedule(&s, arena, config, opt));
    else
        FAIL(ERR_FORMAT, "%s: scheduler %s, want EulerDiscreteScheduler or DDIMScheduler",
             json_label(config), class);
    set_gains(&s);
    *out = s;
    return ERR_OK;
}

void diffusion_print(const DiffusionSchedule *s, FILE *out) {
    fprintf(out, "%s, %s, %d steps\n%4s %12s %10s %10s %10s %10s\n", s->sampler, s->prediction,
            s->cnt, "step", "sigma", "t", "a", "b", "gain");
    for (int i = 0; i < s->cnt; i++) {
        const DiffusionStep *k = &s->step[i];
        fprintf(out, "%4d %12.6g %10.5g %10.6f %10.6f %10.3g\n", i, k->sigma, k->t, k->a, k->b,
                k->gain);
    }
}

// ---- Window ----

// The place of K steps with the largest sum of gains; ties to the later one.
static int best_place(const DiffusionSchedule *s, int steps) {
    double best = -1;
    int place = 0;
    for (int i = 0; i + steps <= s->cnt; i++) {
        double sum = 0;
        for (int j = i; j < i + steps; j++) sum += s->step[j].gain;
        if (sum >= best) best = sum, place = i;
    }
    return place;
}

Err diffusion_window(DiffusionWindow *out, const DiffusionSchedule *s,
                     const DiffusionWindowOptions *opt, RngKey name) {
    int steps = opt->steps, latest = s->cnt - (steps > 0 ? steps : 1), first = 0;
    if (steps < 0 || latest < 0) FAIL(ERR_USAGE, "window: %d steps of %d", steps, s->cnt);
    switch (opt->at) {
    case DIFFUSION_AT_LAST: first = latest; break;
    case DIFFUSION_AT_GAIN:
        if (!steps) FAIL(ERR_USAGE, "window: at gain needs a number of steps, not to_end");
        first = best_place(s, steps);
        break;
    case DIFFUSION_AT_INDEX: first = opt->index; break;
    case DIFFUSION_AT_RANDOM: {
        int lo = opt->lo, hi = opt->hi < 0 ? latest : opt->hi;
        if (lo < 0 || lo > hi || hi > latest)
            FAIL(ERR_USAGE, "window: range [%d, %d], want it within [0, %d]", lo, hi, latest);
        name.use = rng_use(RNG_WINDOW, 0, 0, 0, 0);
        RngStream r = rng_stream(name);
        first = lo + (int)rng_u32_below(&r, (uint32_t)(hi - lo + 1));
        break;
    }
    }
    if (first < 0 || first > latest)
        FAIL(ERR_USAGE, "window: begins at step %d, the latest that fits is %d", first, latest);
    *out = (DiffusionWindow){first, steps ? steps : s->cnt - first, opt->predict};
    return ERR_OK;
}

double diffusion_tail(const DiffusionSchedule *s, DiffusionWindow w) {
    double tail = 1;
    for (int k = w.first + w.cnt; k < s->cnt && !w.predict; k++) tail *= s->step[k].a;
    return tail;
}

int diffusion_end(const DiffusionSchedule *s, DiffusionWindow w) {
    return w.predict ? w.first + w.cnt : s->cnt;
}

void diffusion_coefficients(const DiffusionSchedule *s, DiffusionWindow w, int k, double *a,
                            double *b, double *z) {
    const DiffusionStep *step = &s->step[k];
    bool clean = w.predict && k == w.first + w.cnt - 1;
    *a = clean ? step->clean_x : step->a;
    *b = clean ? step->clean_v : step->b;
    *z = clean ? 0 : step->z;
}

// ---- Guidance ----

Err diffusion_guidance(double min, double max, int frames, float *g, bool *on) {
    if (!(min <= max)) FAIL(ERR_USAGE, "guidance: min %g is above max %g", min, max);
    *on = max > 1;
    if (!*on && min < 1)
        FAIL(ERR_USAGE,
             "guidance: max %g switches it off, then min %g would be without effect; want min 1",
             max, min);
    for (int f = 0; f < frames; f++)
        g[f] = (float)(frames > 1 ? min + (max - min) * ((double)f / (frames - 1)) : min);
    return ERR_OK;
}

// ---- Noise ----

void diffusion_noise(RngKey key, int64_t frames, int64_t h, int64_t w, int64_t channels, float *x) {
    RngStream r = rng_stream(key);
    uint64_t i = 0;
    for (int64_t f = 0; f < frames; f++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < h * w; p++)
                x[(f * h * w + p) * channels + c] = rng_normal(&r, i++);
}
