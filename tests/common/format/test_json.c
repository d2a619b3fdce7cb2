// json: typed getters, messages with file and key, and keys that nobody read.
#include <stdio.h>

#include "common/format/json.h"
#include "tests/test.h"

static Err open_text(Json **j, const char *text) {
    return json_open_text(j, "c.json", text, strlen(text));
}

TEST(getters_read_their_type) {
    Json *j, *child, *again, *none;
    CHECK_OK(open_text(
        &j, "{\"i\": 5368709120, \"n\": 7, \"f\": 1e-3, \"b\": true, \"s\": \"silu\", \"z\": null,"
            " \"a\": [1, 2, 3], \"fs\": [1, 2.5], \"ss\": [\"x\", \"y\"], \"o\": {\"k\": 4}}"));
    int64_t i = 0, is[4];
    int n = 0, cnt = 0;
    double f = 0, fs[2];
    bool b = false;
    const char *s = NULL, *ss[2];
    CHECK_OK(json_want_i64(j, "i", &i));
    CHECK_EQ(i, 5368709120);
    CHECK_OK(json_want_int(j, "n", &n));
    CHECK_EQ(n, 7);
    CHECK_OK(json_want_f64(j, "f", &f));
    CHECK_NEAR(f, 1e-3, 0);
    CHECK_OK(json_want_f64(j, "n", &f));
    CHECK_NEAR(f, 7, 0);
    CHECK_OK(json_want_bool(j, "b", &b));
    CHECK(b);
    CHECK_OK(json_want_str(j, "s", &s));
    CHECK_STR(s, "silu");
    CHECK_OK(json_want_i64s(j, "a", is, 4, &cnt));
    CHECK_EQ(cnt, 3);
    CHECK_EQ(is[2], 3);
    CHECK_OK(json_want_f64s(j, "fs", fs, 2, &cnt));
    CHECK_NEAR(fs[1], 2.5, 0);
    CHECK_OK(json_want_strs(j, "ss", ss, 2, &cnt));
    CHECK_STR(ss[1], "y");
    CHECK_OK(json_want_object(j, "o", &child));
    CHECK_OK(json_get_object(j, "o", &again));
    CHECK(child == again);
    CHECK_OK(json_get_object(j, "absent", &none));
    CHECK(!none);
    CHECK_STR(json_label(child), "c.json: o");
    CHECK_OK(json_get_int(j, "z", &n)); // null and absent leave the default
    CHECK_OK(json_get_int(j, "absent", &n));
    CHECK_EQ(n, 7);
    CHECK_EQ(json_kind(j, "z"), JSON_KIND_NULL);
    CHECK_EQ(json_kind(j, "q"), JSON_KIND_ABSENT);
    CHECK_EQ(json_count(j), 10);
    CHECK_ERR(json_finish(j, NULL), ERR_FORMAT, "c.json: o: key 'k' = 4 is not supported");
    CHECK_OK(json_want_int(child, "k", &n));
    CHECK_OK(json_finish(j, NULL));
    json_close(j);
}

TEST(a_wrong_value_is_named) {
    Json *j, *o;
    int64_t i, is[2];
    int n, cnt;
    double f;
    bool b;
    const char *s, *ss[2];
    CHECK_OK(open_text(
        &j,
        "{\"i\": 1.0, \"big\": 3000000000, \"s\": 3, \"z\": null, \"a\": [1, \"x\"], \"l\": [1,2,3]}"));
    CHECK_ERR(json_want_i64(j, "none", &i), ERR_FORMAT, "c.json: key 'none' is missing");
    CHECK_ERR(json_want_i64(j, "z", &i), ERR_FORMAT, "c.json: key 'z' is null, want a value");
    CHECK_ERR(json_want_i64(j, "i", &i), ERR_FORMAT, "c.json: key 'i' is 1.0, want an integer");
    CHECK_ERR(json_get_int(j, "big", &n), ERR_FORMAT, "3000000000, want at most");
    CHECK_ERR(json_want_str(j, "s", &s), ERR_FORMAT, "key 's' is 3, want a string");
    CHECK_ERR(json_want_bool(j, "s", &b), ERR_FORMAT, "true or false");
    CHECK_ERR(json_want_f64(j, "a", &f), ERR_FORMAT, "a number");
    CHECK_ERR(json_want_object(j, "s", &o), ERR_FORMAT, "an object");
    CHECK_ERR(json_want_i64s(j, "a", is, 2, &cnt), ERR_FORMAT, "an array of integers");
    CHECK_ERR(json_want_strs(j, "a", ss, 2, &cnt), ERR_FORMAT, "an array of strings");
    CHECK_ERR(json_want_i64s(j, "s", is, 2, &cnt), ERR_FORMAT, "an array of integers");
    CHECK_ERR(json_want_i64s(j, "l", is, 2, &cnt), ERR_FORMAT, "has 3 entries, want at most 2");
    json_close(j);
}

