// denoise: whole chains of steps with guidance, and the gradient of windows, against diffusers.
#include "common/model/denoise.h"

#include "common/model/unet_svd.h"
#include "tests/common/model/golden.h"

#define ROOT "tests/golden"

// Everything a rollout needs; the case is pipeline_step of `root`.
typedef struct Rig {
    Golden c;
    Json *about; // case.json
    ModelPart *part;
    Params *params;
    Lora *lora;
    Backend *be;
    Arena arena;
    UnetSvdDenoiser unet;
    DiffusionSchedule schedule;
    DenoiseSpec spec;
    DenoiseConditioning cond;
    float *image, *context, *ids, *x, *saved, *grad;
    int64_t cnt; // elements of the latents
} Rig;

// A graph with its plan.
typedef struct Part {
    DenoiseGraph d;
    Plan *plan;
} Part;

static void part_fini(Part *p) {
    plan_free(p->plan);
    graph_free(p->d.g);
    *p = (Part){0};
}

static void fini(Rig *r) {
    free(r->image);
    free(r->context);
    free(r->ids);
    free(r->x);
    free(r->saved);
    free(r->grad);
    backend_close(r->be);
    lora_free(r->lora);
    params_close(r->params);
    model_dir_close(r->part);
    json_close(r->about);
    golden_close(&r->c);
    arena_free(&r->arena);
}

// A path of case.json, which is relative to the case's folder.
static const char *member(Rig *r, const char *key) {
    const char *path = "";
    if (json_want_str(r->about, key, &path)) return "";
    return arena_printf(&r->arena, "%s/%s", r->c.dir, path);
}

static void read_models(Rig *r, const char *dir, const char *backend) {
    char path[512];
    Json *scheduler;
    int steps;
    CHECK_OK(golden_open(&r->c, dir));
    snprintf(path, sizeof path, "%s/case.json", dir);
    CHECK_OK(json_open(&r->about, path));
    CHECK_OK(model_dir_open(&r->part, member(r, "model"), NULL, NULL, NULL));
    CHECK_OK(unet_svd_config(&r->unet.cfg, r->part->config));
    CHECK_OK(params_of_part(&r->params, r->part, ""));
    CHECK_OK(lora_read(&r->lora, member(r, "lora")));
    CHECK_OK(json_want_int(r->about, "num_inference_steps", &steps));
    CHECK_OK(json_open(&scheduler, member(r, "scheduler")));
    CHECK_OK(diffusion_schedule(&r->schedule, &r->arena, scheduler,
                                &(DiffusionOptions){.steps = steps}));
    json_close(scheduler);
    CHECK_OK(backend_open(&r->be, backend, (BackendOptions){.threads = 2, .pack_weights = true}));
}

static void read_inputs(Rig *r) {
    const int64_t *d = safetensors_find(r->c.file, "in.noise")->dim; // (B, F, C, h, w)
    Json *guidance;
    double min, max;
    bool on;
    float *g = arena_array(&r->arena, float, d[1]);
    CHECK_OK(json_want_object(r->about, "guidance", &guidance));
    CHECK_OK(json_want_f64(guidance, "min", &min));
    CHECK_OK(json_want_f64(guidance, "max", &max));
    CHECK_OK(diffusion_guidance(min, max, (int)d[1], g, &on));
    r->spec = (DenoiseSpec){.net = unet_svd_denoiser,
                            .self = &r->unet,
                            .videos = d[0],
                            .frames = d[1],
                            .h = d[3],
                            .w = d[4],
                            .channels = d[2],
                            .image_channels = r->unet.cfg.in_channels - d[2],
                            .context_len = 1,
                            .context_dim = r->unet.cfg.context_dim,
                            .ids_cnt = r->unet.cfg.ids_cnt,
                            .guidance = on ? g : NULL};
    r->cnt = d[0] * d[1] * d[2] * d[3] * d[4];
    r->image = golden_values(&r->c, "in.image_latents", 1);
    r->context = golden_values(&r->c, "in.image_embeds", -1);
    r->ids = golden_values(&r->c, "in.added_time_ids", -1);
    r->x = golden_values(&r->c, "in.noise", 2);
    for (int64_t i = 0; i < r->cnt; i++) r->x[i] = (float)(r->schedule.init_noise_sigma * r->x[i]);
    r->saved = calloc((size_t)(r->cnt * r->schedule.cnt), sizeof(float));
    r->cond = (DenoiseConditioning){r->image, r->context, r->ids};
}

static void make_plan(Rig *r, Part *p) {
    CHECK_OK(plan_new(&p->plan, p->d.g, r->be, (PlanOptions){0}));
    CHECK_OK(lora_write_theta(r->lora, p->d.g, p->plan, lora_theta(r->lora)));
    CHECK_OK(denoise_write(&p->d, p->plan, &r->cond));
}

