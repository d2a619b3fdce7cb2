// strbuf: text that grows at its end.
//
//     StrBuf b = {0};
//     strbuf_printf(&b, "%d steps", n);
//     fputs(strbuf_text(&b), f);
//     strbuf_fini(&b);
//
// An all-zero StrBuf is empty and ready. The bytes may hold zeros; one more zero always follows them. Not
// thread safe. Out of memory ends the process: these are messages and manifests, not tensors.
#ifndef COMMON_BASE_STRBUF_H
#define COMMON_BASE_STRBUF_H

#include <stdarg.h>
#include <stddef.h>

typedef struct StrBuf {
    char *data; // NULL until something was added
    size_t len; // bytes, without the closing zero
    size_t capacity;
} StrBuf;

// The text, closed by a zero; "" when empty. Valid until the next change.
const char *strbuf_text(const StrBuf *b);

void strbuf_add(StrBuf *b, const char *text);
void strbuf_add_bytes(StrBuf *b, const void *bytes, size_t len);
void strbuf_add_char(StrBuf *b, char c);
void strbuf_printf(StrBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vprintf(StrBuf *b, const char *fmt, va_list ap);

// Room for len more bytes, to be written at the place that is returned; then add to b->len.
char *strbuf_reserve(StrBuf *b, size_t len);

// Forgets the text and keeps the memory.
void strbuf_clear(StrBuf *b);

// The text as memory of the caller, to be given to free(); b is empty again. Never NULL.
char *strbuf_take(StrBuf *b);

void strbuf_fini(StrBuf *b);

#endif
