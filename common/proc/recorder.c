// recorder: snapshots as JSON, spans as records.
#include "common/proc/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/atomic_file.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/strbuf.h"

static const char MAGIC[16] = "VADspans 1\n";
enum { STATUS_NS = 1000000000, SPANS_NS = 200000000 };

struct Recorder {
    const Config *cfg;
    const Run *run;
    char *status_path, *spans_path;
    int fd;            // spans.bin; -1: not recording
    int64_t offset_ns; // calendar - monotonic
    int64_t start_ns, status_ns, spans_ns;
    uint64_t drained[RUN_PROCESSES_MAX];
    uint64_t version;
    double reward, best, grad_norm;
    bool has_reward, warned;
    int restarts;
};

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

static int process_count(const Recorder *r) {
    return run_page_index(r->run, STAGE_LEARNER, 0) + 1; // there is one learner, and it comes last
}

// ---- The snapshot ----

static const char *step_name(int step) {
    return step >= 0 && step < STEP_CNT ? itinerary_step_name((StepKind)step) : "update";
}

static void add_process(StrBuf *b, const RunPage *p, int64_t now, bool first) {
    static const char *const doing_names[RUN_TIME_CNT] = {"busy", "input", "room", "housekeeping"};
    int doing = GET(p->doing);
    int64_t since = GET(p->since_ns);
    int32_t pid = GET(p->pid);
    strbuf_printf(b,
                  "%s\n  {\"name\": \"%s.%d\", \"pid\": %d, \"restarts\": %d, \"doing\": \"%s\", ",
                  first ? "" : ",", itinerary_stage_name((StageKind)GET(p->stage)), GET(p->replica),
                  pid, GET(p->incarnation), !since ? "starting" : doing_names[doing]);
    strbuf_printf(b, "\"step\": \"%s\", \"segment\": %d, \"sample\": %" PRIu64 ", ",
                  step_name(GET(p->step)), GET(p->segment), GET(p->sample));
    strbuf_printf(b, "\"since_s\": %.3f, \"time_s\": [", since ? (double)(now - since) / 1e9 : 0);
    for (int k = 0; k < RUN_TIME_CNT; k++) {
        double s = (double)GET(p->time_ns[k]);
        if (k == doing && since) s += (double)(now - since); // not booked yet
        strbuf_printf(b, "%s%.3f", k ? ", " : "", s / 1e9);
    }
    strbuf_printf(b,
                  "], \"dropped\": %" PRIu64 ", \"peak_bytes\": %" PRIu64
                  ", \"sent_bytes\": %" PRIu64 ", \"steps\": [",
                  GET(p->dropped), GET(p->peak_bytes), GET(p->sent_bytes));
    const char *comma = "";
    for (int k = 0; k < STEP_CNT; k++) {
        uint64_t cnt = GET(p->steps[k]);
        if (!cnt) continue;
        strbuf_printf(b, "%s{\"step\": \"%s\", \"cnt\": %" PRIu64 ", \"mean_s\": %.6f}", comma,
                      step_name(k), cnt, (double)GET(p->step_ns[k]) / 1e9 / (double)cnt);
        comma = ", ";
    }
    strbuf_add(b, "]}");
}

static void add_slot(const Recorder *r, StrBuf *b, uint32_t i) {
    const Slot *s = &r->run->state->slot[i];
    uint32_t at = slot_step(slot_load(s));
    bool preview = s->header.purpose == SLOT_PREVIEW;
    const Itinerary *it = run_itinerary(r->run, s);
    bool on_its_way = at < (uint32_t)it->cnt;
    strbuf_printf(b,
                  "%s\n  {\"sample\": %" PRIu64 ", \"update\": %" PRIu64 ", \"purpose\": \"%s\", ",
                  i ? "," : "", s->header.sample, s->header.update, preview ? "preview" : "train");
    strbuf_printf(b, "\"step\": \"%s\", \"segment\": %d, \"stage\": \"%s\"}",
                  on_its_way             ? itinerary_step_name(it->step[at].kind)
                  : at == ITINERARY_DONE ? "free"
                                         : "done",
                  on_its_way ? it->step[at].segment : 0,
                  on_its_way ? itinerary_stage_name(it->step[at].stage) : "");
}

