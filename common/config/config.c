// config: the table that config.def makes, a YAML reader that flattens into "a.b.c = value (line)", and
// the setter that both the file and the command line go through.
#include "common/config/config.h"

#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef enum RowType {
    ROW_GROUP,
    ROW_INT,
    ROW_REAL,
    ROW_BOOL,
    ROW_STR,
    ROW_ENUM,
    ROW_STRS,
    ROW_INTS
} RowType;

typedef struct Row {
    RowType type;
    const char *key; // ROW_GROUP: the group
    const char *doc;
    size_t offset;       // of the member in Config or ConfigReward
    int64_t int_default; // INT, BOOL, ENUM
    double real_default;
    const char *str_default;
    double lo, hi;       // INT, REAL, INTS
    const char *choices; // ENUM: "a|b"; STR: what it may be, or "path"; STRS: NULL or "path"
} Row;

#define GROUP(name, text) {.type = ROW_GROUP, .key = #name, .doc = text},
#define INT(m, k, d, l, h, text) \
    {ROW_INT, k, text, offsetof(STRUCT, m), .int_default = d, .lo = (double)(l), .hi = (double)(h)},
#define REAL(m, k, d, l, h, text) \
    {ROW_REAL, k, text, offsetof(STRUCT, m), .real_default = d, .lo = l, .hi = h},
#define BOOL(m, k, d, l, h, text) {ROW_BOOL, k, text, offsetof(STRUCT, m), .int_default = d},
#define STR(m, k, d, c, h, text) \
    {ROW_STR, k, text, offsetof(STRUCT, m), .str_default = d, .choices = c},
#define ENUM(m, k, d, c, h, text) \
    {ROW_ENUM, k, text, offsetof(STRUCT, m), .int_default = d, .choices = c},
#define STRS(m, k, d, c, h, text) {ROW_STRS, k, text, offsetof(STRUCT, m), .choices = c},
#define INTS(m, k, d, l, h, text) {ROW_INTS, k, text, offsetof(STRUCT, m), .lo = l, .hi = h},

#define STRUCT Config
static const Row rows[] = {
#include "common/config/config.def"
};
#undef STRUCT
#define STRUCT ConfigReward
#define CONFIG_REWARD_ROWS
static const Row reward_rows[] = {
#include "common/config/config.def"
};
enum {
    ROW_CNT = sizeof rows / sizeof *rows,
    REWARD_ROW_CNT = sizeof reward_rows / sizeof *reward_rows
};

// One value from the file or the command line.
typedef struct Entry {
    const char *key, *value;
    bool is_list; // values are item[0..cnt)
    int cnt;
    const char **item;
    int line; // 0: command line
} Entry;

typedef struct Source {
    Config *cfg;
    const char *label, *dir, *cwd; // absolute folders
    Entry *entry;
    int entry_cnt, entry_cap;
} Source;

// "runs/a.yaml:14" or "command line"
static const char *where(Source *src, int line) {
    return line ? arena_printf(&src->cfg->arena, "%s:%d", src->label, line) : "command line";
}

// ---- Finding keys ----

// Levenshtein distance; keys are short.
static int distance(const char *a, const char *b) {
    int row[128], n = (int)strlen(b);
    if (n > 126) n = 126;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; *a; a++, i++) {
        int diag = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int up = row[j], best = diag + (*a != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diag = up;
            row[j] = best;
        }
    }
    return row[n];
}

static const Row *find_row(const Row *table, int cnt, const char *key) {
    for (int i = 0; i < cnt; i++)
        if (table[i].type != ROW_GROUP && !strcmp(table[i].key, key)) return &table[i];
    return NULL;
}

static const char *nearest(const Row *table, int cnt, const char *key) {
    const char *best = "";
    int best_distance = 1000;
    for (int i = 0; i < cnt; i++) {
        int d = table[i].type == ROW_GROUP ? 1000 : distance(key, table[i].key);
        if (d < best_distance) best_distance = d, best = table[i].key;
    }
    return best;
}

