// Itineraries: the lists of the documentation, and what holds for all of them.
#include "common/proc/itinerary.h"

#include "tests/test.h"

// "encode 0, sample 0, ..."
static const char *text_of(const Itinerary *it) {
    static char text[4096];
    int n = 0;
    for (int i = 0; i < it->cnt; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%s", i ? ", " : "",
                      itinerary_step_name(it->step[i].kind));
        if (it->step[i].kind != STEP_SCORE)
            n += snprintf(text + n, sizeof text - (size_t)n, " %d", it->step[i].segment);
    }
    return text;
}

static const char *made(int segments, bool image, bool ahead, bool preview) {
    static Itinerary it;
    it = itinerary_make((ItinerarySpec){segments, image, ahead, preview});
    return text_of(&it);
}

TEST(as_documented) {
    CHECK_STR(made(2, true, false, false),
              "encode 0, sample 0, denoise 0, handover 0, encode 1, sample 1, denoise 1, decode 0, "
              "decode 1, score, pull 1, learn 1, pull 0, learn 0");
    CHECK_STR(made(2, true, true, false),
              "encode 0, sample 0, handover 0, encode 1, sample 1, denoise 0, denoise 1, decode 0, "
              "decode 1, score, pull 1, learn 1, pull 0, learn 0");
    CHECK_STR(made(1, true, false, false),
              "encode 0, sample 0, denoise 0, decode 0, score, pull 0, learn 0");
    CHECK_STR(made(1, false, false, false),
              "sample 0, denoise 0, decode 0, score, pull 0, learn 0");
    CHECK_STR(made(2, true, false, true),
              "encode 0, sample 0, handover 0, encode 1, sample 1, decode 0, decode 1");
    CHECK_STR(made(1, true, true, true), "encode 0, sample 0, decode 0");
}

TEST(what_holds_for_all) {
    static const StageKind owner[STEP_CNT] = {
        [STEP_ENCODE] = STAGE_DECODER,  [STEP_SAMPLE] = STAGE_SAMPLER,
        [STEP_DENOISE] = STAGE_LEARNER, [STEP_HANDOVER] = STAGE_DECODER,
        [STEP_DECODE] = STAGE_DECODER,  [STEP_SCORE] = STAGE_REWARDER,
        [STEP_PULL] = STAGE_DECODER,    [STEP_LEARN] = STAGE_LEARNER};
    for (int bits = 0; bits < 8; bits++) {
        for (int s = 1; s <= ITINERARY_SEGMENTS_MAX; s++) {
            Itinerary it = itinerary_make((ItinerarySpec){s, bits & 1, bits & 2, bits & 4});
            bool preview = bits & 4;
            int count[STEP_CNT] = {0};
            CHECK(it.cnt > 0 && it.cnt <= ITINERARY_STEPS_MAX && it.cnt < ITINERARY_DONE);
            for (int i = 0; i < it.cnt; i++) {
                CHECK_EQ(it.step[i].stage, owner[it.step[i].kind]);
                CHECK(it.step[i].segment >= 0 && it.step[i].segment < s);
                count[it.step[i].kind]++;
                for (int j = 0; j < i; j++)
                    CHECK(it.step[j].kind != it.step[i].kind ||
                          it.step[j].segment != it.step[i].segment);
            }
            CHECK_EQ(count[STEP_SAMPLE], s);
            CHECK_EQ(count[STEP_ENCODE], bits & 1 ? s : 0);
            CHECK_EQ(count[STEP_HANDOVER], s - 1);
            CHECK_EQ(count[STEP_DENOISE], preview ? 0 : s);
            CHECK_EQ(count[STEP_LEARN], preview ? 0 : s);
            CHECK_EQ(count[STEP_SCORE], preview ? 0 : 1);
            // the gradient of segment 0 completes a sample
            if (!preview)
                CHECK(it.step[it.cnt - 1].kind == STEP_LEARN && !it.step[it.cnt - 1].segment);
        }
    }
}

TEST(names) {
    CHECK_STR(itinerary_stage_name(STAGE_REWARDER), "rewarder");
    CHECK_STR(itinerary_step_name(STEP_HANDOVER), "handover");
}
