// eval: what an adapter changed: the base model's videos and the adapter's, from equal noise, measured side by side.
//
//     vader eval RUN|CONF [--lora ADAPTER] [--threads N] [key=value ...]
//
// For every image of eval.images and seed of eval.seeds: two videos, scored by the rewards, a second classifier and
// V-JEPA, and measured without any model (common/measure). Writes RUN/eval.json and RUN/eval/<image>-<seed>.mp4 (base
// left, adapter right), prints a table. Without --lora the adapter is that of the run's newest durable update.
//
// The work is cut by videos: each worker has models of its own and makes what comes next. Every number depends on image
// and seed alone, so that any number of workers and threads gives the same bytes.
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/folder.h"
#include "common/config/image_list.h"
#include "common/format/media.h"
#include "common/measure/features.h"
#include "common/measure/motion.h"
#include "common/measure/picture.h"
#include "common/stages/setup.h"
#include "common/transport/ledger.h"
#include "launch/tool/args.h"
#include "launch/tool/evaluation.h"
#include "launch/tool/generator.h"
#include "launch/tool/scorer.h"
#include "launch/tool/tool.h"

static const char usage[] =
    "vader eval RUN|CONF [--lora ADAPTER] [key=value ...]\n\n"
    "Videos of the base model and of the adapter from equal noise, side by side in RUN/eval/, and what can be\n"
    "measured of them: a table here, all numbers in RUN/eval.json. `vader help eval` lists the keys: which images,\n"
    "how many seeds, a second classifier, a V-JEPA. Without --lora: the run's newest update.\n\n";

enum { SETTINGS_MAX = 256, SEEDS_MAX = 1 << 20, BLUR_SHARE = 64 }; // blur: a 64th of the width

typedef struct Eval {
    Config *cfg;
    const char *run_dir;
    Arena arena;
    int64_t threads;   // asked for; 0: all cores
    const char *lora;  // --lora; NULL: the run's state
    float *theta;      // values of the adapter, scaled
    ConfigStrs images; // paths
    EvaluationAbout about;
    Evaluation result;
    int real_cnt, task_cnt; // tasks: real videos first, then samples
    atomic_int next;        // task
    pthread_mutex_t lock;   // of what follows
    int done;
    Err err; // the first failure, with its message
    char *err_message;
} Eval;

// Models and memory of one thread.
typedef struct Worker {
    Eval *eval;
    int threads; // of its operators
    pthread_t thread;
    Generator *generator;
    Scorer *scorer;
    MotionMeter *motion;
    float *frames, *unit, *luma;                // all frames of a video: raw, in [0, 1], luma
    float *pixels, *embedding, *all_embeddings; // one frame, its embedding; those of all frames
} Worker;

// ---- A video, measured ----

static int64_t frame_count(const Config *cfg) { return cfg->segments * cfg->frames; }
static size_t frame_values(const Config *cfg) { return (size_t)(cfg->height * cfg->width * 3); }

// Is frame t one that another moved into? Not the first, and not what repeats the frame before a seam.
static bool has_pair(const Config *cfg, int64_t t) { return t % cfg->frames != 0; }

static Err measure_consistency(Worker *w, double *out) {
    const Config *cfg = w->eval->cfg;
    int dim = (int)generator_embed_dim(w->generator);
    double sum = 0;
    int cnt = 0;
    for (int64_t t = 0; t < frame_count(cfg); t++) {
        float *e = w->all_embeddings + t * dim;
        memcpy(w->pixels, w->unit + (size_t)t * frame_values(cfg),
               frame_values(cfg) * sizeof(float));
        TRY(generator_embed(w->generator, w->pixels, w->embedding));
        memcpy(e, w->embedding, (size_t)dim * sizeof *e);
        if (has_pair(cfg, t)) sum += features_cosine(e - dim, e, dim), cnt++;
    }
    *out = sum / cnt;
    return ERR_OK;
}

