// test_log: what reaches the file, in which form, and how often.
#include "common/base/log.h"

#include <pthread.h>
#include <sys/stat.h>

#include "common/base/strbuf.h"
#include "tests/test.h"

static char path[256];
static StrBuf text;

static void start(void) {
    snprintf(path, sizeof path, "%s/log", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    remove(path);
    CHECK_OK(log_init("tester.0", path, LOG_ERROR));
}

// Ends the log and reads it into text.
static void finish(void) {
    log_fini();
    strbuf_fini(&text);
    FILE *f = fopen(path, "r");
    CHECK(f);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, f));) strbuf_add_bytes(&text, block, n);
    fclose(f);
}

static int lines(const char *part) {
    int cnt = 0;
    for (const char *p = strbuf_text(&text); (p = strstr(p, part)); p++) cnt++;
    return cnt;
}

TEST(lines_have_time_name_level) {
    start();
    log_info("%d models", 3);
    log_warn("late\n");
    log_debug("detail");
    finish();
    CHECK_HAS(strbuf_text(&text), "Z tester.0: 3 models\n");
    CHECK_HAS(strbuf_text(&text), "Z tester.0: warning: late\n");
    CHECK_HAS(strbuf_text(&text), "Z tester.0: debug: detail\n");
    CHECK_EQ(lines("\n"), 3);
    struct stat s;
    CHECK(!stat(path, &s));
    CHECK_EQ(s.st_mode & 0777, 0600);
    strbuf_fini(&text);
}

TEST(repeated_warnings_are_counted) {
    start();
    for (int i = 0; i < 1000; i++) log_warn("no answer");
    for (int i = 0; i < 10; i++) log_info("told each time");
    finish();
    CHECK_EQ(lines("no answer"), 10); // 1, 2, 4, ..., 512
    CHECK_HAS(strbuf_text(&text), "no answer [512 times, tests/common/base/test_log.c:");
    CHECK_EQ(lines("told each time\n"), 10);
    strbuf_fini(&text);
}

TEST(long_lines_are_cut) {
    start();
    char *big = malloc(20000);
    memset(big, 'x', 19999);
    big[19999] = 0;
    log_info("%s", big);
    log_info("next");
    finish();
    free(big);
    CHECK_EQ(lines("\n"), 2);
    CHECK_EQ(strbuf_text(&text)[text.len - 1], '\n');
    strbuf_fini(&text);
}

static void *chatter(void *arg) {
    for (int i = 0; i < 500; i++) log_info("thread %d says a line", *(int *)arg);
    return NULL;
}

TEST(threads_do_not_mix) {
    start();
    pthread_t thread[4];
    int id[4] = {0, 1, 2, 3};
    for (int i = 0; i < 4; i++) pthread_create(&thread[i], NULL, chatter, &id[i]);
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    finish();
    CHECK_EQ(lines(" says a line\n"), 2000);
    CHECK_EQ(lines("Z tester.0: thread "), 2000);
    strbuf_fini(&text);
}

TEST(says_which_file_cannot_be_opened) {
    CHECK_ERR(log_init("x", "/nonexistent/log", LOG_INFO), ERR_IO, "/nonexistent/log");
}
