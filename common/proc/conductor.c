// conductor: admission, durability and metrics.
//
// Order that matters: previews of version v are all admitted before durable = v is stored, because the
// learner may begin update v as soon as it is, and would not wait for a preview that no slot holds yet.
#include "common/proc/conductor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/strbuf.h"
#include "common/config/image_list.h"

enum { PATH_BYTES = 4096 };

struct Conductor {
    const Config *cfg;
    Run *run;
    ConductorStart start;
    char run_dir[PATH_BYTES];
    ConfigStrs images, preview_images;
    Arena arena;
    uint64_t next_sample; // to be admitted
    uint64_t booked;      // versions whose state and metrics are on disk
    uint64_t metrics_bytes;
    int64_t update_start_ns;
    uint64_t next_preview; // of the current version, in admission order
    uint64_t preview_cnt;  // of the current version
    bool *reported;        // [slot_cnt] a finished preview that the caller knows of
    uint64_t page_ns[RUN_PROCESSES_MAX][RUN_TIME_CNT]; // at the last timing line
};

// ---- Images ----

_Static_assert((int)IMAGE_LIST_PATH_MAX == (int)SLOT_PATH_MAX, "a slot holds every image path");

// The image of a training sample: drawn, or the sample's place in a shuffled epoch.
static const char *image_of(const Conductor *c, uint64_t sample) {
    uint32_t cnt = (uint32_t)c->images.cnt;
    bool epoch = c->cfg->data_order == CONFIG_ORDER_EPOCH;
    RngKey key = {.seed = (uint64_t)c->cfg->seed, .use = rng_use(RNG_ORDER, 0, 0, 0, 0)};
    key.sample = rng_sample(RNG_TRAIN, epoch ? sample / cnt : sample);
    RngStream r = rng_stream(key);
    if (!epoch) return c->images.item[rng_u32_below(&r, cnt)];
    uint32_t order[CONFIG_LIST_MAX];
    rng_shuffle(&r, order, cnt);
    return c->images.item[order[sample % cnt]];
}

// ---- Admission ----

static void draw_windows(const Conductor *c, SlotHeader *h, RngPhase phase) {
    for (uint32_t s = 0; s < c->run->state->segments; s++) {
        h->window_at[s] = c->start.window_at;
        if (c->start.window_at >= 0) continue;
        const int64_t *range = c->cfg->window_range.item;
        RngStream r = rng_stream((RngKey){.seed = (uint64_t)c->cfg->seed,
                                          .sample = rng_sample(phase, h->sample),
                                          .segment = s,
                                          .use = rng_use(RNG_WINDOW, 0, 0, 0, 0)});
        h->window_at[s] =
            (int32_t)(range[0] + rng_u32_below(&r, (uint32_t)(range[1] - range[0] + 1)));
    }
}

static bool slot_free(const Conductor *c, uint32_t i) {
    return slot_step(slot_load(&c->run->state->slot[i])) == ITINERARY_DONE;
}

static void admit(Conductor *c, uint32_t slot, SlotHeader *h, RngPhase phase, const char *image) {
    snprintf(h->source, sizeof h->source, "%s", image);
    draw_windows(c, h, phase);
    slot_publish(&c->run->state->slot[slot], atomic_load(&c->run->state->epoch), h);
}

static void admit_samples(Conductor *c) {
    uint64_t rollouts = c->run->state->rollouts, end = (uint64_t)c->cfg->updates * rollouts;
    while (c->next_sample < end) {
        uint32_t slot = (uint32_t)(c->next_sample % c->run->state->slot_cnt);
        if (!slot_free(c, slot)) return;
        SlotHeader h = {.sample = c->next_sample,
                        .update = c->next_sample / rollouts,
                        .purpose = SLOT_TRAIN,
                        .tuned = 1};
        admit(c, slot, &h, RNG_TRAIN, image_of(c, c->next_sample));
        c->next_sample++;
    }
}

// Previews of this version: every image tuned; at version 0 the base alone (they are the same then).
static uint64_t previews_of(const Conductor *c, uint64_t version) {
    uint64_t every = (uint64_t)c->cfg->preview_every;
    bool last = version == (uint64_t)c->cfg->updates;
    return every && (version % every == 0 || last) ? (uint64_t)c->preview_images.cnt : 0;
}

static void admit_previews(Conductor *c, uint64_t version) {
    for (uint32_t i = 0; i < c->run->state->slot_cnt && c->next_preview < c->preview_cnt; i++) {
        if (!slot_free(c, i)) continue;
        // The number of a preview names its image, not its version: base and tuned share their noise.
        SlotHeader h = {.sample = c->next_preview,
                        .update = version,
                        .purpose = SLOT_PREVIEW,
                        .tuned = version > 0};
        admit(c, i, &h, RNG_PREVIEW, c->preview_images.item[c->next_preview]);
        c->reported[i] = false;
        c->next_preview++;
    }
}

// ---- Metrics ----

typedef struct Means {
    double reward, term[SLOT_TERMS_MAX], saturated, grad_x0, gain, window, row_norm;
} Means;