static Err measure_motion(Worker *w, double *value) {
    const Config *cfg = w->eval->cfg;
    size_t values = frame_values(cfg);
    int cnt = 0;
    double change = 0;
    for (int64_t t = 0; t < frame_count(cfg); t++) {
        const float *now = w->unit + (size_t)t * values;
        if (has_pair(cfg, t)) change += picture_change(now - values, now, values), cnt++;
    }
    Motion m = motion_of_video(w->motion, w->luma, (int)frame_count(cfg), (int)cfg->frames);
    value[EVALUATION_MOTION] = change / cnt;
    value[EVALUATION_SHIFT_X] = m.shift_x;
    value[EVALUATION_SHIFT_Y] = m.shift_y;
    value[EVALUATION_ZOOM] = m.zoom;
    return measure_consistency(w, &value[EVALUATION_CONSISTENCY]);
}

static void measure_sharpness(Worker *w, double *value) {
    const Config *cfg = w->eval->cfg;
    int64_t frames = frame_count(cfg), pixels = cfg->height * cfg->width;
    double sum = 0;
    for (int64_t t = 0; t < frames; t++)
        sum += picture_sharpness(w->luma + t * pixels, (int)cfg->height, (int)cfg->width);
    value[EVALUATION_SHARPNESS] = sum / (double)frames;
    value[EVALUATION_FIRST_FRAME_PSNR] =
        picture_psnr(w->unit, generator_picture(w->generator), frame_values(cfg));
}

static Err ask_models(Worker *w, EvaluationSample *sample, EvaluationSide side) {
    double *value = sample->value[side];
    ScorerScore s;
    TRY(scorer_score(w->scorer, w->frames, &s, sample->features[side]));
    value[EVALUATION_REWARD] = s.reward;
    value[EVALUATION_CLASS_PROB] = s.class_prob;
    value[EVALUATION_JUDGE_PROB] = s.judge_prob;
    value[EVALUATION_JUDGE_AGREES] = s.judge_agrees;
    for (int i = 0; i < w->eval->cfg->reward_cnt; i++) value[EVALUATION_TERM + i] = s.term[i];
    sample->most_probable[side] = s.most_probable;
    if (!scorer_has_vjepa(w->scorer)) return ERR_OK;
    return scorer_vjepa(w->scorer, w->frames, false, &value[EVALUATION_VJEPA_LOSS]);
}

// w->frames, about which everything is found out.
static Err measure(Worker *w, EvaluationSample *sample, EvaluationSide side) {
    const Config *cfg = w->eval->cfg;
    size_t cnt = (size_t)frame_count(cfg) * frame_values(cfg);
    TRY(ask_models(w, sample, side));
    picture_from_raw(w->frames, cnt, w->unit);
    picture_luma(w->unit, cnt / 3, w->luma);
    measure_sharpness(w, sample->value[side]);
    return cfg->frames > 1 ? measure_motion(w, sample->value[side]) : ERR_OK;
}

// V-JEPA's loss of what the base's video is not: its first frame held, and itself blurred. Overwrites w->frames.
static Err measure_headroom(Worker *w, EvaluationSample *sample) {
    const Config *cfg = w->eval->cfg;
    size_t values = frame_values(cfg);
    double sigma = (double)cfg->width / BLUR_SHARE;
    if (!scorer_has_vjepa(w->scorer)) return ERR_OK;
    for (int64_t t = 0; t < frame_count(cfg); t++) {
        float *to = w->frames + (size_t)t * values;
        picture_blur(w->unit + (size_t)t * values, (int)cfg->height, (int)cfg->width, sigma, to);
        for (size_t i = 0; i < values; i++) to[i] = 2 * to[i] - 1;
    }
    TRY(scorer_vjepa(w->scorer, w->frames, false, &sample->blurred));
    for (size_t i = 0; i < values; i++) w->frames[i] = 2 * w->unit[i] - 1;
    for (int64_t t = 1; t < frame_count(cfg); t++)
        memcpy(w->frames + (size_t)t * values, w->frames, values * sizeof(float));
    return scorer_vjepa(w->scorer, w->frames, false, &sample->frozen);
}

