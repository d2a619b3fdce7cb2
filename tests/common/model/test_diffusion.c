// diffusion: schedules against diffusers and closed forms, windows, guidance, noise.
#include "common/model/diffusion.h"

#include "tests/common/model/golden.h"

// SVD's scheduler_config.json.
#define SVD                                                                             \
    "{\"_class_name\":\"EulerDiscreteScheduler\",\"prediction_type\":\"v_prediction\"," \
    "\"timestep_type\":\"continuous\",\"use_karras_sigmas\":true,\"sigma_min\":0.002,"  \
    "\"sigma_max\":700.0,\"clip_sample\":false,\"skip_prk_steps\":true}"
#define DDIM                                                                        \
    "{\"_class_name\":\"DDIMScheduler\",\"beta_start\":0.00085,\"beta_end\":0.012," \
    "\"beta_schedule\":\"scaled_linear\",\"clip_sample\":false,\"steps_offset\":1," \
    "\"prediction_type\":\"%s\",\"set_alpha_to_one\":false}"

static Err make(DiffusionSchedule *s, Arena *a, const char *text, DiffusionOptions opt) {
    Json *j;
    TRY(json_open_text(&j, "scheduler_config.json", text, strlen(text)));
    Err err = diffusion_schedule(s, a, j, &opt);
    json_close(j);
    return err;
}

static Err make_ddim(DiffusionSchedule *s, Arena *a, const char *prediction, DiffusionOptions opt) {
    return make(s, a, arena_printf(a, DDIM, prediction), opt);
}

// ---- Against diffusers ----

// One set_timesteps(n) of the golden file.
static void check_tables(Golden *c, const DiffusionSchedule *s) {
    float sigma[64], t[64], c_in[64], a[64], b[64], init = (float)s->init_noise_sigma;
    const float *got[] = {sigma, t, c_in, a, b, &init};
    static const char *const what[] = {"sigmas", "timesteps", "c_in",
                                       "coef_x", "coef_v",    "init_noise_sigma"};
    for (int i = 0; i < s->cnt; i++) {
        sigma[i] = (float)s->step[i].sigma;
        t[i] = (float)s->step[i].t;
        c_in[i] = (float)s->step[i].c_in;
        a[i] = (float)s->step[i].a;
        b[i] = (float)s->step[i].b;
    }
    sigma[s->cnt] = (float)s->last_sigma;
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "out.n%d.%s", s->cnt, what[i]);
        double error = golden_error(c, name, -1, got[i], 0);
        CHECK_MSG(error <= 2e-7, "%s: relative error %.3g", name, error);
    }
}

// The loop over given predictions, and its gradient by the tail products.
static void check_loop(Golden *c, const DiffusionSchedule *s) {
    char name[64];
    float *noise = golden_values(c, "in.loop.noise", -1);
    int64_t cnt = golden_count(safetensors_find(c->file, "in.loop.noise"));
    double *x = malloc((size_t)cnt * sizeof *x);
    float *y = malloc((size_t)cnt * sizeof *y);
    for (int64_t i = 0; i < cnt; i++) x[i] = s->init_noise_sigma * noise[i];
    for (int k = 0; k < s->cnt; k++) {
        const DiffusionStep *step = &s->step[k];
        snprintf(name, sizeof name, "in.loop.v.%d", k);
        float *v = golden_values(c, name, -1);
        for (int64_t i = 0; i < cnt; i++) y[i] = (float)(step->c_in * x[i]);
        snprintf(name, sizeof name, "out.loop.model_input.%d", k);
        CHECK(golden_error(c, name, -1, y, 0) <= 1e-6);
        for (int64_t i = 0; i < cnt; i++)
            y[i] = (float)(step->clean_x * x[i] + step->clean_v * v[i]);
        snprintf(name, sizeof name, "out.loop.clean.%d", k);
        CHECK(golden_error(c, name, -1, y, 0) <= 1e-6);
        for (int64_t i = 0; i < cnt; i++) {
            x[i] = step->a * x[i] + step->b * v[i];
            y[i] = (float)x[i];
        }
        snprintf(name, sizeof name, "out.loop.latents.%d", k + 1);
        CHECK(golden_error(c, name, -1, y, 0) <= 1e-6);
        free(v);
    }
    snprintf(name, sizeof name, "cot.loop.latents.%d", s->cnt);
    float *cot = golden_values(c, name, -1);
    for (int k = 0; k < s->cnt; k++) {
        double tail = diffusion_tail(s, (DiffusionWindow){k, 1, false});
        for (int64_t i = 0; i < cnt; i++) y[i] = (float)(tail * s->step[k].b * cot[i]);
        snprintf(name, sizeof name, "grad.in.loop.v.%d", k);
        CHECK(golden_error(c, name, -1, y, 0) <= 1e-6);
    }
    free(cot);
    free(noise);
    free(x);
    free(y);
}

