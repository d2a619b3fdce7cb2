// model_dir: folders made here, laid out as Hugging Face does, right and wrong.
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/format/model_dir.h"
#include "tests/test.h"

#define DATA "tests/common/format/data/"

// root/fmt..., in one of a few buffers.
__attribute__((format(printf, 1, 2))) static const char *at(const char *fmt, ...) {
    static char path[8][600];
    static int next;
    char *p = path[next++ % 8];
    const char *dir = getenv("TMPDIR");
    int n = snprintf(p, sizeof path[0], "%s/", dir ? dir : "/tmp");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p + n, sizeof path[0] - (size_t)n, fmt, ap);
    va_end(ap);
    return p;
}

static void put(const char *path, const char *text) {
    char dir[600];
    snprintf(dir, sizeof dir, "%s", path);
    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(dir, 0700);
        *slash = '/';
    }
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f)) TEST_FAIL("%s: cannot write", path);
}

// A safetensors file with one tensor of this name.
static void put_weights(const char *path, const char *name) {
    float x = 1;
    put(path, "");
    SafetensorsEntry e = {
        .name = name, .dtype = DTYPE_F32, .rank = 1, .dim = {1}, .data = &x, .bytes = 4};
    if (safetensors_write(path, &e, 1, NULL, 0)) TEST_FAIL("%s: %s", path, err_text());
}

static void copy(const char *from, const char *to) {
    char bytes[1 << 14];
    put(to, "");
    FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (!f || !g || !n || fwrite(bytes, 1, n, g) != n) TEST_FAIL("%s: cannot copy", from);
    if (f) fclose(f);
    if (g) fclose(g);
}

#define UNET "UNetSpatioTemporalConditionModel"

static void put_model(const char *dir) {
    put(at("%s/model_index.json", dir),
        "{\"_class_name\": \"StableVideoDiffusionPipeline\", \"_diffusers_version\": \"0.24.0\", \"unet\": [\"diffusers\", "
        "\"" UNET
        "\"], \"scheduler\": [\"diffusers\", \"EulerDiscreteScheduler\"], \"vae\": [\"diffusers\", "
        "\"AutoencoderKLTemporalDecoder\"], \"safety_checker\": [null, null]}");
    put(at("%s/unet/config.json", dir), "{\"_class_name\": \"" UNET "\", \"in_channels\": 8}");
    put_weights(at("%s/unet/diffusion_pytorch_model.safetensors", dir), "full");
    put_weights(at("%s/unet/diffusion_pytorch_model.fp16.safetensors", dir), "half");
    put(at("%s/scheduler/scheduler_config.json", dir),
        "{\"_class_name\": \"EulerDiscreteScheduler\"}");
}

TEST(a_part_of_a_model_is_opened) {
    ModelPart *p;
    const SafetensorsEntry *e;
    char pipeline[MODEL_DIR_CLASS_BYTES];
    int n;
    put_model("svd");
    CHECK_OK(model_dir_open(&p, at("svd"), "unet", UNET, NULL));
    CHECK_STR(p->class_name, UNET);
    CHECK_HAS(p->path, "svd/unet");
    CHECK_HAS(p->weights, "svd/unet/diffusion_pytorch_model.safetensors");
    CHECK_OK(json_want_int(p->config, "in_channels", &n));
    CHECK_OK(json_finish(p->config, NULL));
    CHECK_EQ(model_dir_count(p), 1);
    CHECK_STR(model_dir_at(p, 0)->name, "full");
    CHECK_OK(model_dir_want(p, "full", &e));
    CHECK_ERR(model_dir_want(p, "half", &e), ERR_FORMAT,
              "diffusion_pytorch_model.safetensors: tensor 'half' is missing");
    model_dir_close(p);

    CHECK_OK(
        model_dir_open(&p, at("svd"), "unet", "A|" UNET, &(ModelDirOptions){.variant = "fp16"}));
    CHECK(model_dir_find(p, "half"));
    model_dir_close(p);
    CHECK_OK(model_dir_open(&p, at("svd/unet"), "unet", UNET, NULL)); // the part's own folder
    CHECK(model_dir_find(p, "full"));
    model_dir_close(p);
    CHECK_OK(model_dir_open(&p, at("svd/unet"), NULL, NULL, NULL));
    CHECK_STR(p->class_name, UNET);
    model_dir_close(p);
    CHECK_OK(
        model_dir_open(&p, at("svd"), "scheduler", NULL, &(ModelDirOptions){.config_only = true}));
    CHECK(!p->weights);
    CHECK_EQ(model_dir_count(p), 0);
    CHECK(!model_dir_find(p, "full"));
    model_dir_close(p);
    CHECK_OK(model_dir_pipeline(at("svd"), pipeline));
    CHECK_STR(pipeline, "StableVideoDiffusionPipeline");
    CHECK_OK(model_dir_pipeline(at("svd/unet"), pipeline));
    CHECK_STR(pipeline, "");
}

