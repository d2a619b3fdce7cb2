// test_crash: a child that dies tells how, and dies of the same signal.
#include "common/base/crash.h"

#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

// Runs body in a child; returns its wait status and what it wrote to stderr.
static int child(void (*body)(void), char *out, size_t size) {
    int fds[2];
    if (pipe(fds)) return -1;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        dup2(fds[1], STDERR_FILENO);
        crash_install("tester.1");
        body();
        _exit(0);
    }
    close(fds[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(fds[0], out + len, size - 1 - len)) > 0;) len += (size_t)n;
    out[len] = 0;
    close(fds[0]);
    int status;
    waitpid(pid, &status, 0);
    return status;
}

static volatile uintptr_t nowhere = 16, endless = 1; // hidden from the compiler

static void touch_nothing(void) { *(volatile int *)nowhere = 1; }
static void break_invariant(void) { die("two is %d", 3); }
static void fpe(void) { raise(SIGFPE); }

static __attribute__((noinline)) int deeper(volatile char *above) {
    volatile char page[4096];
    page[0] = above[0];
    return endless ? deeper(page) + page[0] : 0;
}
static void overflow_stack(void) { deeper(&(char){0}); }

static void check_death(void (*body)(void), int sig, const char *part) {
    char out[16384];
    int status = child(body, out, sizeof out);
    CHECK_MSG(WIFSIGNALED(status), "status %#x, want death by signal %d; it said: %s", status, sig,
              out);
    CHECK_EQ(WTERMSIG(status), sig);
    CHECK_HAS(out, part);
    CHECK_HAS(out, "test_crash"); // the backtrace
}

TEST(says_where) {
    if (SANITIZED) SKIP("a sanitizer handles these signals itself");
    check_death(touch_nothing, SIGSEGV, "tester.1: died of SIGSEGV at address 0x10\n");
    check_death(break_invariant, SIGABRT, "two is 3");
    check_death(break_invariant, SIGABRT, "tester.1: died of SIGABRT\n");
    check_death(fpe, SIGFPE, "SIGFPE");
}

TEST(works_on_a_full_stack) {
    if (SANITIZED) SKIP("a sanitizer handles these signals itself");
    check_death(overflow_stack, SIGSEGV, "tester.1: died of SIGSEGV");
}
