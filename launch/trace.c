// trace: spans as Chrome JSON, and sums over them.
#include "launch/trace.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/atomic_file.h"
#include "common/base/strbuf.h"

enum { FLUSH_BYTES = 1 << 20 };

static bool is_session(const RecorderSpan *s) { return s->stage == RECORDER_SESSION; }
static bool is_update(const RecorderSpan *s) { return s->step == STEP_CNT; }

static int compare(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }

// Spans of one sample side by side, in order of time.
static int by_chain(const void *pa, const void *pb) {
    const RecorderSpan *a = pa, *b = pb;
    int c = compare(is_update(a), is_update(b));
    if (!c) c = compare(a->purpose, b->purpose);
    if (!c) c = compare(a->sample, b->sample);
    if (!c) c = compare((uint64_t)a->start_ns, (uint64_t)b->start_ns);
    return c ? c : compare(a->stage, b->stage);
}

static bool same_chain(const RecorderSpan *a, const RecorderSpan *b) {
    return !is_update(a) && !is_update(b) && a->purpose == b->purpose && a->sample == b->sample;
}

static int by_time(const void *pa, const void *pb) {
    const RecorderSpan *a = pa, *b = pb;
    int c = compare((uint64_t)a->start_ns, (uint64_t)b->start_ns);
    return c ? c : -compare(a->stage, b->stage); // a session's mark first
}

// Moves sessions' marks out of the way; returns the spans that are left. *rollouts: of an update.
static size_t drop_sessions(RecorderSpan *span, size_t cnt, uint64_t *rollouts) {
    size_t n = 0;
    *rollouts = 1;
    for (size_t i = 0; i < cnt; i++) {
        if (is_session(&span[i])) *rollouts = span[i].sample;
        if (!is_session(&span[i])) span[n++] = span[i];
    }
    return n;
}

// ---- The file ----

typedef struct Trace {
    AtomicFile file;
    StrBuf text;
    int64_t start_ns;
    uint64_t rollouts, chain;
    const char *comma;
} Trace;

static int pid_of(const RecorderSpan *s) { return 1 + s->stage * RUN_PROCESSES_MAX + s->replica; }

static double micros(const Trace *t, int64_t ns) { return (double)(ns - t->start_ns) / 1e3; }

static Err flush(Trace *t, size_t least) {
    if (t->text.len < least) return ERR_OK;
    TRY(atomic_file_write(&t->file, strbuf_text(&t->text), t->text.len));
    strbuf_clear(&t->text);
    return ERR_OK;
}

static void add_names(Trace *t, const RecorderSpan *span, size_t cnt) {
    static bool seen[STAGE_CNT][RUN_PROCESSES_MAX];
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < cnt; i++) {
        const RecorderSpan *s = &span[i];
        if (seen[s->stage][s->replica]) continue;
        seen[s->stage][s->replica] = true;
        strbuf_printf(&t->text,
                      "%s\n{\"ph\":\"M\",\"pid\":%d,\"tid\":1,\"name\":\"process_name\","
                      "\"args\":{\"name\":\"%s.%d\"}},\n{\"ph\":\"M\",\"pid\":%d,\"tid\":1,"
                      "\"name\":\"process_sort_index\",\"args\":{\"sort_index\":%d}}",
                      t->comma, pid_of(s), itinerary_stage_name((StageKind)s->stage), s->replica,
                      pid_of(s), pid_of(s));
        t->comma = ",";
    }
}

static void add_slice(Trace *t, const RecorderSpan *s) {
    strbuf_printf(&t->text, "%s\n{\"ph\":\"X\",\"pid\":%d,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,",
                  t->comma, pid_of(s), micros(t, s->start_ns),
                  (double)(s->end_ns - s->start_ns) / 1e3);
    t->comma = ",";
    if (is_update(s))
        strbuf_printf(&t->text,
                      "\"name\":\"update\",\"cat\":\"update\",\"args\":{\"update\":%" PRIu64 "}}",
                      s->sample);
    else if (s->purpose == SLOT_PREVIEW)
        strbuf_printf(&t->text,
                      "\"name\":\"%s.%d\",\"cat\":\"preview\",\"args\":{\"preview\":%" PRIu64 "}}",
                      itinerary_step_name((StepKind)s->step), s->segment, s->sample);
    else
        strbuf_printf(&t->text,
                      "\"name\":\"%s.%d\",\"cat\":\"train\",\"args\":{\"sample\":%" PRIu64
                      ",\"update\":%" PRIu64 "}}",
                      itinerary_step_name((StepKind)s->step), s->segment, s->sample,
                      s->sample / t->rollouts);
}

