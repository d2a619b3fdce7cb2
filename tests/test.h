// test: a test program is one file of TEST() blocks; main is here.
//
//     #include "tests/test.h"
//     TEST(slot_advances) {
//         CHECK_OK(slot_init(&s));              // prints the error's text and frames
//         CHECK_EQ(slot_step(&s), 1);           // any integers
//         CHECK_STR(slot_name(&s), "encode 0");
//         CHECK_NEAR(x, 0.5, 1e-6);             // absolute
//         if (!have_gpu) SKIP("no GPU here");   // leaves this block
//     }
//
// A failed check prints its place and both values and ends its TEST block (it returns); the other blocks
// still run. A helper with checks in it returns void too; `test_failed()` then tells its caller whether
// to go on. Exit status: 1 when a block failed, 77 when all blocks were skipped, else 0.
// `program name...` runs only the named blocks.
//
// tests/run starts every program from the root of the tree, with TMPDIR an empty folder of its own.
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

typedef struct TestCase {
    const char *name;
    void (*run)(void);
    struct TestCase *next;
} TestCase;

static TestCase *test_first_, **test_last_ = &test_first_;
static int test_failures_; // checks that failed in the block that runs
static const char *test_skipped_;

#define TEST(ident)                                                   \
    static void test_##ident(void);                                   \
    __attribute__((constructor)) static void test_add_##ident(void) { \
        static TestCase c = {#ident, test_##ident, NULL};             \
        *test_last_ = &c;                                             \
        test_last_ = &c.next;                                         \
    }                                                                 \
    static void test_##ident(void)

// Prints the place and a message, and counts a failure. For checks of your own.
#define TEST_FAIL(...)                                                             \
    (test_failures_++, printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), \
     (void)putchar('\n'))

#define SKIP(reason)              \
    do {                          \
        test_skipped_ = (reason); \
        return;                   \
    } while (0)

#define CHECK(cond)                         \
    do {                                    \
        if (!(cond)) {                      \
            TEST_FAIL("not so: %s", #cond); \
            return;                         \
        }                                   \
    } while (0)

// As CHECK, with a message of its own that says which values were met.
#define CHECK_MSG(cond, ...)        \
    do {                            \
        if (!(cond)) {              \
            TEST_FAIL(__VA_ARGS__); \
            return;                 \
        }                           \
    } while (0)

#define CHECK_EQ(got, want)                                                                     \
    do {                                                                                        \
        long long got_ = (long long)(got), want_ = (long long)(want);                           \
        if (got_ != want_) {                                                                    \
            TEST_FAIL("%s is %lld (%#llx), want %lld (%#llx)", #got, got_, got_, want_, want_); \
            return;                                                                             \
        }                                                                                       \
    } while (0)

#define CHECK_NEAR(got, want, tolerance)                                             \
    do {                                                                             \
        double got_ = (got), want_ = (want), tol_ = (tolerance);                     \
        if (!(fabs(got_ - want_) <= tol_)) {                                         \
            TEST_FAIL("%s is %.9g, want %.9g within %.3g", #got, got_, want_, tol_); \
            return;                                                                  \
        }                                                                            \
    } while (0)

#define CHECK_STR(got, want)                                                             \
    do {                                                                                 \
        const char *got_ = (got), *want_ = (want);                                       \
        if (!got_ || strcmp(got_, want_)) {                                              \
            TEST_FAIL("%s is \"%s\", want \"%s\"", #got, got_ ? got_ : "(null)", want_); \
            return;                                                                      \
        }                                                                                \
    } while (0)

// The text holds a part.
#define CHECK_HAS(got, part)                                                                   \
    do {                                                                                       \
        const char *got_ = (got), *part_ = (part);                                             \
        if (!got_ || !strstr(got_, part_)) {                                                   \
            TEST_FAIL("%s is \"%s\", want \"%s\" in it", #got, got_ ? got_ : "(null)", part_); \
            return;                                                                            \
        }                                                                                      \
    } while (0)

#define CHECK_OK(call)                                                         \
    do {                                                                       \
        Err err_ = (call);                                                     \
        if (err_) {                                                            \
            TEST_FAIL("%s: %s error: %s", #call, err_name(err_), err_trace()); \
            return;                                                            \
        }                                                                      \
    } while (0)

// The call fails with this code, and a message that holds `part` ("" = any).
#define CHECK_ERR(call, code, part)                                                    \
    do {                                                                               \
        Err err_ = (call);                                                             \
        if (err_ != (code)) {                                                          \
            TEST_FAIL("%s gave %s, want %s", #call, err_name(err_), err_name(code));   \
            return;                                                                    \
        }                                                                              \
        if (!strstr(err_text(), (part))) {                                             \
            TEST_FAIL("%s says \"%s\", want \"%s\" in it", #call, err_text(), (part)); \
            return;                                                                    \
        }                                                                              \
    } while (0)

// Whether a check of the running block failed: for blocks that call helpers with checks in them.
static inline bool test_failed(void) { return test_failures_ != 0; }

static bool test_named_(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name)) return true;
    return argc < 2;
}

int main(int argc, char **argv) {
    int run = 0, failed = 0, skipped = 0;
    const char *reason = "no test of that name";
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (TestCase *c = test_first_; c; c = c->next) {
        if (!test_named_(c->name, argc, argv)) continue;
        run++;
        test_failures_ = 0;
        test_skipped_ = NULL;
        c->run();
        failed += test_failures_ != 0;
        skipped += !test_failures_ && test_skipped_;
        if (test_skipped_) reason = test_skipped_;
        const char *verdict = test_skipped_ ? "skip" : "ok";
        printf("%s %s%s%s\n", test_failures_ ? "FAIL" : verdict, c->name, test_skipped_ ? ": " : "",
               test_skipped_ ? test_skipped_ : "");
    }
    if (failed) printf("%d of %d failed\n", failed, run);
    if (failed || (!run && argc > 1)) return 1;
    if (run == skipped) return puts(reason), 77;
    return 0;
}

#endif
