// json: JSON objects from outside, read by key; a key that nobody asked for is found out.
//
// A `Json` is one object and the set of keys that were read from it. Getters name the file and key when a
// value has the wrong type. json_finish then reports keys that were never read: a config of a newer model
// with a setting we do not know must stop the run, not be computed wrongly.
//
//     Json *j;
//     TRY(json_open(&j, "unet/config.json"));
//     UnetConfig c = {.layers_per_block = 2};                         // defaults
//     TRY_OUT(json_want_int(j, "in_channels", &c.in_channels));       // must be there
//     TRY_OUT(json_get_int(j, "layers_per_block", &c.layers_per_block)); // else the default stays
//     TRY_OUT(json_only_str(j, "act_fn", "silu"));                    // the one value that we compute
//     TRY_OUT(json_finish(j, (const char *const[]){"sample_size", NULL}));
//
// json_want_*: the key must be present and not null. json_get_*: when it is absent or null, *out stays as
// it was. Both mark the key as read. Strings and child objects belong to the Json and live until json_close.
//
// Limits: 64 MiB per file, JSON_VALUES_MAX values, 2048 levels. Duplicate keys, invalid UTF-8, NUL inside a
// string, integers beyond 64 bits and anything after the object are errors (ERR_FORMAT).
#ifndef COMMON_FORMAT_JSON_H
#define COMMON_FORMAT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"

enum { JSON_FILE_BYTES_MAX = 64 << 20, JSON_VALUES_MAX = 4 << 20 };

typedef struct Json Json;

typedef enum JsonKind {
    JSON_KIND_ABSENT,
    JSON_KIND_NULL,
    JSON_KIND_BOOL,
    JSON_KIND_INT,
    JSON_KIND_FLOAT,
    JSON_KIND_STR,
    JSON_KIND_ARRAY,
    JSON_KIND_OBJECT,
} JsonKind;

// Reads a file whose whole content is one object; messages call it `path`. Caller closes.
Err json_open(Json **out, const char *path);

// The same from memory, which is not kept. label is what messages call it.
Err json_open_text(Json **out, const char *label, const char *text, size_t len);

// Releases the object, its children and strings. NULL is fine.
void json_close(Json *j);

// What messages call it: the path, with ": key" for a child.
const char *json_label(const Json *j);

// Looks without reading: the key is not marked.
JsonKind json_kind(const Json *j, const char *key);

// One value. int: the range of int, else an error. f64 takes integers too; i64 takes no 1.0.
Err json_want_i64(Json *j, const char *key, int64_t *out);
Err json_get_i64(Json *j, const char *key, int64_t *out);
Err json_want_int(Json *j, const char *key, int *out);
Err json_get_int(Json *j, const char *key, int *out);
Err json_want_f64(Json *j, const char *key, double *out);
Err json_get_f64(Json *j, const char *key, double *out);
Err json_want_bool(Json *j, const char *key, bool *out);
Err json_get_bool(Json *j, const char *key, bool *out);
Err json_want_str(Json *j, const char *key, const char **out);
Err json_get_str(Json *j, const char *key, const char **out);

// An array of up to max values; *cnt is how many. More than max, or one of another type, is an error.
Err json_want_i64s(Json *j, const char *key, int64_t *out, int max, int *cnt);
Err json_get_i64s(Json *j, const char *key, int64_t *out, int max, int *cnt);
Err json_want_f64s(Json *j, const char *key, double *out, int max, int *cnt);
Err json_get_f64s(Json *j, const char *key, double *out, int max, int *cnt);
Err json_want_strs(Json *j, const char *key, const char **out, int max, int *cnt);
Err json_get_strs(Json *j, const char *key, const char **out, int max, int *cnt);

// A child object, owned by j; the same pointer each time it is asked. json_get_object: NULL when absent.
Err json_want_object(Json *j, const char *key, Json **out);
Err json_get_object(Json *j, const char *key, Json **out);

// An array of up to max child objects, owned by j; their labels end in "key[0]", "key[1]". Once per key.
Err json_want_objects(Json *j, const char *key, Json **out, int max, int *cnt);

// Settings of which only one value is computed: absent, null or exactly that, else an error that says both.
Err json_only_i64(Json *j, const char *key, int64_t value);
Err json_only_f64(Json *j, const char *key, double value);
Err json_only_bool(Json *j, const char *key, bool value);
Err json_only_str(Json *j, const char *key, const char *value);

// Walks the keys in file order, without marking them: `for (void *it = NULL; (key = json_next(j, &it));)`.
const char *json_next(const Json *j, void **it);
// Number of keys.
size_t json_count(const Json *j);

// Error unless every key was read, is null, starts with '_', or is in `ignore` (ends with NULL; may be
// NULL). Children that were asked for are finished too, under the same list.
//   unet/config.json: key 'class_embed_type' = "timestep" is not supported; nor are 'a', 'b'
Err json_finish(const Json *j, const char *const *ignore);

// s as a JSON string with its quotes, in the arena; NULL when s is not valid UTF-8.
char *json_quote(Arena *a, const char *s);

#endif
