// report: reads the run, writes the page; the sections that are prose: head, settings, use.
#include "launch/report.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/atomic_file.h"
#include "common/base/clock.h"
#include "common/base/version.h"
#include "common/format/html.h"
#include "launch/report_eval.h"
#include "launch/report_page.h"
#include "launch/report_run.h"

#define REAL(x) report_page_real(p, x)

enum { LINE_MAX_CHARS = 76 }; // of a command

// ---- Head ----

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

// What a term is about and the size of its weight. *minus: it counts against the reward.
static const char *term_text(ReportPage *p, const ConfigReward *r, bool *minus) {
    static const char *const name[] = {[CONFIG_REWARD_VIDEOMAE] = "VideoMAE",
                                       [CONFIG_REWARD_VJEPA] = "V-JEPA’s prediction loss",
                                       [CONFIG_REWARD_AESTHETIC] = "the LAION aesthetic score",
                                       [CONFIG_REWARD_FIRST_FRAME] =
                                           "the first frame’s squared error"};
    Arena *a = &p->arena;
    bool frames = r->model == CONFIG_REWARD_FIRST_FRAME && p->d->config->segments > 1 &&
                  p->d->config->seam == CONFIG_SEAM_KEEP;
    const char *text = frames ? "the first frames’ squared error" : name[r->model];
    bool loss = r->model == CONFIG_REWARD_VJEPA || r->model == CONFIG_REWARD_FIRST_FRAME ||
                r->form == CONFIG_FORM_ABS_TARGET;
    double weight = fabs(r->weight);
    *minus = loss != (r->weight < 0);
    if (r->form == CONFIG_FORM_LOG_PROB)
        text = arena_printf(a, "%s’s log p(“%s”)", text, r->label);
    else if (r->form == CONFIG_FORM_PROB)
        text = arena_printf(a, "%s’s p(“%s”)", text, r->label);
    else if (r->form == CONFIG_FORM_ABS_TARGET)
        text = arena_printf(a, "%s·|%s − %s|", REAL(r->scale), text, REAL(r->target));
    return weight == 1 ? text : arena_printf(a, "%g × %s", weight, text);
}

static const char *reward_text(ReportPage *p) {
    const Config *cfg = p->d->config;
    static const char *const first[] = {"", "minus "}, *const later[] = {" + ", " − "};
    const char *text = "";
    for (int i = 0; i < cfg->reward_cnt; i++) {
        bool minus;
        const char *term = term_text(p, &cfg->reward[i], &minus);
        text = arena_printf(&p->arena, "%s%s%s", text, (i ? later : first)[minus], term);
    }
    return text;
}

static double mean_of(const double *y, size_t cnt) {
    double sum = 0;
    for (size_t i = 0; i < cnt; i++) sum += y[i];
    return sum / (double)cnt;
}

static void add_result(ReportPage *p) {
    const ReportData *d = p->d;
    const ReportMetric *r = report_data_metric(d, "reward");
    const double *y = report_data_series(d, "reward");
    size_t n = report_run_smoothing(d->metrics.cnt);
    if (r && r->base.there && r->tuned.there && r->difference.there)
        html_printf(&p->out,
                    " On %lld evaluation photos the reward went from <b>%s</b> to <b>%s</b> "
                    "(difference %s, 95 %% interval %s to %s).",
                    (long long)d->eval.images, REAL(r->base.mean), REAL(r->tuned.mean),
                    REAL(r->difference.mean), REAL(r->difference.low), REAL(r->difference.high));
    else if (d->metrics.cnt > 1 && y)
        html_printf(
            &p->out,
            " The reward of its training rollouts went from <b>%s</b> to <b>%s</b> (means of "
            "the first and the last %zu updates).",
            REAL(mean_of(y, n)), REAL(mean_of(y + d->metrics.cnt - n, n)), n);
    else if (d->metrics.cnt && y)
        html_printf(&p->out, " The reward of its rollouts was <b>%s</b>.", REAL(y[0]));
}

static const char *state_text(ReportPage *p) {
    const ReportData *d = p->d;
    unsigned long long done = d->metrics.cnt, all = (unsigned long long)d->config->updates;
    return arena_printf(&p->arena, "%s, %llu of %llu updates",
                        d->alive     ? "going on"
                        : done < all ? "stopped before its end"
                                     : "finished",
                        done, all);
}

static const char *duration(ReportPage *p, double s) {
    if (s < 60) return arena_printf(&p->arena, "%.1f s", s);
    if (s < 3600) return arena_printf(&p->arena, "%d:%02d min", (int)s / 60, (int)s % 60);
    return arena_printf(&p->arena, "%d:%02d h", (int)(s / 3600), (int)fmod(s / 60, 60));
}

