// crash: a handler that uses only write, backtrace and raise.
#include "common/base/crash.h"

#include <execinfo.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024 };

static char process_name[64] = "vader";

static const struct {
    int sig;
    const char *name;
} fatal[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"},   {SIGILL, "SIGILL"},
    {SIGFPE, "SIGFPE"},   {SIGABRT, "SIGABRT"},
};
enum { FATAL_CNT = sizeof fatal / sizeof *fatal };

static void put(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

static void put_hex(uintptr_t v) {
    char text[2 + 2 * sizeof v + 1];
    char *p = text + sizeof text - 1;
    *p = 0;
    do *--p = "0123456789abcdef"[v & 15];
    while (v >>= 4);
    *--p = 'x';
    *--p = '0';
    put(p);
}

// SA_RESETHAND has put back the default action, so raise() ends the process when the handler returns.
static void on_fatal(int sig, siginfo_t *info, void *context) {
    put(process_name);
    put(": died of ");
    for (int i = 0; i < FATAL_CNT; i++)
        if (fatal[i].sig == sig) put(fatal[i].name);
    if (sig != SIGABRT) {
        put(" at address ");
        put_hex((uintptr_t)info->si_addr);
    }
    put("\n");
    void *frames[64];
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    raise(sig);
}

void crash_thread(void) {
    static _Thread_local char *stack;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
    if (!stack) stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED) return;
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = STACK_BYTES}, NULL);
}

void crash_install(const char *name) {
    strncpy(process_name, name, sizeof process_name - 1);
    void *frame;
    backtrace(&frame, 1); // its first call loads libgcc, which a handler must not
    crash_thread();
    struct sigaction act = {.sa_sigaction = on_fatal};
    act.sa_flags = (int)(SA_SIGINFO | SA_RESETHAND | SA_ONSTACK);
    sigemptyset(&act.sa_mask);
    for (int i = 0; i < FATAL_CNT; i++) sigaction(fatal[i].sig, &act, NULL);
}
