// Contract 3: the gradient that four stages hand on is that of one graph, and that of the function itself.
//
// For each setting of the mathematics a rollout goes through the stages in one process. What is constant in
// the surrogate is read back: x_K, the network's outputs after the window, what each segment was
// conditioned on. From these one graph is built, from theta to R, over all segments, and
//   - its gradient on `cpu` is the sample's row of the board to 1e-5;
//   - on `ref`, in double, its central differences along random directions of theta are that row's slopes to
//     1e-3;
//   - the same run as processes (`vader train`) leaves that row bit for bit: with beta1 = 0 the first moment
//     in its state is the gradient.
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/model/reward.h"
#include "common/model/vae_temporal.h"
#include "common/proc/conductor.h"
#include "common/proc/stage.h"
#include "common/stages/denoiser.h"
#include "common/stages/scoring.h"
#include "common/tensor/grad.h"
#include "common/tensor/optim.h"
#include "decoder/decoder.h"
#include "learner/learner.h"
#include "rewarder/rewarder.h"
#include "sampler/sampler.h"
#include "tests/test.h"

enum { WORDS_MAX = 12, SEGMENTS_MAX = 3, STEPS_MAX = 8 };
#ifdef __SANITIZE_THREAD__
enum { DIRECTIONS = 1 }; // `ref` has one thread: nothing to find there, an hour to wait
#else
enum { DIRECTIONS = 8 };
#endif

static const Stage *const stages[STAGE_CNT] = {&sampler_stage, &decoder_stage, &rewarder_stage,
                                               &learner_stage};

// As small as the models allow: four by four latents.
static const char text[] =
    "model: tiny-svd\n"
    "stages: {sampler.threads: 1, decoder.threads: 1, rewarder.threads: 1, learner.threads: 1}\n"
    "sampler: {steps: 4, sigma_max: 20}\n"
    "guidance: {min: 1, max: 1}\n"
    "video: {frames: 2, width: 16, height: 16}\n"
    "data.images: [pictures/hills.png]\n"
    "lora: {rank: 2, alpha: 3}\n"
    "optim: {rollouts: 1, updates: 1, beta1: 0, clip: 0}\n"
    "ckpt.every: 0\n"
    "reward: [{model: videomae, path: tiny-videomae, class: drift}]\n";

// ---- A rollout through the stages ----

typedef struct Rollout {
    Config *cfg;
    void *self[STAGE_CNT];
    StagePlan plan[STAGE_CNT];
    StageCtx *ctx[STAGE_CNT];
    Run run;
    Conductor *conductor;
    Denoiser *denoiser; // for what the learner does not keep
    DiffusionWindow window[SEGMENTS_MAX];
    // Per segment: x before each step of the window, v of each step after it, v_u of each step of the window
    float *saved[SEGMENTS_MAX], *tail[SEGMENTS_MAX], *v_u[SEGMENTS_MAX];
} Rollout;

static const float *section(Rollout *r, SectionKind kind, uint32_t segment) {
    const void *data;
    Err err = run_read(&r->run, kind, 0, segment, 1, &data);
    die_unless(!err, "%s", err_text());
    return data;
}

static Err open_stages(Rollout *r, const char *dir) {
    SectionTable table;
    BoardSpec board;
    char numerics[512];
    ConductorStart start = {.run_dir = dir};
    for (int s = 0; s < STAGE_CNT; s++)
        TRY(stages[s]->open(r->cfg, 0, false, NULL, &r->self[s], &r->plan[s]));
    TRY(stage_plan_combine(r->plan, r->cfg, &table, &board, numerics));
    TRY(run_create(&r->run, r->cfg, &table, &board, r->plan[STAGE_LEARNER].modules));
    start.window_at = r->plan[STAGE_LEARNER].window_at;
    TRY(conductor_new(&r->conductor, r->cfg, &r->run, &start));
    for (int s = 0; s < STAGE_CNT; s++)
        TRY(stage_ctx_new(&r->ctx[s], stages[s], r->self[s], r->cfg, 0, &r->run, NULL, NULL));
    return ERR_OK;
}

// Until sample 0 has its gradient.
static Err roll(Rollout *r) {
    ConductorNews news;
    TRY(conductor_poll(r->conductor, &news));
    while (!board_tag(r->run.board, 0)) {
        bool any = false, worked;
        for (int s = 0; s < STAGE_CNT; s++) {
            TRY(stage_poll(r->ctx[s], &worked));
            any |= worked;
        }
        if (!any) FAIL(ERR_TIMEOUT, "no stage can go on");
    }
    return ERR_OK;
}

