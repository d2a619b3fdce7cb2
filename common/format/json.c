// json: jansson underneath; this file is the only one that sees it.
#include "common/format/json.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JSON_SHOWN_BYTES = 60 };

struct Json {
    char *label;
    json_t *object; // borrowed from root for a child
    json_t *read;   // set of keys that were asked for
    Json *children; // list
    Json *next;     // sibling
    json_t *root;   // owned by the outermost one
};

static const char *const kind_names[] = {"absent",        "null",     "true or false", "an integer",
                                         "a real number", "a string", "an array",      "an object"};

static JsonKind kind_of(const json_t *v) {
    if (!v) return JSON_KIND_ABSENT;
    switch (json_typeof(v)) {
    case JSON_OBJECT: return JSON_KIND_OBJECT;
    case JSON_ARRAY: return JSON_KIND_ARRAY;
    case JSON_STRING: return JSON_KIND_STR;
    case JSON_INTEGER: return JSON_KIND_INT;
    case JSON_REAL: return JSON_KIND_FLOAT;
    case JSON_TRUE:
    case JSON_FALSE: return JSON_KIND_BOOL;
    case JSON_NULL: break;
    }
    return JSON_KIND_NULL;
}

// The value as text for a message, cut to JSON_SHOWN_BYTES; ASCII, so a hostile file cannot steer a terminal.
static const char *shown(const json_t *v, char buf[JSON_SHOWN_BYTES + 4]) {
    size_t n =
        json_dumpb(v, buf, JSON_SHOWN_BYTES, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    if (n <= JSON_SHOWN_BYTES)
        buf[n] = 0;
    else
        snprintf(buf, JSON_SHOWN_BYTES + 4, "%s", kind_names[kind_of(v)]);
    return buf;
}

static Json *node_new(json_t *object, char *label) {
    Json *j = calloc(1, sizeof *j);
    die_unless(j && label, "json: out of memory");
    *j = (Json){.label = label, .object = object, .read = json_object()};
    die_unless(j->read, "json: out of memory");
    return j;
}

// Text from outside that goes into a message: control characters become '?'.
static char *clean(char *s) {
    for (char *c = s; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    return s;
}

// Bounds what the parser will allocate: about 100 bytes per value.
static size_t values_in(const char *text, size_t len) {
    size_t cnt = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string)
            cnt += c == ',' || c == '[' || c == '{';
    }
    return cnt;
}

Err json_open_text(Json **out, const char *label, const char *text, size_t len) {
    *out = NULL;
    json_error_t e;
    size_t values = values_in(text, len);
    if (values > JSON_VALUES_MAX)
        FAIL(ERR_FORMAT, "%s: about %zu JSON values, want at most %d", label, values,
             JSON_VALUES_MAX);
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    if (!root) {
        FAIL(ERR_FORMAT, "%s, line %d: %s", label, e.line, clean(e.text));
    }
    if (!json_is_object(root)) {
        JsonKind kind = kind_of(root);
        json_decref(root);
        FAIL(ERR_FORMAT, "%s: holds %s, want an object {...}", label, kind_names[kind]);
    }
    *out = node_new(root, strdup(label));
    (*out)->root = root;
    return ERR_OK;
}

Err json_open(Json **out, const char *path) {
    Err err = ERR_OK;
    char *text = NULL;
    size_t len = 0;
    struct stat st;
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st)) FAIL_OUT(ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) FAIL_OUT(ERR_IO, "%s: not a regular file", path);
    if (st.st_size > JSON_FILE_BYTES_MAX)
        FAIL_OUT(ERR_FORMAT, "%s: %lld bytes, want at most %d", path, (long long)st.st_size,
                 JSON_FILE_BYTES_MAX);
    text = malloc((size_t)st.st_size + 1);
    die_unless(text, "json: out of memory");
    while (len < (size_t)st.st_size) {
        ssize_t n = read(fd, text + len, (size_t)st.st_size - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) FAIL_OUT(ERR_IO, "%s: %s", path, strerror(errno));
        if (n == 0) break;
        len += (size_t)n;
    }
    TRY_OUT(json_open_text(out, path, text, len));
out:
    close(fd);
    free(text);
    return err;
}

void json_close(Json *j) {
    if (!j) return;
    for (Json *c = j->children, *next; c; c = next) {
        next = c->next;
        json_close(c);
    }
    json_decref(j->read);
    json_decref(j->root);
    free(j->label);
    free(j);
}

const char *json_label(const Json *j) { return j->label; }

JsonKind json_kind(const Json *j, const char *key) {
    return kind_of(json_object_get(j->object, key));
}

// Marks the key and gives its value; NULL when it is absent or null, which is an error when `want` is set.
static Err value_of(Json *j, const char *key, bool want, json_t **out) {
    json_t *v = json_object_get(j->object, key);
    *out = NULL;
    if (v) die_unless(!json_object_set_new(j->read, key, json_true()), "json: out of memory");
    if (!v || json_is_null(v)) {
        if (want)
            FAIL(ERR_FORMAT, "%s: key '%s' is %s", j->label, key,
                 v ? "null, want a value" : "missing");
        return ERR_OK;
    }
    *out = v;
    return ERR_OK;
}

