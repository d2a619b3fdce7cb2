// test_err: the text and its frames, and exit statuses.
#include "common/base/err.h"

#include "tests/test.h"

static Err origin(int entries) {
    if (entries != 4) FAIL(ERR_FORMAT, "config.json: %d entries, want 4", entries);
    return ERR_OK;
}

static Err middle(int entries) {
    TRY(origin(entries));
    return ERR_OK;
}

static Err with_exit_label(int entries, int *released) {
    Err err = ERR_OK;
    TRY_OUT(middle(entries));
    if (*released) FAIL_OUT(ERR_IO, "released twice");
out:
    *released = 1;
    return err;
}

TEST(success_costs_nothing) {
    int released = 0;
    CHECK_OK(with_exit_label(4, &released));
    CHECK_EQ(released, 1);
}

TEST(text_gathers_frames) {
    int released = 0;
    CHECK_EQ(with_exit_label(3, &released), ERR_FORMAT);
    CHECK_EQ(released, 1);
    CHECK_STR(err_text(), "config.json: 3 entries, want 4");
    CHECK_HAS(err_trace(), "in origin (tests/common/base/test_err.c:");
    CHECK_HAS(err_trace(), "in middle (");
    CHECK_HAS(err_trace(), "in with_exit_label (");
}

TEST(a_new_failure_replaces_the_old) {
    int released = 1;
    CHECK_EQ(with_exit_label(4, &released), ERR_IO);
    CHECK_STR(err_text(), "released twice");
    CHECK(!strstr(err_trace(), "origin"));
}

TEST(an_error_may_quote_the_last_one) {
    origin(3);
    err_fail(ERR_FORMAT, "f", 1, "g", "model: %s", err_text());
    CHECK_STR(err_text(), "model: config.json: 3 entries, want 4");
}

TEST(long_texts_are_cut) {
    for (int i = 0; i < 1000; i++) err_up(ERR_IO, "file.c", i, "a_function_of_some_length");
    char *big = malloc(100000);
    memset(big, 'y', 99999);
    big[99999] = 0;
    err_fail(ERR_IO, "f", 1, "g", "%s", big);
    free(big);
    CHECK(strlen(err_text()) > 1000 && strlen(err_text()) < 100000);
}

TEST(statuses) {
    CHECK_EQ(err_exit_status(ERR_OK), 0);
    CHECK_EQ(err_exit_status(ERR_IO), 1);
    CHECK_EQ(err_exit_status(ERR_USAGE), 2);
    CHECK_STR(err_name(ERR_DEVICE), "device");
    CHECK_STR(err_name(ERR_OK), "ok");
}