static void make_step(Rig *r, Part *p) {
    NN nn = {.g = graph_new(), .params = r->params, .lora = r->lora};
    CHECK_OK(denoise_build(&p->d, &nn, &r->spec));
    CHECK_OK(params_finish(r->params));
    CHECK_OK(lora_finish(r->lora));
    CHECK_OK(lora_load_values(r->lora));
    if (!r->grad) r->grad = calloc((size_t)lora_theta_count(r->lora), sizeof(float));
    make_plan(r, p);
}

static void make_back(Rig *r, Part *p, const DenoiseSpec *spec, DenoiseVjpOptions opt) {
    NN nn = {.g = graph_new(), .params = r->params, .lora = r->lora};
    CHECK_OK(denoise_build_vjp(&p->d, &nn, spec, opt));
    make_plan(r, p);
}

// Compares r->grad with grad.lora.<call>.*; returns the worst error.
static double gradient_error(Rig *r, const char *call) {
    char prefix[64], key[600];
    snprintf(prefix, sizeof prefix, "grad.lora.%s.", call);
    double least = 1e-6 * golden_largest(&r->c, prefix), worst = 0;
    for (int i = 0; i < lora_module_count(r->lora); i++) {
        const LoraModule *m = lora_module(r->lora, i);
        for (int b = 0; b < 2; b++) {
            snprintf(key, sizeof key, "%sbase_model.model.%s.lora_%c.weight", prefix, m->path,
                     b ? 'B' : 'A');
            const float *got = m->dead ? NULL : r->grad + (b ? m->b_at : m->a_at);
            double e = golden_error(&r->c, key, -1, got, least);
            if (!(e <= 1e-4)) TEST_FAIL("%s: relative error %.3g", key, e);
            worst = fmax(worst, e);
        }
    }
    return worst;
}

// One call of the case: a window, from x_K to x_0 and back.
static void run_window(Rig *r, Part *step, Part *back, Json *call) {
    const char *name, *finish, *start;
    Json *args;
    int64_t at[16];
    int cnt;
    CHECK_OK(json_want_str(call, "name", &name));
    CHECK_OK(json_want_object(call, "args", &args));
    CHECK_OK(json_want_i64s(args, "window", at, 16, &cnt));
    CHECK_OK(json_want_str(args, "finish", &finish));
    CHECK_OK(json_want_str(args, "x_K", &start));
    bool predict = !strcmp(finish, "predict");
    DenoiseJob job = {.schedule = &r->schedule, .window = {(int)at[0], cnt, predict}};
    float *x = golden_values(&r->c, start, 2);
    float *cot = golden_values(&r->c, predict ? "grad.out.predict.x_0" : "grad.out.x_0", 2);
    CHECK_OK(denoise_run(&step->d, step->plan, &job, (int)at[0],
                         diffusion_end(&r->schedule, job.window), x, r->saved));
    const char *end = predict ? "out.predict.x_0" : "out.x_0";
    double error = golden_error(&r->c, end, 2, x, 0);
    CHECK_MSG(error <= 1e-5, "%s: x_0 has relative error %.3g", name, error);
    CHECK_OK(denoise_pull(&back->d, back->plan, &job, r->saved, cot, r->grad));
    double worst = gradient_error(r, name);
    printf("   %s, %s: x_0 %.2g, gradient %.2g\n", r->be->name, name, error, worst);
    free(x);
    free(cot);
}

static void run_chain(Rig *r, Part *step) {
    DenoiseJob job = {.schedule = &r->schedule};
    char name[64];
    for (int k = 0; k < r->schedule.cnt; k++) {
        snprintf(name, sizeof name, "out.latents.%d", k);
        double error = golden_error(&r->c, name, 2, r->x, 0);
        CHECK_MSG(error <= 1e-5, "%s: relative error %.3g", name, error);
        CHECK_OK(denoise_run(&step->d, step->plan, &job, k, k + 1, r->x, NULL));
        snprintf(name, sizeof name, "out.v.%d", k);
        CHECK_GOLDEN(&r->c, step->plan, step->d.v, name, 2, 1e-5);
    }
    CHECK(golden_error(&r->c, "out.x_0", 2, r->x, 0) <= 1e-5);
}