static Err wrong(const Json *j, const char *key, const json_t *v, const char *want) {
    char buf[JSON_SHOWN_BYTES + 4];
    FAIL(ERR_FORMAT, "%s: key '%s' is %s, want %s", j->label, key, shown(v, buf), want);
}

static Err scalar_i64(Json *j, const char *key, bool want, int64_t *out) {
    json_t *v;
    TRY(value_of(j, key, want, &v));
    if (!v) return ERR_OK;
    if (!json_is_integer(v)) return wrong(j, key, v, "an integer");
    *out = json_integer_value(v);
    return ERR_OK;
}

static Err scalar_int(Json *j, const char *key, bool want, int *out) {
    int64_t v = *out;
    TRY(scalar_i64(j, key, want, &v));
    if (v < INT_MIN || v > INT_MAX)
        FAIL(ERR_FORMAT, "%s: key '%s' is %lld, want at most %d", j->label, key, (long long)v,
             INT_MAX);
    *out = (int)v;
    return ERR_OK;
}

static Err scalar_f64(Json *j, const char *key, bool want, double *out) {
    json_t *v;
    TRY(value_of(j, key, want, &v));
    if (!v) return ERR_OK;
    if (!json_is_number(v)) return wrong(j, key, v, "a number");
    *out = json_number_value(v);
    return ERR_OK;
}

static Err scalar_bool(Json *j, const char *key, bool want, bool *out) {
    json_t *v;
    TRY(value_of(j, key, want, &v));
    if (!v) return ERR_OK;
    if (!json_is_boolean(v)) return wrong(j, key, v, "true or false");
    *out = json_is_true(v);
    return ERR_OK;
}

static Err scalar_str(Json *j, const char *key, bool want, const char **out) {
    json_t *v;
    TRY(value_of(j, key, want, &v));
    if (!v) return ERR_OK;
    if (!json_is_string(v)) return wrong(j, key, v, "a string");
    *out = json_string_value(v);
    return ERR_OK;
}

Err json_want_i64(Json *j, const char *key, int64_t *out) { return scalar_i64(j, key, true, out); }
Err json_get_i64(Json *j, const char *key, int64_t *out) { return scalar_i64(j, key, false, out); }
Err json_want_f64(Json *j, const char *key, double *out) { return scalar_f64(j, key, true, out); }
Err json_get_f64(Json *j, const char *key, double *out) { return scalar_f64(j, key, false, out); }
Err json_want_bool(Json *j, const char *key, bool *out) { return scalar_bool(j, key, true, out); }
Err json_get_bool(Json *j, const char *key, bool *out) { return scalar_bool(j, key, false, out); }
Err json_want_str(Json *j, const char *key, const char **out) {
    return scalar_str(j, key, true, out);
}
Err json_get_str(Json *j, const char *key, const char **out) {
    return scalar_str(j, key, false, out);
}
Err json_get_int(Json *j, const char *key, int *out) { return scalar_int(j, key, false, out); }
Err json_want_int(Json *j, const char *key, int *out) {
    *out = 0;
    return scalar_int(j, key, true, out);
}

// Exactly one of the three outputs is set; it says which type is wanted.
static Err array_of(Json *j, const char *key, bool want, int max, int *cnt, int64_t *ints,
                    double *reals, const char **strs) {
    json_t *v;
    TRY(value_of(j, key, want, &v));
    if (!v) return ERR_OK;
    const char *type = ints    ? "an array of integers"
                       : reals ? "an array of numbers"
                               : "an array of strings";
    if (!json_is_array(v)) return wrong(j, key, v, type);
    size_t n = json_array_size(v);
    if (n > (size_t)max)
        FAIL(ERR_FORMAT, "%s: key '%s' has %zu entries, want at most %d", j->label, key, n, max);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(v, i);
        if (ints ? !json_is_integer(e) : reals ? !json_is_number(e) : !json_is_string(e))
            return wrong(j, key, v, type);
        if (ints)
            ints[i] = json_integer_value(e);
        else if (reals)
            reals[i] = json_number_value(e);
        else
            strs[i] = json_string_value(e);
    }
    *cnt = (int)n;
    return ERR_OK;
}

Err json_want_i64s(Json *j, const char *key, int64_t *out, int max, int *cnt) {
    return array_of(j, key, true, max, cnt, out, NULL, NULL);
}
Err json_get_i64s(Json *j, const char *key, int64_t *out, int max, int *cnt) {
    return array_of(j, key, false, max, cnt, out, NULL, NULL);
}
Err json_want_f64s(Json *j, const char *key, double *out, int max, int *cnt) {
    return array_of(j, key, true, max, cnt, NULL, out, NULL);
}
Err json_get_f64s(Json *j, const char *key, double *out, int max, int *cnt) {
    return array_of(j, key, false, max, cnt, NULL, out, NULL);
}
Err json_want_strs(Json *j, const char *key, const char **out, int max, int *cnt) {
    return array_of(j, key, true, max, cnt, NULL, NULL, out);
}
Err json_get_strs(Json *j, const char *key, const char **out, int max, int *cnt) {
    return array_of(j, key, false, max, cnt, NULL, NULL, out);
}

