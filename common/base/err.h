// err: expected failures travel as a code, with a text that gathers one line per level.
//
// Two kinds of failure exist and are never mixed. Expected ones (a file, a config, a peer that has
// gone, something that does not fit) return an Err; impossible ones (a broken invariant) call die().
//
//     Err model_open(const char *dir) {
//         if (entries != 4) FAIL(ERR_FORMAT, "%s: block_out_channels has %d entries, want 4", dir, entries);
//         TRY(weights_open(dir));        // on failure adds this function to the text and returns
//         return ERR_OK;
//     }
//     ... in main:  if (model_open(dir)) { err_print(); return err_exit_status(); }
//
// A function that must release something on the way out uses TRY_OUT / FAIL_OUT, which set a local
// `Err err` and jump to its single label `out:`.
//
// The text belongs to the calling thread; it is replaced by the next FAIL on that thread.
#ifndef COMMON_BASE_ERR_H
#define COMMON_BASE_ERR_H

typedef enum Err {
    ERR_OK = 0,
    ERR_USAGE,   // bad command line or config: exit status 2
    ERR_IO,      // a system call on a file failed
    ERR_FORMAT,  // bytes or keys that are not what their format says
    ERR_SHAPE,   // tensors whose shapes do not go together
    ERR_MEMORY,  // does not fit
    ERR_NUMERIC, // NaN or Inf
    ERR_TIMEOUT, // a wait met its deadline
    ERR_PEER,    // another process has gone or speaks nonsense
    ERR_DEVICE,  // a library or device call failed
} Err;

#define FAIL(code, ...)                                              \
    do {                                                             \
        err_fail((code), __FILE__, __LINE__, __func__, __VA_ARGS__); \
        return (code);                                               \
    } while (0)
#define TRY(call)                                           \
    do {                                                    \
        Err try_err_ = (call);                              \
        if (try_err_) {                                     \
            err_up(try_err_, __FILE__, __LINE__, __func__); \
            return try_err_;                                \
        }                                                   \
    } while (0)
#define FAIL_OUT(code, ...)                                                \
    do {                                                                   \
        err = err_fail((code), __FILE__, __LINE__, __func__, __VA_ARGS__); \
        goto out;                                                          \
    } while (0)
#define TRY_OUT(call)                                  \
    do {                                               \
        err = (call);                                  \
        if (err) {                                     \
            err_up(err, __FILE__, __LINE__, __func__); \
            goto out;                                  \
        }                                              \
    } while (0)

// Starts a new text. Returns code.
Err err_fail(Err code, const char *file, int line, const char *func, const char *fmt, ...)
    __attribute__((format(printf, 5, 6), cold));

// Adds one line, "  in func (file:line)", to the text. Returns code.
Err err_up(Err code, const char *file, int line, const char *func) __attribute__((cold));

// The message of the last FAIL on this thread, first line only; "" when there was none.
const char *err_text(void);

// The message and its frames, one per line.
const char *err_trace(void);

// "format", "memory", ...
const char *err_name(Err code);

// Prints "vader: <message>" to stderr; the frames follow when `frames` is set.
void err_print(int frames);

// Exit status for a failed command: 2 for ERR_USAGE, else 1.
int err_exit_status(Err code);

// A broken invariant: prints the message and a backtrace, then aborts.
_Noreturn void die_at(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));
#define die(...) die_at(__FILE__, __LINE__, __VA_ARGS__)
#define die_unless(cond, ...)                               \
    do {                                                    \
        if (__builtin_expect(!(cond), 0)) die(__VA_ARGS__); \
    } while (0)

#endif