// The raw output of the network's unconditional branch at x: that of zeros for image and context.
static Err unconditional(const Denoiser *d, const DenoiseJob *job, int k, const float *x,
                         float *v_u) {
    static const float zeros[4096];
    Graph *g = graph_new();
    NN nn = {.g = g, .params = d->params, .lora = d->lora};
    DenoiseSpec spec = d->spec;
    DenoiseGraph step;
    Plan *plan = NULL;
    float ids[3], copy[4096];
    spec.guidance = NULL;
    denoiser_ids(d, ids);
    DenoiseConditioning none = {.image = zeros, .context = zeros, .ids = ids};
    memcpy(copy, x, (size_t)d->latent_cnt * sizeof *x);
    Err err = denoise_build(&step, &nn, &spec);
    if (!err) err = plan_new(&plan, g, d->be, (PlanOptions){0});
    if (!err) err = lora_write_theta(d->lora, g, plan, lora_theta(d->lora));
    if (!err) err = denoise_write(&step, plan, &none);
    if (!err) err = denoise_run(&step, plan, job, k, k + 1, copy, NULL);
    if (!err) err = plan_read(plan, step.v, v_u);
    plan_free(plan);
    graph_free(g);
    return err;
}

// Runs a segment's steps again, one by one, and keeps what the surrogate holds fixed.
static Err replay(Rollout *r, uint32_t s) {
    Denoiser *d = r->denoiser;
    int64_t cnt = d->latent_cnt;
    float ids[3], *x = calloc((size_t)cnt, sizeof *x);
    DenoiseJob job = denoiser_job(d, &r->run.state->slot[0].header, s);
    int first = job.window.first, end = diffusion_end(&d->schedule, job.window);
    die_unless(end <= STEPS_MAX && cnt <= 4096, "test: too large");
    r->window[s] = job.window;
    r->saved[s] = calloc((size_t)(cnt * STEPS_MAX), sizeof(float));
    r->tail[s] = calloc((size_t)(cnt * STEPS_MAX), sizeof(float));
    r->v_u[s] = calloc((size_t)(cnt * STEPS_MAX), sizeof(float));
    die_unless(x && r->saved[s] && r->tail[s] && r->v_u[s], "test: out of memory");
    denoiser_ids(d, ids);
    DenoiseConditioning c = {
        .image = section(r, SECTION_COND, s), .context = section(r, SECTION_EMBED, s), .ids = ids};
    Err err = denoise_write(&d->step, d->step_plan, &c);
    memcpy(x, section(r, SECTION_X_K, s), (size_t)cnt * sizeof *x);
    for (int k = first; !err && k < end; k++) {
        memcpy(r->saved[s] + cnt * k, x, (size_t)cnt * sizeof *x);
        if (d->guidance) err = unconditional(d, &job, k, x, r->v_u[s] + cnt * k);
        if (!err) err = denoise_run(&d->step, d->step_plan, &job, k, k + 1, x, NULL);
        if (!err) err = plan_read(d->step_plan, d->step.v, r->tail[s] + cnt * k);
    }
    if (!err && memcmp(x, section(r, SECTION_X_0, s), (size_t)cnt * sizeof *x))
        err = err_fail(ERR_NUMERIC, __FILE__, __LINE__, __func__, "segment %u: another x_0", s);
    free(x);
    return err;
}

static Err rollout_open(Rollout *r, const char *dir, int cnt, const char *const *word) {
    StagePlan plan = {0};
    TRY(config_load_text(&r->cfg, "gradient", "tests/data", text, strlen(text), cnt, word));
    TRY(open_stages(r, dir));
    TRY(roll(r));
    TRY(denoiser_open(&r->denoiser, r->cfg, STAGE_LEARNER, false, false, NULL, &plan));
    TRY(denoiser_use(r->denoiser, board_theta(r->run.board, 0), 0));
    for (uint32_t s = 0; s < r->run.state->segments; s++) TRY(replay(r, s));
    return ERR_OK;
}