static void check_golden(const char *dir, int loop_steps) {
    Golden c;
    ModelPart *part;
    Arena a = {0};
    static const int counts[] = {1, 2, 5, 7, 10, 25};
    CHECK_OK(golden_open(&c, dir));
    CHECK_OK(model_dir_open(&part, dir, NULL, NULL, &(ModelDirOptions){.config_only = true}));
    for (int i = 0; i < 6; i++) {
        char name[64];
        DiffusionSchedule s;
        snprintf(name, sizeof name, "out.n%d.sigmas", counts[i]);
        if (!safetensors_find(c.file, name)) continue;
        CHECK_OK(diffusion_schedule(&s, &a, part->config, &(DiffusionOptions){.steps = counts[i]}));
        check_tables(&c, &s);
        if (counts[i] == loop_steps) check_loop(&c, &s);
        if (test_failed()) return;
    }
    printf("   %s: worst error %.2g (%s)\n", dir, c.worst, c.worst_name);
    model_dir_close(part);
    golden_close(&c);
    arena_free(&a);
}

TEST(golden_euler) { check_golden("tests/golden/euler", 5); }
TEST(golden_euler_n7) { check_golden("tests/golden/euler_n7", 7); }

// ---- Gains on SVD's schedule ----

TEST(svd_gains) {
    Arena a = {0};
    DiffusionSchedule s;
    DiffusionWindow w;
    CHECK_OK(make(&s, &a, SVD, (DiffusionOptions){.steps = 25}));
    CHECK_NEAR(s.init_noise_sigma, 700.000714, 1e-6);
    CHECK_NEAR(s.step[17].sigma, 1.27, 0.005);
    CHECK_NEAR(s.step[17].gain, 0.2875, 0.0005);
    CHECK_NEAR(s.step[24].gain, 0.002, 1e-5);
    int local = 0;
    for (int i = 0; i < 25; i++)
        if (-s.step[i].b > -s.step[local].b) local = i;
    CHECK_EQ(local, 16);
    CHECK_NEAR(-s.step[16].b, 0.402, 0.0005);
    RngKey none = {0};
    DiffusionWindowOptions at_gain = {.steps = 1, .at = DIFFUSION_AT_GAIN};
    CHECK_OK(diffusion_window(&w, &s, &at_gain, none));
    CHECK_EQ(w.first, 17);
    double end_to_end = s.step[17].b * diffusion_tail(&s, w);
    CHECK_NEAR(-end_to_end, s.step[17].gain, 1e-12);
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    diffusion_print(&s, f);
    fclose(f);
    CHECK_HAS(text, "0.288");
    free(text);
    arena_free(&a);
}

// ---- DDIM ----

// With the true noise as prediction a step lands on the line between x0 and that noise.
static void check_ddim(const char *prediction, double eta) {
    Arena a = {0};
    DiffusionSchedule s;
    bool v = !strcmp(prediction, "v_prediction");
    double x0 = 0.7, e = -1.3;
    CHECK_OK(make_ddim(&s, &a, prediction, (DiffusionOptions){.steps = 50, .eta = eta}));
    CHECK_NEAR(s.step[0].t, 981, 0);
    CHECK_NEAR(s.step[49].t, 1, 0);
    CHECK_EQ(s.stochastic, eta > 0);
    for (int i = 0; i < 50; i++) {
        const DiffusionStep *k = &s.step[i];
        double next = i + 1 < 50 ? s.step[i + 1].sigma : s.last_sigma;
        double A = 1 / (1 + k->sigma * k->sigma), A2 = 1 / (1 + next * next);
        double x = sqrt(A) * x0 + sqrt(1 - A) * e;
        double out = v ? sqrt(A) * e - sqrt(1 - A) * x0 : e;
        CHECK_NEAR(k->clean_x * x + k->clean_v * out, x0, 1e-9);
        double d = sqrt(1 - A2 - k->z * k->z);
        CHECK_NEAR(k->a * x + k->b * out, sqrt(A2) * x0 + d * e, 1e-9);
    }
    arena_free(&a);
}

