// args: walks argv once.
#include "launch/tool/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/nearest.h"

static Err read_int(const Arg *a, const char *text) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < 0)
        FAIL(ERR_USAGE, "--%s %s: want a whole number, 0 or more", a->name, text);
    *(int64_t *)a->value = v;
    return ERR_OK;
}

static Err read_bytes(const Arg *a, const char *text) {
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
    if (unit) {
        for (const char *u = units; u <= unit; u++) v *= 1024;
        end++;
        if (*end == 'i') end++;
        if (*end == 'B' || *end == 'b') end++;
    }
    if (end == text || *end || !(v >= 0 && v < 1e18))
        FAIL(ERR_USAGE, "--%s %s: want bytes, as 4096, 512M or 20G", a->name, text);
    *(uint64_t *)a->value = (uint64_t)v;
    return ERR_OK;
}

static Err store(const Arg *a, const char *text) {
    switch (a->kind) {
    case ARG_FLAG: *(bool *)a->value = true; return ERR_OK;
    case ARG_STR: *(const char **)a->value = text; return ERR_OK;
    case ARG_INT: return read_int(a, text);
    case ARG_BYTES: return read_bytes(a, text);
    }
    die("option of kind %d", a->kind);
}

static Err unknown(const Arg *table, const char *name, size_t len) {
    char typed[64];
    const char *names[64];
    int cnt = 0;
    snprintf(typed, sizeof typed, "%.*s", (int)len, name);
    for (const Arg *a = table; a->name; a++) names[cnt++] = a->name;
    const char *near = nearest_word(typed, names, cnt);
    if (near) FAIL(ERR_USAGE, "unknown option --%s, did you mean --%s?", typed, near);
    FAIL(ERR_USAGE, "unknown option --%s; --help lists them", typed);
}

static const Arg *find(const Arg *table, const char *name, size_t len) {
    for (const Arg *a = table; a->name; a++)
        if (strlen(a->name) == len && !strncmp(a->name, name, len)) return a;
    return NULL;
}

static Err read_option(const Arg *table, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const Arg *a = find(table, name, len);
    if (!a) return unknown(table, name, len);
    if (a->kind == ARG_FLAG) {
        if (equals) FAIL(ERR_USAGE, "--%s takes no value", a->name);
        return store(a, NULL);
    }
    if (!equals && *i + 1 == argc) FAIL(ERR_USAGE, "--%s wants %s behind it", a->name, a->takes);
    return store(a, equals ? equals + 1 : argv[++*i]);
}

Err args_parse(const Arg *table, int argc, char **argv, const char **word, int word_max,
               int *word_cnt) {
    *word_cnt = 0;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--", 2)) {
            TRY(read_option(table, argc, argv, &i));
        } else {
            if (*word_cnt == word_max) FAIL(ERR_USAGE, "'%s' is one argument too many", argv[i]);
            word[(*word_cnt)++] = argv[i];
        }
    }
    return ERR_OK;
}

void args_help(const Arg *table, FILE *f) {
    for (const Arg *a = table; a->name; a++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", a->name, a->takes ? " " : "",
                 a->takes ? a->takes : "");
        fprintf(f, "  %-22s %s\n", left, a->about);
    }
}