// The row of a key and the struct it lies in. "reward.2.weight" grows cfg->reward_cnt to 3.
static Err locate(Source *src, const Entry *e, const Row **row, void **object) {
    Config *cfg = src->cfg;
    if (!strncmp(e->key, "reward.", 7)) {
        char *rest;
        long i = strtol(e->key + 7, &rest, 10);
        if (rest == e->key + 7 || *rest != '.')
            FAIL(ERR_USAGE,
                 "%s: reward is a list of mappings; on the command line: reward.0.weight=1",
                 where(src, e->line));
        if (i < 0 || i >= CONFIG_REWARDS_MAX || i > cfg->reward_cnt)
            FAIL(ERR_USAGE, "%s: %s: there are %d rewards, at most %d fit", where(src, e->line),
                 e->key, cfg->reward_cnt, CONFIG_REWARDS_MAX);
        if (i == cfg->reward_cnt) cfg->reward_cnt++;
        *row = find_row(reward_rows, REWARD_ROW_CNT, rest + 1);
        *object = &cfg->reward[i];
        if (*row) return ERR_OK;
        FAIL(ERR_USAGE, "%s: unknown key %s, did you mean reward.%ld.%s?", where(src, e->line),
             e->key, i, nearest(reward_rows, REWARD_ROW_CNT, rest + 1));
    }
    *row = find_row(rows, ROW_CNT, e->key);
    *object = cfg;
    if (*row) return ERR_OK;
    FAIL(ERR_USAGE, "%s: unknown key %s, did you mean %s?", where(src, e->line), e->key,
         nearest(rows, ROW_CNT, e->key));
}

// ---- Setting values ----

static Err parse_int(Source *src, const Entry *e, const Row *r, const char *text, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        FAIL(ERR_USAGE, "%s: %s is \"%s\", want a whole number", where(src, e->line), e->key, text);
    if ((double)v < r->lo || (double)v > r->hi)
        FAIL(ERR_USAGE, "%s: %s is %lld, want %.15g to %.15g", where(src, e->line), e->key, v,
             r->lo, r->hi);
    *out = v;
    return ERR_OK;
}

static Err parse_real(Source *src, const Entry *e, const Row *r, const char *text, double *out) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v))
        FAIL(ERR_USAGE, "%s: %s is \"%s\", want a number", where(src, e->line), e->key, text);
    if (v < r->lo || v > r->hi)
        FAIL(ERR_USAGE, "%s: %s is %g, want %g to %g", where(src, e->line), e->key, v, r->lo,
             r->hi);
    *out = v;
    return ERR_OK;
}

static Err parse_bool(Source *src, const Entry *e, const char *text, bool *out) {
    bool yes = !strcmp(text, "true") || !strcmp(text, "yes") || !strcmp(text, "on");
    if (!yes && strcmp(text, "false") && strcmp(text, "no") && strcmp(text, "off"))
        FAIL(ERR_USAGE, "%s: %s is \"%s\", want true or false", where(src, e->line), e->key, text);
    *out = yes;
    return ERR_OK;
}

static Err parse_enum(Source *src, const Entry *e, const Row *r, const char *text, int *out) {
    int i = 0;
    for (const char *c = r->choices; c; i++) {
        const char *bar = strchr(c, '|');
        size_t n = bar ? (size_t)(bar - c) : strlen(c);
        if (strlen(text) == n && !strncmp(c, text, n)) return *out = i, ERR_OK;
        c = bar ? bar + 1 : NULL;
    }
    FAIL(ERR_USAGE, "%s: %s is \"%s\", want %s", where(src, e->line), e->key, text, r->choices);
}

// The code point at *s, which moves behind it; -1 if the bytes are not UTF-8.
static long utf8_next(const char **s) {
    static const long least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)*s;
    int n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    long code = n == 1 ? *p : *p & (0x7f >> n);
    for (int i = 1; i < n; i++) {
        if (p[i] >> 6 != 2) return -1;
        code = code << 6 | (p[i] & 0x3f);
    }
    *s += n;
    bool bad = !n || code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000);
    return bad ? -1 : code;
}

// YAML is Unicode; a file's bytes were checked by its parser, those of the command line are here.
static Err check_text(Source *src, const Entry *e, const char *text) {
    while (*text)
        if (utf8_next(&text) < 0)
            FAIL(ERR_USAGE, "%s: %s is not UTF-8", where(src, e->line), e->key);
    return ERR_OK;
}

