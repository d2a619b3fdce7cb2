// log: lines for people, to stderr and to a file.
//
//     log_init("rewarder.0", "RUN/log/rewarder.0.log", LOG_INFO);
//     log_info("%d models, %.1f GB", n, gb);
//     log_warn("%s: no neighbour answers", name);
//
// A line on stderr is "rewarder.0: warning: ..."; in the file the time stands in front, and every level is
// kept there down to LOG_DEBUG. When one place logs warnings or errors over and over, only its 1st, 2nd,
// 4th, 8th, ... line is written, with the count: a loop that fails cannot fill a disk.
//
// Safe from all threads; a line is written by one write(2), so that lines of several processes on one
// stream do not mix. Without log_init it logs LOG_INFO and above to stderr under the name "vader".
// Not for signal handlers.
#ifndef COMMON_BASE_LOG_H
#define COMMON_BASE_LOG_H

#include <stdint.h>

#include "common/base/err.h"

typedef enum LogLevel { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR } LogLevel;

// One per place in the source that logs; made by the macros below.
typedef struct LogSite {
    const char *file;
    int line;
    uint32_t hit_cnt; // atomic, all threads
} LogSite;

// Names the process, opens the file for appending (NULL: none) and sets what stderr shows. Both texts are
// copied. Called again it closes the file of before.
Err log_init(const char *name, const char *path, LogLevel stderr_level);

// Closes the file; stderr goes on.
void log_fini(void);

#define log_debug(...) log_at_(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at_(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at_(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at_(LOG_ERROR, __VA_ARGS__)

// Logs the text and frames of this thread's last error, as LOG_ERROR.
#define log_err() log_error("%s", err_trace())

// "debug", "info", "warning", "error".
const char *log_level_name(LogLevel level);

#define log_at_(level, ...)                          \
    do {                                             \
        static LogSite site_ = {__FILE__, __LINE__}; \
        log_write(&site_, (level), __VA_ARGS__);     \
    } while (0)
void log_write(LogSite *site, LogLevel level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