static void rollout_close(Rollout *r) {
    for (int s = 0; s < SEGMENTS_MAX; s++) {
        free(r->saved[s]);
        free(r->tail[s]);
        free(r->v_u[s]);
    }
    denoiser_close(r->denoiser);
    conductor_free(r->conductor);
    for (int s = 0; s < STAGE_CNT; s++) {
        stage_ctx_free(r->ctx[s]);
        if (r->self[s]) stages[s]->close(r->self[s]);
        stage_plan_fini(&r->plan[s]);
    }
    run_leave(&r->run);
    config_free(r->cfg);
}

// ---- One graph ----

typedef struct Mono {
    Rollout *r;
    Graph *g;
    NN unet, vae;
    ModelPart *vae_part;
    VaeTemporalConfig vae_cfg;
    Rewards *rewards;
    RewardGraph out;
    Tensor **wrt, **grad; // A and B of every live module, and their gradients
    int wrt_cnt;
    Backend *be;
    Plan *plan;
} Mono;

static Tensor *constant(Mono *m, const char *name, Shape shape, const float *data) {
    return graph_weight(m->g, name, DTYPE_F32, shape, data);
}

static Tensor *scalar(Mono *m, double x) {
    float *data = arena_new(&m->g->arena, float);
    *data = (float)x;
    return constant(m, "scalar", SHAPE(1), data);
}

static Shape latents(const Denoiser *d) {
    return SHAPE(1, d->spec.frames, d->spec.h, d->spec.w, d->spec.channels);
}

// v of step k as the network gives it, guided.
static Tensor *network(Mono *m, uint32_t s, int k, Tensor *x) {
    const Denoiser *d = m->r->denoiser;
    const DenoiseSpec *spec = &d->spec;
    Graph *g = m->g;
    float *ids = arena_array(&g->arena, float, 3);
    denoiser_ids(d, ids);
    Tensor *image = constant(m, "image", SHAPE(1, 1, spec->h, spec->w, spec->image_channels),
                             section(m->r, SECTION_COND, s));
    Tensor *context =
        constant(m, "context", SHAPE(1, 1, spec->context_dim), section(m->r, SECTION_EMBED, s));
    Tensor *time_ids = constant(m, "ids", SHAPE(1, 3), ids), *t = scalar(m, d->schedule.step[k].t);
    Tensor *scaled = op_mul(g, x, scalar(m, d->schedule.step[k].c_in));
    Tensor *joined[2] = {
        scaled,
        op_expand(g, image, SHAPE(1, spec->frames, spec->h, spec->w, spec->image_channels))};
    Tensor *v =
        unet_svd_denoiser(&d->net, &m->unet, op_concat(g, 4, 2, joined), t, context, time_ids);
    if (!d->guidance) return v;
    Tensor *v_u = constant(m, "v_u", latents(d), m->r->v_u[s] + d->latent_cnt * k);
    if (d->cfg->guidance_gradient == CONFIG_GUIDANCE_BOTH) {
        const int64_t none[5] = {0}, behind[5] = {0, 0, 0, 0, spec->image_channels};
        v_u = unet_svd_denoiser(&d->net, &m->unet, op_pad(g, scaled, none, behind), t,
                                op_affine(g, context, 0, 0), time_ids);
    }
    Tensor *scale = constant(m, "guidance", SHAPE(1, spec->frames, 1, 1, 1), d->guidance);
    return op_add(g, v_u, op_mul(g, op_sub(g, v, v_u), scale));
}

// x_0 of a segment as a function of theta, x_K and the frozen outputs of the tail.
static Tensor *denoised(Mono *m, uint32_t s) {
    const Denoiser *d = m->r->denoiser;
    DiffusionWindow w = m->r->window[s];
    Tensor *x = constant(m, "x_K", latents(d), section(m->r, SECTION_X_K, s));
    for (int k = w.first; k < diffusion_end(&d->schedule, w); k++) {
        double a, b, z;
        diffusion_coefficients(&d->schedule, w, k, &a, &b, &z);
        Tensor *seen = x; // what the network is shown
        if (d->cfg->detach_input)
            seen = constant(m, "x_k", latents(d), m->r->saved[s] + d->latent_cnt * k);
        Tensor *v = k < w.first + w.cnt
                        ? network(m, s, k, seen)
                        : constant(m, "v", latents(d), m->r->tail[s] + d->latent_cnt * k);
        x = op_add(m->g, op_mul(m->g, x, scalar(m, a)), op_mul(m->g, v, scalar(m, b)));
    }
    return x;
}