// ---- Tasks ----

static Err write_video(const Eval *v, int sample, const MediaClip clip[EVALUATION_SIDES]) {
    char path[4096];
    MediaClip both = {0};
    const EvaluationAbout *a = &v->about;
    snprintf(path, sizeof path, "%s/%s-%d.mp4", v->run_dir, a->video[sample / a->seed_cnt],
             sample % a->seed_cnt);
    TRY(media_beside(&both, &clip[EVALUATION_BASE], &clip[EVALUATION_TUNED]));
    Err err = media_write_mp4(path, &both, (int)v->cfg->preview_fps);
    media_clip_fini(&both);
    return err;
}

static Err run_sample(Worker *w, int i) {
    Eval *v = w->eval;
    const Config *cfg = v->cfg;
    EvaluationSample *sample = &v->result.sample[i];
    int image = i / v->about.seed_cnt, seed = i % v->about.seed_cnt;
    MediaClip clip[EVALUATION_SIDES] = {0};
    Err err = ERR_OK;
    SlotHeader h = {.purpose = SLOT_EVAL, .sample = (uint64_t)image * SEEDS_MAX + (uint64_t)seed};
    snprintf(h.source, sizeof h.source, "%s", v->images.item[image]);
    for (int s = 0; s < EVALUATION_SIDES; s++) {
        h.tuned = s == EVALUATION_TUNED;
        TRY_OUT(generator_run(w->generator, &h, w->frames));
        media_clip_from_raw(&clip[s], w->frames, (int)frame_count(cfg), (int)cfg->height,
                            (int)cfg->width);
        TRY_OUT(measure(w, sample, (EvaluationSide)s));
        if (s == EVALUATION_BASE) TRY_OUT(measure_headroom(w, sample));
    }
    TRY_OUT(evaluation_check(&v->result, i));
    TRY_OUT(write_video(v, i, clip));
out:
    for (int s = 0; s < EVALUATION_SIDES; s++) media_clip_fini(&clip[s]);
    return err;
}

// The real continuation of an image: as many frames as a rollout shows, from the start.
static Err run_real(Worker *w, int image) {
    const Config *cfg = w->eval->cfg;
    const char *path = cfg->eval_real.item[image];
    int want = (int)scorer_vjepa_frames(w->scorer);
    MediaClip file = {0}, sized = {0};
    Err err = ERR_OK;
    TRY(media_read_video(&file, path, want));
    if (file.frames < want)
        FAIL_OUT(ERR_USAGE,
                 "eval.real %s: %d frames, want at least %d: V-JEPA's loss is compared with that "
                 "of rollouts as long",
                 path, file.frames, want);
    media_resize(&sized, &file, (int)cfg->width, (int)cfg->height);
    for (size_t i = 0; i < (size_t)want * frame_values(cfg); i++)
        w->frames[i] = (float)sized.rgb[i] / 255.0f * 2 - 1;
    TRY_OUT(scorer_vjepa(w->scorer, w->frames, true, &w->eval->result.real[image]));
out:
    media_clip_fini(&file);
    media_clip_fini(&sized);
    return err;
}

// ---- Workers ----

static float *room(size_t cnt) {
    float *p = aligned_alloc(64, (cnt * sizeof *p + 63) / 64 * 64);
    die_unless(p, "eval: out of memory for %zu values", cnt);
    return p;
}

// The run's newest state. board: NULL reads its head only.
static Err want_state(const Eval *v, LedgerHead *head, Board *board) {
    int found;
    TRY(ledger_read(v->run_dir, head, board, &found));
    if (!found)
        FAIL(ERR_USAGE, "%s: no adapter: there is no run with a durable update; --lora names one",
             v->run_dir);
    return ERR_OK;
}