TEST(ddim) {
    const char *const prediction[] = {"epsilon", "v_prediction"};
    for (int i = 0; i < 4 && !test_failed(); i++) check_ddim(prediction[i % 2], i / 2);
}

// VideoCrafter2's settings: the last step of eta = 1 weighs its output by 0.0207 and adds noise of 0.0206.
TEST(ddim_last_step) {
    Arena a = {0};
    DiffusionSchedule s;
    CHECK_OK(make_ddim(&s, &a, "epsilon", (DiffusionOptions){.steps = 25, .eta = 1}));
    CHECK_NEAR(s.step[24].b, -0.0207, 5e-5);
    CHECK_NEAR(s.step[24].z, 0.0206, 5e-5);
    CHECK_NEAR(1 / (1 + s.last_sigma * s.last_sigma), 0.99915, 1e-6);
    CHECK_OK(make_ddim(&s, &a, "epsilon",
                       (DiffusionOptions){.steps = 25, .final_alpha = DIFFUSION_FINAL_ONE}));
    CHECK_NEAR(s.last_sigma, 0, 0);
    CHECK_NEAR(s.step[24].a * s.step[24].a * (1 / (1 + pow(s.step[24].sigma, 2))), 1, 1e-12);
    arena_free(&a);
}

// ---- What is refused ----

TEST(refuses) {
    Arena a = {0};
    DiffusionSchedule s;
    DiffusionOptions ten = {.steps = 10};
#define EULER(more) "{\"_class_name\":\"EulerDiscreteScheduler\"," more "}"
#define CONTINUOUS                                                                  \
    "\"sigma_min\":1,\"sigma_max\":2,\"use_karras_sigmas\":true,\"timestep_type\":" \
    "\"continuous\",\"prediction_type\":"
    CHECK_ERR(make(&s, &a, EULER(CONTINUOUS "\"epsilon\""), ten), ERR_FORMAT, "epsilon");
    CHECK_ERR(make(&s, &a, EULER(CONTINUOUS "\"v_prediction\",\"new_key\":1"), ten), ERR_FORMAT,
              "new_key");
    CHECK_ERR(
        make(&s, &a, EULER(CONTINUOUS "\"v_prediction\",\"final_sigmas_type\":\"sigma_min\""), ten),
        ERR_FORMAT, "final_sigmas_type");
    CHECK_ERR(make(&s, &a, "{\"_class_name\":\"PNDMScheduler\"}", ten), ERR_FORMAT, "PNDM");
    CHECK_ERR(make(&s, &a, SVD, (DiffusionOptions){.steps = 0}), ERR_USAGE, "0 sampling steps");
    CHECK_ERR(make(&s, &a, SVD, (DiffusionOptions){.steps = 5, .sigma_min = 800}), ERR_USAGE,
              "sigma_min 800");
    CHECK_ERR(make(&s, &a,
                   "{\"_class_name\":\"DDIMScheduler\",\"clip_sample\":true,"
                   "\"beta_schedule\":\"linear\"}",
                   ten),
              ERR_FORMAT, "clip_sample");
    arena_free(&a);
}

// ---- Window ----