static Means means_of(const Conductor *c, uint64_t update) {
    Means m = {0};
    uint32_t B = c->run->state->rollouts, S = c->run->state->segments;
    for (uint64_t i = update * B; i < (update + 1) * B; i++) {
        const BoardRowNote *n = board_row_note(c->run->board, i);
        m.reward += n->score.reward / B;
        m.saturated += n->score.saturated / B;
        m.row_norm += n->grad_norm / B;
        for (int k = 0; k < c->cfg->reward_cnt; k++) m.term[k] += n->score.term[k] / B;
        for (uint32_t s = 0; s < S; s++) {
            m.grad_x0 += n->norms.grad_x0[s] / B / S;
            m.gain += n->norms.gain[s] / B / S;
            m.window += (double)n->window_at[s] / B / S;
        }
    }
    return m;
}

static void metrics_line(const Conductor *c, uint64_t version, const Means *m, StrBuf *out) {
    const BoardNote *n = board_note(c->run->board, version);
    uint64_t B = c->run->state->rollouts;
    strbuf_printf(out, "{\"update\": %llu, \"samples\": [%llu, %llu], \"reward\": %.17g",
                  (unsigned long long)version, (unsigned long long)((version - 1) * B),
                  (unsigned long long)(version * B - 1), m->reward);
    for (int k = 0; k < c->cfg->reward_cnt; k++)
        strbuf_printf(out, ", \"%s.%d\": %.17g", config_reward_name(&c->cfg->reward[k]), k,
                      m->term[k]);
    strbuf_printf(
        out, ", \"window\": %.17g, \"gain\": %.17g, \"grad_x0\": %.17g, \"grad_sample\": %.17g",
        m->window, m->gain, m->grad_x0, m->row_norm);
    strbuf_printf(
        out,
        ", \"grad_norm\": %.17g, \"clip\": %.17g, \"theta_norm\": %.17g, \"lr\": %.17g, \"saturated\": %.17g}\n",
        n->grad_norm, n->clip_scale, n->theta_norm, n->lr, m->saturated);
}

static void timing_line(Conductor *c, uint64_t version, StrBuf *out) {
    static const char *const names[RUN_TIME_CNT] = {"busy", "input", "room", "housekeeping"};
    int64_t now = clock_ns();
    strbuf_printf(out, "{\"update\": %llu, \"seconds\": %.6f, \"processes\": {",
                  (unsigned long long)version, (double)(now - c->update_start_ns) / 1e9);
    c->update_start_ns = now;
    const char *comma = "";
    for (int stage = 0; stage < STAGE_CNT; stage++) {
        for (int r = 0; r < (int)c->run->state->replicas[stage]; r++) {
            int i = run_page_index(c->run, (StageKind)stage, r);
            const RunPage *p = &c->run->page[i];
            strbuf_printf(out, "%s\"%s.%d\": {", comma, itinerary_stage_name((StageKind)stage), r);
            comma = ", ";
            for (int k = 0; k < RUN_TIME_CNT; k++) {
                uint64_t t = atomic_load_explicit(&p->time_ns[k], memory_order_relaxed);
                strbuf_printf(out, "\"%s\": %.6f, ", names[k],
                              (double)(t - c->page_ns[i][k]) / 1e9);
                c->page_ns[i][k] = t;
            }
            strbuf_printf(out, "\"peak_bytes\": %llu, \"restarts\": %d}",
                          (unsigned long long)atomic_load(&p->peak_bytes),
                          (int)atomic_load(&p->incarnation));
        }
    }
    strbuf_printf(out, "}}\n");
}

// One write() per line, so that a reader never sees half of one.
static Err append(const char *dir, const char *name, const StrBuf *line, bool sync) {
    char path[PATH_BYTES + 32];
    Err err = ERR_OK;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    ssize_t n = write(fd, strbuf_text(line), line->len);
    if (n != (ssize_t)line->len)
        FAIL_OUT(ERR_IO, "%s: write: %s", path, n < 0 ? strerror(errno) : "the disk is full");
    if (sync && fsync(fd)) FAIL_OUT(ERR_IO, "%s: fsync: %s", path, strerror(errno));
out:
    close(fd);
    return err;
}

// ---- Durability ----

// The state names the length that metrics.jsonl will have: if the line is missing after a crash, it is the state
// before that goes on, or the line is written again from the state's own update.
static Err book_version(Conductor *c, uint64_t version, ConductorNews *news) {
    StrBuf line = {0}, timing = {0};
    Means m = means_of(c, version - 1);
    metrics_line(c, version, &m, &line);
    timing_line(c, version, &timing);
    LedgerHead head = c->start.ledger;
    head.version = version;
    head.next_sample = version * c->run->state->rollouts;
    head.metrics_bytes = c->metrics_bytes + line.len;
    Err err = append(c->run_dir, "metrics.jsonl", &line, true);
    if (!err) err = ledger_write(c->run_dir, &head, c->run->board);
    if (!err) err = append(c->run_dir, "timing.jsonl", &timing, false);
    c->metrics_bytes += line.len;
    strbuf_fini(&line);
    strbuf_fini(&timing);
    if (err) return err_up(err, __FILE__, __LINE__, __func__);
    news->updated = true;
    news->reward = m.reward;
    news->grad_norm = board_note(c->run->board, version)->grad_norm;
    return ERR_OK;
}