static void status_text(const Recorder *r, const char *how, StrBuf *b) {
    int64_t now = clock_ns();
    strbuf_printf(b, "{\n \"state\": \"%s\", \"launcher\": %d, \"wall_ns\": %" PRId64 ", ", how,
                  (int)getpid(), now + r->offset_ns);
    strbuf_printf(b, "\"elapsed_s\": %.3f,\n \"version\": %" PRIu64 ", \"updates\": %lld, ",
                  (double)(now - r->start_ns) / 1e9, r->version, (long long)r->cfg->updates);
    strbuf_printf(b, "\"epoch\": %u, \"restarts\": %d,\n", GET(r->run->state->epoch), r->restarts);
    if (r->has_reward)
        strbuf_printf(b, " \"reward\": %.17g, \"best_reward\": %.17g, \"grad_norm\": %.17g,\n",
                      r->reward, r->best, r->grad_norm);
    strbuf_add(b, " \"processes\": [");
    for (int i = 0; i < process_count(r); i++) add_process(b, &r->run->page[i], now, i == 0);
    strbuf_add(b, "\n ],\n \"slots\": [");
    for (uint32_t i = 0; i < r->run->state->slot_cnt; i++) add_slot(r, b, i);
    strbuf_add(b, "\n ]\n}\n");
}

static void write_status(Recorder *r, const char *how) {
    StrBuf b = {0};
    status_text(r, how, &b);
    if (atomic_file_put(r->status_path, strbuf_text(&b), b.len, ATOMIC_FILE_VISIBLE) &&
        !r->warned) {
        log_warn("no status: %s", err_text());
        r->warned = true;
    }
    strbuf_fini(&b);
}

// ---- Spans ----

static void stop_recording(Recorder *r, const char *why) {
    log_warn("%s: recording ends: %s", r->spans_path, why);
    close(r->fd);
    r->fd = -1;
}

static void append(Recorder *r, const void *bytes, size_t len) {
    if (r->fd < 0 || !len) return;
    if (lseek(r->fd, 0, SEEK_END) > RECORDER_FILE_MAX) {
        stop_recording(r, "it is large enough");
    } else if (write(r->fd, bytes, len) != (ssize_t)len) {
        stop_recording(r, strerror(errno));
    }
}

static void drain(Recorder *r, int process) {
    const RunPage *p = &r->run->page[process];
    uint64_t end = atomic_load_explicit(&p->span_cnt, memory_order_acquire);
    uint64_t at = r->drained[process], cnt = end - at;
    if (!cnt) return;
    RecorderSpan *out = calloc(cnt < RUN_SPANS ? cnt : RUN_SPANS, sizeof *out);
    die_unless(out, "recorder: out of memory");
    size_t n = 0;
    uint32_t lost = 0;
    if (cnt > RUN_SPANS) lost = (uint32_t)(cnt - RUN_SPANS), at = end - RUN_SPANS;
    for (; at < end; at++) {
        RunSpan s = p->span[at % RUN_SPANS];
        atomic_thread_fence(memory_order_acquire);
        // The writer fills the entry before it counts it: one further on may already be half overwritten.
        if (GET(p->span_cnt) - at >= RUN_SPANS) {
            lost++;
            continue;
        }
        out[n++] = (RecorderSpan){s.start_ns + r->offset_ns,
                                  s.end_ns + r->offset_ns,
                                  s.sample,
                                  (uint16_t)GET(p->stage),
                                  (uint16_t)GET(p->replica),
                                  s.step,
                                  s.segment,
                                  s.purpose,
                                  lost};
        lost = 0;
    }
    r->drained[process] = end;
    append(r, out, n * sizeof *out);
    free(out);
}

static void drain_all(Recorder *r) {
    for (int i = 0; i < process_count(r); i++) drain(r, i);
}