// The scored frames of a segment: all of them, decoded in chunks; or every second one.
static Tensor *decoded(Mono *m, Tensor *x) {
    const Config *cfg = m->r->cfg;
    Graph *g = m->g;
    Tensor *part[4];
    int64_t cnt = cfg->frames, n = 0;
    if (!strcmp(cfg->grad_frames, "alt")) {
        for (int64_t i = 0; i < cnt; i += 2) part[n++] = op_slice(g, x, 1, i, 1);
        x = op_concat(g, 1, (int)n, part);
        cnt = n;
    }
    int64_t chunk = cfg->decode_chunk ? cfg->decode_chunk : cnt;
    n = 0;
    for (int64_t i = 0; i < cnt; i += chunk) {
        Tensor *z = op_slice(g, x, 1, i, cnt - i < chunk ? cnt - i : chunk);
        z = op_affine(g, z, 1 / m->vae_cfg.scaling_factor, 0);
        part[n++] = vae_temporal_decode(&m->vae, &m->vae_cfg, z, (VaeTemporalOptions){0});
    }
    return op_concat(g, 1, (int)n, part);
}

static Err build_reward(Mono *m, Tensor *frames) {
    const Config *cfg = m->r->cfg;
    Tensor *picture[SEGMENTS_MAX];
    for (uint32_t s = 0; s < cfg->segments; s++)
        picture[s] = constant(m, "picture", SHAPE(1, 1, cfg->height, cfg->width, 3),
                              section(m->r, SECTION_PIXELS, s));
    Tensor *pictures = op_concat(m->g, 1, (int)cfg->segments, picture);
    TRY(scoring_open(&m->rewards, cfg, frames->shape.dim[1] / cfg->segments));
    return reward_build(m->rewards, m->g, frames, pictures, false, &m->out);
}

static Err build(Mono *m, bool with_gradient) {
    const Denoiser *d = m->r->denoiser;
    Tensor *frames[SEGMENTS_MAX];
    int segments = (int)m->r->cfg->segments;
    Graph *g = m->g;
    for (int s = 0; s < segments; s++) frames[s] = decoded(m, denoised(m, (uint32_t)s));
    TRY(graph_check(g));
    TRY(build_reward(m, op_concat(g, 1, segments, frames)));
    m->wrt = arena_array(&g->arena, Tensor *, 2 * lora_module_count(d->lora));
    m->grad = arena_array(&g->arena, Tensor *, 2 * lora_module_count(d->lora));
    m->wrt_cnt = lora_inputs(d->lora, g, m->wrt);
    graph_output(g, &m->out.total, "R");
    if (!with_gradient) return graph_check(g);
    Tensor *one = scalar(m, 1);
    TRY(grad_build(g, 1, &m->out.total, &one, m->wrt_cnt, m->wrt, m->grad));
    for (int i = 0; i < m->wrt_cnt; i++)
        if (m->grad[i]) graph_output(g, &m->grad[i], "grad");
    return graph_check(g);
}

static Err mono_open(Mono *m, Rollout *r, const char *backend, bool with_gradient) {
    const Denoiser *d = r->denoiser;
    *m = (Mono){.r = r, .g = graph_new()};
    m->unet = (NN){.g = m->g, .params = d->params, .lora = d->lora};
    TRY(model_dir_open(&m->vae_part, r->cfg->model, "vae", "AutoencoderKLTemporalDecoder", NULL));
    TRY(vae_temporal_config(&m->vae_cfg, m->vae_part->config));
    m->vae = (NN){.g = m->g};
    TRY(params_of_part(&m->vae.params, m->vae_part, ""));
    TRY(build(m, with_gradient));
    TRY(backend_open(&m->be, backend, (BackendOptions){.threads = 1, .pack_weights = true}));
    TRY(plan_new(&m->plan, m->g, m->be, (PlanOptions){0}));
    return reward_draw(m->rewards, m->plan, (RngKey){.sample = rng_sample(RNG_TRAIN, 0)});
}

static void mono_close(Mono *m) {
    plan_free(m->plan);
    graph_free(m->g);
    reward_close(m->rewards);
    backend_close(m->be);
    params_close(m->vae.params);
    model_dir_close(m->vae_part);
}

// ---- Comparing ----