static void begin_previews(Conductor *c, uint64_t version) {
    c->next_preview = 0;
    c->preview_cnt = previews_of(c, version);
}

static void find_finished_preview(Conductor *c, ConductorNews *news) {
    news->preview_slot = -1;
    for (uint32_t i = 0; i < c->run->state->slot_cnt; i++) {
        const Slot *s = &c->run->state->slot[i];
        if (s->header.purpose != SLOT_PREVIEW || c->reported[i] ||
            slot_step(slot_load(s)) != (uint32_t)c->run->preview.cnt)
            continue;
        c->reported[i] = true;
        news->preview_slot = (int)i;
        return;
    }
}

static bool all_slots_free(const Conductor *c) {
    for (uint32_t i = 0; i < c->run->state->slot_cnt; i++)
        if (!slot_free(c, i)) return false;
    return true;
}

Err conductor_poll(Conductor *c, ConductorNews *news) {
    *news = (ConductorNews){.preview_slot = -1};
    uint64_t version = board_version(c->run->board);
    uint64_t before = c->next_sample + c->next_preview;
    if (version > c->booked) {
        die_unless(version == c->booked + 1, "version %llu came before %llu was booked",
                   (unsigned long long)version, (unsigned long long)c->booked + 1);
        TRY(book_version(c, version, news));
        c->booked = version;
        begin_previews(c, version);
    }
    admit_previews(c, c->booked);
    if (c->next_preview == c->preview_cnt) {
        if (board_durable(c->run->board) != c->booked) board_set_durable(c->run->board, c->booked);
        admit_samples(c);
    }
    news->admitted = c->next_sample + c->next_preview != before;
    find_finished_preview(c, news);
    news->version = c->booked;
    news->done = c->booked >= (uint64_t)c->cfg->updates && c->next_preview == c->preview_cnt &&
                 all_slots_free(c);
    return ERR_OK;
}

void conductor_release(Conductor *c, uint32_t slot) {
    slot_reset(&c->run->state->slot[slot], atomic_load(&c->run->state->epoch), ITINERARY_DONE);
}

void conductor_restart_samples(Conductor *c, uint32_t epoch) {
    for (uint32_t i = 0; i < c->run->state->slot_cnt; i++) {
        Slot *s = &c->run->state->slot[i];
        uint32_t step = slot_step(slot_load(s));
        bool train = s->header.purpose == SLOT_TRAIN;
        if (step != ITINERARY_DONE && train &&
            board_tag(c->run->board, s->header.sample) == s->header.sample + 1)
            step = ITINERARY_DONE; // its gradient is on the board
        else if (step != ITINERARY_DONE && (train || step != (uint32_t)c->run->preview.cnt))
            step = 0;
        slot_reset(s, epoch, step);
    }
}

// ---- Start and end ----

static Err cut_metrics(const Conductor *c) {
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/metrics.jsonl", c->run_dir);
    if (access(path, F_OK) && !c->metrics_bytes) return ERR_OK;
    if (truncate(path, (off_t)c->metrics_bytes))
        FAIL(ERR_IO, "%s: cutting to %llu bytes: %s", path, (unsigned long long)c->metrics_bytes,
             strerror(errno));
    return ERR_OK;
}

static Err begin(Conductor *c) {
    const Config *cfg = c->cfg;
    TRY(image_list_read(&c->images, &c->arena, "data", &cfg->data_images, cfg->data_list));
    c->preview_images = (ConfigStrs){c->images.cnt < 2 ? c->images.cnt : 2, c->images.item};
    if (cfg->preview_images.cnt)
        TRY(image_list_read(&c->preview_images, &c->arena, "preview", &cfg->preview_images, ""));
    c->reported = arena_array(&c->arena, bool, c->run->state->slot_cnt);
    c->booked = c->start.ledger.version;
    c->next_sample = c->booked * c->run->state->rollouts;
    c->metrics_bytes = c->start.ledger.metrics_bytes;
    c->update_start_ns = clock_ns();
    begin_previews(c, c->booked);
    return cut_metrics(c);
}

Err conductor_new(Conductor **out, const Config *cfg, Run *run, const ConductorStart *start) {
    Conductor *c = calloc(1, sizeof *c);
    die_unless(c, "conductor: out of memory");
    *c = (Conductor){.cfg = cfg, .run = run, .start = *start};
    snprintf(c->run_dir, sizeof c->run_dir, "%s", start->run_dir);
    Err err = begin(c);
    if (err) {
        conductor_free(c);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = c;
    return ERR_OK;
}

void conductor_free(Conductor *c) {
    if (!c) return;
    arena_free(&c->arena);
    free(c);
}