// One end or joint of a sample's arrows, bound to the slice around it.
static void add_arrow(Trace *t, const RecorderSpan *s, char phase) {
    strbuf_printf(&t->text,
                  ",\n{\"ph\":\"%c\",\"pid\":%d,\"tid\":1,\"ts\":%.3f,\"id\":%" PRIu64
                  ",\"name\":\"sample %" PRIu64 "\",\"cat\":\"flow\"%s}",
                  phase, pid_of(s), micros(t, s->start_ns), t->chain, s->sample,
                  phase == 's' ? "" : ",\"bp\":\"e\"");
}

static Err write_events(Trace *t, const RecorderSpan *span, size_t cnt) {
    strbuf_add(&t->text, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    add_names(t, span, cnt);
    for (size_t i = 0; i < cnt; i++) {
        bool before = i > 0 && same_chain(&span[i - 1], &span[i]);
        bool after = i + 1 < cnt && same_chain(&span[i], &span[i + 1]);
        add_slice(t, &span[i]);
        if (!before) t->chain++;
        if (before || after) add_arrow(t, &span[i], !before ? 's' : after ? 't' : 'f');
        TRY(flush(t, FLUSH_BYTES));
    }
    strbuf_add(&t->text, "\n]}\n");
    return flush(t, 0);
}

Err trace_write(const char *path, RecorderSpan *span, size_t cnt) {
    Err err = ERR_OK;
    Trace t = {.comma = "", .start_ns = INT64_MAX};
    size_t n = drop_sessions(span, cnt, &t.rollouts);
    qsort(span, n, sizeof *span, by_chain);
    for (size_t i = 0; i < n; i++)
        if (span[i].start_ns < t.start_ns) t.start_ns = span[i].start_ns;
    TRY_OUT(atomic_file_open(&t.file, path));
    TRY_OUT(write_events(&t, span, n));
    TRY_OUT(atomic_file_commit(&t.file, ATOMIC_FILE_VISIBLE));
out:
    strbuf_fini(&t.text);
    atomic_file_abandon(&t.file);
    return err;
}

// ---- The summary ----

static void add_span(TraceSums *u, const RecorderSpan *s) {
    double seconds = (double)(s->end_ns - s->start_ns) / 1e9;
    u->busy_s[s->stage][s->replica] += seconds;
    u->step_s[s->step] += seconds;
    u->step_cnt[s->step]++;
    u->lost += s->lost;
    if (s->replica >= u->replicas[s->stage]) u->replicas[s->stage] = s->replica + 1;
}

static void add_spans(TraceSums *u, const RecorderSpan *span, size_t cnt) {
    int64_t first = 0, last = 0;
    for (size_t i = 0; i < cnt; i++) {
        const RecorderSpan *s = &span[i];
        if (is_session(s)) {
            u->wall_s += (double)(last - first) / 1e9;
            first = last = 0;
            continue;
        }
        if (!first) first = last = s->start_ns;
        if (s->end_ns > last) last = s->end_ns;
        add_span(u, s);
    }
    u->wall_s += (double)(last - first) / 1e9;
}

static double stage_busy(const TraceSums *u, int stage) {
    double busy = 0;
    for (int r = 0; r < u->replicas[stage]; r++) busy += u->busy_s[stage][r];
    return u->replicas[stage] ? busy / u->replicas[stage] : 0;
}

void trace_sum(TraceSums *u, RecorderSpan *span, size_t cnt) {
    double all = 0;
    *u = (TraceSums){0};
    if (cnt) qsort(span, cnt, sizeof *span, by_time);
    add_spans(u, span, cnt);
    if (!(u->wall_s > 0)) return;
    for (int stage = 0; stage < STAGE_CNT; stage++) {
        all += stage_busy(u, stage) * u->replicas[stage];
        if (stage_busy(u, stage) > stage_busy(u, (int)u->bound)) u->bound = (StageKind)stage;
    }
    u->bound_busy = stage_busy(u, (int)u->bound) / u->wall_s;
    u->overlap = all / u->wall_s;
}

void trace_print(const TraceSums *u, FILE *out) {
    if (!(u->wall_s > 0)) {
        fputs("no step has been recorded yet\n", out);
        return;
    }
    for (int stage = 0; stage < STAGE_CNT; stage++)
        for (int r = 0; r < u->replicas[stage]; r++)
            fprintf(out, "%s.%d: busy %.2f s, %.1f%%\n", itinerary_stage_name((StageKind)stage), r,
                    u->busy_s[stage][r], 100 * u->busy_s[stage][r] / u->wall_s);
    for (int k = 0; k <= STEP_CNT; k++)
        if (u->step_cnt[k])
            fprintf(out, "%-9s    %6" PRIu64 " x %.4g s\n",
                    k == STEP_CNT ? "update" : itinerary_step_name((StepKind)k), u->step_cnt[k],
                    u->step_s[k] / (double)u->step_cnt[k]);
    fprintf(out, "bound by the %s: busy %.1f%% of %.2f s\n", itinerary_stage_name(u->bound),
            100 * u->bound_busy, u->wall_s);
    fprintf(out, "overlap %.2f: processes at work at once, on average (1 = one after the other)\n",
            u->overlap);
    if (u->step_cnt[STEP_CNT])
        fprintf(out, "%.3g s per update\n", u->wall_s / (double)u->step_cnt[STEP_CNT]);
    if (u->lost) fprintf(out, "%" PRIu64 " steps were too many to be recorded\n", u->lost);
}

// ---- A part to look at ----

// Updates that ended among span[0 .. cnt), which is one session.
static int count_updates(const RecorderSpan *span, size_t cnt) {
    int n = 0;
    for (size_t i = 0; i < cnt; i++) n += is_update(&span[i]);
    return n;
}

// The session with the most updates, the last of equals. Returns its first span's index.
static size_t longest_session(const RecorderSpan *span, size_t cnt, size_t *len) {
    size_t best = 0;
    int most = -1;
    *len = 0;
    for (size_t i = 0, end; i < cnt; i = end) {
        size_t start = i + is_session(&span[i]);
        for (end = start; end < cnt && !is_session(&span[end]);) end++;
        int n = count_updates(span + start, end - start);
        if (n < most || end == start) continue;
        most = n;
        best = start;
        *len = end - start;
    }
    return best;
}

static const RecorderSpan *nth_update(const RecorderSpan *span, size_t cnt, int n) {
    for (size_t i = 0; i < cnt; i++)
        if (is_update(&span[i]) && n-- == 0) return &span[i];
    return NULL;
}

// Spans of a session from the end of its update `from` - 1 to that of `from` + n - 1.
static void cut(TracePart *part, const RecorderSpan *span, size_t cnt, int from, int n) {
    size_t first = 0, end = cnt;
    const RecorderSpan *last = nth_update(span, cnt, from + n - 1);
    part->start_ns = from ? nth_update(span, cnt, from - 1)->end_ns : span->start_ns;
    part->end_ns = last->end_ns;
    part->first_update = last->sample + 2 - (uint64_t)n;
    part->updates = n;
    while (span[first].end_ns <= part->start_ns) first++;
    while (span[end - 1].start_ns >= part->end_ns) end--;
    part->span = span + first;
    part->cnt = end - first;
}

void trace_part(TracePart *part, RecorderSpan *span, size_t cnt, int updates, size_t most) {
    size_t len;
    *part = (TracePart){0};
    if (cnt) qsort(span, cnt, sizeof *span, by_time);
    const RecorderSpan *session = span + longest_session(span, cnt, &len);
    if (!len) return;
    int all = count_updates(session, len), n = all < updates ? all : updates;
    for (; n > 0; n--) {
        cut(part, session, len, (all - n) / 2, n);
        if (part->cnt <= most) return;
    }
    if (!all) *part = (TracePart){session, len, session->start_ns, 0, 1, 0};
    part->updates = 0;
    if (part->cnt > most) part->cnt = most;
    part->end_ns = part->span[part->cnt - 1].end_ns;
}

Err trace_main(int argc, char **argv) {
    Err err = ERR_OK;
    Arena a = {0};
    RecorderSpan *span = NULL;
    TraceSums *u = arena_new(&a, TraceSums);
    size_t cnt;
    if (argc != 2 || *argv[1] == '-') FAIL(ERR_USAGE, "usage: vader trace RUN");
    TRY_OUT(recorder_read(arena_printf(&a, "%s/" RECORDER_SPANS, argv[1]), &span, &cnt));
    trace_sum(u, span, cnt);
    trace_print(u, stdout);
    const char *path = arena_printf(&a, "%s/trace.json", argv[1]);
    TRY_OUT(trace_write(path, span, cnt));
    printf("%s: open it at ui.perfetto.dev\n", path);
out:
    free(span);
    arena_free(&a);
    return err;
}
