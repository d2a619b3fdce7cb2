// progress: update, reward, gradient norm, how busy each stage is, time left.
#include "launch/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/strbuf.h"

void progress_init(Progress *p, const Config *cfg, const Run *run, uint64_t first_version) {
    *p = (Progress){.cfg = cfg,
                    .run = run,
                    .is_terminal = isatty(STDERR_FILENO),
                    .start_ns = clock_ns(),
                    .first_version = first_version,
                    .version = first_version};
}

// Share of the time since the start that the processes of a stage were busy, in percent.
static int busy_percent(const Progress *p, StageKind stage) {
    uint64_t busy = 0, all = 0;
    for (int r = 0; r < (int)p->run->state->replicas[stage]; r++) {
        const RunPage *page = &p->run->page[run_page_index(p->run, stage, r)];
        for (int k = 0; k < RUN_TIME_CNT; k++) {
            uint64_t ns = atomic_load_explicit(&page->time_ns[k], memory_order_relaxed);
            all += ns;
            if (k == RUN_BUSY) busy += ns;
        }
    }
    return all ? (int)(100 * busy / all) : 0;
}

// Columns of the terminal, less one; 0: no terminal, or it does not say.
static size_t columns(const Progress *p) {
    struct winsize w;
    return p->is_terminal && !ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col ? w.ws_col - 1u : 0;
}

static void add_busy(const Progress *p, StrBuf *b, bool narrow) {
    strbuf_add(b, "  busy");
    for (int s = 0; s < STAGE_CNT; s++) {
        const char *name = itinerary_stage_name((StageKind)s);
        strbuf_printf(b, " %.*s %d%%", narrow ? 1 : 16, name, busy_percent(p, (StageKind)s));
    }
}

static void add_line(const Progress *p, StrBuf *b, bool narrow) {
    uint64_t done = p->version - p->first_version, left = (uint64_t)p->cfg->updates - p->version;
    double seconds = (double)(clock_ns() - p->start_ns) / 1e9;
    strbuf_printf(b, "update %llu/%lld", (unsigned long long)p->version,
                  (long long)p->cfg->updates);
    if (p->has_reward) strbuf_printf(b, "  reward %.4f", p->reward);
    if (p->has_reward && !narrow) strbuf_printf(b, "  |g| %.3g", p->grad_norm);
    if (p->restarts && narrow) strbuf_printf(b, "  restarts %d", p->restarts); // may be cut below
    add_busy(p, b, narrow);
    if (done) {
        double eta = seconds / (double)done * (double)left;
        strbuf_printf(b, "  %.1f s/update", seconds / (double)done);
        if (eta < 3600)
            strbuf_printf(b, "  left %d:%02d", (int)eta / 60, (int)eta % 60);
        else
            strbuf_printf(b, "  left %d:%02d h", (int)(eta / 3600), (int)(eta / 60) % 60);
    }
    if (p->restarts && !narrow) strbuf_printf(b, "  restarts %d", p->restarts);
}

// On a terminal the line is redrawn in place, so it must not be wider than that is.
static void print_line(Progress *p) {
    StrBuf b = {0};
    size_t most = columns(p);
    add_line(p, &b, false);
    if (most && b.len > most) {
        strbuf_clear(&b);
        add_line(p, &b, true);
    }
    fprintf(stderr, "%s%.*s%s", p->is_terminal ? "\r\033[K" : "",
            (int)(most && b.len > most ? most : b.len), strbuf_text(&b),
            p->is_terminal ? "" : "\n");
    fflush(stderr);
    strbuf_fini(&b);
    p->line_open = p->is_terminal;
}

void progress_show(Progress *p, const ConductorNews *news, int restarts) {
    int64_t now = clock_ns();
    p->restarts = restarts;
    if (news->updated) {
        p->version = news->version;
        p->reward = news->reward;
        p->grad_norm = news->grad_norm;
        p->has_reward = true;
    }
    bool due = p->is_terminal ? now - p->shown_ns > 100000000 : news->updated;
    if (!due) return;
    p->shown_ns = now;
    print_line(p);
}

void progress_end(Progress *p) {
    if (p->line_open) { // the last update may have come too soon after another to be drawn
        print_line(p);
        fputc('\n', stderr);
    }
    p->line_open = false;
}