TEST(windows) {
    Arena a = {0};
    DiffusionSchedule s;
    DiffusionWindow w;
    RngKey name = {.seed = 5, .sample = 1};
    double ca, cb, cz;
    CHECK_OK(make(&s, &a, SVD, (DiffusionOptions){.steps = 25}));
#define WINDOW(...) diffusion_window(&w, &s, &(DiffusionWindowOptions){__VA_ARGS__}, name)
    CHECK_OK(WINDOW(.steps = 10, .at = DIFFUSION_AT_LAST));
    CHECK(w.first == 15 && w.cnt == 10 && diffusion_end(&s, w) == 25);
    CHECK_NEAR(diffusion_tail(&s, w), 1, 0);
    CHECK_OK(WINDOW(.steps = 0, .at = DIFFUSION_AT_INDEX, .index = 20));
    CHECK(w.first == 20 && w.cnt == 5);
    CHECK_OK(WINDOW(.steps = 1, .at = DIFFUSION_AT_INDEX, .index = 15, .predict = true));
    CHECK_EQ(diffusion_end(&s, w), 16);
    CHECK_NEAR(diffusion_tail(&s, w), 1, 0);
    diffusion_coefficients(&s, w, 15, &ca, &cb, &cz);
    CHECK_NEAR(ca, s.step[15].clean_x, 0);
    CHECK_NEAR(cb, s.step[15].clean_v, 0);
    diffusion_coefficients(&s, w, 14, &ca, &cb, &cz);
    CHECK_NEAR(ca, s.step[14].a, 0);

    // Random: always in range, both ends met, the same for the same name.
    bool met[25] = {0};
    for (unsigned i = 0; i < 500; i++) {
        name.sample = i;
        CHECK_OK(WINDOW(.steps = 2, .at = DIFFUSION_AT_RANDOM, .lo = 3, .hi = 7));
        met[w.first] = true;
    }
    for (int i = 0; i < 25; i++) CHECK_EQ(met[i], i >= 3 && i <= 7);
    int first = w.first;
    CHECK_OK(WINDOW(.steps = 2, .at = DIFFUSION_AT_RANDOM, .lo = 3, .hi = 7));
    CHECK_EQ(w.first, first);
    CHECK_OK(WINDOW(.steps = 0, .at = DIFFUSION_AT_RANDOM, .hi = -1));
    CHECK_EQ(w.first + w.cnt, 25);

    CHECK_ERR(WINDOW(.steps = 3, .at = DIFFUSION_AT_INDEX, .index = 23), ERR_USAGE,
              "the latest that fits is 22");
    CHECK_ERR(WINDOW(.steps = 26, .at = DIFFUSION_AT_LAST), ERR_USAGE, "26 steps of 25");
    CHECK_ERR(WINDOW(.steps = 0, .at = DIFFUSION_AT_GAIN), ERR_USAGE, "to_end");
    CHECK_ERR(WINDOW(.steps = 4, .at = DIFFUSION_AT_RANDOM, .lo = 2, .hi = 22), ERR_USAGE,
              "[2, 22]");
    arena_free(&a);
}

// ---- Guidance and noise ----

TEST(guidance) {
    float g[5];
    bool on;
    CHECK_OK(diffusion_guidance(1, 3, 5, g, &on));
    CHECK(on);
    CHECK_NEAR(g[0], 1, 0);
    CHECK_NEAR(g[1], 1.5, 0);
    CHECK_NEAR(g[4], 3, 0);
    CHECK_OK(diffusion_guidance(1, 1, 5, g, &on));
    CHECK(!on);
    CHECK_OK(diffusion_guidance(0.5, 2, 5, g, &on));
    CHECK(on);
    CHECK_ERR(diffusion_guidance(0.5, 1, 5, g, &on), ERR_USAGE, "min 0.5");
    CHECK_ERR(diffusion_guidance(3, 1, 5, g, &on), ERR_USAGE, "above max");
}

TEST(noise_order) {
    float x[2 * 3 * 4 * 5], flat[2 * 3 * 4 * 5];
    RngKey key = {.seed = 9, .sample = 2, .use = rng_use(RNG_LATENTS, 0, 0, 0, 0)};
    diffusion_noise(key, 2, 3, 4, 5, x); // (F, h, w, C)
    rng_fill_normal(key, flat, 120);     // (F, C, h, w)
    for (int f = 0; f < 2; f++)
        for (int c = 0; c < 5; c++)
            for (int p = 0; p < 12; p++)
                CHECK_NEAR(x[(f * 12 + p) * 5 + c], flat[(f * 5 + c) * 12 + p], 0);
}