TEST(malformed_text_gives_file_and_line) {
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "c.json, line 1"},
        {"{\n\"a\": 1,\n}", "c.json, line 3"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"[1]", "holds an array, want an object"},
        {"{} x", "line 1"},
        {"{\"a\": 99999999999999999999}", "too big integer"},
        {"{\"a\": NaN}", "line 1"},
        {"{\"a\": \"\\u0000\"}", "line 1"},
        {"{\"a\": \"\xff\"}", "line 1"},
        {"{\"a\": 1", "line 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Json *j;
        CHECK_ERR(open_text(&j, rows[i].text), ERR_FORMAT, rows[i].says);
        CHECK(!j);
    }
    Json *j;
    CHECK_ERR(json_open(&j, "/nonexistent/c.json"), ERR_IO, "/nonexistent/c.json: No such file");
    CHECK_ERR(json_open(&j, "/dev/null"), ERR_IO, "not a regular file");
}

TEST(too_many_values_are_refused_before_parsing) {
    size_t n = JSON_VALUES_MAX + 16;
    char *text = malloc(n + 16);
    CHECK(text);
    memcpy(text, "{\"a\":[1", 7);
    memset(text + 7, ',', n);
    Json *j;
    CHECK_ERR(json_open_text(&j, "c.json", text, n + 7), ERR_FORMAT, "want at most 4194304");
    free(text);
}

TEST(unread_keys_are_an_error) {
    Json *j;
    CHECK_OK(open_text(
        &j,
        "{\"_v\": 1, \"sample_size\": 9, \"off\": null, \"foo\": 3, \"b\\u0007\": [1], \"c\": {}}"));
    CHECK_ERR(json_finish(j, (const char *const[]){"sample_size", NULL}), ERR_FORMAT,
              "c.json: key 'foo' = 3 is not supported; nor are 'b?', 'c'");
    CHECK_OK(json_finish(j, (const char *const[]){"sample_size", "foo", "b\a", "c", NULL}));
    json_close(j);
}

TEST(settings_with_one_value) {
    Json *j;
    CHECK_OK(
        open_text(&j, "{\"act\": \"silu\", \"n\": 4, \"eps\": 1, \"flag\": true, \"z\": null}"));
    CHECK_OK(json_only_str(j, "act", "silu"));
    CHECK_OK(json_only_str(j, "z", "silu"));
    CHECK_OK(json_only_str(j, "absent", "silu"));
    CHECK_OK(json_only_i64(j, "n", 4));
    CHECK_OK(json_only_f64(j, "eps", 1.0));
    CHECK_OK(json_only_bool(j, "flag", true));
    CHECK_OK(json_finish(j, NULL));
    CHECK_ERR(json_only_str(j, "act", "gelu"), ERR_FORMAT,
              "key 'act' = \"silu\" is not supported; want \"gelu\"");
    CHECK_ERR(json_only_bool(j, "flag", false), ERR_FORMAT, "want false");
    CHECK_ERR(json_only_i64(j, "act", 1), ERR_FORMAT, "want 1");
    json_close(j);
}

TEST(keys_come_in_file_order_and_text_is_quoted) {
    Json *j;
    Arena a = {0};
    char all[16] = "";
    const char *key;
    CHECK_OK(open_text(&j, "{\"z\": 1, \"a\": 2, \"m\": 3}"));
    for (void *it = NULL; (key = json_next(j, &it));) strcat(all, key);
    CHECK_STR(all, "zam");
    json_close(j);
    CHECK_STR(json_quote(&a, "a\"b\\\n\xc3\xa9"), "\"a\\\"b\\\\\\n\xc3\xa9\"");
    CHECK(!json_quote(&a, "\xff"));
    arena_free(&a);
}
