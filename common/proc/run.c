// run: formatting and mapping the shared segments.
#include "common/proc/run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

static const uint64_t RUN_MAGIC = 0x31756e7552444156; // "VADRunu1"

static uint64_t pages_offset(uint32_t slots) {
    uint64_t n = sizeof(RunState) + slots * sizeof(Slot);
    return (n + 4095) & ~(uint64_t)4095;
}

// Sizes that a stage of another build would disagree on.
static uint64_t layout_word(void) {
    return sizeof(RunState) ^ sizeof(Slot) << 16 ^ sizeof(RunPage) << 32 ^
           (uint64_t)SECTION_CNT << 56;
}

static void fill_itineraries(Run *run) {
    const RunState *s = run->state;
    ItinerarySpec spec = {.segments = (int)s->segments,
                          .image_to_video = s->image_to_video,
                          .sampler_handover = s->sampler_handover};
    run->train = itinerary_make(spec);
    spec.preview = true;
    run->preview = itinerary_make(spec);
}

static void format_state(Run *run, const Config *cfg, const SectionTable *table) {
    RunState *s = run->state;
    s->bytes = run->state_shm.bytes;
    s->layout = layout_word();
    s->slot_cnt = table->slots;
    s->segments = table->segments;
    s->rollouts = (uint32_t)cfg->rollouts;
    s->lag = (uint32_t)cfg->lag;
    s->replicas[STAGE_SAMPLER] = (uint32_t)cfg->sampler_replicas;
    s->replicas[STAGE_DECODER] = (uint32_t)cfg->decoder_replicas;
    s->replicas[STAGE_REWARDER] = (uint32_t)cfg->rewarder_replicas;
    s->replicas[STAGE_LEARNER] = 1;
    s->image_to_video = 1;
    s->sampler_handover = cfg->handover == CONFIG_HANDOVER_SAMPLER;
    s->table = *table;
    s->pages_at = pages_offset(s->slot_cnt);
    s->launcher_bell = -1;
    for (int i = 0; i < RUN_PROCESSES_MAX; i++) s->bell[i] = -1;
    atomic_store(&s->epoch, 1);
    for (uint32_t i = 0; i < s->slot_cnt; i++) slot_reset(&s->slot[i], 1, ITINERARY_DONE);
    s->magic = RUN_MAGIC;
}

static void attach(Run *run) {
    run->state = run->state_shm.base;
    run->page = (RunPage *)(void *)((unsigned char *)run->state + run->state->pages_at);
    fill_itineraries(run);
}

// No descriptors: run_leave of it does nothing.
static void make_empty(Run *run) { *run = (Run){.state_shm.fd = -1, .board_shm.fd = -1}; }

static uint64_t block_bytes(const SectionTable *table, int stage) {
    return table->block_bytes[stage] ? table->block_bytes[stage] : 4096;
}

static void export_blocks(Run *run, uint32_t epoch) {
    for (int i = 0; i < STAGE_CNT; i++)
        run->state->handle[i] = device_mem_export(&run->block[i], epoch);
}

static uint64_t process_count(const Config *cfg) {
    return (uint64_t)(cfg->sampler_replicas + cfg->decoder_replicas + cfg->rewarder_replicas + 1);
}

static uint64_t state_bytes(const Config *cfg, const SectionTable *table) {
    return pages_offset(table->slots) + process_count(cfg) * sizeof(RunPage);
}

uint64_t run_shared_bytes(const Config *cfg, const SectionTable *table, const BoardSpec *board) {
    uint64_t bytes = state_bytes(cfg, table) + board_bytes(board);
    for (int i = 0; i < STAGE_CNT; i++) bytes += block_bytes(table, i) + DEVICE_MEM_TAIL;
    return bytes;
}

static Err create_bells(Run *run, const Config *cfg) {
    TRY(bell_create(&run->state->launcher_bell));
    for (uint64_t i = 0; i < process_count(cfg); i++) TRY(bell_create(&run->state->bell[i]));
    return ERR_OK;
}

Err run_create(Run *run, const Config *cfg, const SectionTable *table, const BoardSpec *board,
               const BoardModule *modules) {
    Err err = ERR_OK;
    make_empty(run);
    TRY_OUT(shm_create(&run->state_shm, "state of the run", state_bytes(cfg, table)));
    run->state = run->state_shm.base;
    format_state(run, cfg, table);
    TRY_OUT(create_bells(run, cfg));
    for (int i = 0; i < STAGE_CNT; i++) {
        char what[64];
        snprintf(what, sizeof what, "sections of the %s", itinerary_stage_name((StageKind)i));
        TRY_OUT(device_mem_create(&run->block[i], &device_mem_host, what, block_bytes(table, i)));
    }
    export_blocks(run, 1);
    attach(run);
    if (board) {
        TRY_OUT(
            shm_create(&run->board_shm, "board of parameters and gradients", board_bytes(board)));
        TRY_OUT(board_create(&run->board, run->board_shm.base, board, modules));
    }
out:
    if (err) run_leave(run);
    return err;
}

void run_fds(const Run *run, char text[RUN_FDS_BYTES]) {
    snprintf(text, RUN_FDS_BYTES, "%d,%d", run->state_shm.fd, run->board_shm.fd);
}