static char *label_join(const char *label, const char *key) {
    char *s = NULL;
    return asprintf(&s, "%s: %.200s", label, key) < 0 ? NULL : clean(s);
}

static Err child_of(Json *j, const char *key, bool want, Json **out) {
    json_t *v;
    *out = NULL;
    bool again = json_object_get(j->read, key) != NULL;
    TRY(value_of(j, key, want, &v));
    if (!v) return ERR_OK;
    if (!json_is_object(v)) return wrong(j, key, v, "an object {...}");
    Json *c = again ? j->children
                    : NULL; // the search is skipped the first time: big files have 10^5 children
    while (c && c->object != v) c = c->next;
    if (!c) {
        c = node_new(v, label_join(j->label, key));
        c->next = j->children;
        j->children = c;
    }
    *out = c;
    return ERR_OK;
}

Err json_want_object(Json *j, const char *key, Json **out) { return child_of(j, key, true, out); }
Err json_get_object(Json *j, const char *key, Json **out) { return child_of(j, key, false, out); }

Err json_want_objects(Json *j, const char *key, Json **out, int max, int *cnt) {
    json_t *v;
    char place[64];
    TRY(value_of(j, key, true, &v));
    if (!json_is_array(v)) return wrong(j, key, v, "an array of objects");
    size_t n = json_array_size(v);
    if (n > (size_t)max)
        FAIL(ERR_FORMAT, "%s: key '%s' has %zu entries, want at most %d", j->label, key, n, max);
    for (size_t i = 0; i < n; i++) {
        json_t *e = json_array_get(v, i);
        if (!json_is_object(e)) return wrong(j, key, v, "an array of objects");
        snprintf(place, sizeof place, "%.40s[%zu]", key, i);
        out[i] = node_new(e, label_join(j->label, place));
        out[i]->next = j->children;
        j->children = out[i];
    }
    *cnt = (int)n;
    return ERR_OK;
}

static Err only(Json *j, const char *key, json_t *value) {
    Err err = ERR_OK;
    json_t *v;
    char found[JSON_SHOWN_BYTES + 4], wanted[JSON_SHOWN_BYTES + 4];
    TRY_OUT(value_of(j, key, false, &v));
    if (!v) goto out;
    bool same = json_is_number(v) && json_is_number(value)
                    ? json_number_value(v) == json_number_value(value)
                    : json_equal(v, value);
    if (!same)
        FAIL_OUT(ERR_FORMAT, "%s: key '%s' = %s is not supported; want %s", j->label, key,
                 shown(v, found), shown(value, wanted));
out:
    json_decref(value);
    return err;
}

Err json_only_i64(Json *j, const char *key, int64_t value) {
    return only(j, key, json_integer(value));
}
Err json_only_f64(Json *j, const char *key, double value) { return only(j, key, json_real(value)); }
Err json_only_bool(Json *j, const char *key, bool value) {
    return only(j, key, json_boolean(value));
}
Err json_only_str(Json *j, const char *key, const char *value) {
    return only(j, key, json_string(value));
}

const char *json_next(const Json *j, void **it) {
    *it = *it ? json_object_iter_next(j->object, *it) : json_object_iter(j->object);
    return *it ? json_object_iter_key(*it) : NULL;
}

size_t json_count(const Json *j) { return json_object_size(j->object); }

static bool listed(const char *const *list, const char *key) {
    for (; list && *list; list++)
        if (!strcmp(*list, key)) return true;
    return false;
}

Err json_finish(const Json *j, const char *const *ignore) {
    const char *key, *first = NULL;
    char text[512] = "", name[128], buf[JSON_SHOWN_BYTES + 4];
    size_t cnt = 0, len = 0;
    for (void *it = NULL; (key = json_next(j, &it));) {
        if (*key == '_' || json_is_null(json_object_iter_value(it)) ||
            json_object_get(j->read, key) || listed(ignore, key))
            continue;
        if (!first) first = key;
        if (cnt++ && len < sizeof text)
            len += (size_t)snprintf(text + len, sizeof text - len, ", '%s'", key);
    }
    for (const Json *c = j->children; c && !cnt; c = c->next) TRY(json_finish(c, ignore));
    if (!cnt) return ERR_OK;
    snprintf(name, sizeof name, "%s", first);
    FAIL(ERR_FORMAT, "%s: key '%s' = %s is not supported%s%s", j->label, clean(name),
         shown(json_object_get(j->object, first), buf), cnt > 1 ? "; nor are " : "",
         cnt > 1 ? clean(text) + 2 : "");
}

char *json_quote(Arena *a, const char *s) {
    json_t *v = json_string(s);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    char *out = text ? arena_strdup(a, text) : NULL;
    free(text);
    json_decref(v);
    return out;
}