// Paths become absolute: those of a file from its folder, those of the command line from where we are.
static const char *text_value(Source *src, const Entry *e, bool is_path, const char *text) {
    Arena *a = &src->cfg->arena;
    if (!is_path || !*text || *text == '/') return arena_strdup(a, text);
    return arena_printf(a, "%s/%s", e->line ? src->dir : src->cwd, text);
}

static bool names_files(const Row *r) { return r->choices && !strcmp(r->choices, "path"); }

static Err set_value(Source *src, const Entry *e) {
    const Row *r;
    void *object;
    TRY(locate(src, e, &r, &object));
    Arena *a = &src->cfg->arena;
    void *member = (char *)object + r->offset;
    bool list = r->type == ROW_STRS || r->type == ROW_INTS;
    if (e->is_list && !list)
        FAIL(ERR_USAGE, "%s: %s takes one value, not a list", where(src, e->line), e->key);
    int cnt = e->is_list ? e->cnt : *e->value ? 1 : 0;
    const char *const *item = e->is_list ? e->item : &e->value;
    switch (r->type) {
    case ROW_INT: return parse_int(src, e, r, e->value, member);
    case ROW_REAL: return parse_real(src, e, r, e->value, member);
    case ROW_BOOL: return parse_bool(src, e, e->value, member);
    case ROW_ENUM: return parse_enum(src, e, r, e->value, member);
    case ROW_STR:
        *(const char **)member = text_value(src, e, names_files(r), e->value);
        return check_text(src, e, e->value);
    case ROW_STRS: {
        ConfigStrs *s = member;
        *s = (ConfigStrs){cnt, arena_array(a, const char *, cnt + 1)};
        for (int i = 0; i < cnt; i++) {
            TRY(check_text(src, e, item[i]));
            s->item[i] = text_value(src, e, names_files(r), item[i]);
        }
        return ERR_OK;
    }
    case ROW_INTS: {
        ConfigInts *s = member;
        *s = (ConfigInts){cnt, arena_array(a, int64_t, cnt + 1)};
        for (int i = 0; i < cnt; i++) TRY(parse_int(src, e, r, item[i], &s->item[i]));
        return ERR_OK;
    }
    case ROW_GROUP: break;
    }
    die("config: row %s has no setter", r->key);
}

static void set_defaults(const Row *table, int cnt, void *object) {
    for (int i = 0; i < cnt; i++) {
        void *member = (char *)object + table[i].offset;
        switch (table[i].type) {
        case ROW_INT: *(int64_t *)member = table[i].int_default; break;
        case ROW_REAL: *(double *)member = table[i].real_default; break;
        case ROW_BOOL: *(bool *)member = table[i].int_default; break;
        case ROW_ENUM: *(int *)member = (int)table[i].int_default; break;
        case ROW_STR: *(const char **)member = table[i].str_default; break;
        default: break; // lists are empty
        }
    }
}

// ---- Reading YAML ----

static Entry *add_entry(Source *src, const char *key, int line) {
    if (src->entry_cnt == src->entry_cap) {
        src->entry_cap = src->entry_cap ? 2 * src->entry_cap : 64;
        src->entry = realloc(src->entry, sizeof *src->entry * (size_t)src->entry_cap);
        die_unless(src->entry, "config: out of memory");
    }
    Entry *e = &src->entry[src->entry_cnt++];
    *e = (Entry){.key = key, .value = "", .line = line};
    return e;
}

static Err next_event(Source *src, yaml_parser_t *parser, yaml_event_t *event) {
    if (!yaml_parser_parse(parser, event))
        FAIL(ERR_USAGE, "%s:%zu: not YAML: %s", src->label, parser->problem_mark.line + 1,
             parser->problem);
    int line = (int)event->start_mark.line + 1;
    if (event->type == YAML_ALIAS_EVENT) {
        yaml_event_delete(event);
        FAIL(ERR_USAGE, "%s:%d: aliases (*name) are not supported", src->label, line);
    }
    return ERR_OK;
}

static const char *scalar(Source *src, const yaml_event_t *event) {
    return arena_printf(&src->cfg->arena, "%.*s", (int)event->data.scalar.length,
                        (const char *)event->data.scalar.value);
}

