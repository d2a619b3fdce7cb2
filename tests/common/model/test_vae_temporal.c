// vae_temporal against diffusers: encoder, decoder of several frames and of one, input gradients.
#include "common/model/vae_temporal.h"

#include "common/tensor/grad.h"
#include "tests/common/model/golden.h"

#define VAE "tests/golden/vae_temporal"

typedef struct Call {
    const char *name, *in, *out; // "decode", "z", "frames"
    bool encode;
} Call;

static const Call encode_call = {"encode", "image", "latent", true};
static const Call decode_call = {"decode", "z", "frames", false};
static const Call decode1_call = {"decode1", "z", "frames", false};

// Golden frames are (F, C, H, W); ours (1, F, H, W, C).
static void run_call(Golden *c, const Call *call, const VaeTemporalConfig *cfg, Params *params,
                     Backend *be, bool recompute) {
    char in[64], out[64], cot[64], grad[64];
    snprintf(in, sizeof in, "in.%s.%s", call->name, call->in);
    snprintf(out, sizeof out, "out.%s.%s", call->name, call->out);
    snprintf(cot, sizeof cot, "cot.%s.%s", call->name, call->out);
    snprintf(grad, sizeof grad, "grad.in.%s.%s", call->name, call->in);
    const SafetensorsEntry *e = safetensors_find(c->file, in);
    CHECK_MSG(e && e->rank == 4, "%s is not there", in);
    Graph *g = graph_new();
    NN nn = {.g = g, .params = params};
    Tensor *x =
               graph_input(g, "x", DTYPE_F32, SHAPE(1, e->dim[0], e->dim[2], e->dim[3], e->dim[1])),
           *d = NULL;
    VaeTemporalOptions opt = {.recompute = recompute};
    Tensor *y = call->encode ? vae_temporal_encode(&nn, cfg, x, opt)
                             : vae_temporal_decode(&nn, cfg, x, opt);
    CHECK_OK(graph_check(g));
    Tensor *dy = graph_input(g, "dy", DTYPE_F32, y->shape);
    CHECK_OK(grad_build(g, 1, &y, &dy, 1, &x, &d));
    graph_output(g, &y, "y");
    graph_output(g, &d, "d");
    Plan *plan;
    CHECK_OK(plan_new(&plan, g, be, (PlanOptions){.check = true}));
    CHECK_OK(golden_write(c, plan, x, in, 1));
    CHECK_OK(golden_write(c, plan, dy, cot, 1));
    CHECK_OK(plan_run(plan));
    double error = golden_plan_error(c, plan, y, out, 1, 0),
           grad_error = golden_plan_error(c, plan, d, grad, 1, 0);
    printf("   %s, %s: output %.2g, gradient %.2g\n", be->name, call->name, error, grad_error);
    CHECK_MSG(error <= 1e-5, "%s: relative error %.3g", out, error);
    CHECK_MSG(grad_error <= 1e-4, "%s: relative error %.3g", grad, grad_error);
    plan_free(plan);
    graph_free(g);
}

static void run_case(const char *dir, const char *backend, bool recompute) {
    Golden c;
    ModelPart *part;
    Params *params;
    Backend *be;
    VaeTemporalConfig cfg;
    CHECK_OK(golden_open(&c, dir));
    CHECK_OK(model_dir_open(&part, dir, NULL, "AutoencoderKLTemporalDecoder", NULL));
    CHECK_OK(vae_temporal_config(&cfg, part->config));
    CHECK_OK(params_of_part(&params, part, ""));
    CHECK_OK(backend_open(&be, backend, (BackendOptions){.threads = 2, .pack_weights = true}));
    const Call *call[] = {&encode_call, &decode_call, &decode1_call};
    for (int i = 0; i < 3; i++) {
        run_call(&c, call[i], &cfg, params, be, recompute);
        if (test_failed()) return;
    }
    CHECK_OK(params_finish(params));
    backend_close(be);
    params_close(params);
    model_dir_close(part);
    golden_close(&c);
}

TEST(golden_ref) { run_case(VAE, "ref", false); }
TEST(golden_cpu) { run_case(VAE, "cpu", false); }
TEST(golden_cpu_recompute) { run_case(VAE, "cpu", true); }

// Other files in the format of tests/golden.
TEST(golden_more) {
    const char *root = getenv("GOLDEN_MORE");
    char dir[512];
    if (!root) SKIP("GOLDEN_MORE is not set");
    snprintf(dir, sizeof dir, "%s/vae_temporal", root);
    run_case(dir, "ref", false);
    if (!test_failed()) run_case(dir, "cpu", true);
}

