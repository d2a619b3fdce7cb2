// unet_svd against diffusers: outputs, input gradients, weight gradients, adapter gradients; and what it refuses.
#include "common/model/unet_svd.h"

#include "common/tensor/grad.h"
#include "tests/common/model/golden.h"

enum { WRT_MAX = 1024 };

typedef struct Run {
    Golden c;
    ModelPart *part;
    Params *params;
    Lora *lora;
    Graph *g;
    Backend *be;
    Plan *plan;
    Tensor *in[4], *out, *cot;
    Tensor *wrt[WRT_MAX], *d[WRT_MAX];
    const char *key[WRT_MAX]; // name of the gradient in the golden file
    int wrt_cnt;
} Run;

static const char *const input_name[4] = {"sample", "timestep", "encoder_hidden_states",
                                          "added_time_ids"};

static void fini(Run *r) {
    plan_free(r->plan);
    backend_close(r->be);
    graph_free(r->g);
    lora_free(r->lora);
    params_close(r->params);
    model_dir_close(r->part);
    golden_close(&r->c);
}

// The dims of a golden tensor with `axis` last.
static Shape shape_of(const Golden *c, const char *name, int axis) {
    const SafetensorsEntry *e = safetensors_find(c->file, name);
    int64_t dim[TENSOR_DIMS_MAX];
    int n = 0;
    for (int i = 0; i < e->rank; i++)
        if (i != axis) dim[n++] = e->dim[i];
    if (axis >= 0) dim[n++] = e->dim[axis];
    return shape_make(n, dim);
}

static Tensor *find_node(const Graph *g, const char *name) {
    for (int i = 0; i < g->node_cnt; i++)
        if (!strcmp(g->node[i]->name, name)) return g->node[i];
    return NULL;
}

// Everything that the golden file has a gradient of.
static void list_wrt(Run *r) {
    for (size_t i = 0; i < safetensors_count(r->c.file); i++) {
        const char *name = safetensors_at(r->c.file, i)->name;
        Tensor *t = NULL;
        if (!strncmp(name, "grad.in.", 8))
            t = find_node(r->g, name + 5);
        else if (!strncmp(name, "grad.w.", 7))
            t = find_node(r->g, name + 7);
        else
            continue;
        CHECK_MSG(t, "%s: no such node", name);
        r->wrt[r->wrt_cnt] = t;
        r->key[r->wrt_cnt++] = name;
    }
}

static void list_lora(Run *r, Arena *a) {
    Tensor *inputs[WRT_MAX];
    lora_inputs(r->lora, r->g, inputs);
    for (int i = 0, n = 0; i < lora_module_count(r->lora); i++) {
        const LoraModule *m = lora_module(r->lora, i);
        for (int b = 0; b < 2; b++) {
            r->wrt[r->wrt_cnt] = m->dead ? NULL : inputs[n++];
            r->key[r->wrt_cnt++] = arena_printf(a, "grad.lora.base_model.model.%s.lora_%c.weight",
                                                m->path, b ? 'B' : 'A');
        }
    }
}

static void build(Run *r, const char *dir, const char *model, const char *adapter, bool recompute) {
    UnetSvdConfig cfg;
    CHECK_OK(golden_open(&r->c, dir));
    CHECK_OK(model_dir_open(&r->part, model, NULL, "UNetSpatioTemporalConditionModel", NULL));
    CHECK_OK(unet_svd_config(&cfg, r->part->config));
    CHECK_OK(params_of_part(&r->params, r->part, ""));
    if (adapter) CHECK_OK(lora_read(&r->lora, adapter));
    r->g = graph_new();
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "in.%s", input_name[i]);
        r->in[i] = graph_input(r->g, name, DTYPE_F32, shape_of(&r->c, name, i ? -1 : 2));
    }
    NN nn = {.g = r->g, .params = r->params, .lora = r->lora};
    r->out = unet_svd_build(&nn, &cfg, (UnetSvdIo){r->in[0], r->in[1], r->in[2], r->in[3]},
                            (UnetSvdOptions){.recompute = recompute});
    CHECK_OK(graph_check(r->g));
    CHECK_OK(params_finish(r->params));
    CHECK_EQ(nn.depth, 0);
    if (r->lora) CHECK_OK(lora_finish(r->lora));
    r->cot = graph_input(r->g, "cot", DTYPE_F32, r->out->shape);
}

static void compute(Run *r, const char *backend) {
    CHECK_OK(grad_build(r->g, 1, &r->out, &r->cot, r->wrt_cnt, r->wrt, r->d));
    graph_output(r->g, &r->out, "out");
    for (int i = 0; i < r->wrt_cnt; i++)
        if (r->d[i]) graph_output(r->g, &r->d[i], r->key[i]);
    CHECK_OK(backend_open(&r->be, backend, (BackendOptions){.threads = 2, .pack_weights = true}));
    CHECK_OK(plan_new(&r->plan, r->g, r->be, (PlanOptions){.check = true}));
    for (int i = 0; i < 4; i++)
        CHECK_OK(golden_write(&r->c, r->plan, r->in[i], r->in[i]->name, i ? -1 : 2));
    CHECK_OK(golden_write(&r->c, r->plan, r->cot, "cot.sample", 2));
    if (r->lora) {
        CHECK_OK(lora_load_values(r->lora));
        CHECK_OK(lora_write_theta(r->lora, r->g, r->plan, lora_theta(r->lora)));
    }
    CHECK_OK(plan_run(r->plan));
}