static void add_facts(ReportPage *p) {
    const ReportData *d = p->d;
    const Config *cfg = d->config;
    StrBuf *out = &p->out;
    char when[CLOCK_TEXT_BYTES];
    html_printf(out, "<dl class=\"facts\">\n<dt>run</dt><dd>%s</dd>\n", state_text(p));
    html_printf(out, "<dt>video</dt><dd>%lld frames of %lld × %lld", (long long)cfg->frames,
                (long long)cfg->width, (long long)cfg->height);
    if (cfg->segments > 1)
        html_printf(out, ", %lld segments one after the other", (long long)cfg->segments);
    html_printf(out, ", %lld denoising steps</dd>\n", (long long)cfg->steps);
    html_printf(out,
                "<dt>adapter</dt><dd>LoRA of rank %lld, α %g, learning rate %g%s, seed %lld</dd>\n",
                (long long)cfg->lora_rank, cfg->lora_alpha, cfg->lr,
                cfg->half_life ? arena_printf(&p->arena, ", halved every %lld updates",
                                              (long long)cfg->half_life)
                               : "",
                (long long)cfg->seed);
    if (d->timing.cnt)
        html_printf(out, "<dt>time</dt><dd>%s, %s s per update</dd>\n",
                    duration(p, d->timing.seconds),
                    REAL(d->timing.seconds / (double)d->timing.cnt));
    clock_format(when, clock_wall_ns());
    when[10] = ' ', when[16] = 0; // to the minute
    html_printf(out, "<dt>page</dt><dd>made %s UTC by vader %s</dd>\n</dl>\n", when, VADER_VERSION);
}

static void add_head(ReportPage *p) {
    const ReportData *d = p->d;
    html_printf(
        &p->out,
        "<header>\n<h1>%s</h1>\n<p class=\"lead\">The video model <b>%s</b> was trained with the "
        "gradient of <b>%s</b>, for %zu updates of %lld rollouts.",
        d->name, last_part(d->config->model), reward_text(p), d->metrics.cnt,
        (long long)d->config->rollouts);
    add_result(p);
    strbuf_add(&p->out, "</p>\n");
    add_facts(p);
    strbuf_add(&p->out, "</header>\n");
}

// ---- Use ----

// One word of a shell's command line.
static const char *shell_word(Arena *a, const char *word) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=,:+@%-";
    const char *out = "'";
    if (*word && !word[strspn(word, plain)]) return word;
    for (const char *c = word; *c; c++)
        out = arena_printf(a, *c == '\'' ? "%s'\\%c'" : "%s%c", out, *c);
    return arena_printf(a, "%s'", out);
}

// " key=value ..." of the settings that decide what a sample looks like and differ from what `vader sample` takes itself.
static const char *sampling_words(ReportPage *p) {
    static const char *const decides[] = {"sampler.", "guidance.", "cond.", "video.",
                                          "decode.chunk"};
    static const char *const set[] = {"model=x", "data.images=x"};
    Config *plain;
    const char *text = "";
    size_t line_len = LINE_MAX_CHARS;
    die_unless(!config_load_text(&plain, "defaults", ".", "", 0, 2, set), "report: %s", err_text());
    char *diff = config_diff(plain, p->d->config, &p->arena, true);
    for (char *line = strtok(diff, "\n"); line; line = strtok(NULL, "\n")) {
        char *colon = strstr(line, ": "), *arrow = strstr(line, " -> ");
        bool counts = false;
        for (size_t i = 0; i < sizeof decides / sizeof *decides; i++)
            counts |= !strncmp(line, decides[i], strlen(decides[i]));
        // The hand-over decides who makes a segment in training; a sample has one way.
        if (!counts || !colon || !arrow || !strncmp(line, "video.handover", 14)) continue;
        *colon = 0;
        const char *word = arena_printf(&p->arena, "%s=%s", line, arrow + 4);
        bool fits = line_len + 1 + strlen(word) <= LINE_MAX_CHARS;
        text = arena_printf(&p->arena, fits ? "%s %s" : "%s \\\n    %s", text, word);
        line_len = strlen(word) + (fits ? line_len + 1 : 4);
    }
    config_free(plain);
    return text;
}

static void add_python(ReportPage *p, const char *model, const char *adapter) {
    const Config *cfg = p->d->config;
    Arena *a = &p->arena;
    html_printf(&p->out,
                "<pre><code>from diffusers import StableVideoDiffusionPipeline\n"
                "from diffusers.utils import export_to_video, load_image\n"
                "from peft import PeftModel\n\n"
                "pipe = StableVideoDiffusionPipeline.from_pretrained(%s)\n"
                "pipe.unet = PeftModel.from_pretrained(pipe.unet, %s).merge_and_unload()\n",
                json_quote(a, model), json_quote(a, adapter));
    if (cfg->sigma_min > 0 || cfg->sigma_max > 0) {
        strbuf_add(&p->out, "pipe.scheduler = pipe.scheduler.from_config(pipe.scheduler.config");
        if (cfg->sigma_min > 0) html_printf(&p->out, ", sigma_min=%.9g", cfg->sigma_min);
        if (cfg->sigma_max > 0) html_printf(&p->out, ", sigma_max=%.9g", cfg->sigma_max);
        strbuf_add(&p->out, ")\n");
    }
    if (cfg->rho != 7)
        html_printf(&p->out,
                    "# sampler.rho is %g in this run and 7 in diffusers: the steps differ\n",
                    cfg->rho);
    html_printf(
        &p->out,
        "frames = pipe(load_image(\"photo.png\"), width=%lld, height=%lld, num_frames=%lld,\n"
        "              num_inference_steps=%lld, min_guidance_scale=%.9g, "
        "max_guidance_scale=%.9g,\n"
        "              fps=%.9g, motion_bucket_id=%.9g, noise_aug_strength=%.9g,\n"
        "              decode_chunk_size=%lld).frames[0]\n"
        "export_to_video(frames, \"photo.mp4\", fps=%lld)\n</code></pre>\n",
        (long long)cfg->width, (long long)cfg->height, (long long)cfg->frames,
        (long long)cfg->steps, cfg->guidance_min, cfg->guidance_max, cfg->fps, cfg->motion_bucket,
        cfg->noise_aug, (long long)(cfg->decode_chunk ? cfg->decode_chunk : cfg->frames),
        (long long)cfg->preview_fps);
}

