// strbuf: doubling on demand.
#include "common/base/strbuf.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

const char *strbuf_text(const StrBuf *b) { return b->data ? b->data : ""; }

char *strbuf_reserve(StrBuf *b, size_t len) {
    die_unless(len < SIZE_MAX / 4 && b->len < SIZE_MAX / 4, "strbuf: %zu bytes asked", len);
    size_t need = b->len + len + 1;
    if (need > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < need) capacity *= 2;
        b->data = realloc(b->data, capacity);
        die_unless(b->data, "strbuf: out of memory asking for %zu bytes", capacity);
        b->capacity = capacity;
    }
    b->data[b->len] = 0;
    b->data[need - 1] = 0;
    return b->data + b->len;
}

void strbuf_add_bytes(StrBuf *b, const void *bytes, size_t len) {
    char *end = strbuf_reserve(b, len);
    if (len) memcpy(end, bytes, len);
    b->len += len;
}

void strbuf_add(StrBuf *b, const char *text) { strbuf_add_bytes(b, text, strlen(text)); }
void strbuf_add_char(StrBuf *b, char c) { strbuf_add_bytes(b, &c, 1); }

void strbuf_vprintf(StrBuf *b, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    die_unless(n >= 0, "strbuf: bad format %s", fmt);
    vsnprintf(strbuf_reserve(b, (size_t)n), (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
    va_end(again);
}

void strbuf_printf(StrBuf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    strbuf_vprintf(b, fmt, ap);
    va_end(ap);
}

void strbuf_clear(StrBuf *b) {
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

char *strbuf_take(StrBuf *b) {
    strbuf_reserve(b, 0); // at least the closing zero
    char *text = b->data;
    *b = (StrBuf){0};
    return text;
}

void strbuf_fini(StrBuf *b) {
    free(b->data);
    *b = (StrBuf){0};
}