static void compare(Run *r, const char *what) {
    CHECK_GOLDEN(&r->c, r->plan, r->out, "out.sample", 2, 1e-5);
    double worst_out = r->c.worst, lora = golden_largest(&r->c, "grad.lora."),
           weight = golden_largest(&r->c, "grad.w."), mix = 0, other = 0;
    for (int i = 0; i < r->wrt_cnt; i++) {
        const char *key = r->key[i];
        bool is_mix = strstr(key, "mix_factor");
        double least = strstr(key, "grad.lora") ? lora : strstr(key, "grad.w") ? weight : 0;
        int axis = strstr(key, "in.sample") ? 2 : -1;
        double e = golden_plan_error(&r->c, r->plan, r->d[i], key, axis, 1e-6 * least);
        CHECK_MSG(e <= (is_mix ? 1e-3 : 1e-4), "%s: relative error %.3g", key, e);
        if (is_mix)
            mix = fmax(mix, e);
        else
            other = fmax(other, e);
    }
    printf("   %s: worst error of the output %.2g, of %d gradients %.2g, of mix factors %.2g\n",
           what, worst_out, r->wrt_cnt, other, mix);
}

static void run_case(const char *what, const char *dir, const char *model, const char *adapter,
                     const char *backend, bool recompute) {
    Run r = {0};
    Arena names = {0};
    build(&r, dir, model, adapter, recompute);
    if (!test_failed()) list_wrt(&r);
    if (!test_failed() && adapter) list_lora(&r, &names);
    if (!test_failed()) compute(&r, backend);
    if (!test_failed()) compare(&r, what);
    fini(&r);
    arena_free(&names);
}

#define UNET "tests/golden/unet_svd"
#define LORA "tests/golden/unet_svd_lora"

TEST(golden_ref) { run_case("ref", UNET, UNET, NULL, "ref", false); }
TEST(golden_cpu) { run_case("cpu", UNET, UNET, NULL, "cpu", false); }
TEST(golden_cpu_recompute) { run_case("cpu, recompute", UNET, UNET, NULL, "cpu", true); }
TEST(golden_lora_ref) { run_case("lora, ref", LORA, UNET, LORA, "ref", false); }
TEST(golden_lora_cpu) { run_case("lora, cpu", LORA, UNET, LORA, "cpu", false); }

// Other files in the format of tests/golden: GOLDEN_MORE=folder with unet_svd and unet_svd_lora.
TEST(golden_more) {
    const char *root = getenv("GOLDEN_MORE"), *backend[] = {"ref", "cpu"};
    char unet[512], lora[512];
    if (!root) SKIP("GOLDEN_MORE is not set");
    snprintf(unet, sizeof unet, "%s/unet_svd", root);
    snprintf(lora, sizeof lora, "%s/unet_svd_lora", root);
    for (int i = 0; i < 2; i++) {
        run_case(backend[i], unet, unet, NULL, backend[i], i);
        run_case(backend[i], lora, unet, lora, backend[i], false);
    }
}

// ---- Full size ----

// Every key of the released denoiser and every module of its adapter, which ones are dead among them.
TEST(full_size) {
    static const char *const target[] = {"to_q", "to_k", "to_v", "to_out.0"};
    UnetSvdConfig cfg = {.in_channels = 8,
                         .out_channels = 4,
                         .level_cnt = 4,
                         .channels = {320, 640, 1280, 1280},
                         .layers = {2, 2, 2, 2},
                         .heads = {5, 10, 20, 20},
                         .transformer_layers = {1, 1, 1, 1},
                         .down_attends = {true, true, true, false},
                         .up_attends = {false, true, true, true},
                         .context_dim = 1024,
                         .ids_dim = 256,
                         .ids_cnt = 3};
    NN nn = {.g = graph_new(),
             .params = params_new_recorder(),
             .lora = lora_new(&(LoraConfig){1, 1, 0, 4, target})};
    UnetSvdIo io = {.sample = graph_input(nn.g, "x", DTYPE_F32, SHAPE(1, 2, 8, 16, 8)),
                    .timestep = graph_input(nn.g, "t", DTYPE_F32, SHAPE(1)),
                    .context = graph_input(nn.g, "c", DTYPE_F32, SHAPE(1, 1, 1024)),
                    .time_ids = graph_input(nn.g, "i", DTYPE_F32, SHAPE(1, 3))};
    CHECK(unet_svd_build(&nn, &cfg, io, (UnetSvdOptions){0}));
    CHECK_EQ(golden_keys_differ(nn.params, "tests/data/svd_unet_keys.tsv"), 0);
    CHECK_OK(lora_finish(nn.lora));
    CHECK_EQ(lora_module_count(nn.lora), 256);
    CHECK_EQ(lora_theta_count(nn.lora), 307328);
    char line[1024], key[512];
    int dead;
    FILE *f = fopen("tests/data/svd_lora_keys.tsv", "r");
    CHECK(f && fgets(line, sizeof line, f));
    while (fgets(line, sizeof line, f)) {
        CHECK_EQ(sscanf(line, "base_model.model.%511s %*s %d", key, &dead), 2);
        *strstr(key, ".lora_") = 0;
        int i = 0;
        while (i < 256 && strcmp(lora_module(nn.lora, i)->path, key)) i++;
        CHECK_MSG(i < 256 && lora_module(nn.lora, i)->dead == dead, "%s", key);
    }
    fclose(f);
    lora_free(nn.lora);
    graph_free(nn.g);
    params_close(nn.params);
}

