// lora: the table of modules, initial values, and both file formats there and back.
#include "common/model/lora.h"

#include <unistd.h>

#include "common/format/json.h"
#include "common/format/safetensors.h"
#include "tests/test.h"

#define PEFT "tests/golden/unet_svd_lora"

static const char *scratch(const char *name, char path[512]) {
    snprintf(path, 512, "%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
    return path;
}

// Two live modules and a dead one, as a model would attach them.
static void attach(Lora *l, Graph *g) {
    Tensor *a, *b;
    lora_attach(l, g, "x.attn1.to_q", 5, 7, &a, &b);
    lora_attach_dead(l, "x.attn2.to_q", 4, 4);
    lora_attach(l, g, "x.attn2.to_out.0", 3, 6, &a, &b);
}

static Lora *small(double alpha) {
    static const char *const target[] = {"to_q", "attn2.to_out.0"};
    return lora_new(&(LoraConfig){.rank = 2, .alpha = alpha, .target_cnt = 2, .target = target});
}

TEST(table) {
    Lora *l = small(3);
    CHECK(lora_wants(l, "x.attn1.to_q") && lora_wants(l, "to_q") && !lora_wants(l, "x.into_q"));
    CHECK(lora_wants(l, "x.attn2.to_out.0") && !lora_wants(l, "x.attn1.to_out.0"));
    Graph *g = graph_new();
    Tensor *a, *b, *again[2], *in[6];
    lora_attach(l, g, "x.attn1.to_q", 5, 7, &a, &b);
    CHECK_ERR(lora_finish(l), ERR_USAGE, "attn2.to_out.0");
    attach(l, g);
    CHECK_OK(lora_finish(l));
    CHECK_EQ(lora_module_count(l), 3);
    lora_attach(l, g, "x.attn1.to_q", 5, 7, &again[0], &again[1]);
    CHECK(again[0] == a && again[1] == b);
    CHECK_STR(a->name, "lora.x.attn1.to_q.A");
    CHECK_EQ(lora_inputs(l, g, in), 4);
    CHECK(in[0] == a && in[1] == b && in[2]->shape.dim[1] == 3);
    for (int i = 0; i < 3; i += 2) {
        CHECK_EQ(lora_module(l, i)->a_at % 16, 0);
        CHECK_EQ(lora_module(l, i)->b_at % 16, 0);
    }
    CHECK(lora_module(l, 1)->dead);
    CHECK_EQ(lora_theta_count(l), 64);
    CHECK_EQ((uintptr_t)lora_theta(l) % 64, 0);
    CHECK_NEAR(lora_scale(l), 1.5, 0);
    graph_free(g);
    lora_free(l);
}

TEST(init) {
    Lora *l = small(2), *other = small(2);
    Graph *g = graph_new();
    attach(l, g);
    attach(other, g);
    CHECK_OK(lora_finish(l));
    CHECK_OK(lora_finish(other));
    lora_init(l, 1);
    lora_init(other, 1);
    CHECK(!memcmp(lora_theta(l), lora_theta(other), 64 * sizeof(float)));
    lora_init(other, 2);
    CHECK(memcmp(lora_theta(l), lora_theta(other), 64 * sizeof(float)));
    const LoraModule *m = lora_module(l, 0);
    float top = 0;
    for (int i = 0; i < 10; i++) top = fmaxf(top, fabsf(lora_theta(l)[m->a_at + i]));
    CHECK(top > 0.2 && top < 1 / sqrtf(5));
    for (int i = 0; i < 14; i++) CHECK_NEAR(lora_theta(l)[m->b_at + i], 0, 0);
    graph_free(g);
    lora_free(l);
    lora_free(other);
}

// Registers the modules of a file with the shapes that it has; to_q and to_k of attn2 as dead ones.
static void attach_file(Lora *l, Graph *g, const Safetensors *s, const char *prefix) {
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const SafetensorsEntry *a = safetensors_at(s, i);
        const char *end = strstr(a->name, ".lora_A.weight");
        char path[512], key[600];
        if (!end) continue;
        size_t skip = strlen(prefix);
        snprintf(path, sizeof path, "%.*s", (int)(end - a->name - (long)skip), a->name + skip);
        snprintf(key, sizeof key, "%s%s.lora_B.weight", prefix, path);
        const SafetensorsEntry *b = safetensors_find(s, key);
        Tensor *ta, *tb;
        if (strstr(path, "attn2.to_q") || strstr(path, "attn2.to_k"))
            lora_attach_dead(l, path, a->dim[1], b->dim[0]);
        else
            lora_attach(l, g, path, a->dim[1], b->dim[0], &ta, &tb);
    }
}