// Its values; the board is only what a state is read into.
static Err read_state(Eval *v, const Lora *l) {
    const Config *cfg = v->cfg;
    BoardSpec spec = {.theta_cnt = lora_theta_count(l), .rollouts = 1, .lag = (uint32_t)cfg->lag};
    Board *board = NULL;
    LedgerHead head;
    Err err = ERR_OK;
    void *memory = aligned_alloc(4096, board_bytes(&spec));
    die_unless(memory, "eval: out of memory");
    memset(memory, 0, board_bytes(&spec));
    TRY_OUT(board_create(&board, memory, &spec, NULL));
    TRY_OUT(want_state(v, &head, board));
    memcpy(v->theta, board_theta(board, head.version), (size_t)spec.theta_cnt * sizeof(float));
    v->about.updates = (int64_t)head.version;
    v->about.adapter =
        arena_printf(&v->arena, "update %llu of the run", (unsigned long long)head.version);
out:
    board_leave(board);
    free(memory);
    return err;
}

// Once, since a run that goes on has another newest state a moment later.
static Err read_adapter(Eval *v, Lora *l) {
    double scale = v->cfg->eval_lora_scale;
    size_t cnt = (size_t)lora_theta_count(l);
    v->theta = room(cnt);
    memcpy(v->theta, lora_theta(l), cnt * sizeof(float));
    v->about.updates = -1;
    v->about.adapter = v->lora;
    if (!v->lora) TRY(read_state(v, l));
    for (int i = 0; i < lora_module_count(l); i++) { // B A x, so B alone
        const LoraModule *m = lora_module(l, i);
        for (int64_t k = 0; !m->dead && k < m->out * lora_config(l)->rank; k++)
            v->theta[m->b_at + k] = (float)(scale * (double)v->theta[m->b_at + k]);
    }
    return ERR_OK;
}

static Err worker_open(Worker *w) {
    Eval *v = w->eval;
    const Config *cfg = v->cfg;
    TRY(generator_open(&w->generator, cfg, w->threads));
    TRY(scorer_open(&w->scorer, cfg, w->threads));
    Lora *l = generator_lora(w->generator);
    if (!v->theta) TRY(read_adapter(v, l));
    memcpy(lora_theta(l), v->theta, (size_t)lora_theta_count(l) * sizeof(float));
    w->motion = motion_new((int)cfg->height, (int)cfg->width);
    size_t frames = (size_t)frame_count(cfg), dim = (size_t)generator_embed_dim(w->generator);
    w->frames = room(frames * frame_values(cfg));
    w->unit = room(frames * frame_values(cfg));
    w->luma = room(frames * frame_values(cfg) / 3);
    w->pixels = room(frame_values(cfg));
    w->embedding = room(dim);
    w->all_embeddings = room(frames * dim);
    return ERR_OK;
}

static void worker_close(Worker *w) {
    generator_close(w->generator);
    scorer_close(w->scorer);
    motion_free(w->motion);
    free(w->frames);
    free(w->unit);
    free(w->luma);
    free(w->pixels);
    free(w->embedding);
    free(w->all_embeddings);
}

// The message belongs to this thread: it is handed over.
static void report(Eval *v, Err err) {
    pthread_mutex_lock(&v->lock);
    if (!v->err) {
        v->err = err;
        v->err_message = strdup(err_text());
    }
    pthread_mutex_unlock(&v->lock);
}

static bool failed(Eval *v) {
    pthread_mutex_lock(&v->lock);
    bool yes = v->err != ERR_OK;
    pthread_mutex_unlock(&v->lock);
    return yes;
}

static void count(Eval *v) {
    pthread_mutex_lock(&v->lock);
    v->done++;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\reval: %d of %d%s", v->done, v->task_cnt,
                v->done == v->task_cnt ? "\n" : "");
    pthread_mutex_unlock(&v->lock);
}