static void check_monolithic(Rollout *r) {
    Mono m;
    const Lora *lora = r->denoiser->lora;
    int64_t cnt = lora_theta_count(lora);
    float *grad = calloc((size_t)cnt, sizeof *grad), total;
    double off = 0, all = 0;
    CHECK_OK(mono_open(&m, r, "cpu", true));
    CHECK_OK(lora_write_theta(lora, m.g, m.plan, board_theta(r->run.board, 0)));
    CHECK_OK(plan_run(m.plan));
    CHECK_OK(lora_add_gradient(lora, m.plan, m.grad, grad));
    CHECK_OK(plan_read(m.plan, m.out.total, &total));
    const float *row = board_row(r->run.board, 0);
    for (int64_t i = 0; i < cnt; i++) {
        off += ((double)grad[i] - row[i]) * ((double)grad[i] - row[i]);
        all += (double)row[i] * row[i];
    }
    printf("  |dR/dtheta| %.3g, one graph differs by %.1e\n", sqrt(all), sqrt(off / all));
    CHECK_NEAR(total, board_row_note(r->run.board, 0)->score.reward, 1e-6 * fabs(total));
    CHECK_MSG(all > 0 && sqrt(off / all) <= 1e-5, "gradients differ by %.3g, |g| %.3g",
              sqrt(off / all), sqrt(all));
    mono_close(&m);
    free(grad);
}

// R at theta + h direction, on `ref`, which stores F32 as double.
static double value_at(const Mono *m, const float *direction, double h) {
    const Lora *lora = m->r->denoiser->lora;
    const float *theta = board_theta(m->r->run.board, 0);
    for (int i = 0, n = 0; i < lora_module_count(lora); i++) {
        const LoraModule *mod = lora_module(lora, i);
        if (mod->dead) continue;
        for (int b = 0; b < 2; b++, n++) {
            int64_t at = b ? mod->b_at : mod->a_at;
            double *p = m->wrt[n] ? plan_data(m->plan, m->wrt[n]) : NULL;
            for (int64_t k = 0; p && k < shape_count(m->wrt[n]->shape); k++)
                p[k] = theta[at + k] + h * direction[at + k];
        }
    }
    if (plan_run(m->plan)) TEST_FAIL("%s", err_trace());
    return *(const double *)plan_data(m->plan, m->out.total);
}

// A direction that is all but orthogonal to the gradient is held to what F32 leaves of it.
static void check_differences(Rollout *r) {
    Mono m;
    const float *row = board_row(r->run.board, 0);
    int64_t cnt = lora_theta_count(r->denoiser->lora);
    float *direction = calloc((size_t)cnt, sizeof *direction);
    double worst = 0, size = optim_norm(cnt, row); // of a slope, usually
    const double h = 1e-6;
    CHECK_OK(mono_open(&m, r, "ref", false));
    for (uint32_t i = 0; i < DIRECTIONS && !test_failed(); i++) {
        RngKey key = {.seed = 5, .sample = i, .use = rng_use(RNG_TEST, 0, 0, 0, 0)};
        double slope = 0;
        rng_fill_normal(key, direction, (size_t)cnt);
        for (int64_t k = 0; k < cnt; k++) slope += (double)row[k] * direction[k];
        double found = (value_at(&m, direction, h) - value_at(&m, direction, -h)) / (2 * h);
        double off = fabs(found - slope) / fmax(fabs(found), size / 30);
        worst = off > worst ? off : worst;
        CHECK_MSG(off <= 1e-3, "direction %u: slope %.9g, central difference %.9g", i, slope,
                  found);
    }
    printf("  %d directions, worst %.1e\n", DIRECTIONS, worst);
    mono_close(&m);
    free(direction);
}

// The same run as processes leaves the gradient as the first moment (times -1: R is ascended).
static void check_processes(Rollout *r, const char *dir) {
    char conf[400], run[400], word[420];
    LedgerHead head;
    Board *board;
    int found, status;
    snprintf(conf, sizeof conf, "%s/conf.yaml", dir);
    snprintf(run, sizeof run, "%s/run", dir);
    snprintf(word, sizeof word, "run=%s", run);
    FILE *f = fopen(conf, "w");
    CHECK(f);
    config_write(r->cfg, f, false);
    fclose(f);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        execl(getenv("VADER"), "vader", "train", conf, word, (char *)NULL);
        _exit(127);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    const BoardSpec *spec = board_spec(r->run.board);
    void *memory = aligned_alloc(4096, board_bytes(spec));
    CHECK(memory);
    memset(memory, 0, board_bytes(spec));
    CHECK_OK(board_create(&board, memory, spec, r->plan[STAGE_LEARNER].modules));
    CHECK_OK(ledger_read(run, &head, board, &found));
    CHECK(found && head.version == 1);
    const float *row = board_row(r->run.board, 0), *m = board_m(board, 1);
    for (int64_t i = 0; i < spec->theta_cnt; i++)
        CHECK_MSG(m[i] == -row[i], "element %lld: %.9g by processes, %.9g in one", (long long)i,
                  -m[i], row[i]);
    board_leave(board);
    free(memory);
}

