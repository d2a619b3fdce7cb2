// fuzz_model_dir: the input, cut at NULs, becomes model_index.json, unet/config.json and a weight index.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/format/model_dir.h"

static char root[256];
static const char *const files[] = {"model_index.json", "unet/config.json",
                                    "unet/diffusion_pytorch_model.safetensors.index.json"};
static const char *const shards[] = {"unet/one.safetensors", "unet/two.safetensors"};

static const char *at(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void folder_remove(void) {
    for (int i = 0; i < 3; i++) unlink(at(files[i]));
    for (int i = 0; i < 2; i++) unlink(at(shards[i]));
    rmdir(at("unet"));
    rmdir(root);
}

static void folder_make(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/fuzz_model_dir.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(root) || mkdir(at("unet"), 0700)) abort();
    atexit(folder_remove);
    float x = 1;
    SafetensorsEntry e = {.dtype = DTYPE_F32, .data = &x, .bytes = 4};
    for (int i = 0; i < 2; i++) {
        e.name = i ? "b" : "a";
        if (safetensors_write(at(shards[i]), &e, 1, NULL, 0)) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (!*root) folder_make();
    const uint8_t *end = bytes + len;
    for (int i = 0; i < 3; i++) {
        const uint8_t *nul = memchr(bytes, 0, (size_t)(end - bytes));
        size_t n = (size_t)((nul && i < 2 ? nul : end) - bytes);
        FILE *f = fopen(at(files[i]), "w");
        if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) abort();
        bytes += n;
        if (bytes < end && i < 2) bytes++;
    }
    ModelPart *p;
    const char *classes = len % 2 ? "UNetSpatioTemporalConditionModel" : NULL;
    if (model_dir_open(&p, root, "unet", classes, NULL)) return 0;
    // An index that passes lists what the files hold.
    for (size_t i = 0; i < model_dir_count(p); i++)
        if (model_dir_at(p, i)->bytes != 4) abort();
    int n = 0, cnt;
    int64_t many[4];
    (void)json_get_int(p->config, "in_channels", &n);
    (void)json_get_i64s(p->config, "block_out_channels", many, 4, &cnt);
    (void)json_only_bool(p->config, "flag", false);
    (void)json_finish(p->config, NULL);
    model_dir_close(p);
    return 0;
}