// Opens for appending; a record that a kill cut is cut off.
static void open_spans(Recorder *r) {
    struct stat st;
    r->fd = open(r->spans_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (r->fd < 0 || fstat(r->fd, &st)) {
        log_warn("%s: %s", r->spans_path, strerror(errno));
        return;
    }
    off_t whole =
        st.st_size < (off_t)sizeof MAGIC
            ? 0
            : st.st_size - (st.st_size - (off_t)sizeof MAGIC) % (off_t)sizeof(RecorderSpan);
    if (whole != st.st_size && ftruncate(r->fd, whole)) stop_recording(r, strerror(errno));
    if (!whole) append(r, MAGIC, sizeof MAGIC);
    int64_t now = clock_wall_ns();
    RecorderSpan session = {.start_ns = now,
                            .end_ns = now,
                            .sample = r->run->state->rollouts,
                            .stage = RECORDER_SESSION};
    append(r, &session, sizeof session);
}

// ---- Life ----

Recorder *recorder_new(const Config *cfg, const Run *run, const char *run_dir) {
    Recorder *r = calloc(1, sizeof *r);
    die_unless(r, "recorder: out of memory");
    *r = (Recorder){.cfg = cfg, .run = run, .fd = -1, .start_ns = clock_ns()};
    r->offset_ns = clock_wall_ns() - r->start_ns;
    die_unless(asprintf(&r->status_path, "%s/" RECORDER_STATUS, run_dir) > 0 &&
                   asprintf(&r->spans_path, "%s/" RECORDER_SPANS, run_dir) > 0,
               "recorder: out of memory");
    r->version = board_version(run->board);
    for (int i = 0; i < process_count(r); i++) r->drained[i] = GET(run->page[i].span_cnt);
    open_spans(r);
    write_status(r, "starting");
    return r;
}

void recorder_poll(Recorder *r, const ConductorNews *news, int restarts) {
    int64_t now = clock_ns();
    r->restarts = restarts;
    r->version = news->version;
    if (news->updated) {
        r->best = !r->has_reward || news->reward > r->best ? news->reward : r->best;
        r->reward = news->reward;
        r->grad_norm = news->grad_norm;
        r->has_reward = true;
    }
    if (now - r->spans_ns >= SPANS_NS) {
        drain_all(r);
        r->spans_ns = now;
    }
    if (now - r->status_ns >= STATUS_NS) {
        write_status(r, "running");
        r->status_ns = now;
    }
}

void recorder_free(Recorder *r, const char *how) {
    if (!r) return;
    drain_all(r);
    write_status(r, how);
    if (r->fd >= 0) close(r->fd);
    free(r->status_path);
    free(r->spans_path);
    free(r);
}

// ---- Reading ----

static bool is_sound(const RecorderSpan *s) {
    if (s->start_ns < 0 || s->end_ns < s->start_ns) return false;
    if (s->stage == RECORDER_SESSION) return s->sample > 0;
    return s->stage < STAGE_CNT && s->replica < RUN_PROCESSES_MAX && s->step <= STEP_CNT &&
           s->segment < ITINERARY_SEGMENTS_MAX && s->purpose <= SLOT_PREVIEW;
}

static Err read_all(FILE *f, const char *path, RecorderSpan **out, size_t *cnt) {
    struct stat st;
    char magic[sizeof MAGIC];
    if (fstat(fileno(f), &st)) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    if (fread(magic, 1, sizeof magic, f) != sizeof magic || memcmp(magic, MAGIC, sizeof magic))
        FAIL(ERR_FORMAT, "%s: not the spans of this version of vader", path);
    if (st.st_size > RECORDER_FILE_MAX + (16 << 20))
        FAIL(ERR_FORMAT, "%s: %lld bytes, want at most %lld", path, (long long)st.st_size,
             RECORDER_FILE_MAX);
    *cnt = ((size_t)st.st_size - sizeof magic) / sizeof **out;
    *out = malloc(*cnt * sizeof **out + 1);
    die_unless(*out, "recorder: out of memory");
    if (fread(*out, sizeof **out, *cnt, f) != *cnt) FAIL(ERR_IO, "%s: cannot be read", path);
    for (size_t i = 0; i < *cnt; i++)
        if (!is_sound(&(*out)[i])) FAIL(ERR_FORMAT, "%s: record %zu is damaged", path, i);
    return ERR_OK;
}

Err recorder_read(const char *path, RecorderSpan **out, size_t *cnt) {
    *out = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    Err err = read_all(f, path, out, cnt);
    fclose(f);
    if (!err) return ERR_OK;
    free(*out);
    *out = NULL;
    return err_up(err, __FILE__, __LINE__, __func__);
}
