// board: the trainable parameters of a group, their history, optimiser state and gradients, in host
// shared memory.
//
//   theta ring   max(2, lag + 1) + 1 versions; version v lies in entry v mod ring_cnt
//   moments      Adam's m and v, twice: those of version v in entry v mod 2
//   rows         B gradients; sample i's in row i mod B, overwritten, never added to
//   tags         tag of row r = i + 1 once sample i's gradient is complete there, else older
//   row notes    what the metrics line needs to know of each sample (its slot may be reused by then): 2B of them,
//                because the next update's samples may be learned before the launcher has read those of the last
//   notes        one per version: norms and step of the update that made it
//
// Writers. Learner (the one of the group): theta, moments, rows, tags, notes, `version`. Launcher: the
// header before anyone joins, `durable`, and everything at once when it restores a state (no stage runs then).
//
// Order. The learner fills theta and moments of v + 1, then stores version = v + 1 with release; who loads
// `version` with acquire may read the theta of versions version - ring_cnt + 2 .. version (the oldest entry
// is the one the next update writes). A tag is stored with release after its row and row note.
// The launcher stores `durable` = v with release when version v is on disk; the learner makes version
// v + 1 only when durable = v: at most one update is lost with the machine.
#ifndef COMMON_TRANSPORT_BOARD_H
#define COMMON_TRANSPORT_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/transport/slot.h"

// One module's A and B within theta; what a bundle's writer needs to know without tensor code.
typedef struct BoardModule {
    char path[240];
    int64_t in, out;    // A (rank, in), B (out, rank)
    int64_t a_at, b_at; // first float within theta
    uint32_t dead, pad;
} BoardModule;

typedef struct BoardSpec {
    int64_t theta_cnt; // floats, padding included
    uint32_t rollouts; // B
    uint32_t lag;
    uint32_t module_cnt;
    uint32_t rank;
    double alpha;
} BoardSpec;

// What one sample contributed.
typedef struct BoardRowNote {
    uint64_t sample;
    SlotScore score;
    SlotNorms norms;
    int32_t window_at[SLOT_SEGMENTS_MAX];
    double grad_norm; // of this sample's row
} BoardRowNote;

// What one update did.
typedef struct BoardNote {
    uint64_t version;
    double grad_norm; // of the mean gradient before clipping
    double clip_scale;
    double theta_norm;
    double lr;
} BoardNote;

typedef struct Board Board; // a mapping; the layout is in board.c

// Bytes of the segment.
uint64_t board_bytes(const BoardSpec *spec);
// Launcher: formats `memory` (zeroed, board_bytes long) with the module table. The Board is malloc'd; board_leave frees it.
Err board_create(Board **out, void *memory, const BoardSpec *spec, const BoardModule *modules);
// Everyone else: checks magic, version, size and layout hash.
Err board_join(Board **out, void *memory, uint64_t bytes);
void board_leave(Board *b);

const BoardSpec *board_spec(const Board *b);
const BoardModule *board_module(const Board *b, uint32_t i);

uint64_t board_version(const Board *b);             // acquire
void board_commit(Board *b, uint64_t version);      // release; learner only
uint64_t board_durable(const Board *b);             // acquire
void board_set_durable(Board *b, uint64_t version); // release; launcher only

// Version 0 is made by the learner when it first joins (or restored by the launcher): set once, never cleared.
int board_ready(const Board *b); // acquire
void board_set_ready(Board *b);  // release

float *board_theta(const Board *b, uint64_t version); // (theta_cnt)
float *board_m(const Board *b, uint64_t version);
float *board_v(const Board *b, uint64_t version);
float *board_row(const Board *b, uint64_t sample); // (theta_cnt)
BoardRowNote *board_row_note(const Board *b, uint64_t sample); // ring of 2 B
BoardNote *board_note(const Board *b, uint64_t version); // ring of ring_cnt

uint64_t board_tag(const Board *b, uint64_t sample); // acquire
void board_set_tag(Board *b, uint64_t sample);       // release: tag = sample + 1
// All B samples of update u have their gradient.
int board_update_ready(const Board *b, uint64_t update);

#endif