static void work(Worker *w) {
    Eval *v = w->eval;
    for (int i; !failed(v) && (i = atomic_fetch_add(&v->next, 1)) < v->task_cnt;) {
        Err err = i < v->real_cnt ? run_real(w, i) : run_sample(w, i - v->real_cnt);
        if (err)
            report(v, err);
        else
            count(v);
    }
}

static void *worker_main(void *arg) {
    Worker *w = arg;
    Err err = worker_open(w);
    if (err)
        report(w->eval, err);
    else
        work(w);
    return NULL;
}

// As many as there are cores, but with all their models in no more than half of the machine's memory.
static Err count_workers(const Eval *v, int threads, int *out) {
    uint64_t generator, scorer,
        half = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    TRY(generator_memory(v->cfg, 1, &generator));
    TRY(scorer_memory(v->cfg, &scorer));
    uint64_t fit = half / (generator + scorer + 1);
    *out = v->task_cnt < threads ? v->task_cnt : threads;
    if ((uint64_t)*out > fit) *out = fit ? (int)fit : 1;
    return ERR_OK;
}

static void fill_about(Eval *v, const Scorer *s) {
    EvaluationAbout *a = &v->about;
    a->cfg = v->cfg;
    a->classes = scorer_classes(s);
    a->has_judge = scorer_has_judge(s);
    a->has_vjepa = scorer_has_vjepa(s);
    a->has_real = v->real_cnt > 0;
    a->feature_dim = scorer_feature_dim(s);
    evaluation_init(&v->result, a);
}

// The first worker is this thread: it opens alone, so that what is wrong is said once and before any work is done.
static Err run_workers(Eval *v, Worker *worker, int cnt) {
    int started = 1;
    TRY(worker_open(&worker[0]));
    fill_about(v, worker[0].scorer);
    for (; started < cnt; started++)
        if (pthread_create(&worker[started].thread, NULL, worker_main, &worker[started])) break;
    work(&worker[0]);
    for (int i = 1; i < started; i++) pthread_join(worker[i].thread, NULL);
    if (v->err) FAIL(v->err, "%s", v->err_message);
    TRY(evaluation_summarise(&v->result));
    evaluation_print(&v->result, stdout);
    const char *path = arena_printf(&v->arena, "%s/eval.json", v->run_dir);
    TRY(evaluation_write(&v->result, path));
    printf("\n%s %s/eval/\n", path, v->run_dir);
    return ERR_OK;
}

static Err evaluate(Eval *v) {
    int threads = v->threads ? (int)v->threads : setup_cores(), cnt;
    LedgerHead head;
    if (!v->lora) TRY(want_state(v, &head, NULL)); // before models are opened
    TRY(count_workers(v, threads, &cnt));
    Worker *worker = calloc((size_t)cnt, sizeof *worker);
    die_unless(worker, "eval: out of memory");
    for (int i = 0; i < cnt; i++) worker[i] = (Worker){.eval = v, .threads = threads / cnt};
    Err err = run_workers(v, worker, cnt);
    for (int i = 0; i < cnt; i++) worker_close(&worker[i]);
    free(worker);
    return err;
}

// ---- Names ----

// The last `parts` components of a path.
static const char *tail(const char *path, int parts) {
    const char *p = path + strlen(path);
    while (p > path)
        if (*--p == '/' && !--parts) return p + 1;
    return p;
}

static bool all_differ(const char *const *name, int cnt, int *a, int *b) {
    for (*a = 0; *a < cnt; ++*a)
        for (*b = *a + 1; *b < cnt; ++*b)
            if (!strcmp(name[*a], name[*b])) return false;
    return true;
}