static Err read_mapping(Source *src, yaml_parser_t *parser, const char *prefix, int depth);

// The items of a sequence under `key`: scalars, or (reward only) mappings.
static Err read_sequence(Source *src, yaml_parser_t *parser, const char *key, int line, int depth) {
    Arena *a = &src->cfg->arena;
    int cnt = 0, maps = 0;
    const char **item = arena_array(a, const char *, CONFIG_LIST_MAX);
    for (;;) {
        yaml_event_t event;
        TRY(next_event(src, parser, &event));
        yaml_event_type_t type = event.type;
        int at = (int)event.start_mark.line + 1;
        if (type == YAML_SCALAR_EVENT && cnt < CONFIG_LIST_MAX) item[cnt++] = scalar(src, &event);
        yaml_event_delete(&event);
        if (type == YAML_SEQUENCE_END_EVENT) break;
        if (type == YAML_MAPPING_START_EVENT && !cnt) {
            TRY(read_mapping(src, parser, arena_printf(a, "%s.%d", key, maps++), depth + 1));
        } else if (type != YAML_SCALAR_EVENT || maps || cnt == CONFIG_LIST_MAX) {
            FAIL(ERR_USAGE, "%s:%d: %s: want up to %d plain values, or a list of mappings",
                 src->label, at, key, CONFIG_LIST_MAX - 1);
        }
    }
    if (maps) return ERR_OK;
    Entry *e = add_entry(src, key, line);
    e->is_list = true;
    e->cnt = cnt;
    e->item = item;
    return ERR_OK;
}

static Err seen_before(Source *src, const char *key, int line) {
    for (int i = 0; i < src->entry_cnt; i++)
        if (!strcmp(src->entry[i].key, key))
            FAIL(ERR_USAGE, "%s:%d: %s is given twice, first on line %d", src->label, line, key,
                 src->entry[i].line);
    return ERR_OK;
}

static Err read_mapping(Source *src, yaml_parser_t *parser, const char *prefix, int depth) {
    for (;;) {
        yaml_event_t event;
        TRY(next_event(src, parser, &event));
        int line = (int)event.start_mark.line + 1;
        yaml_event_type_t type = event.type;
        const char *name = type == YAML_SCALAR_EVENT ? scalar(src, &event) : NULL;
        yaml_event_delete(&event);
        if (type == YAML_MAPPING_END_EVENT) return ERR_OK;
        if (!name || depth > 6) FAIL(ERR_USAGE, "%s:%d: want a key", src->label, line);
        const char *key = *prefix ? arena_printf(&src->cfg->arena, "%s.%s", prefix, name) : name;
        TRY(seen_before(src, key, line));
        TRY(next_event(src, parser, &event));
        type = event.type;
        const char *value = type == YAML_SCALAR_EVENT ? scalar(src, &event) : NULL;
        yaml_event_delete(&event);
        if (type == YAML_MAPPING_START_EVENT)
            TRY(read_mapping(src, parser, key, depth + 1));
        else if (type == YAML_SEQUENCE_START_EVENT)
            TRY(read_sequence(src, parser, key, line, depth));
        else if (value)
            add_entry(src, key, line)->value = value;
    }
}

static Err read_document(Source *src, yaml_parser_t *parser) {
    for (;;) {
        yaml_event_t event;
        TRY(next_event(src, parser, &event));
        yaml_event_type_t type = event.type;
        int line = (int)event.start_mark.line + 1;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) return ERR_OK;
        if (type == YAML_MAPPING_START_EVENT)
            TRY(read_mapping(src, parser, "", 0));
        else if (type == YAML_SCALAR_EVENT || type == YAML_SEQUENCE_START_EVENT)
            FAIL(ERR_USAGE, "%s:%d: want `key: value` lines", src->label, line);
    }
}

// ---- The command line ----

