// html: text that may hold anything becomes part of a page, and stays text.
//
// Markup stands in the format, what comes from outside in the arguments: every %s is escaped, so that forgetting
// it is not possible. What it makes is well-formed XML, too, if the format is.
//
//     StrBuf page = {0};
//     html_printf(&page, "<td title=\"%s\">%s</td><td>%d</td>", file, name, cnt);
//     html_base64(&page, bytes, len);                     // inside src="data:video/mp4;base64,..."
#ifndef COMMON_FORMAT_HTML_H
#define COMMON_FORMAT_HTML_H

#include <stdarg.h>

#include "common/base/arena.h"
#include "common/base/strbuf.h"

// Conversions: %s, escaped; %d %i %u %x with l, ll, z or none; %f %g %e; flags, width and precision as digits; %%.
// Anything else dies.
void html_printf(StrBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void html_vprintf(StrBuf *b, const char *fmt, va_list args);

// s with < > & " ' as entities. Bytes that are not UTF-8, and those of characters that XML forbids, become U+FFFD each.
void html_text(StrBuf *b, const char *s);

void html_base64(StrBuf *b, const void *bytes, size_t len);

// x for people, rounded to `digits` significant ones: "-0.355" with a true minus sign, "1.2 x 10^-5" in Unicode's
// superscripts; a dash for what is not a number.
const char *html_real(Arena *a, double x, int digits);

#endif