// Equal keys, shapes and bytes; B of `b` times scale.
static void same_tensors(const char *path_a, const char *path_b, const char *prefix_a,
                         const char *prefix_b, double scale) {
    Safetensors *a, *b;
    CHECK_OK(safetensors_open(&a, path_a));
    CHECK_OK(safetensors_open(&b, path_b));
    CHECK_EQ(safetensors_count(a), safetensors_count(b));
    CHECK_STR(safetensors_metadata(b, "format"), "pt");
    for (size_t i = 0; i < safetensors_count(a); i++) {
        const SafetensorsEntry *x = safetensors_at(a, i), *y;
        char key[600];
        snprintf(key, sizeof key, "%s%s", prefix_b, x->name + strlen(prefix_a));
        CHECK_OK(safetensors_want(b, key, &y));
        CHECK_EQ(x->bytes, y->bytes);
        double by = strstr(key, "lora_B") ? scale : 1;
        for (size_t k = 0; k < x->bytes / 4; k++)
            CHECK_NEAR(((const float *)y->data)[k], (float)(by * ((const float *)x->data)[k]), 0);
    }
    safetensors_close(a);
    safetensors_close(b);
}

TEST(round_trip) {
    char dir[512], file[512], path[600];
    Lora *l;
    Safetensors *s;
    Graph *g = graph_new();
    CHECK_OK(lora_read(&l, PEFT));
    CHECK_OK(safetensors_open(&s, PEFT "/adapter_model.safetensors"));
    attach_file(l, g, s, "base_model.model.");
    CHECK_OK(lora_finish(l));
    CHECK_OK(lora_load_values(l));
    CHECK_OK(lora_write_peft(l, lora_theta(l), scratch("peft", dir)));
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    same_tensors(PEFT "/adapter_model.safetensors", path, "base_model.model.", "base_model.model.",
                 1);
    if (test_failed()) return;
    CHECK_OK(lora_write_diffusers(l, lora_theta(l), scratch("lora.safetensors", file)));
    same_tensors(PEFT "/adapter_model.safetensors", file, "base_model.model.", "unet.",
                 lora_scale(l));
    if (test_failed()) return;

    // What we wrote is read back: PEFT as it was, diffusers with scale 1.
    Lora *back, *folded;
    CHECK_OK(lora_read(&back, dir));
    CHECK_EQ(lora_config(back)->rank, lora_config(l)->rank);
    CHECK_NEAR(lora_config(back)->alpha, lora_config(l)->alpha, 0);
    CHECK_EQ(lora_config(back)->target_cnt, lora_module_count(l)); // dead ones had values
    CHECK_OK(lora_read(&folded, file));
    CHECK_NEAR(lora_scale(folded), 1, 0);
    Safetensors *t;
    CHECK_OK(safetensors_open(&t, file));
    attach_file(folded, g, t, "unet.");
    CHECK_OK(lora_finish(folded));
    CHECK_OK(lora_load_values(folded));
    safetensors_close(t);
    safetensors_close(s);
    lora_free(l);
    lora_free(back);
    lora_free(folded);
    graph_free(g);
}

// A fresh adapter leaves dead modules out and lists the others by their paths.
TEST(dead_left_out) {
    char dir[512], path[600];
    Lora *l = small(2), *back;
    Graph *g = graph_new();
    attach(l, g);
    CHECK_OK(lora_finish(l));
    lora_init(l, 3);
    CHECK_OK(lora_write_peft(l, lora_theta(l), scratch("fresh", dir)));
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    Safetensors *s;
    CHECK_OK(safetensors_open(&s, path));
    CHECK_EQ(safetensors_count(s), 4);
    CHECK(!safetensors_find(s, "base_model.model.x.attn2.to_q.lora_A.weight"));
    CHECK(safetensors_find(s, "base_model.model.x.attn2.to_out.0.lora_B.weight"));
    safetensors_close(s);
    CHECK_OK(lora_read(&back, dir));
    CHECK_EQ(lora_config(back)->target_cnt, 2);
    CHECK(!lora_wants(back, "x.attn2.to_q"));
    lora_free(back);
    lora_free(l);
    graph_free(g);
}

