// Slots: words, transitions, and that a step's output is seen by whoever sees its step.
#include "common/transport/slot.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/proc/itinerary.h"
#include "tests/test.h"

static Slot slot;

static void free_slot(uint32_t epoch) { slot_reset(&slot, epoch, ITINERARY_DONE); }

TEST(a_word_holds_epoch_and_step) {
    uint64_t w = slot_word(0xfffffffe, 0xfffd);
    CHECK_EQ(slot_epoch(w), 0xfffffffe);
    CHECK_EQ(slot_step(w), 0xfffd);
    CHECK_EQ(sizeof(Slot) % SLOT_LINE, 0);
    CHECK_EQ(offsetof(Slot, header) % SLOT_LINE, 0);
    CHECK_EQ(offsetof(Slot, score) % SLOT_LINE, 0);
    CHECK_EQ(offsetof(Slot, norms) % SLOT_LINE, 0);
}

TEST(publish_then_advance) {
    SlotHeader h = {.sample = 7, .update = 3, .source = "a.png"};
    free_slot(5);
    slot_publish(&slot, 5, &h);
    CHECK_EQ(slot_load(&slot), slot_word(5, 0));
    CHECK_STR(slot.header.source, "a.png");
    CHECK(slot_advance(&slot, slot_word(5, 0), 1));
    CHECK(!slot_advance(&slot, slot_word(5, 0), 1)); // done already
    CHECK_EQ(slot_load(&slot), slot_word(5, 1));
    CHECK(slot_advance(&slot, slot_word(5, 1), ITINERARY_DONE));
    CHECK_EQ(slot_step(slot_load(&slot)), ITINERARY_DONE);
}

TEST(an_old_epoch_cannot_advance) {
    free_slot(1);
    slot_publish(&slot, 1, &(SlotHeader){0});
    uint64_t seen = slot_load(&slot);
    slot_reset(&slot, 2, 0); // the launcher, after a death
    CHECK(!slot_advance(&slot, seen, 1));
    CHECK_EQ(slot_load(&slot), slot_word(2, 0));
}

TEST(publishing_over_work_dies) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        fclose(stderr);
        slot_reset(&slot, 1, 3);
        slot_publish(&slot, 1, &(SlotHeader){0});
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

// Two threads hand a slot back and forth; each reads what the other wrote before it advanced.
enum { ROUNDS = 2000 };
static uint64_t payload[64];
static _Atomic int mistakes;

static void *other_side(void *unused) {
    for (uint32_t step = 1; step < ROUNDS; step += 2) {
        while (slot_step(slot_load(&slot)) != step) sched_yield();
        for (int i = 0; i < 64; i++) {
            if (payload[i] != step) mistakes++;
            payload[i] = step + 1;
        }
        if (!slot_advance(&slot, slot_word(1, step), step + 1)) mistakes++;
    }
    return unused;
}

TEST(a_step_carries_its_output) {
    pthread_t thread;
    mistakes = 0;
    slot_reset(&slot, 1, 0);
    CHECK(!pthread_create(&thread, NULL, other_side, NULL));
    for (uint32_t step = 0; step < ROUNDS; step += 2) {
        while (slot_step(slot_load(&slot)) != step) sched_yield();
        for (int i = 0; i < 64; i++) {
            if (step && payload[i] != step) mistakes++;
            payload[i] = step + 1;
        }
        if (!slot_advance(&slot, slot_word(1, step), step + 1)) mistakes++;
    }
    pthread_join(thread, NULL);
    CHECK_EQ(mistakes, 0);
}

// Many advance from the same word: one wins.
static _Atomic int winners;
static _Atomic uint32_t go;

static void *racer(void *unused) {
    for (uint32_t round = 0; round < 500; round++) {
        while (atomic_load(&go) <= round) sched_yield();
        if (slot_advance(&slot, slot_word(1, round), round + 1)) winners++;
    }
    return unused;
}

TEST(one_of_many_wins) {
    pthread_t thread[3];
    slot_reset(&slot, 1, 0);
    winners = 0;
    atomic_store(&go, 0);
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&thread[i], NULL, racer, NULL));
    for (uint32_t round = 0; round < 500; round++) {
        atomic_store(&go, round + 1);
        while (slot_step(slot_load(&slot)) == round) sched_yield();
    }
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    CHECK_EQ(winners, 500);
}