TEST(wanted_and_found_are_said) {
    ModelPart *p;
    put_model("bad");
    CHECK_ERR(model_dir_open(&p, at("bad"), "unet", "UNet3DConditionModel", NULL), ERR_FORMAT,
              "model_index.json: part 'unet' is a " UNET ", want UNet3DConditionModel");
    CHECK_ERR(model_dir_open(&p, at("bad/unet"), NULL, "UNet3DConditionModel", NULL), ERR_FORMAT,
              "unet/config.json: config of a '" UNET "', want UNet3DConditionModel");
    CHECK_ERR(model_dir_open(&p, at("bad/unet"), NULL, "UNetSpatio", NULL), ERR_FORMAT,
              "want UNetSpatio");
    CHECK_ERR(model_dir_open(&p, at("bad"), "motion", NULL, NULL), ERR_FORMAT,
              "no part 'motion'; it has: unet, scheduler, vae");
    CHECK_ERR(model_dir_open(&p, at("bad"), "safety_checker", NULL, NULL), ERR_FORMAT,
              "no part 'safety_checker'");
    CHECK_ERR(model_dir_open(&p, at("bad"), "vae", NULL, NULL), ERR_IO,
              "bad/vae: the folder is missing");
    CHECK_ERR(model_dir_open(&p, at("bad/scheduler"), NULL, NULL, NULL), ERR_IO,
              "no weights; looked for diffusion_pytorch_model and model");
    CHECK_ERR(model_dir_open(&p, at("bad"), "../unet", NULL, NULL), ERR_USAGE,
              "not the name of a part");
    CHECK_ERR(model_dir_open(&p, at("bad/unet"), NULL, NULL, &(ModelDirOptions){.variant = "../x"}),
              ERR_USAGE, "not the name of a variant");
    CHECK_ERR(model_dir_open(&p, at("nowhere"), NULL, NULL, NULL), ERR_IO,
              "no such file or folder");
    CHECK_ERR(
        model_dir_open(&p, at("bad/unet/diffusion_pytorch_model.safetensors"), NULL, UNET, NULL),
        ERR_USAGE, "a file, want the folder");
    put(at("bad/unet/config.json"), "{\"_class_name\": 3}");
    CHECK_ERR(model_dir_open(&p, at("bad"), "unet", UNET, NULL), ERR_FORMAT,
              "key '_class_name' is 3");
    unlink(at("bad/unet/config.json"));
    CHECK_ERR(model_dir_open(&p, at("bad"), "unet", UNET, NULL), ERR_IO,
              "no config.json, want the config of a " UNET);
    put(at("bad/model_index.json"), "{");
    CHECK_ERR(model_dir_open(&p, at("bad"), "unet", UNET, NULL), ERR_FORMAT,
              "model_index.json, line 1");
    put(at("sharded/pytorch_model.bin.index.json"), "{}");
    CHECK_ERR(model_dir_open(&p, at("sharded"), NULL, NULL, NULL), ERR_FORMAT,
              "sharded PyTorch files are not read");
}

