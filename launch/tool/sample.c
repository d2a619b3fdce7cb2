// sample: one video from an image, with or without an adapter.
//
//     vader sample MODEL --image dog.jpg --out dog.mp4 [--lora RUN_OR_FOLDER] [key=value ...]
//
// The preview itinerary of a run, played by sampler and decoder in this process: the same noise, the same
// arithmetic and therefore the same frames as a run's previews.
#include <stdlib.h>
#include <string.h>

#include "common/base/strbuf.h"
#include "common/format/media.h"
#include "common/proc/stage.h"
#include "decoder/decoder.h"
#include "launch/tool/args.h"
#include "launch/tool/tool.h"
#include "sampler/sampler.h"

typedef struct Sample {
    Config *cfg;
    void *self[STAGE_CNT];
    StagePlan plan[STAGE_CNT];
    StageCtx *ctx[STAGE_CNT];
    Run run;
} Sample;

static const Stage *const stages[] = {
    [STAGE_SAMPLER] = &sampler_stage, [STAGE_DECODER] = &decoder_stage};
enum { STAGES = 2, SETTINGS_MAX = 64 };

static Err open_stages(Sample *s, const char *image, bool tuned) {
    SectionTable table;
    BoardSpec board;
    char numerics[512];
    for (int i = 0; i < STAGES; i++)
        TRY(stages[i]->open(s->cfg, 0, false, NULL, &s->self[i], &s->plan[i]));
    TRY(stage_plan_combine(s->plan, s->cfg, &table, &board, numerics));
    TRY(run_create(&s->run, s->cfg, &table, NULL, NULL));
    for (int i = 0; i < STAGES; i++)
        TRY(stage_ctx_new(&s->ctx[i], stages[i], s->self[i], s->cfg, 0, &s->run, NULL, NULL));
    SlotHeader h = {.purpose = SLOT_PREVIEW, .tuned = tuned};
    if (strlen(image) >= sizeof h.source) FAIL(ERR_USAGE, "image path of %zu bytes", strlen(image));
    memcpy(h.source, image, strlen(image) + 1);
    slot_publish(&s->run.state->slot[0], 1, &h);
    return ERR_OK;
}

static Err play(Sample *s) {
    for (bool any = true; any;) {
        any = false;
        for (int i = 0; i < STAGES; i++) {
            bool worked;
            TRY(stage_poll(s->ctx[i], &worked));
            any |= worked;
        }
    }
    return ERR_OK;
}

// All segments one behind the other.
static Err write_video(Sample *s, const char *name) {
    const Config *cfg = s->cfg;
    const SectionTable *t = &s->run.state->table;
    MediaClip clip = {0};
    size_t part = t->bytes[SECTION_PREVIEW];
    int frames = (int)(cfg->frames * cfg->segments);
    float *all = malloc(part * (size_t)cfg->segments);
    die_unless(all, "sample: out of memory");
    for (uint32_t k = 0; k < (uint32_t)cfg->segments; k++)
        memcpy((char *)all + k * part,
               s->run.block[STAGE_DECODER] + section_at(t, SECTION_PREVIEW, 0, k), part);
    media_clip_from_raw(&clip, all, frames, (int)cfg->height, (int)cfg->width);
    Err err = encode_clip(&clip, name, (int)cfg->preview_fps);
    media_clip_fini(&clip);
    free(all);
    return err;
}

static Err sample(Sample *s, const char *image, bool tuned, const char *name) {
    TRY(open_stages(s, image, tuned));
    TRY(play(s));
    return write_video(s, name);
}

// The settings of a run that samples only.
static Err make_config(Config **out, const char *model, const char *image, const char *lora,
                       int set_cnt, const char *const *set) {
    const char *all[SETTINGS_MAX + 8];
    Arena a = {0};
    int n = 0;
    all[n++] = arena_printf(&a, "model=%s", model);
    all[n++] = arena_printf(&a, "data.images=%s", image);
    if (lora) all[n++] = arena_printf(&a, "lora.init=%s", lora);
    for (int i = 0; i < set_cnt; i++) all[n++] = set[i];
    all[n++] = "preview.every=1";
    all[n++] = "slots=1";
    Err err = config_load_text(out, "sample", ".", "", 0, n, all);
    arena_free(&a);
    return err;
}

Err tool_sample(int argc, char **argv) {
    const char *lora = NULL, *image = NULL, *out = NULL, *word[SETTINGS_MAX];
    int cnt;
    const Arg table[] = {
        {"image", ARG_STR, &image, "FILE", "the first frame"},
        {"lora", ARG_STR, &lora, "DIR", "an adapter: PEFT folder or diffusers file"},
        {"out", ARG_STR, &out, "FILE.mp4", "the video; a PNG sheet of its frames lies beside it"},
        {0}};
    TRY(args_parse(table, argc, argv, word, SETTINGS_MAX, &cnt));
    if (cnt < 1 || !image || !out)
        FAIL(
            ERR_USAGE,
            "usage: vader sample MODEL --image FILE --out FILE.mp4 [--lora DIR] [seed=N video.frames=N sampler.steps=N ...]");
    Sample s = {.run = {.state_shm.fd = -1, .board_shm.fd = -1}};
    for (int i = 0; i < STAGE_CNT; i++) s.run.block_shm[i].fd = -1;
    char *name = strdup(out);
    die_unless(name, "sample: out of memory");
    if (strlen(name) > 4 && !strcmp(name + strlen(name) - 4, ".mp4")) name[strlen(name) - 4] = 0;
    Err err = make_config(&s.cfg, word[0], image, lora, cnt - 1, word + 1);
    if (!err) err = sample(&s, s.cfg->data_images.item[0], lora != NULL, name);
    if (!err) printf("%s.mp4 %s.png\n", name, name);
    for (int i = 0; i < STAGES; i++) {
        stage_ctx_free(s.ctx[i]);
        if (s.self[i]) stages[i]->close(s.self[i]);
        stage_plan_fini(&s.plan[i]);
    }
    if (s.run.state) run_leave(&s.run);
    config_free(s.cfg);
    free(name);
    return err;
}