// "[a, b]" is a list as YAML writes it, of plain values.
static Err read_list(Source *src, yaml_parser_t *parser, const char *key) {
    yaml_event_type_t type;
    do {
        yaml_event_t event;
        TRY(next_event(src, parser, &event));
        type = event.type;
        yaml_event_delete(&event);
    } while (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_START_EVENT);
    int before = src->entry_cnt;
    if (type == YAML_SEQUENCE_START_EVENT) TRY(read_sequence(src, parser, key, 0, 0));
    if (src->entry_cnt != before + 1 || src->entry[before].key != key) // mappings add others
        FAIL(ERR_USAGE, "%s: want plain values, [a, b]", src->label);
    do {
        yaml_event_t event;
        TRY(next_event(src, parser, &event));
        type = event.type;
        yaml_event_delete(&event);
    } while (type == YAML_DOCUMENT_END_EVENT);
    if (type != YAML_STREAM_END_EVENT) FAIL(ERR_USAGE, "%s: want one list", src->label);
    return ERR_OK;
}

static Err read_list_word(Source *src, const char *key, const char *text) {
    yaml_parser_t parser;
    die_unless(yaml_parser_initialize(&parser), "config: out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    const char *file = src->label;
    src->label = arena_printf(&src->cfg->arena, "command line: %s", key);
    Err err = read_list(src, &parser, key);
    src->label = file;
    yaml_parser_delete(&parser);
    return err;
}

static Err read_words(Source *src, int set_cnt, const char *const *set) {
    for (int i = 0; i < set_cnt; i++) {
        const char *eq = strchr(set[i], '=');
        if (!eq) FAIL(ERR_USAGE, "command line: \"%s\": want key=value", set[i]);
        const char *key = arena_printf(&src->cfg->arena, "%.*s", (int)(eq - set[i]), set[i]);
        const char *value = arena_strdup(&src->cfg->arena, eq + 1);
        if (*value == '[' && value[strlen(value) - 1] == ']')
            TRY(read_list_word(src, key, value));
        else
            add_entry(src, key, 0)->value = value;
    }
    return ERR_OK;
}

// ---- Public ----

static Err load(Source *src, const char *text, size_t len, int set_cnt, const char *const *set) {
    yaml_parser_t parser;
    die_unless(yaml_parser_initialize(&parser), "config: out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    Err err = read_document(src, &parser);
    yaml_parser_delete(&parser);
    if (err) return err;
    TRY(read_words(src, set_cnt, set));
    for (int i = 0; i < src->entry_cnt; i++) TRY(set_value(src, &src->entry[i]));
    return config_check(src->cfg);
}

Err config_load_text(Config **out, const char *label, const char *dir, const char *text, size_t len,
                     int set_cnt, const char *const *set) {
    Config *cfg = calloc(1, sizeof *cfg);
    die_unless(cfg, "config: out of memory");
    set_defaults(rows, ROW_CNT, cfg);
    for (int i = 0; i < CONFIG_REWARDS_MAX; i++)
        set_defaults(reward_rows, REWARD_ROW_CNT, &cfg->reward[i]);
    cfg->file = arena_strdup(&cfg->arena, label);
    char *cwd = realpath(".", NULL), *folder = realpath(dir, NULL);
    Source src = {.cfg = cfg, .label = label, .dir = folder ? folder : dir, .cwd = cwd ? cwd : "."};
    Err err = load(&src, text, len, set_cnt, set);
    free(cwd);
    free(folder);
    free(src.entry);
    if (err) {
        config_free(cfg);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = cfg;
    return ERR_OK;
}

Err config_load(Config **out, const char *path, int set_cnt, const char *const *set) {
    FILE *f = fopen(path, "rb");
    if (!f) FAIL(ERR_USAGE, "%s: %s", path, strerror(errno));
    static const size_t most = 1 << 20;
    char *text = malloc(most + 1), *copy = strdup(path);
    die_unless(text && copy, "config: out of memory");
    size_t len = fread(text, 1, most + 1, f);
    bool bad = ferror(f);
    fclose(f);
    Err err;
    if (bad || len > most)
        err = err_fail(ERR_USAGE, __FILE__, __LINE__, __func__, "%s: %s", path,
                       bad ? "cannot be read" : "larger than 1 MiB");
    else
        err = config_load_text(out, path, dirname(copy), text, len, set_cnt, set);
    free(text);
    free(copy);
    return err;
}

void config_free(Config *cfg) {
    if (!cfg) return;
    arena_free(&cfg->arena);
    free(cfg);
}

const char *config_reward_name(const ConfigReward *r) {
    static const char *const name[] = {[CONFIG_REWARD_VIDEOMAE] = "videomae",
                                       [CONFIG_REWARD_VJEPA] = "vjepa",
                                       [CONFIG_REWARD_AESTHETIC] = "aesthetic",
                                       [CONFIG_REWARD_FIRST_FRAME] = "first_frame"};
    return name[r->model];
}

const char *config_run_dir(Config *cfg) {
    if (*cfg->run) return cfg->run;
    const char *slash = strrchr(cfg->file, '/'), *name = slash ? slash + 1 : cfg->file;
    const char *dot = strrchr(name, '.');
    return arena_printf(&cfg->arena, "runs/%.*s", (int)(dot ? dot - name : (long)strlen(name)),
                        name);
}

// ---- Writing ----

// Whether YAML takes the character as it is. U+0085, U+2028 and U+2029 end lines there.
static bool is_plain(long code) {
    return (code >= 0x20 && code < 0x7f) || code >= 0x10000 ||
           (code >= 0xa0 && code < 0xfffe && code != 0xfeff && code >> 1 != 0x2028 >> 1);
}

static void write_str(FILE *out, const char *s) {
    fputc('"', out);
    while (*s) {
        const char *at = s;
        long code = utf8_next(&s);
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (char)code);
        else if (is_plain(code))
            fwrite(at, 1, (size_t)(s - at), out);
        else
            fprintf(out, "\\U%08lx", (unsigned long)code);
    }
    fputc('"', out);
}

static void write_value(FILE *out, const Row *r, const void *object) {
    const void *member = (const char *)object + r->offset;
    switch (r->type) {
    case ROW_INT: fprintf(out, "%lld", (long long)*(const int64_t *)member); break;
    case ROW_REAL: fprintf(out, "%.17g", *(const double *)member); break;
    case ROW_BOOL: fputs(*(const bool *)member ? "true" : "false", out); break;
    case ROW_STR: write_str(out, *(const char *const *)member); break;
    case ROW_ENUM: {
        const char *c = r->choices;
        for (int i = *(const int *)member; i > 0; i--) c = strchr(c, '|') + 1;
        fprintf(out, "%.*s", (int)strcspn(c, "|"), c);
        break;
    }
    case ROW_STRS: {
        const ConfigStrs *s = member;
        fputc('[', out);
        for (int i = 0; i < s->cnt; i++) {
            if (i) fputs(", ", out);
            write_str(out, s->item[i]);
        }
        fputc(']', out);
        break;
    }
    case ROW_INTS: {
        const ConfigInts *s = member;
        fputc('[', out);
        for (int i = 0; i < s->cnt; i++)
            fprintf(out, "%s%lld", i ? ", " : "", (long long)s->item[i]);
        fputc(']', out);
        break;
    }
    case ROW_GROUP: break;
    }
}

// "# what it is: a|b", the line above a key.
static void write_doc(FILE *out, const char *indent, const Row *r) {
    bool choices = r->choices && !names_files(r);
    fprintf(out, "%s# %s%s%s\n", indent, r->doc, choices ? ": " : "", choices ? r->choices : "");
}

void config_write(const Config *cfg, FILE *out, bool docs) {
    for (int i = 0; i < ROW_CNT; i++) {
        const Row *r = &rows[i];
        if (r->type == ROW_GROUP) {
            fprintf(out, "%s# %s\n", i ? "\n" : "", r->doc);
            continue;
        }
        if (docs) write_doc(out, "", r);
        fprintf(out, "%s: ", r->key);
        write_value(out, r, cfg);
        fputc('\n', out);
    }
    if (cfg->reward_cnt) fputs("\n# Rewards: the weighted sum is ascended\nreward:\n", out);
    for (int k = 0; k < cfg->reward_cnt; k++) {
        for (int i = 0; i < REWARD_ROW_CNT; i++) {
            if (docs && !k) write_doc(out, "    ", &reward_rows[i]);
            fprintf(out, "  %s %s: ", i ? " " : "-", reward_rows[i].key);
            write_value(out, &reward_rows[i], &cfg->reward[k]);
            fputc('\n', out);
        }
    }
}

static char *value_text(const Row *r, const void *object, Arena *arena) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    die_unless(f, "config: out of memory");
    write_value(f, r, object);
    fclose(f);
    char *copy = arena_strdup(arena, text);
    free(text);
    return copy;
}

// Keys that change how a run is carried out but none of its numbers.
static bool is_loose(const char *key) {
    static const char *const loose[] = {"run",
                                        "slots",
                                        "decode.keep",
                                        "optim.updates",
                                        "stages.sampler.replicas",
                                        "stages.decoder.replicas",
                                        "stages.rewarder.replicas"};
    for (size_t i = 0; i < sizeof loose / sizeof *loose; i++)
        if (!strcmp(key, loose[i])) return true;
    return !strncmp(key, "preview.", 8) || !strncmp(key, "ckpt.", 5) || !strncmp(key, "eval.", 5);
}

static char *diff_rows(char *text, const Row *table, int cnt, const void *a, const void *b,
                       const char *prefix, Arena *arena, bool loose) {
    for (int i = 0; i < cnt; i++) {
        if (table[i].type == ROW_GROUP || (loose && !*prefix && is_loose(table[i].key))) continue;
        const char *x = value_text(&table[i], a, arena), *y = value_text(&table[i], b, arena);
        if (strcmp(x, y))
            text = arena_printf(arena, "%s%s%s: %s -> %s\n", text, prefix, table[i].key, x, y);
    }
    return text;
}

char *config_diff(const Config *a, const Config *b, Arena *arena, bool loose) {
    char *text = diff_rows(arena_strdup(arena, ""), rows, ROW_CNT, a, b, "", arena, loose);
    if (a->reward_cnt != b->reward_cnt)
        text =
            arena_printf(arena, "%sreward: %d entries -> %d\n", text, a->reward_cnt, b->reward_cnt);
    for (int k = 0; k < a->reward_cnt && k < b->reward_cnt; k++)
        text = diff_rows(text, reward_rows, REWARD_ROW_CNT, &a->reward[k], &b->reward[k],
                         arena_printf(arena, "reward.%d.", k), arena, loose);
    return text;
}

static uint64_t hash_text(uint64_t h, const char *s) {
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3; // FNV-1a
    return (h ^ '\n') * 0x100000001b3;
}

uint64_t config_hash(const Config *cfg) {
    Arena arena = {0};
    uint64_t h = 0xcbf29ce484222325;
    for (int i = 0; i < ROW_CNT; i++) {
        if (rows[i].type == ROW_GROUP || is_loose(rows[i].key)) continue;
        h = hash_text(hash_text(h, rows[i].key), value_text(&rows[i], cfg, &arena));
    }
    for (int k = 0; k < cfg->reward_cnt; k++)
        for (int i = 0; i < REWARD_ROW_CNT; i++)
            h = hash_text(hash_text(h, reward_rows[i].key),
                          value_text(&reward_rows[i], &cfg->reward[k], &arena));
    arena_free(&arena);
    return h;
}

// "  key    what it is (a|b)"
static void write_help(FILE *out, const char *prefix, const Row *r) {
    fprintf(out, "  %s%-*s %s%s%s%s\n", prefix, 28 - (int)strlen(prefix), r->key, r->doc,
            r->choices ? " (" : "", r->choices ? r->choices : "", r->choices ? ")" : "");
}

Err config_help(const char *key, FILE *out) {
    int shown = 0;
    for (int i = 0; i < ROW_CNT; i++) {
        const Row *r = &rows[i];
        size_t n = key ? strlen(key) : 0;
        bool in_group = key && !strncmp(r->key, key, n) && (r->key[n] == '.' || !r->key[n]);
        if (key && !in_group) continue;
        shown++;
        if (r->type == ROW_GROUP)
            fprintf(out, "\n%s\n", r->doc);
        else
            write_help(out, "", r);
    }
    if (!key || !strcmp(key, "reward")) {
        fprintf(out, "\nRewards, a list; on the command line reward.0.weight=1\n");
        for (int i = 0; i < REWARD_ROW_CNT; i++, shown++)
            write_help(out, "reward.N.", &reward_rows[i]);
    }
    if (!shown) FAIL(ERR_USAGE, "no key %s, did you mean %s?", key, nearest(rows, ROW_CNT, key));
    return ERR_OK;
}
