// progress: update, reward, gradient norm, how busy each stage is, time left.
#include "launch/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"

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

static void print_line(Progress *p, int restarts) {
    uint64_t done = p->version - p->first_version, left = (uint64_t)p->cfg->updates - p->version;
    double seconds = (double)(clock_ns() - p->start_ns) / 1e9;
    fprintf(stderr, "%supdate %llu/%lld", p->is_terminal ? "\r\033[K" : "",
            (unsigned long long)p->version, (long long)p->cfg->updates);
    if (p->has_reward) fprintf(stderr, "  reward %.4f  |g| %.3g", p->reward, p->grad_norm);
    fputs("  busy", stderr);
    for (int s = 0; s < STAGE_CNT; s++)
        fprintf(stderr, " %s %d%%", itinerary_stage_name((StageKind)s),
                busy_percent(p, (StageKind)s));
    if (done) {
        double eta = seconds / (double)done * (double)left;
        fprintf(stderr, "  %.1f s/update  left %d:%02d", seconds / (double)done, (int)eta / 60,
                (int)eta % 60);
    }
    if (restarts) fprintf(stderr, "  restarts %d", restarts);
    if (!p->is_terminal) fputc('\n', stderr);
    fflush(stderr);
    p->line_open = p->is_terminal;
}

void progress_show(Progress *p, const ConductorNews *news, int restarts) {
    int64_t now = clock_ns();
    if (news->updated) {
        p->version = news->version;
        p->reward = news->reward;
        p->grad_norm = news->grad_norm;
        p->has_reward = true;
    }
    bool due = p->is_terminal ? now - p->shown_ns > 100000000 : news->updated;
    if (!due) return;
    p->shown_ns = now;
    print_line(p, restarts);
}

void progress_end(Progress *p) {
    if (p->line_open) fputc('\n', stderr);
    p->line_open = false;
}
