// fuzz_config: a config file and, after a NUL, words of a command line; what loads is written and loads again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/config.h"

enum { WORDS_MAX = 8 };

static char *written(const Config *cfg) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) abort();
    config_write(cfg, f, true);
    fclose(f);
    return text;
}

static void check_round_trip(const Config *cfg) {
    Config *again;
    char *one = written(cfg);
    if (config_load_text(&again, "again", "/", one, strlen(one), 0, NULL)) abort();
    char *two = written(again);
    if (strcmp(one, two) || config_hash(cfg) != config_hash(again)) abort();
    free(one);
    free(two);
    config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    char *copy = malloc(len + 1), *word[WORDS_MAX];
    Config *cfg;
    int cnt = 0;
    if (!copy) return 0;
    memcpy(copy, bytes, len);
    copy[len] = 0;
    size_t text = strlen(copy);
    for (char *at = copy + text; at < copy + len && cnt < WORDS_MAX; at += strlen(at))
        word[cnt++] = ++at <= copy + len ? at : copy + len;
    if (!config_load_text(&cfg, "fuzz.yaml", "/tmp", copy, text, cnt, (const char *const *)word)) {
        check_round_trip(cfg);
        config_free(cfg);
    }
    free(copy);
    return 0;
}
