// html: what comes from outside stays text; numbers for people; base64.
#include "common/format/html.h"

#include "tests/test.h"

static StrBuf b;

static const char *text_of(const char *s) {
    strbuf_clear(&b);
    html_text(&b, s);
    return strbuf_text(&b);
}

TEST(markup_becomes_text) {
    CHECK_STR(text_of("<a href=\"x\" id='y'>&amp;</a>"),
              "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;amp;&lt;/a&gt;");
    CHECK_STR(text_of("pløs 日本 𝄞\tx\ny"), "pløs 日本 𝄞\tx\ny");
    CHECK_STR(text_of(""), "");
}

#define BAD "\xEF\xBF\xBD"

TEST(what_no_page_may_hold_is_replaced) {
    CHECK_STR(text_of("a\x01"
                      "b\x1B[31m\x7F"),
              "a" BAD "b" BAD "[31m" BAD);
    CHECK_STR(text_of("\xFF\xC3"), BAD BAD);                          // no UTF-8; cut short
    CHECK_STR(text_of("\xC0\xBC"), BAD BAD);                          // '<' in too many bytes
    CHECK_STR(text_of("\xE0\x80\xBC"), BAD BAD BAD);                  // the same in three
    CHECK_STR(text_of("\xED\xA0\x80"), BAD BAD BAD);                  // half a surrogate pair
    CHECK_STR(text_of("\xEF\xBF\xBF!"), BAD BAD BAD "!");             // not a character
    CHECK_STR(text_of("\xC2\x80"), BAD BAD);                          // a control character
    CHECK_STR(text_of("\xF5\x80\x80\x80"), BAD BAD BAD BAD);          // past the last one
    CHECK_STR(text_of("\xE2\x82<script>"), BAD BAD "&lt;script&gt;"); // a cut one eats nothing
}

TEST(arguments_are_escaped_and_formats_are_not) {
    strbuf_clear(&b);
    html_printf(&b, "<td title=\"%s\">%d|%5.2f|%lld|%zu|%x|%g%%</td>", "\"><script>", -7, 3.14159,
                1234567890123LL, (size_t)9, 255u, 0.5);
    CHECK_STR(strbuf_text(&b), "<td title=\"&quot;&gt;&lt;script&gt;\">-7| "
                               "3.14|1234567890123|9|ff|0.5%</td>");
    strbuf_clear(&b);
    html_printf(&b, "%lu %ld %u %02d", 18446744073709551615ul, -5l, 4294967295u, 7);
    CHECK_STR(strbuf_text(&b), "18446744073709551615 -5 4294967295 07");
}

TEST(base64) {
    const struct {
        const char *plain, *coded;
    } vector[] = {{"", ""},
                  {"f", "Zg=="},
                  {"fo", "Zm8="},
                  {"foo", "Zm9v"},
                  {"foob", "Zm9vYg=="},
                  {"fooba", "Zm9vYmE="},
                  {"foobar", "Zm9vYmFy"}}; // RFC 4648
    for (size_t i = 0; i < sizeof vector / sizeof *vector; i++) {
        strbuf_clear(&b);
        strbuf_add(&b, "x");
        html_base64(&b, vector[i].plain, strlen(vector[i].plain));
        CHECK_STR(strbuf_text(&b) + 1, vector[i].coded);
    }
    strbuf_clear(&b);
    html_base64(&b, "\xFB\xFF\xFE", 3);
    CHECK_STR(strbuf_text(&b), "+//+");
}

TEST(numbers_for_people) {
    Arena a = {0};
    CHECK_STR(html_real(&a, -0.35526, 3), "−0.355");
    CHECK_STR(html_real(&a, 0, 3), "0");
    CHECK_STR(html_real(&a, 0.99996, 3), "1.00");
    CHECK_STR(html_real(&a, 12345.6, 3), "12346");
    CHECK_STR(html_real(&a, 1.234e-7, 2), "1.2 × 10⁻⁷");
    CHECK_STR(html_real(&a, -2e12, 1), "−2 × 10¹²");
    CHECK_STR(html_real(&a, 5, 1), "5");
    CHECK_STR(html_real(&a, NAN, 3), "–");
    CHECK_STR(html_real(&a, -INFINITY, 3), "–");
    arena_free(&a);
}
