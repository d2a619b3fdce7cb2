// itinerary: the order of steps that carries one sample from noise to gradient.
//
// Every slot walks the same list; the step in a slot's word is an index into it. The list follows from
// three facts of the run: how many segments, who makes the hand-over frame, and whether there is an
// image to encode. Example, image to video, S = 2:
//
//   learner hand-over:  encode 0, sample 0, denoise 0, handover 0, encode 1, sample 1, denoise 1,
//                       decode 0, decode 1, score, pull 1, learn 1, pull 0, learn 0
//   sampler hand-over:  encode 0, sample 0, handover 0, encode 1, sample 1, denoise 0, denoise 1,
//                       decode 0, decode 1, score, pull 1, learn 1, pull 0, learn 0
//   preview:            the list of its hand-over up to the last decode
//
// Pure arithmetic: no memory, no process. Everyone computes the same list from the same config.
#ifndef COMMON_PROC_ITINERARY_H
#define COMMON_PROC_ITINERARY_H

#include <stdbool.h>
#include <stdint.h>

typedef enum StageKind {
    STAGE_SAMPLER,
    STAGE_DECODER,
    STAGE_REWARDER,
    STAGE_LEARNER,
    STAGE_CNT
} StageKind;

typedef enum StepKind {
    STEP_ENCODE,   // decoder: image or hand-over frame -> pixels, conditioning latent
    STEP_SAMPLE,   // sampler: embedding, x_K (and, with sampler hand-over, the sampler's own x_0)
    STEP_DENOISE,  // learner: x_K -> x_0
    STEP_HANDOVER, // decoder: x_0 -> last frame
    STEP_DECODE,   // decoder: x_0 -> scored frames
    STEP_SCORE,    // rewarder: frames of all segments -> R, dR/dframes
    STEP_PULL,     // decoder: dR/dframes -> dR/dx_0
    STEP_LEARN,    // learner: dR/dx_0 -> dR/dtheta
    STEP_CNT,
} StepKind;

enum {
    ITINERARY_SEGMENTS_MAX = 16,
    ITINERARY_STEPS_MAX = 8 * ITINERARY_SEGMENTS_MAX + 1,
    ITINERARY_DONE = 0xFFFF, // step of a slot whose sample is finished
};

typedef struct ItineraryStep {
    StageKind stage;
    StepKind kind;
    int segment; // 0 for score
} ItineraryStep;

typedef struct Itinerary {
    int cnt;
    ItineraryStep step[ITINERARY_STEPS_MAX];
} Itinerary;

typedef struct ItinerarySpec {
    int segments;          // 1 .. ITINERARY_SEGMENTS_MAX
    bool image_to_video;   // encode steps exist
    bool sampler_handover; // video.handover: sampler
    bool preview;          // ends after the last decode; denoise is done by the sampler's x_0
} ItinerarySpec;

Itinerary itinerary_make(ItinerarySpec spec);

// A step that could run, as far as the choice between several depends on it.
typedef struct ItineraryTurn {
    uint64_t update, sample;
    bool preview;
    StepKind kind;
    uint32_t step; // index into the itinerary
} ItineraryTurn;

// Which of two runnable steps of one process comes first: that of the oldest update; the learner's denoise before its
// learn; training before previews; the oldest sample; the latest step.
bool itinerary_before(const ItineraryTurn *a, const ItineraryTurn *b);

const char *itinerary_stage_name(StageKind stage); // "sampler"
const char *itinerary_step_name(StepKind step);    // "denoise"

#endif