static void add_use(ReportPage *p) {
    const ReportData *d = p->d;
    Arena *a = &p->arena;
    char path[PATH_MAX];
    const char *model = realpath(d->config->model, path) ? path : d->config->model;
    const char *adapter = arena_printf(a, "%s-adapter", d->name);
    report_page_section(p, "use", "Use the adapter");
    if (!d->bundle) {
        html_printf(
            &p->out,
            "<p class=\"none\">There is no bundle yet: the run writes one every %lld updates "
            "(<code>ckpt.every</code>) and at its end.</p>\n",
            (long long)d->config->ckpt_every);
        report_page_end(p);
        return;
    }
    const char *bundle = shell_word(a, arena_printf(a, "%s/%s", d->dir, d->bundle));
    html_printf(&p->out,
                "<p>Out of the newest bundle, as a folder for PEFT:</p>\n"
                "<pre><code>vader ckpt export %s --peft %s</code></pre>\n",
                bundle, shell_word(a, adapter));
    html_printf(&p->out,
                "<p>A video from a picture of yours, with the settings of this run:</p>\n"
                "<pre><code>vader sample %s --image photo.png \\\n    --lora %s --out "
                "photo.mp4%s</code></pre>\n",
                shell_word(a, model), shell_word(a, adapter), sampling_words(p));
    html_printf(&p->out, "<p>In Python, with diffusers, peft and imageio-ffmpeg%s:</p>\n",
                d->config->segments > 1 ? "; one segment, where vader makes all of them" : "");
    add_python(p, model, adapter);
    html_printf(
        &p->out,
        "<p>Programs with <code>load_lora_weights</code>, which the pipeline above does not "
        "have, take one file (α is folded in):</p>\n"
        "<pre><code>vader ckpt export %s --diffusers pytorch_lora_weights.safetensors"
        "</code></pre>\n",
        bundle);
    report_page_end(p);
}

// ---- Settings ----

// As YAML with what each key means; the remarks apart from the rest.
static void add_settings(ReportPage *p) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    die_unless(f, "report: out of memory");
    config_write(p->d->config, f, true);
    die_unless(!fclose(f), "report: out of memory");
    report_page_section(p, "settings", "Settings");
    strbuf_add(&p->out,
               "<details>\n<summary>The resolved config, every key</summary>\n<pre><code>");
    for (const char *line = text; *line;) {
        int n = (int)strcspn(line, "\n");
        const char *copy = arena_printf(&p->arena, "%.*s", n, line);
        html_printf(&p->out, copy[strspn(copy, " ")] == '#' ? "<i>%s</i>\n" : "%s\n", copy);
        line += n + (line[n] == '\n');
    }
    html_printf(
        &p->out,
        "</code></pre>\n</details>\n<p class=\"fine\"><code>vader verify %s</code> makes the "
        "run again and compares every byte.</p>\n",
        shell_word(&p->arena, p->d->dir));
    report_page_end(p);
    free(text);
}

// ---- The page ----

static void compose(ReportPage *p) {
    report_page_open(p);
    add_head(p);
    report_eval_videos(p);
    report_eval_verdict(p);
    report_run_reward(p);
    report_run_norms(p);
    report_run_window(p);
    report_eval_classes(p);
    report_eval_headroom(p);
    report_run_stages(p);
    report_run_memory(p);
    add_settings(p);
    add_use(p);
    report_page_close(p);
}

static char *without_slashes(Arena *a, const char *dir) {
    char *copy = arena_strdup(a, dir);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--) copy[n - 1] = 0;
    return copy;
}

Err report_main(int argc, char **argv) {
    Err err = ERR_OK;
    ReportData *d = NULL;
    ReportPage p = {0};
    if (argc != 2 || *argv[1] == '-') FAIL(ERR_USAGE, "usage: vader report RUN");
    TRY_OUT(report_data_open(&d, without_slashes(&p.arena, argv[1])));
    p.d = d;
    compose(&p);
    const char *path = arena_printf(&p.arena, "%s/report.html", d->dir);
    TRY_OUT(atomic_file_put(path, strbuf_text(&p.out), p.out.len, ATOMIC_FILE_VISIBLE));
    printf("%s: open it in a browser\n", path);
out:
    report_page_fini(&p);
    report_data_close(d);
    return err;
}