// Images are called by their file and its folder, and by more folders where that is not enough; videos by the file
// alone, or like the image.
static Err name_images(Eval *v) {
    int cnt = v->images.cnt, a, b;
    const char **image = arena_array(&v->arena, const char *, cnt),
               **video = arena_array(&v->arena, const char *, cnt);
    if (!all_differ(v->images.item, cnt, &a, &b))
        FAIL(ERR_USAGE, "image %s is given twice: intervals want independent images",
             v->images.item[a]);
    for (int parts = 2; parts == 2 || !all_differ(image, cnt, &a, &b); parts++)
        for (int i = 0; i < cnt; i++) image[i] = tail(v->images.item[i], parts);
    for (int whole = 0; whole < 2; whole++) {
        for (int i = 0; i < cnt; i++) {
            const char *name = whole ? image[i] : tail(image[i], 1), *dot = strrchr(name, '.');
            int len = dot > name && !strchr(dot, '/') ? (int)(dot - name) : (int)strlen(name);
            char *flat = arena_printf(&v->arena, "eval/%.*s", len, name);
            for (char *p = flat + 5; *p; p++) *p = *p == '/' ? '-' : *p;
            video[i] = flat;
        }
        if (all_differ(video, cnt, &a, &b)) break;
    }
    if (!all_differ(video, cnt, &a, &b))
        FAIL(ERR_USAGE, "images %s and %s would both make %s-0.mp4", image[a], image[b], video[a]);
    v->about.image = image;
    v->about.video = video;
    v->about.image_cnt = cnt;
    return ERR_OK;
}

// ---- Command line ----

static Err read_images(Eval *v) {
    const Config *cfg = v->cfg;
    TRY(image_list_read(&v->images, &v->arena, "eval", &cfg->eval_images, cfg->eval_list));
    TRY(name_images(v));
    for (int i = 0; i < v->images.cnt; i++) { // now, rather than after an hour
        MediaClip c = {0};
        TRY(media_read_image(&c, v->images.item[i]));
        media_clip_fini(&c);
    }
    v->about.seed_cnt = (int)cfg->eval_seeds;
    v->real_cnt = cfg->eval_real.cnt;
    v->task_cnt = v->real_cnt + v->images.cnt * v->about.seed_cnt;
    if (v->real_cnt && v->real_cnt != v->images.cnt)
        FAIL(ERR_USAGE, "eval.real has %d videos, eval.list %d images: want one for each",
             v->real_cnt, v->images.cnt);
    return folder_make(arena_printf(&v->arena, "%s/eval", v->run_dir));
}

// RUN, whose config.yaml it is, or CONF, whose run it is.
static Err read_config(Eval *v, const char *target, int set_cnt, const char **set) {
    struct stat st;
    bool is_run = !stat(target, &st) && S_ISDIR(st.st_mode);
    if (v->lora) set[set_cnt++] = arena_printf(&v->arena, "lora.init=%s", v->lora);
    TRY(config_load(&v->cfg, is_run ? arena_printf(&v->arena, "%s/config.yaml", target) : target,
                    set_cnt, set));
    v->run_dir = is_run ? target : config_run_dir(v->cfg);
    return ERR_OK;
}

Err tool_eval(int argc, char **argv) {
    Eval v = {.lock = PTHREAD_MUTEX_INITIALIZER};
    const char *word[SETTINGS_MAX + 2];
    int cnt;
    bool help = false;
    const Arg table[] = {
        {"lora", ARG_STR, &v.lora, "ADAPTER", "a PEFT folder or a diffusers file"},
        {"threads", ARG_INT, &v.threads, "N", "threads in all; 0: one for each core"},
        {"help", ARG_FLAG, &help, NULL, "this text"},
        {0}};
    TRY(args_parse(table, argc, argv, word, SETTINGS_MAX, &cnt));
    if (help) {
        fputs(usage, stdout);
        args_help(table, stdout);
        return ERR_OK;
    }
    if (cnt < 1 || strchr(word[0], '='))
        FAIL(ERR_USAGE, "eval: want RUN or CONF; `vader eval --help` says more");
    Err err = read_config(&v, word[0], cnt - 1, word + 1);
    if (!err) err = read_images(&v);
    if (!err) err = evaluate(&v);
    evaluation_fini(&v.result);
    config_free(v.cfg);
    free(v.theta);
    free(v.err_message);
    arena_free(&v.arena);
    return err;
}