// Every key of the released VAE.
TEST(full_size) {
    VaeTemporalConfig cfg = {3, 3, 4, 4, {128, 256, 512, 512}, 2, 0.18215};
    NN nn = {.g = graph_new(), .params = params_new_recorder()};
    Tensor *image = graph_input(nn.g, "image", DTYPE_F32, SHAPE(1, 1, 16, 16, 3));
    Tensor *z = graph_input(nn.g, "z", DTYPE_F32, SHAPE(1, 2, 4, 4, 4));
    CHECK(vae_temporal_encode(&nn, &cfg, image, (VaeTemporalOptions){0}));
    CHECK(vae_temporal_decode(&nn, &cfg, z, (VaeTemporalOptions){0}));
    CHECK_EQ(golden_keys_differ(nn.params, "tests/data/svd_vae_keys.tsv"), 0);
    graph_free(nn.g);
    params_close(nn.params);
}

// ---- One half alone, old names, what is refused ----

TEST(half) {
    ModelPart *part;
    Params *params;
    VaeTemporalConfig cfg;
    CHECK_OK(model_dir_open(&part, VAE, NULL, NULL, NULL));
    CHECK_OK(vae_temporal_config(&cfg, part->config));
    CHECK_OK(params_of_part(&params, part, ""));
    Graph *g = graph_new();
    NN nn = {.g = g, .params = params};
    Tensor *z = graph_input(g, "z", DTYPE_F32, SHAPE(1, 2, 4, 6, 4));
    Tensor *y = vae_temporal_decode(&nn, &cfg, z, (VaeTemporalOptions){0});
    CHECK_OK(graph_check(g));
    CHECK_EQ(y->shape.dim[2], 4 * vae_temporal_stride(&cfg));
    CHECK_ERR(params_finish(params), ERR_FORMAT, "encoder.");
    params_ignore(params, VAE_TEMPORAL_ENCODER);
    params_ignore(params, VAE_TEMPORAL_QUANT);
    CHECK_OK(params_finish(params));
    Tensor *odd = graph_input(g, "odd", DTYPE_F32, SHAPE(1, 1, 7, 8, 3));
    CHECK(!vae_temporal_encode(&nn, &cfg, odd, (VaeTemporalOptions){0}));
    CHECK_ERR(graph_check(g), ERR_SHAPE, "(1, 1, 7, 8, 3)");
    graph_free(g);
    params_close(params);
    model_dir_close(part);
}

// The same weights under the names of old checkpoints give the same graph.
TEST(old_attention_names) {
    static const char *const renamed[][2] = {{".to_q.", ".query."},
                                             {".to_k.", ".key."},
                                             {".to_v.", ".value."},
                                             {".to_out.0.", ".proj_attn."}};
    char path[512];
    Arena a = {0};
    Safetensors *s;
    CHECK_OK(safetensors_open(&s, VAE "/diffusion_pytorch_model.safetensors"));
    size_t cnt = safetensors_count(s);
    SafetensorsEntry *e = arena_array(&a, SafetensorsEntry, cnt);
    for (size_t i = 0; i < cnt; i++) {
        e[i] = *safetensors_at(s, i);
        for (int k = 0; k < 4; k++) {
            const char *at = strstr(e[i].name, renamed[k][0]);
            if (at)
                e[i].name = arena_printf(&a, "%.*s%s%s", (int)(at - e[i].name), e[i].name,
                                         renamed[k][1], at + strlen(renamed[k][0]));
        }
    }
    snprintf(path, sizeof path, "%s/old.safetensors", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK_OK(safetensors_write(path, e, cnt, NULL, 0));
    safetensors_close(s);
    ModelPart *part;
    Params *params;
    VaeTemporalConfig cfg;
    CHECK_OK(model_dir_open(&part, VAE, NULL, NULL, NULL));
    CHECK_OK(vae_temporal_config(&cfg, part->config));
    CHECK_OK(params_open(&params, path, "", NULL));
    NN nn = {.g = graph_new(), .params = params};
    Tensor *z = graph_input(nn.g, "z", DTYPE_F32, SHAPE(1, 2, 4, 6, 4));
    Tensor *image = graph_input(nn.g, "image", DTYPE_F32, SHAPE(1, 1, 8, 8, 3));
    CHECK(vae_temporal_decode(&nn, &cfg, z, (VaeTemporalOptions){0}));
    CHECK(vae_temporal_encode(&nn, &cfg, image, (VaeTemporalOptions){0}));
    CHECK_OK(graph_check(nn.g));
    CHECK_OK(params_finish(params));
    graph_free(nn.g);
    params_close(params);
    model_dir_close(part);
    arena_free(&a);
}
