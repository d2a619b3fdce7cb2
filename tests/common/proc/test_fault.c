// Faults: what a spec may say, and that each harm comes at its place and nowhere else.
#include "common/proc/fault.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/test.h"

static Fault *f;

static Err parse(const char *spec, int incarnation) {
    fault_free(f);
    f = NULL;
    return fault_parse(&f, spec, incarnation);
}

// The signal that ends a process which passes this phase; 0 = none.
static int signal_at(FaultPhase phase, StepKind kind, uint32_t segment, uint64_t sample) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        fault_at(f, phase, kind, segment, sample);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(nothing) {
    CHECK_OK(parse(NULL, 0));
    CHECK(!f);
    CHECK_OK(parse("", 0));
    CHECK(!f);
    ControlDisturb how;
    fault_at(NULL, FAULT_BEFORE, STEP_SCORE, 0, 1);
    CHECK_OK(fault_error(NULL, STEP_SCORE, 0, 1));
    CHECK(!fault_messages(NULL, &how));
}

TEST(a_kill_has_one_place) {
    CHECK_OK(parse("kill:denoise.1@5:after", 0));
    CHECK_EQ(signal_at(FAULT_AFTER, STEP_DENOISE, 1, 5), SIGKILL);
    CHECK_EQ(signal_at(FAULT_BEFORE, STEP_DENOISE, 1, 5), 0);
    CHECK_EQ(signal_at(FAULT_COMMIT, STEP_DENOISE, 1, 5), 0);
    CHECK_EQ(signal_at(FAULT_AFTER, STEP_DENOISE, 0, 5), 0);
    CHECK_EQ(signal_at(FAULT_AFTER, STEP_DENOISE, 1, 4), 0);
    CHECK_EQ(signal_at(FAULT_AFTER, STEP_LEARN, 1, 5), 0);
}

TEST(words_and_updates) {
    CHECK_OK(parse("kill:update@3:commit,kill:score@0:before", 0));
    CHECK_EQ(signal_at(FAULT_COMMIT, STEP_CNT, 0, 3), SIGKILL);
    CHECK_EQ(signal_at(FAULT_BEFORE, STEP_SCORE, 0, 0), SIGKILL);
    CHECK_EQ(signal_at(FAULT_BEFORE, STEP_CNT, 0, 3), 0);
}

TEST(a_second_life_is_spared_unless_asked) {
    CHECK_OK(parse("kill:score@1:before", 1));
    CHECK_EQ(signal_at(FAULT_BEFORE, STEP_SCORE, 0, 1), 0);
    CHECK_OK(parse("crash:score@1:before", 3));
    CHECK_EQ(signal_at(FAULT_BEFORE, STEP_SCORE, 0, 1), SIGKILL);
}

TEST(errors) {
    CHECK_OK(parse("fail:score@2", 1));
    CHECK_ERR(fault_error(f, STEP_SCORE, 0, 2), ERR_DEVICE, "told to fail");
    CHECK_OK(fault_error(f, STEP_SCORE, 0, 1));
}

TEST(messages) {
    ControlDisturb how;
    CHECK_OK(parse("bells:100:20:3", 0));
    CHECK(fault_messages(f, &how));
    CHECK(how.drop == 100 && how.twice == 20 && how.delay == 3 && !how.all);
    CHECK_OK(parse("messages:1:2:3,delay:1:5", 0));
    CHECK(fault_messages(f, &how));
    CHECK(how.drop == 1 && how.twice == 2 && how.delay == 3 && how.all);
    CHECK_OK(parse("delay:1:5", 0));
    CHECK(!fault_messages(f, &how));
}

TEST(delays_are_bounded) {
    CHECK_OK(parse("delay:7:2000", 0));
    int64_t start = clock_ns(), longest = 0;
    for (int i = 0; i < 20; i++) {
        int64_t t = clock_ns();
        fault_at(f, FAULT_BEFORE, STEP_SCORE, 0, (uint64_t)i);
        t = clock_ns() - t;
        longest = t > longest ? t : longest;
    }
    CHECK(clock_ns() - start > 2000000); // some did sleep
    CHECK_OK(parse("delay:7:0", 0));
    fault_at(f, FAULT_BEFORE, STEP_SCORE, 0, 0);
}

TEST(what_is_no_fault) {
    static const char *const bad[] = {"kill",
                                      "kill:score@1",
                                      "kill:score@1:later",
                                      "kill:scoer@1:before",
                                      "kill:score:before",
                                      "fail:score",
                                      "nan:",
                                      "bells:1:2",
                                      "delay:1",
                                      "explode:score@1",
                                      "kill:learn.@1:before"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err err = parse(bad[i], 0);
        CHECK_MSG(err == ERR_USAGE, "\"%s\" was taken", bad[i]);
        CHECK(!f);
    }
    char many[1024] = "";
    for (int i = 0; i < 20; i++) strcat(many, "fail:score@1,");
    CHECK_ERR(parse(many, 0), ERR_USAGE, "more than 16 faults");
}
