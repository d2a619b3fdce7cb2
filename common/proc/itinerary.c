// itinerary: the list, built front to back and mirrored.
#include "common/proc/itinerary.h"

#include "common/base/err.h"

static void add(Itinerary *it, StageKind stage, StepKind kind, int segment) {
    it->step[it->cnt++] = (ItineraryStep){stage, kind, segment};
}

// The steps that make segment s, up to the frame that the next segment starts from.
static void add_segment(Itinerary *it, const ItinerarySpec *spec, int s) {
    if (spec->image_to_video) add(it, STAGE_DECODER, STEP_ENCODE, s);
    add(it, STAGE_SAMPLER, STEP_SAMPLE, s);
    bool ahead = spec->sampler_handover || spec->preview; // the sampler's own x_0 goes on
    if (!ahead) add(it, STAGE_LEARNER, STEP_DENOISE, s);
    if (s + 1 < spec->segments) add(it, STAGE_DECODER, STEP_HANDOVER, s);
}

Itinerary itinerary_make(ItinerarySpec spec) {
    die_unless(spec.segments >= 1 && spec.segments <= ITINERARY_SEGMENTS_MAX,
               "itinerary: %d segments", spec.segments);
    Itinerary it = {0};
    for (int s = 0; s < spec.segments; s++) add_segment(&it, &spec, s);
    if (spec.sampler_handover && !spec.preview)
        for (int s = 0; s < spec.segments; s++) add(&it, STAGE_LEARNER, STEP_DENOISE, s);
    for (int s = 0; s < spec.segments; s++) add(&it, STAGE_DECODER, STEP_DECODE, s);
    if (spec.preview) return it;
    add(&it, STAGE_REWARDER, STEP_SCORE, 0);
    for (int s = spec.segments - 1; s >= 0; s--) {
        add(&it, STAGE_DECODER, STEP_PULL, s);
        add(&it, STAGE_LEARNER, STEP_LEARN, s);
    }
    return it;
}

bool itinerary_before(const ItineraryTurn *a, const ItineraryTurn *b) {
    if (a->update != b->update) return a->update < b->update;
    bool learn_a = a->kind == STEP_LEARN, learn_b = b->kind == STEP_LEARN;
    if (learn_a != learn_b) return learn_b;
    if (a->preview != b->preview) return b->preview;
    if (a->sample != b->sample) return a->sample < b->sample;
    return a->step > b->step;
}

const char *itinerary_stage_name(StageKind stage) {
    static const char *const names[STAGE_CNT] = {"sampler", "decoder", "rewarder", "learner"};
    return names[stage];
}

const char *itinerary_step_name(StepKind step) {
    static const char *const names[STEP_CNT] = {"encode", "sample", "denoise", "handover",
                                                "decode", "score",  "pull",    "learn"};
    return names[step];
}
