// eval: what an adapter changed: the base model's videos and the adapter's, from equal noise, measured side by side.
//
//     vader eval RUN|CONF [--lora ADAPTER] [--threads N] [key=value ...]
//
// For every image of eval.images and seed of eval.seeds: two videos, scored by the rewards, a second classifier and
// V-JEPA, and measured without any model (common/measure). Writes RUN/eval.json and RUN/eval/<image>-<seed>.mp4 (base
// left, adapter right; a PNG sheet of the frames beside it), prints a table. Without --lora the adapter is that of the run's newest durable update.
//
// The work is cut by videos: each worker has models of its own and makes what comes next. Every number depends on image
// and seed alone, so that any number of workers and threads gives the same bytes.
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/folder.h"
#include "common/config/image_list.h"
#include "common/format/media.h"
#include "common/stages/setup.h"
#include "common/transport/ledger.h"
#include "launch/tool/args.h"
#include "launch/tool/eval_worker.h"
#include "launch/tool/tool.h"

static const char usage[] =
    "vader eval RUN|CONF [--lora ADAPTER] [key=value ...]\n\n"
    "Videos of the base model and of the adapter from equal noise, side by side in RUN/eval/, and what can be\n"
    "measured of them: a table here, all numbers in RUN/eval.json. `vader help eval` lists the keys: which images,\n"
    "how many seeds, a second classifier, a V-JEPA. Without --lora: the run's newest update. Before there is any:\n"
    "eval.lora_scale=0 measures the base model alone.\n\n";

enum { SETTINGS_MAX = 256 };

