// run: the memory that the processes of one run share, and how each of them maps it.
//
// Three kinds of segment, all made by the launcher (shm.h) and inherited:
//
//   state    this header, the slots, one page per process (metrics.h)
//   board    parameters and gradients (board.h)
//   blocks   one per stage: the sections that it writes (section.h, device_mem.h); others can only read them
//
// Writers: the launcher writes everything before a stage starts, `epoch`, `handle` and `stopping` while they run, and
// the slots' headers; every other field has the writer that its own header names.
//
//     Run run;
//     TRY(run_create(&run, cfg, &table, &board_spec, modules));     // launcher, and --inline
//     TRY(run_join(&run, fds, STAGE_DECODER));                      // a stage
//     run_leave(&run);
#ifndef COMMON_PROC_RUN_H
#define COMMON_PROC_RUN_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/config/config.h"
#include "common/proc/itinerary.h"
#include "common/transport/bell.h"
#include "common/transport/board.h"
#include "common/transport/device_mem.h"
#include "common/transport/section.h"
#include "common/transport/shm.h"
#include "common/transport/slot.h"

enum { RUN_PROCESSES_MAX = 256, RUN_SPANS = 4096, RUN_FDS_BYTES = 32 };

// What a process is doing with its time. Every nanosecond of the loop is booked under one of these.
typedef enum RunTime {
    RUN_BUSY,
    RUN_WAIT_INPUT,
    RUN_WAIT_ROOM,
    RUN_HOUSEKEEPING,
    RUN_TIME_CNT
} RunTime;

// One piece of work, for the timeline.
typedef struct RunSpan {
    int64_t start_ns, end_ns; // clock_ns
    uint64_t sample;
    uint16_t step; // StepKind; STEP_CNT = update
    uint16_t segment;
    uint32_t purpose;
} RunSpan;

// Written by its process alone; read by `status` and `trace` at any time (relaxed: a torn picture is fine).
typedef struct RunPage {
    _Alignas(SLOT_LINE) _Atomic int32_t pid;
    _Atomic int32_t stage, replica, incarnation;
    _Atomic uint64_t time_ns[RUN_TIME_CNT];
    _Atomic int32_t doing;         // RunTime of this moment
    _Atomic int32_t step, segment; // while busy
    _Atomic uint64_t sample;
    _Atomic int64_t since_ns;           // when `doing` began
    _Atomic uint64_t steps[STEP_CNT];   // completed
    _Atomic uint64_t step_ns[STEP_CNT]; // their total time
    _Atomic uint64_t dropped;           // steps whose epoch ended under them
    _Atomic uint64_t peak_bytes;        // VmHWM
    _Atomic uint64_t sent_bytes;        // in messages
    _Atomic uint64_t span_cnt;          // spans written since the start; ring of RUN_SPANS
    RunSpan span[RUN_SPANS];
} RunPage;

typedef struct RunState {
    uint64_t magic, bytes, layout; // launcher, checked at join
    uint32_t slot_cnt, rollouts, segments, lag;
    uint32_t replicas[STAGE_CNT];
    uint32_t image_to_video, sampler_handover;
    SectionTable table;
    uint64_t pages_at;               // offset of the pages
    DeviceHandle handle[STAGE_CNT];  // of the blocks, exported in this epoch
    int32_t bell[RUN_PROCESSES_MAX]; // descriptors: run_bell
    int32_t launcher_bell;
    _Alignas(SLOT_LINE) _Atomic uint32_t epoch;    // launcher
    _Alignas(SLOT_LINE) _Atomic uint32_t stopping; // launcher: 1 = take no new step
    _Alignas(SLOT_LINE) Slot slot[];
} RunState;

typedef struct Run {
    RunState *state;
    RunPage *page; // one per process: run_page_index
    Board *board;
    DeviceMem block[STAGE_CNT]; // the sections of each stage
    Shm state_shm, board_shm;
    Itinerary train, preview;
} Run;

// Bytes of all segments together.
uint64_t run_shared_bytes(const Config *cfg, const SectionTable *table, const BoardSpec *board);
// Makes and formats everything; slots start DONE in epoch 1. board may be NULL (sampling only).
Err run_create(Run *run, const Config *cfg, const SectionTable *table, const BoardSpec *board,
               const BoardModule *modules);
// fds: state and board, as run_fds wrote them: "3,4". The blocks are found by their handles; `stage` writes its own.
Err run_join(Run *run, const char *fds, StageKind stage);
void run_fds(const Run *run, char text[RUN_FDS_BYTES]);
// A death: what was exported is void, and exported again. The host's blocks belong to the launcher and outlive every
// stage, so that survivors keep their mappings. Returns the new epoch. Launcher.
uint32_t run_new_epoch(Run *run);
void run_leave(Run *run);

// The sections of one kind of `cnt` segments of a slot, from `segment` on: one behind the other, each padded to a
// multiple of 256 bytes. For their writer; for readers until run_release. Die outside the run's layout.
void *run_write(const Run *run, SectionKind kind, uint32_t slot, uint32_t segment, uint32_t cnt);
Err run_read(Run *run, SectionKind kind, uint32_t slot, uint32_t segment, uint32_t cnt,
             const void **out);
void run_release(Run *run);

// Slots of a run: cfg->slots, or 2 x rollouts x (lag + 1), at most 64.
uint32_t run_slot_count(const Config *cfg);

// The itinerary of a slot's sample.
const Itinerary *run_itinerary(const Run *run, const Slot *slot);
// Index of the page of a process.
int run_page_index(const Run *run, StageKind stage, int replica);
// What wakes a process (bell.h); the launcher's is state->launcher_bell.
int run_bell(const Run *run, StageKind stage, int replica);

#endif