// On ref, which is slow, only the windows of one step that is the last.
static void run_case(const char *dir, const char *backend, bool batch, bool recompute) {
    bool all = strcmp(backend, "ref") != 0;
    Rig r = {0};
    Part step = {0}, back = {0};
    Json *call[16];
    int calls;
    read_models(&r, dir, backend);
    if (test_failed()) return;
    r.unet.opt.recompute = recompute;
    read_inputs(&r);
    r.spec.batch_branches = batch;
    if (!test_failed()) make_step(&r, &step);
    if (!test_failed()) make_back(&r, &back, &r.spec, (DenoiseVjpOptions){.input_gradient = true});
    if (!test_failed() && all) run_chain(&r, &step);
    if (test_failed()) return;
    CHECK_OK(json_want_objects(r.about, "calls", call, 16, &calls));
    for (int i = 0; i < calls && !test_failed(); i++) {
        const char *name;
        CHECK_OK(json_want_str(call[i], "name", &name));
        if (all || !strcmp(name, "k1_last")) run_window(&r, &step, &back, call[i]);
    }
    part_fini(&step);
    part_fini(&back);
    fini(&r);
}

TEST(golden_ref) { run_case(ROOT "/pipeline_step", "ref", false, false); }
TEST(golden_cpu) { run_case(ROOT "/pipeline_step", "cpu", false, false); }
TEST(golden_cpu_batched_recompute) { run_case(ROOT "/pipeline_step", "cpu", true, true); }

// Other files in the format of tests/golden.
TEST(golden_more) {
    const char *root = getenv("GOLDEN_MORE");
    char dir[512];
    if (!root) SKIP("GOLDEN_MORE is not set");
    snprintf(dir, sizeof dir, "%s/pipeline_step", root);
    run_case(dir, "ref", false, false);
    if (!test_failed()) run_case(dir, "cpu", true, true);
}

// ---- Options ----

static double distance(const float *a, const float *b, int64_t cnt) {
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < cnt; i++) {
        diff += pow((double)a[i] - b[i], 2);
        norm += pow(b[i], 2);
    }
    return sqrt(diff / norm);
}

// detach_input: the window's gradient is the sum of its steps' own, each under the product of later a's.
// cond_only: the gradient of a network without guidance whose cotangent is multiplied by g_f.
TEST(options) {
    Rig r = {0};
    Part step = {0}, back = {0}, cond = {0}, plain = {0};
    read_models(&r, ROOT "/pipeline_step", "cpu");
    if (test_failed()) return;
    read_inputs(&r);
    make_step(&r, &step);
    make_back(&r, &back, &r.spec, (DenoiseVjpOptions){0});
    make_back(&r, &cond, &r.spec, (DenoiseVjpOptions){.cond_only = true});
    DenoiseSpec unguided = r.spec;
    unguided.guidance = NULL;
    make_back(&r, &plain, &unguided, (DenoiseVjpOptions){0});
    if (test_failed()) return;

    int64_t theta = lora_theta_count(r.lora), frame = r.cnt / r.spec.frames / r.spec.videos;
    float *cot = malloc((size_t)r.cnt * sizeof *cot), *dx0 = golden_values(&r.c, "grad.out.x_0", 2);
    float *sum = calloc((size_t)theta, sizeof *sum), *want = calloc((size_t)theta, sizeof *want);
    DenoiseJob job = {.schedule = &r.schedule, .window = {1, 2, false}};
    CHECK_OK(denoise_run(&step.d, step.plan, &job, 0, 4, r.x, r.saved));
    memcpy(cot, dx0, (size_t)r.cnt * sizeof *cot);
    CHECK_OK(denoise_pull(&back.d, back.plan, &job, r.saved, cot, r.grad));
    for (int k = 2; k >= 1; k--) {
        DenoiseJob one = {.schedule = &r.schedule, .window = {k, 1, false}};
        memcpy(cot, dx0, (size_t)r.cnt * sizeof *cot);
        CHECK_OK(denoise_pull(&back.d, back.plan, &one, r.saved + (k - 1) * r.cnt, cot, want));
        for (int64_t i = 0; i < theta; i++) sum[i] += want[i];
    }
    CHECK(distance(r.grad, sum, theta) < 1e-5);

    job.window = (DiffusionWindow){1, 1, false};
    memcpy(cot, dx0, (size_t)r.cnt * sizeof *cot);
    CHECK_OK(denoise_pull(&cond.d, cond.plan, &job, r.saved, cot, r.grad));
    for (int64_t i = 0; i < r.cnt; i++)
        cot[i] = dx0[i] * r.spec.guidance[i / frame % r.spec.frames];
    CHECK_OK(denoise_pull(&plain.d, plain.plan, &job, r.saved, cot, want));
    CHECK(distance(r.grad, want, theta) < 1e-5);
    CHECK(plan_memory(cond.plan)->run_cnt < plan_memory(back.plan)->run_cnt * 2 / 3);
    free(cot);
    free(dx0);
    free(sum);
    free(want);
    part_fini(&step);
    part_fini(&back);
    part_fini(&cond);
    part_fini(&plain);
    fini(&r);
}