typedef struct Eval {
    Config *cfg;
    Arena arena;
    int64_t threads;  // asked for; 0: all cores
    const char *lora; // --lora; NULL: the run's state
    EvalJob job;
    float *theta;      // values of the adapter, scaled; NULL: not read yet
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

// ---- The adapter ----

// The run's newest state. board: NULL reads its head only.
static Err want_state(const Eval *v, LedgerHead *head, Board *board) {
    int found;
    TRY(ledger_read(v->job.run_dir, head, board, &found));
    if (!found)
        FAIL(ERR_USAGE,
             "%s: no adapter: there is no run with a durable update; --lora names one, "
             "eval.lora_scale=0 measures the base model alone",
             v->job.run_dir);
    return ERR_OK;
}

// Before models are opened: is there an adapter, and must there be one?
static Err look_for_adapter(Eval *v) {
    LedgerHead head;
    int found;
    if (v->lora) return ERR_OK;
    if (v->cfg->eval_lora_scale > 0) return want_state(v, &head, NULL);
    TRY(ledger_read(v->job.run_dir, &head, NULL, &found));
    v->job.base_alone = !found;
    return ERR_OK;
}

// The values of a state; the board is only what it is read into.
static Err read_state(Eval *v, const Lora *l) {
    BoardSpec spec = {
        .theta_cnt = lora_theta_count(l), .rollouts = 1, .lag = (uint32_t)v->cfg->lag};
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
    size_t bytes = (size_t)lora_theta_count(l) * sizeof(float);
    v->theta = malloc(bytes);
    die_unless(v->theta, "eval: out of memory");
    memcpy(v->theta, lora_theta(l), bytes);
    v->about.updates = -1;
    v->about.adapter = v->lora ? v->lora : "none";
    if (v->job.base_alone) return ERR_OK;
    if (!v->lora) TRY(read_state(v, l));
    for (int i = 0; i < lora_module_count(l); i++) { // B A x, so B alone
        const LoraModule *m = lora_module(l, i);
        for (int64_t k = 0; !m->dead && k < m->out * lora_config(l)->rank; k++)
            v->theta[m->b_at + k] *= (float)v->cfg->eval_lora_scale;
    }
    return ERR_OK;
}

// ---- Threads ----

typedef struct Thread {
    Eval *eval;
    int threads; // of its operators
    pthread_t id;
    EvalWorker *worker;
} Thread;

static Err open_worker(Thread *t) {
    Eval *v = t->eval;
    TRY(eval_worker_open(&t->worker, &v->job, t->threads));
    Lora *l = eval_worker_lora(t->worker);
    if (!v->theta) TRY(read_adapter(v, l));
    memcpy(lora_theta(l), v->theta, (size_t)lora_theta_count(l) * sizeof(float));
    return ERR_OK;
}

// The message belongs to this thread: it is handed over.
static void report(Eval *v, Err err) {
    pthread_mutex_lock(&v->lock);
    if (!v->err) {
        v->err = err;
        v->err_message = strdup(err_text());
        die_unless(v->err_message, "eval: out of memory for a message");
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

static void work(Thread *t) {
    Eval *v = t->eval;
    for (int i; !failed(v) && (i = atomic_fetch_add(&v->next, 1)) < v->task_cnt;) {
        Err err = i < v->real_cnt ? eval_worker_real(t->worker, i)
                                  : eval_worker_sample(t->worker, i - v->real_cnt);
        if (err)
            report(v, err);
        else
            count(v);
    }
}

static void *thread_main(void *arg) {
    Thread *t = arg;
    Err err = open_worker(t);
    if (err)
        report(t->eval, err);
    else
        work(t);
    return NULL;
}

// As many as there are cores, but with all their models in no more than half of the machine's memory.
static Err count_workers(const Eval *v, int threads, int *out) {
    uint64_t each, half = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    TRY(eval_worker_memory(v->cfg, &each));
    *out = v->task_cnt < threads ? v->task_cnt : threads;
    if ((uint64_t)*out > half / (each + 1)) *out = (int)(half / (each + 1));
    if (*out < 1) *out = 1;
    return ERR_OK;
}

static void init_result(Eval *v, const Scorer *s) {
    EvaluationAbout *a = &v->about;
    a->cfg = v->cfg;
    a->classes = scorer_classes(s);
    a->has_judge = scorer_has_judge(s);
    a->has_vjepa = scorer_has_vjepa(s);
    a->has_real = v->real_cnt > 0;
    a->feature_dim = scorer_feature_dim(s);
    evaluation_init(&v->result, a);
}

// The first worker is this thread's: it opens alone, so that what is wrong is said once and before any work is done.
static Err run_threads(Eval *v, Thread *thread, int cnt) {
    int started = 1;
    TRY(open_worker(&thread[0]));
    init_result(v, eval_worker_scorer(thread[0].worker));
    for (; started < cnt; started++)
        if (pthread_create(&thread[started].id, NULL, thread_main, &thread[started])) break;
    work(&thread[0]);
    for (int i = 1; i < started; i++) pthread_join(thread[i].id, NULL);
    if (v->err) FAIL(v->err, "%s", v->err_message);
    TRY(evaluation_summarise(&v->result));
    evaluation_print(&v->result, stdout);
    const char *path = arena_printf(&v->arena, "%s/eval.json", v->job.run_dir);
    TRY(evaluation_write(&v->result, path));
    printf("\n%s %s/eval/\n", path, v->job.run_dir);
    return ERR_OK;
}

static Err evaluate(Eval *v) {
    int threads = v->threads ? (int)v->threads : setup_cores(), cnt;
    TRY(look_for_adapter(v));
    TRY(count_workers(v, threads, &cnt));
    Thread *thread = calloc((size_t)cnt, sizeof *thread);
    die_unless(thread, "eval: out of memory");
    for (int i = 0; i < cnt; i++) thread[i] = (Thread){.eval = v, .threads = threads / cnt};
    Err err = run_threads(v, thread, cnt);
    for (int i = 0; i < cnt; i++) eval_worker_close(thread[i].worker);
    free(thread);
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
    return folder_make(arena_printf(&v->arena, "%s/eval", v->job.run_dir));
}

// RUN, whose config.yaml it is, or CONF, whose run it is.
static Err read_config(Eval *v, const char *target, int set_cnt, const char **set) {
    struct stat st;
    bool is_run = !stat(target, &st) && S_ISDIR(st.st_mode);
    if (v->lora) set[set_cnt++] = arena_printf(&v->arena, "lora.init=%s", v->lora);
    TRY(config_load(&v->cfg, is_run ? arena_printf(&v->arena, "%s/config.yaml", target) : target,
                    set_cnt, set));
    v->job = (EvalJob){.cfg = v->cfg,
                       .run_dir = is_run ? target : config_run_dir(v->cfg),
                       .images = &v->images,
                       .result = &v->result};
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