uint32_t run_new_epoch(Run *run) {
    uint32_t epoch = atomic_load(&run->state->epoch) + 1;
    export_blocks(run, epoch);
    atomic_store(&run->state->epoch, epoch);
    return epoch;
}

static Err join_state(Run *run, int fd) {
    TRY(shm_join(&run->state_shm, "state of the run", fd, sizeof(RunState), true));
    const RunState *s = run->state_shm.base;
    if (s->magic != RUN_MAGIC || s->layout != layout_word() || s->bytes > run->state_shm.bytes)
        FAIL(ERR_PEER, "the state of the run was made by another build of vader");
    return ERR_OK;
}

// A death may be exporting anew while we join.
static DeviceHandle current_handle(const RunState *s, StageKind owner, uint32_t *epoch) {
    enum { TRIES = 1000 };
    for (int i = 0;; i++) {
        *epoch = atomic_load(&s->epoch);
        DeviceHandle h = s->handle[owner];
        if (h.epoch == *epoch || i == TRIES) return h;
        clock_sleep_ns(1000000);
    }
}

// Staging has room for all that one step can read: the sections of its slot.
static Err open_block(Run *run, StageKind owner, StageKind stage) {
    const RunState *s = run->state;
    uint64_t want = block_bytes(&s->table, owner);
    uint32_t epoch;
    DeviceHandle h = current_handle(s, owner, &epoch);
    char what[64];
    snprintf(what, sizeof what, "sections of the %s", itinerary_stage_name(owner));
    TRY(device_mem_open(&run->block[owner], &device_mem_host, what, &h, epoch, owner == stage,
                        section_slot_bytes(&s->table, owner)));
    if (run->block[owner].bytes < want)
        FAIL(ERR_PEER, "%s: %llu bytes, want %llu", what,
             (unsigned long long)run->block[owner].bytes, (unsigned long long)want);
    return ERR_OK;
}

Err run_join(Run *run, const char *fds, StageKind stage) {
    int state_fd, board_fd;
    Err err = ERR_OK;
    make_empty(run);
    if (sscanf(fds, "%d,%d", &state_fd, &board_fd) != 2)
        FAIL(ERR_USAGE, "descriptors \"%s\": want two; stages are started by vader, not by hand",
             fds);
    TRY_OUT(join_state(run, state_fd));
    run->state = run->state_shm.base;
    for (int i = 0; i < STAGE_CNT; i++) TRY_OUT(open_block(run, (StageKind)i, stage));
    attach(run);
    if (board_fd >= 0) {
        TRY_OUT(shm_join(&run->board_shm, "board", board_fd, 1, true));
        TRY_OUT(board_join(&run->board, run->board_shm.base, run->board_shm.bytes));
    }
out:
    if (err) run_leave(run);
    return err;
}

static void close_bells(const RunState *s) {
    if (s->launcher_bell >= 0) close(s->launcher_bell);
    for (int i = 0; i < RUN_PROCESSES_MAX; i++)
        if (s->bell[i] >= 0) close(s->bell[i]);
}

void run_leave(Run *run) {
    if (run->state) close_bells(run->state);
    board_leave(run->board);
    shm_leave(&run->state_shm);
    shm_leave(&run->board_shm);
    for (int i = 0; i < STAGE_CNT; i++) device_mem_close(&run->block[i]);
    make_empty(run);
}

// Where they lie in the block of their writer; *bytes: how many.
static uint64_t locate(const Run *run, SectionKind kind, uint32_t slot, uint32_t segment,
                       uint32_t cnt, uint64_t *bytes) {
    const SectionTable *t = &run->state->table;
    die_unless(t->bytes[kind], "section %s is not part of this run", section_name(kind));
    die_unless(slot < t->slots && segment < t->segments && cnt <= t->segments - segment,
               "section %s of slot %u, segments %u + %u", section_name(kind), slot, segment, cnt);
    *bytes = section_span(t, kind, cnt);
    return section_at(t, kind, slot, segment);
}

void *run_write(const Run *run, SectionKind kind, uint32_t slot, uint32_t segment, uint32_t cnt) {
    uint64_t bytes, at = locate(run, kind, slot, segment, cnt, &bytes);
    return device_mem_write(&run->block[section_writer(kind)], at, bytes);
}

Err run_read(Run *run, SectionKind kind, uint32_t slot, uint32_t segment, uint32_t cnt,
             const void **out) {
    uint64_t bytes, at = locate(run, kind, slot, segment, cnt, &bytes);
    return device_mem_acquire(&run->block[section_writer(kind)], at, bytes, out);
}

void run_release(Run *run) {
    for (int i = 0; i < STAGE_CNT; i++) device_mem_release(&run->block[i]);
}

uint32_t run_slot_count(const Config *cfg) {
    if (cfg->slots) return (uint32_t)cfg->slots;
    int64_t n = 2 * cfg->rollouts * (cfg->lag + 1);
    return (uint32_t)(n > 64 ? 64 : n);
}

const Itinerary *run_itinerary(const Run *run, const Slot *slot) {
    return slot->header.purpose == SLOT_TRAIN ? &run->train : &run->preview;
}

int run_page_index(const Run *run, StageKind stage, int replica) {
    int at = 0;
    for (int s = 0; s < (int)stage; s++) at += (int)run->state->replicas[s];
    return at + replica;
}

int run_bell(const Run *run, StageKind stage, int replica) {
    return run->state->bell[run_page_index(run, stage, replica)];
}
