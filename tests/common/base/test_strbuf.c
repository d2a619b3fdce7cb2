// test_strbuf: growth, zeros inside, handing over.
#include "common/base/strbuf.h"

#include "tests/test.h"

TEST(grows) {
    StrBuf b = {0};
    CHECK_STR(strbuf_text(&b), "");
    strbuf_add(&b, "step");
    strbuf_add_char(&b, ' ');
    strbuf_printf(&b, "%d of %s", 3, "25");
    CHECK_STR(strbuf_text(&b), "step 3 of 25");
    for (int i = 0; i < 1000; i++) strbuf_printf(&b, ",%03d", i);
    CHECK_EQ(b.len, 12 + 4000);
    CHECK_STR(strbuf_text(&b) + b.len - 8, ",998,999");
    strbuf_clear(&b);
    CHECK_STR(strbuf_text(&b), "");
    strbuf_fini(&b);
}

TEST(holds_zeros) {
    StrBuf b = {0};
    strbuf_add_bytes(&b, "a\0b", 3);
    strbuf_add_bytes(&b, NULL, 0);
    CHECK_EQ(b.len, 3);
    CHECK(!memcmp(b.data, "a\0b", 4));
    strbuf_fini(&b);
}

TEST(reserves_and_hands_over) {
    StrBuf b = {0};
    memcpy(strbuf_reserve(&b, 5), "hello", 5);
    b.len += 5;
    char *text = strbuf_take(&b);
    CHECK_STR(text, "hello");
    CHECK_EQ(b.len, 0);
    free(text);
    text = strbuf_take(&b);
    CHECK_STR(text, "");
    free(text);
}