// ---- What is refused ----

static Err read_config(const char *text) {
    Json *j;
    UnetSvdConfig cfg;
    TRY(json_open_text(&j, "unet/config.json", text, strlen(text)));
    Err err = unet_svd_config(&cfg, j);
    json_close(j);
    return err;
}

#define LEVELS                                                          \
    "\"in_channels\":8,\"out_channels\":4,\"layers_per_block\":[1,2],"  \
    "\"num_attention_heads\":[2,4],\"transformer_layers_per_block\":1," \
    "\"cross_attention_dim\":24,\"addition_time_embed_dim\":16,"        \
    "\"down_block_types\":[\"CrossAttnDownBlockSpatioTemporal\","       \
    "\"DownBlockSpatioTemporal\"],"                                     \
    "\"up_block_types\":[\"UpBlockSpatioTemporal\",\"CrossAttnUpBlockSpatioTemporal\"]"

TEST(config) {
    CHECK_OK(read_config("{" LEVELS ",\"block_out_channels\":[32,64],"
                         "\"projection_class_embeddings_input_dim\":48}"));
    CHECK_ERR(read_config("{" LEVELS ",\"block_out_channels\":[32,64],\"class_embed_type\":\"x\","
                          "\"projection_class_embeddings_input_dim\":48}"),
              ERR_FORMAT, "class_embed_type");
    CHECK_ERR(read_config("{" LEVELS ",\"block_out_channels\":[32,64,96],"
                          "\"projection_class_embeddings_input_dim\":48}"),
              ERR_FORMAT, "layers_per_block has 2 entries, want 3");
    CHECK_ERR(read_config("{" LEVELS ",\"block_out_channels\":[32,48],"
                          "\"projection_class_embeddings_input_dim\":48}"),
              ERR_FORMAT, "block_out_channels has 48");
    CHECK_ERR(read_config("{" LEVELS ",\"block_out_channels\":[32,64],"
                          "\"projection_class_embeddings_input_dim\":50}"),
              ERR_FORMAT, "projection_class_embeddings_input_dim is 50");
    CHECK_ERR(read_config("{\"_class_name\":\"UNet3DConditionModel\"," LEVELS
                          ",\"block_out_channels\":[32,64]}"),
              ERR_FORMAT, "UNet3DConditionModel");
}

TEST(other_class) {
    ModelPart *part;
    CHECK_ERR(model_dir_open(&part, "tests/golden/vae_temporal", NULL,
                             "UNetSpatioTemporalConditionModel", NULL),
              ERR_FORMAT, "AutoencoderKLTemporalDecoder");
}

// A sample whose size does not halve often enough, or a context of two tokens.
TEST(shapes) {
    Run r = {0};
    build(&r, UNET, UNET, NULL, false);
    if (test_failed()) return;
    UnetSvdConfig cfg = {.in_channels = 8, .level_cnt = 3, .context_dim = 20, .ids_cnt = 3};
    NN nn = {.g = graph_new(), .params = r.params};
    UnetSvdIo io = {.sample = graph_input(nn.g, "x", DTYPE_F32, SHAPE(1, 3, 8, 10, 8)),
                    .timestep = graph_input(nn.g, "t", DTYPE_F32, SHAPE(1)),
                    .context = graph_input(nn.g, "c", DTYPE_F32, SHAPE(1, 2, 20)),
                    .time_ids = graph_input(nn.g, "i", DTYPE_F32, SHAPE(1, 3))};
    CHECK(!unet_svd_build(&nn, &cfg, io, (UnetSvdOptions){0}));
    CHECK_ERR(graph_check(nn.g), ERR_SHAPE, "multiples of 4");
    CHECK_ERR(graph_check(nn.g), ERR_SHAPE, "(1, 3, 8, 10, 8)");
    graph_free(nn.g);
    fini(&r);
}
