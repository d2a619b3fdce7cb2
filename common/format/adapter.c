// adapter: PEFT folders and diffusers files.
#include "common/format/adapter.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/arena.h"
#include "common/base/atomic_file.h"
#include "common/base/strbuf.h"
#include "common/format/json.h"
#include "common/format/safetensors.h"

static SafetensorsEntry entry(Arena *a, const char *prefix, const char *path, char matrix,
                              const float *x, int64_t rows, int64_t cols) {
    return (SafetensorsEntry){.name = arena_printf(a, "%s%s.lora_%c.weight", prefix, path, matrix),
                              .dtype = DTYPE_F32,
                              .rank = 2,
                              .dim = {rows, cols},
                              .data = x,
                              .bytes = (size_t)(rows * cols) * sizeof(float)};
}

static const float *scaled(Arena *a, const float *x, int64_t cnt, double scale) {
    if (scale == 1) return x;
    float *y = arena_array(a, float, cnt);
    for (int64_t i = 0; i < cnt; i++) y[i] = (float)(scale * x[i]);
    return y;
}

// All matrices as one file; B times b_scale.
static Err write_matrices(const Adapter *x, const char *path, const char *prefix, double b_scale) {
    static const SafetensorsMetadata metadata = {"format", "pt"};
    Arena a = {0};
    SafetensorsEntry *e = arena_array(&a, SafetensorsEntry, 2 * x->module_cnt + 1);
    size_t n = 0;
    for (int i = 0; i < x->module_cnt; i++) {
        const AdapterModule *m = &x->module[i];
        if (!m->a) continue;
        e[n++] = entry(&a, prefix, m->path, 'A', m->a, x->rank, m->in);
        e[n++] = entry(&a, prefix, m->path, 'B', scaled(&a, m->b, x->rank * m->out, b_scale),
                       m->out, x->rank);
    }
    Err err = safetensors_write(path, e, n, &metadata, 1);
    arena_free(&a);
    if (err) return err_up(err, __FILE__, __LINE__, __func__);
    return ERR_OK;
}

// The keys that every version of PEFT loads; exact paths as targets, so that what is left out stays out.
static void config_text(const Adapter *x, Arena *a, StrBuf *b) {
    strbuf_printf(b, "{\n  \"peft_type\": \"LORA\",\n  \"r\": %d,\n  \"lora_alpha\": %.17g,\n",
                  x->rank, x->alpha);
    strbuf_printf(b, "  \"lora_dropout\": %.17g,\n  \"bias\": \"none\",\n", x->dropout);
    strbuf_add(b, "  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
                  "  \"base_model_name_or_path\": null,\n  \"task_type\": null,\n"
                  "  \"target_modules\": [");
    const char *comma = "";
    for (int i = 0; i < x->module_cnt; i++) {
        if (!x->module[i].a) continue;
        const char *path = json_quote(a, x->module[i].path);
        die_unless(path, "adapter: a module's path is not UTF-8");
        strbuf_printf(b, "%s\n    %s", comma, path);
        comma = ",";
    }
    strbuf_add(b, "\n  ]\n}\n");
}

Err adapter_write_peft(const Adapter *x, const char *dir) {
    Err err = ERR_OK;
    Arena a = {0};
    StrBuf text = {0};
    if (mkdir(dir, 0777) && errno != EEXIST) FAIL_OUT(ERR_IO, "%s: %s", dir, strerror(errno));
    config_text(x, &a, &text);
    TRY_OUT(write_matrices(x, arena_printf(&a, "%s/adapter_model.safetensors", dir),
                           "base_model.model.", 1));
    TRY_OUT(atomic_file_put(arena_printf(&a, "%s/adapter_config.json", dir), strbuf_text(&text),
                            text.len, ATOMIC_FILE_DURABLE));
out:
    strbuf_fini(&text);
    arena_free(&a);
    return err;
}

Err adapter_write_diffusers(const Adapter *x, const char *file) {
    return write_matrices(x, file, "unet.", x->alpha / x->rank);
}
