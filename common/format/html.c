// html: escaping, a printf that does it, base64.
#include "common/format/html.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

// Bytes of the character at s, 0 if there is none that a page may hold.
static int character(const unsigned char *s) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0x80) return s[0] >= 0x20 ? s[0] != 0x7F : s[0] == '\n' || s[0] == '\t';
    int n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : s[0] >= 0xC0 ? 2 : 0;
    if (!n || s[0] >= 0xF8) return 0;
    uint32_t c = s[0] & (0xFFu >> (n + 1));
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0; // the closing zero, too
        c = c << 6 | (s[i] & 0x3F);
    }
    bool surrogate = c >= 0xD800 && c < 0xE000, control = c < 0xA0;
    return c < least[n] || c > 0x10FFFF || surrogate || control || (c & 0xFFFE) == 0xFFFE ? 0 : n;
}

void html_text(StrBuf *b, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = character(s);
        switch (*s) {
        case '<': strbuf_add(b, "&lt;"); break;
        case '>': strbuf_add(b, "&gt;"); break;
        case '&': strbuf_add(b, "&amp;"); break;
        case '"': strbuf_add(b, "&quot;"); break;
        case '\'': strbuf_add(b, "&#39;"); break;
        default: strbuf_add_bytes(b, n ? (const char *)s : "\xEF\xBF\xBD", n ? (size_t)n : 3);
        }
        s += n ? n : 1;
    }
}

// One conversion other than %s: spec is "%.3" and the like, without length and letter.
static void add_number(StrBuf *b, const char *spec, const char *length, char letter, va_list *ap) {
    char fmt[40];
    bool longs = !strcmp(length, "l"), longer = !strcmp(length, "ll"), size = !strcmp(length, "z");
    if (strchr("fge", letter)) {
        die_unless(!*length, "html: %%%s%c", length, letter);
        snprintf(fmt, sizeof fmt, "%s%c", spec, letter);
        strbuf_printf(b, fmt, va_arg(*ap, double));
        return;
    }
    die_unless(strchr("diux", letter) && (!*length || longs || longer || size),
               "html: conversion %s%s%c", spec, length, letter);
    snprintf(fmt, sizeof fmt, "%sll%c", spec, letter);
    bool is_signed = letter == 'd' || letter == 'i';
    if (longer)
        strbuf_printf(b, fmt, va_arg(*ap, long long));
    else if (longs && is_signed)
        strbuf_printf(b, fmt, (long long)va_arg(*ap, long));
    else if (longs)
        strbuf_printf(b, fmt, (unsigned long long)va_arg(*ap, unsigned long));
    else if (size)
        strbuf_printf(b, fmt, (unsigned long long)va_arg(*ap, size_t));
    else if (is_signed)
        strbuf_printf(b, fmt, (long long)va_arg(*ap, int));
    else
        strbuf_printf(b, fmt, (unsigned long long)va_arg(*ap, unsigned));
}

void html_vprintf(StrBuf *b, const char *fmt, va_list args) {
    va_list ap; // of ours, so that a pointer to it may be handed on
    va_copy(ap, args);
    while (*fmt) {
        size_t plain = strcspn(fmt, "%");
        strbuf_add_bytes(b, fmt, plain);
        fmt += plain;
        if (!*fmt) break;
        size_t n = 1 + strspn(fmt + 1, "+-0123456789."), len = strspn(fmt + n, "lz");
        char spec[24], length[4];
        die_unless(n < sizeof spec && len < sizeof length, "html: format %s", fmt);
        snprintf(spec, sizeof spec, "%.*s", (int)n, fmt);
        snprintf(length, sizeof length, "%.*s", (int)len, fmt + n);
        char letter = fmt[n + len];
        if (letter == 's' && n == 1 && !len)
            html_text(b, va_arg(ap, const char *));
        else if (letter == '%' && n == 1 && !len)
            strbuf_add_char(b, '%');
        else
            add_number(b, spec, length, letter, &ap);
        fmt += n + len + 1;
    }
    va_end(ap);
}

void html_printf(StrBuf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    html_vprintf(b, fmt, ap);
    va_end(ap);
}

void html_base64(StrBuf *b, const void *bytes, size_t len) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *s = bytes;
    char *out = strbuf_reserve(b, (len + 2) / 3 * 4);
    for (size_t i = 0; i < len; i += 3, out += 4) {
        uint32_t x = (uint32_t)s[i] << 16;
        if (i + 1 < len) x |= (uint32_t)s[i + 1] << 8;
        if (i + 2 < len) x |= s[i + 2];
        for (int k = 0; k < 4; k++) out[k] = digit[x >> (18 - 6 * k) & 63];
        if (i + 1 >= len) out[2] = '=';
        if (i + 2 >= len) out[3] = '=';
    }
    b->len += (len + 2) / 3 * 4;
}

const char *html_real(Arena *a, double x, int digits) {
    static const char *const raised[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    char text[64];
    if (!isfinite(x)) return "–";
    snprintf(text, sizeof text, "%.*e", digits - 1, fabs(x)); // rounded once: "3.55e-01"
    int exponent = atoi(strchr(text, 'e') + 1);
    const char *sign = x < 0 ? "−" : "";
    if (x == 0) return "0";
    if (exponent >= -3 && exponent <= 5) {
        int decimals = digits - 1 - exponent;
        return arena_printf(a, "%s%.*f", sign, decimals > 0 ? decimals : 0, fabs(x));
    }
    *strchr(text, 'e') = 0;
    char *out = arena_printf(a, "%s%s × 10%s", sign, text, exponent < 0 ? "⁻" : "");
    snprintf(text, sizeof text, "%d", abs(exponent));
    for (const char *c = text; *c; c++) out = arena_printf(a, "%s%s", out, raised[*c - '0']);
    return out;
}
