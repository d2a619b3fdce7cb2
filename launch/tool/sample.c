// sample: one video from an image, with or without an adapter.
//
//     vader sample MODEL --image dog.jpg --out dog.mp4 [--lora RUN_OR_FOLDER] [key=value ...]
//
// The frames are those of a run's previews (generator.h).
#include <stdlib.h>
#include <string.h>

#include "common/format/media.h"
#include "common/stages/setup.h"
#include "launch/tool/args.h"
#include "launch/tool/generator.h"
#include "launch/tool/tool.h"

enum { SETTINGS_MAX = 64 };

static const char usage[] =
    "vader sample MODEL --image FILE --out FILE.mp4 [--lora DIR] [key=value ...]\n\n"
    "One video that begins with an image, from a Hugging Face folder, with or without an adapter. Keys are those\n"
    "of a config: seed=1 video.frames=25 video.width=1024 video.height=576 sampler.steps=25 guidance.max=3 ...\n\n";

static Err write_video(const Config *cfg, const float *frames, const char *name) {
    MediaClip clip = {0};
    media_clip_from_raw(&clip, frames, (int)(cfg->frames * cfg->segments), (int)cfg->height,
                        (int)cfg->width);
    Err err = encode_clip(&clip, name, (int)cfg->preview_fps);
    media_clip_fini(&clip);
    return err;
}

static Err sample(const Config *cfg, bool tuned, const char *name) {
    Err err = ERR_OK;
    Generator *g = NULL;
    const char *image = cfg->data_images.item[0];
    SlotHeader h = {.purpose = SLOT_PREVIEW, .tuned = tuned};
    size_t cnt = (size_t)(cfg->segments * cfg->frames * cfg->height * cfg->width * 3);
    float *frames = malloc(cnt * sizeof *frames);
    die_unless(frames, "sample: out of memory");
    if (strlen(image) >= sizeof h.source)
        FAIL_OUT(ERR_USAGE, "image path of %zu bytes", strlen(image));
    memcpy(h.source, image, strlen(image) + 1);
    TRY_OUT(
        generator_open(&g, cfg, cfg->sampler_threads ? (int)cfg->sampler_threads : setup_cores()));
    TRY_OUT(generator_run(g, &h, frames));
    TRY_OUT(write_video(cfg, frames, name));
out:
    generator_close(g);
    free(frames);
    return err;
}

// The settings of a run that samples only.
static Err make_config(Config **out, const char *model, const char *image, const char *lora,
                       int set_cnt, const char *const *set) {
    const char *all[SETTINGS_MAX + 3];
    Arena a = {0};
    int n = 0;
    all[n++] = arena_printf(&a, "model=%s", model);
    all[n++] = arena_printf(&a, "data.images=%s", image);
    if (lora) all[n++] = arena_printf(&a, "lora.init=%s", lora);
    for (int i = 0; i < set_cnt; i++) all[n++] = set[i];
    Err err = config_load_text(out, "sample", ".", "", 0, n, all);
    arena_free(&a);
    return err;
}

Err tool_sample(int argc, char **argv) {
    const char *lora = NULL, *image = NULL, *out = NULL, *word[SETTINGS_MAX];
    int cnt;
    bool help = false;
    const Arg table[] = {
        {"image", ARG_STR, &image, "FILE", "the first frame"},
        {"lora", ARG_STR, &lora, "DIR", "an adapter: PEFT folder or diffusers file"},
        {"out", ARG_STR, &out, "FILE.mp4", "the video; a PNG sheet of its frames lies beside it"},
        {"help", ARG_FLAG, &help, NULL, "this text"},
        {0}};
    TRY(args_parse(table, argc, argv, word, SETTINGS_MAX, &cnt));
    if (help) {
        fputs(usage, stdout);
        args_help(table, stdout);
        return ERR_OK;
    }
    if (cnt < 1 || !image || !out)
        FAIL(ERR_USAGE, "sample: want MODEL, --image and --out; `vader sample --help` says more");
    char *name = strdup(out);
    Config *cfg = NULL;
    die_unless(name, "sample: out of memory");
    if (strlen(name) > 4 && !strcmp(name + strlen(name) - 4, ".mp4")) name[strlen(name) - 4] = 0;
    Err err = make_config(&cfg, word[0], image, lora, cnt - 1, word + 1);
    if (!err) err = sample(cfg, lora != NULL, name);
    if (!err) printf("%s.mp4 %s.png\n", name, name);
    config_free(cfg);
    free(name);
    return err;
}
