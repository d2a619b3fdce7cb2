// slot: the state of one rollout in shared memory. State is here; bells only say that there is something to see.
//
// A sample i lives in slot i mod n_slots from admission to its gradient. The slot's word {epoch, step}
// says which step of the itinerary is next; whoever owns that step may run it. The word is the only
// field with more than one writer, and is changed only by compare-and-swap:
//
//   launcher   publish  {epoch, DONE}   -> {epoch, 0}        after it wrote the header below
//   stage      advance  {epoch, step}   -> {epoch, step + 1} release, after the step's output is complete
//   launcher   reset    {any}           -> {epoch + 1, 0}    after a death, when survivors have let go
//
// A stage whose advance fails has worked for an epoch that is over: its output is void and it drops the
// step. Whoever loads the word with acquire and finds step s sees everything written by steps < s.
//
// The header is written by the launcher between DONE and publish and read-only afterwards. Results that
// are small enough (rewards, norms) have their own lines, each with the one stage that writes it.
// Bulk data lies in sections (section.h), never here. Offsets, never pointers.
#ifndef COMMON_TRANSPORT_SLOT_H
#define COMMON_TRANSPORT_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/rng.h"

enum { SLOT_LINE = 128, SLOT_PATH_MAX = 1024, SLOT_TERMS_MAX = 8, SLOT_SEGMENTS_MAX = 16 };

// What a sample is for, which names its chance, too. All but training end with the decoded frames.
typedef enum SlotPurpose {
    SLOT_TRAIN = RNG_TRAIN,
    SLOT_PREVIEW = RNG_PREVIEW,
    SLOT_EVAL = RNG_EVAL, // `vader eval`; never in a run of several processes
} SlotPurpose;

// Written by the launcher before publish.
typedef struct SlotHeader {
    uint64_t sample;  // global over the run; preview samples count in their own space
    uint64_t update;  // sample / B
    uint32_t purpose; // SlotPurpose
    uint32_t tuned;   // not training: 1 = with the adapter, 0 = base
    int32_t window_at[SLOT_SEGMENTS_MAX]; // first step of the window, per segment
    char source[SLOT_PATH_MAX];           // image path or prompt, NUL terminated
} SlotHeader;

// Written by the rewarder in `score`.
typedef struct SlotScore {
    double reward;               // weighted sum
    double term[SLOT_TERMS_MAX]; // each reward before weighting
    double saturated;            // fraction of values that the pixel clamp cut
} SlotScore;

// Written by the decoder in `pull` and the learner in `learn`, per segment.
typedef struct SlotNorms {
    double grad_x0[SLOT_SEGMENTS_MAX]; // |dR/dx_0|            (decoder)
    double gain[SLOT_SEGMENTS_MAX];    // gamma of the window  (learner)
} SlotNorms;

typedef struct Slot {
    _Alignas(SLOT_LINE) _Atomic uint64_t word; // epoch << 32 | step
    _Alignas(SLOT_LINE) SlotHeader header;
    _Alignas(SLOT_LINE) SlotScore score;
    _Alignas(SLOT_LINE) SlotNorms norms;
} Slot;

static inline uint64_t slot_word(uint32_t epoch, uint32_t step) {
    return (uint64_t)epoch << 32 | step;
}
static inline uint32_t slot_epoch(uint64_t word) { return (uint32_t)(word >> 32); }
static inline uint32_t slot_step(uint64_t word) { return (uint32_t)word; }

// acquire
static inline uint64_t slot_load(const Slot *s) {
    return atomic_load_explicit(&s->word, memory_order_acquire);
}

// Release; false if the word is no longer `from` (the epoch moved on).
bool slot_advance(Slot *s, uint64_t from, uint32_t next_step);

// Launcher only.
void slot_publish(Slot *s, uint32_t epoch,
                  const SlotHeader *header); // dies unless the slot is DONE
void slot_reset(Slot *s, uint32_t epoch, uint32_t step);

// The name of the sample's chance: rng_sample of its purpose and number.
static inline uint64_t slot_rng_sample(const SlotHeader *h) {
    return rng_sample((RngPhase)h->purpose, h->sample);
}

#endif