// Older writers: .lora.down and .lora.up.
TEST(down_and_up) {
    char file[512];
    float a[6] = {1, 2, 3, 4, 5, 6}, b[4] = {1, 2, 3, 4};
    SafetensorsEntry e[] = {{"unet.m.lora.down.weight", NULL, DTYPE_F32, 2, {2, 3}, a, 24},
                            {"unet.m.lora.up.weight", NULL, DTYPE_F32, 2, {2, 2}, b, 16}};
    CHECK_OK(safetensors_write(scratch("old.safetensors", file), e, 2, NULL, 0));
    Lora *l;
    Graph *g = graph_new();
    Tensor *ta, *tb;
    CHECK_OK(lora_read(&l, file));
    lora_attach(l, g, "m", 3, 2, &ta, &tb);
    CHECK_OK(lora_finish(l));
    CHECK_OK(lora_load_values(l));
    CHECK_NEAR(lora_theta(l)[lora_module(l, 0)->b_at + 3], 4, 0);
    lora_free(l);
    graph_free(g);
}

// ---- What is refused ----

static Err load(const SafetensorsEntry *e, size_t cnt) {
    char file[512];
    Lora *l = NULL;
    Tensor *ta, *tb;
    Graph *g = graph_new();
    Err err = safetensors_write(scratch("bad.safetensors", file), e, cnt, NULL, 0);
    if (!err) err = lora_read(&l, file);
    if (!err) lora_attach(l, g, "m", 3, 2, &ta, &tb);
    if (!err) err = lora_finish(l);
    if (!err) err = lora_load_values(l);
    lora_free(l);
    graph_free(g);
    return err;
}

TEST(refuses_values) {
    float a[6] = {1, 2, 3, 4, 5, 6}, b[4] = {1, 2, 3, NAN};
    SafetensorsEntry down = {"unet.m.lora_A.weight", NULL, DTYPE_F32, 2, {2, 3}, a, 24};
    SafetensorsEntry up = {"unet.m.lora_B.weight", NULL, DTYPE_F32, 2, {2, 2}, b, 16};
    SafetensorsEntry wide = {"unet.m.lora_B.weight", NULL, DTYPE_F32, 2, {1, 4}, b, 16};
    SafetensorsEntry extra = {"unet.n.lora_B.weight", NULL, DTYPE_F32, 2, {2, 2}, a, 16};
    SafetensorsEntry odd = {"unet.m.alpha", NULL, DTYPE_F32, 0, {1}, a, 4};
    CHECK_ERR(load((SafetensorsEntry[]){down, up}, 2), ERR_NUMERIC, "unet.m.lora_B.weight has NaN");
    b[3] = 4;
    CHECK_OK(load((SafetensorsEntry[]){down, up}, 2));
    CHECK_ERR(load((SafetensorsEntry[]){down}, 1), ERR_FORMAT, "m.lora_B.weight is missing");
    CHECK_ERR(load((SafetensorsEntry[]){down, wide}, 2), ERR_FORMAT, "[1, 4], want floats [2, 2]");
    CHECK_ERR(load((SafetensorsEntry[]){down, up, extra}, 3), ERR_FORMAT, "unet.n.lora_B.weight");
    CHECK_ERR(load((SafetensorsEntry[]){down, up, odd}, 3), ERR_FORMAT,
              "unet.m.alpha is not a key");
}

static Err read_config(const char *text) {
    char dir[512], path[600];
    scratch("config", dir);
    snprintf(path, sizeof path, "mkdir -p '%s'", dir);
    if (system(path)) FAIL(ERR_IO, "mkdir");
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    Lora *l;
    TRY(lora_read(&l, dir));
    lora_free(l);
    return ERR_OK;
}

TEST(refuses_config) {
#define BASE "\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"to_q\"]"
    CHECK_ERR(read_config("{" BASE "}"), ERR_IO, "adapter_model"); // the config is fine
    CHECK_ERR(read_config("{" BASE ",\"use_rslora\":true}"), ERR_FORMAT, "use_rslora");
    CHECK_ERR(read_config("{" BASE ",\"use_dora\":true}"), ERR_FORMAT, "use_dora");
    CHECK_ERR(read_config("{" BASE ",\"bias\":\"all\"}"), ERR_FORMAT, "bias");
    CHECK_ERR(read_config("{" BASE ",\"rank_pattern\":{\"to_q\":2}}"), ERR_FORMAT, "rank_pattern");
    CHECK_ERR(read_config("{" BASE ",\"modules_to_save\":[\"x\"]}"), ERR_FORMAT, "modules_to_save");
    CHECK_ERR(read_config("{" BASE ",\"brand_new\":1}"), ERR_FORMAT, "brand_new");
    CHECK_ERR(read_config("{\"r\":4,\"target_modules\":\"all-linear\"}"), ERR_FORMAT, "pattern");
    CHECK_ERR(read_config("{\"peft_type\":\"LOHA\",\"r\":4,\"target_modules\":[\"a\"]}"),
              ERR_FORMAT, "LOHA");
}
