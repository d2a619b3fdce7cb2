// section: where the bulk data of a slot lies, and the memory it lies in.
//
// Every kind of section has one writing stage and one size; there is one per slot and segment. All
// sections of one writing stage form one block (device_mem.h). The table of kinds, sizes and
// offsets is computed once (topology.h) and equal everywhere; offsets are multiples of 256 bytes.
//
// Engine inputs and outputs are bound to sections: between processes of one device nothing is copied.
// Readers get `const`; a section that has been published (slot.h) is not written again in its sample.
#ifndef COMMON_TRANSPORT_SECTION_H
#define COMMON_TRANSPORT_SECTION_H

#include <stdint.h>

#include "common/base/err.h"
#include "common/proc/itinerary.h"

// name, writing stage, what it holds (all F32, channels last)
// clang-format off
#define SECTION_TABLE(X)                                                                       \
    X(PIXELS,      DECODER,  "conditioning image in [0, 1] (H, W, 3)")                         \
    X(COND,        DECODER,  "conditioning latent, unscaled (h, w, C)")                        \
    X(EMBED,       SAMPLER,  "CLIP or text embedding (1, L, D)")                               \
    X(X_K,         SAMPLER,  "latent before the window (F, h, w, C)")                          \
    X(X_AHEAD,     SAMPLER,  "the sampler's own x_0, for hand-over and previews (F, h, w, C)") \
    X(X_0,         LEARNER,  "clean latent (F, h, w, C)")                                      \
    X(LAST,        DECODER,  "hand-over frame in [0, 1] (H, W, 3)")                            \
    X(FRAMES,      DECODER,  "decoded frames, raw in [-1, 1] (F', H, W, 3)")                   \
    X(PREVIEW,     DECODER,  "decoded frames of a preview, raw (F, H, W, 3)")                  \
    X(GRAD_FRAMES, REWARDER, "dR/dframes (F', H, W, 3)")                                       \
    X(GRAD_X_0,    DECODER,  "dR/dx_0 (F, h, w, C)")                                           \
    X(GRAD_THETA,  LEARNER,  "dR/dtheta of this segment (theta_cnt)")
// clang-format on

typedef enum SectionKind {
#define X(name, writer, what) SECTION_##name,
    SECTION_TABLE(X)
#undef X
        SECTION_CNT,
} SectionKind;

const char *section_name(SectionKind kind);
StageKind section_writer(SectionKind kind);

// The layout of all sections of a run.
typedef struct SectionTable {
    uint32_t slots, segments;
    uint64_t bytes[SECTION_CNT];     // of one section; 0 = not used in this run
    uint64_t offset[SECTION_CNT];    // within the writer's block: of slot 0, segment 0
    uint64_t block_bytes[STAGE_CNT]; // size of each stage's block
} SectionTable;

// Fills offsets and block sizes from slots, segments and bytes[].
void section_layout(SectionTable *t);
// Offset of one section within its writer's block.
uint64_t section_at(const SectionTable *t, SectionKind kind, uint32_t slot, uint32_t segment);
// Bytes of cnt of them in a row.
uint64_t section_span(const SectionTable *t, SectionKind kind, uint32_t cnt);
// All sections of one slot that a stage writes, together.
uint64_t section_slot_bytes(const SectionTable *t, StageKind writer);

#endif
