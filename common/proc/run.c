// run: formatting and mapping the shared segments.
#include "common/proc/run.h"

#include <stdio.h>
#include <string.h>

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
    atomic_store(&s->epoch, 1);
    for (uint32_t i = 0; i < s->slot_cnt; i++) slot_reset(&s->slot[i], 1, ITINERARY_DONE);
    s->magic = RUN_MAGIC;
}

static void attach(Run *run) {
    run->state = run->state_shm.base;
    run->page = (RunPage *)(void *)((unsigned char *)run->state + run->state->pages_at);
    for (int i = 0; i < STAGE_CNT; i++) run->block[i] = run->block_shm[i].base;
    fill_itineraries(run);
}

// No descriptors: run_leave of it does nothing.
static void make_empty(Run *run) {
    *run = (Run){.state_shm.fd = -1, .board_shm.fd = -1};
    for (int i = 0; i < STAGE_CNT; i++) run->block_shm[i].fd = -1;
}

static uint64_t block_bytes(const SectionTable *table, int stage) {
    return table->block_bytes[stage] ? table->block_bytes[stage] : 4096;
}

static uint64_t process_count(const Config *cfg) {
    return (uint64_t)(cfg->sampler_replicas + cfg->decoder_replicas + cfg->rewarder_replicas + 1);
}

static uint64_t state_bytes(const Config *cfg, const SectionTable *table) {
    return pages_offset(table->slots) + process_count(cfg) * sizeof(RunPage);
}

uint64_t run_shared_bytes(const Config *cfg, const SectionTable *table, const BoardSpec *board) {
    uint64_t bytes = state_bytes(cfg, table) + board_bytes(board);
    for (int i = 0; i < STAGE_CNT; i++) bytes += block_bytes(table, i);
    return bytes;
}

Err run_create(Run *run, const Config *cfg, const SectionTable *table, const BoardSpec *board,
               const BoardModule *modules) {
    Err err = ERR_OK;
    make_empty(run);
    TRY_OUT(shm_create(&run->state_shm, "state of the run", state_bytes(cfg, table)));
    run->state = run->state_shm.base;
    format_state(run, cfg, table);
    for (int i = 0; i < STAGE_CNT; i++) {
        char what[64];
        snprintf(what, sizeof what, "sections of the %s", itinerary_stage_name((StageKind)i));
        TRY_OUT(shm_create(&run->block_shm[i], what, block_bytes(table, i)));
    }
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

void run_fds(const Run *run, char text[128]) {
    int n = snprintf(text, 128, "%d,%d", run->state_shm.fd, run->board_shm.fd);
    for (int i = 0; i < STAGE_CNT; i++)
        n += snprintf(text + n, (size_t)(128 - n), ",%d", run->block_shm[i].fd);
}

static Err join_state(Run *run, int fd) {
    TRY(shm_join(&run->state_shm, "state of the run", fd, sizeof(RunState)));
    const RunState *s = run->state_shm.base;
    if (s->magic != RUN_MAGIC || s->layout != layout_word() || s->bytes > run->state_shm.bytes)
        FAIL(ERR_PEER, "the state of the run was made by another build of vader");
    return ERR_OK;
}

Err run_join(Run *run, const char *fds) {
    int fd[2 + STAGE_CNT];
    Err err = ERR_OK;
    make_empty(run);
    if (sscanf(fds, "%d,%d,%d,%d,%d,%d", &fd[0], &fd[1], &fd[2], &fd[3], &fd[4], &fd[5]) != 6)
        FAIL(ERR_USAGE, "descriptors \"%s\": want six; stages are started by vader, not by hand",
             fds);
    TRY_OUT(join_state(run, fd[0]));
    run->state = run->state_shm.base;
    for (int i = 0; i < STAGE_CNT; i++)
        TRY_OUT(shm_join(&run->block_shm[i], itinerary_stage_name((StageKind)i), fd[2 + i],
                         block_bytes(&run->state->table, i)));
    attach(run);
    if (fd[1] >= 0) {
        TRY_OUT(shm_join(&run->board_shm, "board", fd[1], 1));
        TRY_OUT(board_join(&run->board, run->board_shm.base, run->board_shm.bytes));
    }
out:
    if (err) run_leave(run);
    return err;
}

void run_leave(Run *run) {
    board_leave(run->board);
    shm_leave(&run->state_shm);
    shm_leave(&run->board_shm);
    for (int i = 0; i < STAGE_CNT; i++) shm_leave(&run->block_shm[i]);
    make_empty(run);
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
