// err: the thread's error text, and die().
#include "common/base/err.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Thread_local struct {
    char text[2048];
    char trace[4096];
    size_t trace_len;
} last;

static void trace_append(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void trace_append(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    size_t room = sizeof last.trace - last.trace_len;
    int n = vsnprintf(last.trace + last.trace_len, room, fmt, ap);
    va_end(ap);
    if (n > 0) last.trace_len += (size_t)n < room ? (size_t)n : room - 1;
}

Err err_fail(Err code, const char *file, int line, const char *func, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char text[sizeof last.text]; // the arguments may point into last.text
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(last.text, text, sizeof text);
    last.trace_len = 0;
    trace_append("%s\n  in %s (%s:%d)\n", text, func, file, line);
    return code;
}

Err err_up(Err code, const char *file, int line, const char *func) {
    trace_append("  in %s (%s:%d)\n", func, file, line);
    return code;
}

const char *err_text(void) { return last.text; }
const char *err_trace(void) { return last.trace; }

const char *err_name(Err code) {
    static const char *const names[] = {"ok",     "usage",   "io",      "format", "shape",
                                        "memory", "numeric", "timeout", "peer",   "device"};
    return (size_t)code < sizeof names / sizeof *names ? names[code] : "unknown";
}

void err_print(int frames) {
    if (frames)
        fprintf(stderr, "vader: %s", last.trace);
    else
        fprintf(stderr, "vader: %s\n", last.text);
}

int err_exit_status(Err code) { return code == ERR_OK ? 0 : code == ERR_USAGE ? 2 : 1; }

void die_at(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "vader: broken invariant at %s:%d: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    void *frames[32];
    backtrace_symbols_fd(frames, backtrace(frames, 32), STDERR_FILENO);
    abort();
}