// ---- Settings ----

static const char *fresh_dir(const char *name) {
    static char dir[300];
    snprintf(dir, sizeof dir, "%s/%s.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
    die_unless(mkdtemp(dir), "no temporary folder");
    return dir;
}

// An adapter with something in B, where every entry of the gradient counts. "lora.init=..."
static const char *adapter(void) {
    static char word[400];
    StagePlan plan = {0};
    Config *cfg;
    Denoiser *d;
    if (*word) return word;
    if (config_load_text(&cfg, "gradient", "tests/data", text, strlen(text), 0, NULL) ||
        denoiser_open(&d, cfg, STAGE_SAMPLER, false, false, NULL, &plan))
        die("test: %s", err_trace());
    float *theta = lora_theta(d->lora);
    for (int i = 0; i < lora_module_count(d->lora); i++) {
        const LoraModule *m = lora_module(d->lora, i);
        RngKey key = {.sample = (uint64_t)i, .use = rng_use(RNG_TEST, 1, 0, 0, 0)};
        if (m->dead) continue;
        rng_fill_normal(key, theta + m->b_at, (size_t)(m->out * 2));
        for (int64_t k = 0; k < m->out * 2; k++) theta[m->b_at + k] *= 0.1f;
    }
    const char *dir = fresh_dir("adapter");
    if (lora_write_peft(d->lora, theta, dir)) die("test: %s", err_trace());
    denoiser_close(d);
    config_free(cfg);
    snprintf(word, sizeof word, "lora.init=%s", dir);
    return word;
}

static void check(const char *const *words) {
    static Rollout r;
    const char *word[WORDS_MAX], *dir = fresh_dir("run");
    int cnt = 0;
    word[cnt++] = adapter();
    while (*words) word[cnt++] = *words++;
    r = (Rollout){.run = {.state_shm.fd = -1, .board_shm.fd = -1}};
    for (int i = 1; i < cnt; i++) printf("%s%s", word[i], i + 1 < cnt ? " " : "\n");
    CHECK_OK(rollout_open(&r, dir, cnt, word));
    check_monolithic(&r);
    if (!test_failed()) check_differences(&r);
    if (!test_failed()) check_processes(&r, dir);
    rollout_close(&r);
}

#define K1 "window.steps=1"
#define K2 "window.steps=2"
#define GAIN "window.at=gain"
#define RANDOM "window.at=random", "window.range=[0, 2]"
#define PREDICT "window.finish=predict"
#define DETACH "window.detach_input=true"
#define GUIDED "guidance.max=3"
#define VJEPA "reward.0.model=vjepa", "reward.0.path=tests/data/tiny-vjepa", "reward.0.form=score"
#define FIRST_FRAME "reward.1.model=first_frame", "reward.1.form=score", "reward.1.weight=20"

static const char *const setting[][8] = {
    {"window.at=last", K1},
    {"window.at=last", K2},
    {GAIN, K1},
    {GAIN, K2},
    {RANDOM, K1},
    {RANDOM, K2},
    {"window.at=0", K1},
    {"window.at=0", K2},
    {"window.at=0", "window.steps=to_end"},
    {"window.at=0", K1, PREDICT},
    {"window.at=1", K2, PREDICT},
    {"window.at=1", K2, DETACH},
    {"window.at=1", K2, GUIDED},
    {"window.at=1", K2, GUIDED, "guidance.gradient=cond"},
    {GAIN, K1, "decode.chunk=1"},
    {GAIN, K1, "decode.grad_frames=alt", "video.frames=4"},
    {GAIN, K1, VJEPA, "vjepa.gradient=full"},
    {GAIN, K1, FIRST_FRAME},
};

static void check_all(const char *segments) {
    for (size_t i = 0; i < sizeof setting / sizeof *setting && !test_failed(); i++) {
        const char *word[9] = {segments};
        for (int k = 0; k < 8; k++) word[k + 1] = setting[i][k];
        check(word);
    }
}

TEST(one_segment) { check_all("video.segments=1"); }
TEST(three_segments) { check_all("video.segments=3"); }
