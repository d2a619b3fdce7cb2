// stage_plan: what is written is read again; what is not such an object is refused.
#define _GNU_SOURCE
#include "common/proc/stage_plan.h"

#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

enum { ROOM = 8192 };

static void write_text(char text[ROOM], const StagePlan *plan) {
    FILE *out = fmemopen(text, ROOM, "w");
    stage_plan_write(plan, out);
    fclose(out);
}

TEST(written_and_read) {
    BoardModule module = {
        .path = "attn1.to_q", .in = 8, .out = 4, .a_at = 0, .b_at = 16, .dead = 1};
    StagePlan plan = {.mapped_bytes = 5,
                      .threads = 3,
                      .numerics = "cpu \"avx2\"",
                      .weights_hash = 0xf00dfacecafebeefull,
                      .window_at = -1,
                      .window_steps = 2,
                      .window_gain = 0.25,
                      .board = {.theta_cnt = 24, .module_cnt = 1, .rank = 2, .alpha = 4},
                      .modules = &module};
    plan.section_bytes[SECTION_FRAMES] = 7;
    plan.memory[STAGE_MEMORY_PACKED] = 11;
    plan.flops[STEP_SCORE] = 1.5;
    char text[ROOM], again[ROOM];
    write_text(text, &plan);
    StagePlan read;
    CHECK_OK(stage_plan_read(&read, text, strlen(text)));
    CHECK_EQ(read.weights_hash, plan.weights_hash);
    CHECK_STR(read.numerics, plan.numerics);
    CHECK_EQ(read.modules[0].b_at, 16);
    write_text(again, &read);
    CHECK_STR(again, text);
    stage_plan_fini(&read);

    char *found = strstr(text, "f00dface");
    CHECK(found != NULL);
    size_t at = found ? (size_t)(found - text) : 0;
    for (int i = 0; found && i < 2; i++) { // one digit too few, then one that is none
        char *bad = strdup(text);
        if (i)
            bad[at + 3] = 'x';
        else
            memmove(bad + at, bad + at + 1, strlen(bad + at));
        CHECK_ERR(stage_plan_read(&read, bad, strlen(bad)), ERR_FORMAT,
                  "want 16 hexadecimal digits");
        free(bad);
    }
}
