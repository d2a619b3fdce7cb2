// test_adapter: the files are byte for byte those that the model library writes of the same values.
#include "common/format/adapter.h"

#include "common/model/lora.h"
#include "tests/test.h"

static char *at(const char *name) {
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
             name);
    return path[turn];
}

static void same_file(const char *a, const char *b) {
    static char x[1 << 16], y[1 << 16];
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    CHECK_MSG(f && g, "%s or %s is missing", a, b);
    size_t n = fread(x, 1, sizeof x, f), m = fread(y, 1, sizeof y, g);
    fclose(f);
    fclose(g);
    CHECK_MSG(n == m && n > 0 && !memcmp(x, y, n), "%s differs from %s", a, b);
}

TEST(same_bytes_as_the_model_library) {
    static const char *const target[] = {"to_q", "attn2.to_out.0"};
    Lora *l = lora_new(
        &(LoraConfig){.rank = 2, .alpha = 3, .dropout = 0.1, .target_cnt = 2, .target = target});
    Graph *g = graph_new();
    Tensor *a, *b;
    lora_attach(l, g, "x.attn1.to_q", 5, 7, &a, &b);
    lora_attach_dead(l, "x.attn2.to_q", 4, 4);
    lora_attach(l, g, "x.attn2.to_out.0", 3, 6, &a, &b);
    CHECK_OK(lora_finish(l));
    lora_init(l, 1);
    float *theta = lora_theta(l);
    for (int64_t i = 0; i < lora_theta_count(l); i++) theta[i] += 0.01f * (float)i;
    AdapterModule m[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        const LoraModule *from = lora_module(l, i);
        m[i] = (AdapterModule){.path = from->path, .in = from->in, .out = from->out};
        if (from->dead) continue;
        m[i].a = theta + from->a_at;
        m[i].b = theta + from->b_at;
    }
    Adapter x = {.rank = 2, .alpha = 3, .dropout = 0.1, .module = m, .module_cnt = 3};
    CHECK_OK(adapter_write_peft(&x, at("ours")));
    CHECK_OK(lora_write_peft(l, theta, at("theirs")));
    same_file(at("ours/adapter_config.json"), at("theirs/adapter_config.json"));
    same_file(at("ours/adapter_model.safetensors"), at("theirs/adapter_model.safetensors"));
    CHECK_OK(adapter_write_diffusers(&x, at("ours.safetensors")));
    CHECK_OK(lora_write_diffusers(l, theta, at("theirs.safetensors")));
    same_file(at("ours.safetensors"), at("theirs.safetensors"));
    CHECK_ERR(adapter_write_peft(&x, "no/such/folder"), ERR_IO, "no/such/folder");
    graph_free(g);
    lora_free(l);
}