TEST(classes_are_named_in_three_ways) {
    static const struct {
        const char *config, *want;
    } rows[] = {
        {"{\"_class_name\": \"A\", \"model_type\": \"b\"}", "A"},
        {"{\"architectures\": [\"VideoMAEForVideoClassification\"], \"model_type\": \"videomae\"}",
         "VideoMAEForVideoClassification"},
        {"{\"model_type\": \"clip_vision_model\"}", "clip_vision_model"},
        {"{\"architectures\": null}", ""},
        {"{}", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ModelPart *p;
        put(at("classes/config.json"), rows[i].config);
        CHECK_OK(
            model_dir_open(&p, at("classes"), NULL, NULL, &(ModelDirOptions){.config_only = true}));
        CHECK_STR(p->class_name, rows[i].want);
        CHECK_OK(json_finish(p->config, NULL)); // what names the class is not an unknown setting
        model_dir_close(p);
    }
}

// Which of the files in a folder is taken, with and without a variant asked for.
TEST(weights_are_found_by_name) {
    static const char *const order[] = {
        // from the least wanted to the most wanted, when nothing is asked for
        "model.fp16.safetensors", "model.safetensors", "diffusion_pytorch_model.safetensors"};
    ModelPart *p;
    for (int i = 0; i < 3; i++) {
        put_weights(at("order/%s", order[i]), "w");
        CHECK_OK(model_dir_open(&p, at("order"), NULL, NULL, NULL));
        CHECK_HAS(p->weights, order[i]);
        model_dir_close(p);
    }
    CHECK_OK(model_dir_open(&p, at("order"), NULL, NULL, &(ModelDirOptions){.variant = "fp16"}));
    CHECK_HAS(p->weights, "model.fp16.safetensors");
    model_dir_close(p);
    CHECK_OK(model_dir_open(&p, at("order"), NULL, NULL, &(ModelDirOptions){.variant = "bf16"}));
    CHECK_HAS(p->weights, "diffusion_pytorch_model.safetensors"); // there is none: the plain one
    model_dir_close(p);
}

TEST(shards_with_and_without_variant) {
    static const char *const names[] = {"diffusion_pytorch_model.safetensors.index.json",
                                        "diffusion_pytorch_model.fp16.safetensors.index.json",
                                        "diffusion_pytorch_model.safetensors.index.fp16.json",
                                        "model.safetensors.index.json"};
    for (int i = 0; i < 4; i++) {
        ModelPart *p;
        put_weights(at("shards%d/one.safetensors", i), "a");
        put_weights(at("shards%d/two.safetensors", i), "b");
        put(at("shards%d/%s", i, names[i]),
            "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
        CHECK_OK(model_dir_open(&p, at("shards%d", i), NULL, NULL, NULL));
        CHECK_EQ(model_dir_count(p), 2);
        CHECK_HAS(p->weights, names[i]);
        CHECK(model_dir_find(p, "b"));
        model_dir_close(p);
    }
}

TEST(checkpoints_and_files_are_parts_too) {
    ModelPart *p;
    copy(DATA "flat.pt", at("torch/pytorch_model.bin"));
    CHECK_OK(model_dir_open(&p, at("torch"), NULL, NULL, NULL));
    CHECK(p->torch_zip && !p->safetensors);
    CHECK_EQ(model_dir_count(p), 2);
    CHECK(model_dir_find(p, "layers.0.bias"));
    CHECK(model_dir_at(p, 1));
    model_dir_close(p);
    put_weights(at("torch/model.fp16.safetensors"), "w"); // preferred to any PyTorch file
    CHECK_OK(model_dir_open(&p, at("torch"), NULL, NULL, NULL));
    CHECK(p->safetensors);
    model_dir_close(p);
    CHECK_OK(model_dir_open(&p, DATA "nested.pth.tar", NULL, NULL,
                            &(ModelDirOptions){.sub = "target_encoder"}));
    CHECK_STR(p->class_name, "");
    CHECK_EQ(model_dir_count(p), 2);
    model_dir_close(p);
    CHECK_OK(model_dir_open(&p, DATA "official.safetensors", NULL, NULL, NULL));
    CHECK_EQ(model_dir_count(p), 9);
    model_dir_close(p);
}

TEST(adapters) {
    ModelPart *p;
    ModelDirOptions adapter = {.adapter = true};
    put(at("peft/adapter_config.json"), "{\"peft_type\": \"LORA\", \"r\": 4}");
    put_weights(at("peft/adapter_model.safetensors"), "base_model.model.x.lora_A.weight");
    CHECK_OK(model_dir_open(&p, at("peft"), NULL, NULL, &adapter));
    CHECK(p->config && model_dir_find(p, "base_model.model.x.lora_A.weight"));
    model_dir_close(p);
    put_weights(at("diffusers/pytorch_lora_weights.safetensors"), "unet.x.lora_A.weight");
    CHECK_OK(model_dir_open(&p, at("diffusers"), NULL, NULL, &adapter));
    CHECK(!p->config && model_dir_find(p, "unet.x.lora_A.weight"));
    model_dir_close(p);
    CHECK_ERR(model_dir_open(&p, at("peft"), NULL, NULL, NULL), ERR_IO, "no weights");
}

TEST(folders_of_the_download_cache) {
    ModelPart *p;
    put_model("hub/snapshots/0123abcd");
    put(at("hub/refs/main"), "0123abcd");
    CHECK_OK(model_dir_open(&p, at("hub"), "unet", UNET, NULL));
    CHECK_HAS(p->path, "hub/snapshots/0123abcd/unet");
    model_dir_close(p);
    char pipeline[MODEL_DIR_CLASS_BYTES];
    CHECK_OK(model_dir_pipeline(at("hub"), pipeline));
    CHECK_STR(pipeline, "StableVideoDiffusionPipeline");
    put(at("hub/refs/main"), "../../etc");
    CHECK_ERR(model_dir_open(&p, at("hub"), "unet", UNET, NULL), ERR_FORMAT,
              "does not hold the name of a snapshot");
    put(at("hub/refs/main"), "ffff");
    CHECK_ERR(model_dir_open(&p, at("hub"), "unet", UNET, NULL), ERR_IO, "the snapshot that");
}
