// params: keys to tensors. model_dir reads the files; here shapes and values are checked and keys counted.
#include "common/model/params.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct Item {
    const char *key; // without the prefix
    const SafetensorsEntry *entry;
    bool used, finite;
    uint64_t hash; // of key, type, shape and bytes, once it is finite
    float *wide;   // F32 copy, NULL until needed
} Item;

typedef struct Recorded {
    const char *key;
    Shape stored;
} Recorded;

struct Params {
    Arena arena;
    bool is_recorder;
    Recorded *recorded; // in order
    int recorded_cnt, recorded_room;
    ModelPart *own; // params_open
    const char *path, *prefix;
    Item *item; // sorted by key
    size_t cnt;
    const char **ignore;
    int ignore_cnt;
};

// ---- Opening ----

static int by_key(const void *a, const void *b) {
    return strcmp(((const Item *)a)->key, ((const Item *)b)->key);
}

static Err list_items(Params *p, const ModelPart *part) {
    size_t all = model_dir_count(part), skip = strlen(p->prefix);
    p->path = part->weights;
    p->item = arena_array(&p->arena, Item, all + 1);
    for (size_t i = 0; i < all; i++) {
        const SafetensorsEntry *e = model_dir_at(part, i);
        if (!strncmp(e->name, p->prefix, skip))
            p->item[p->cnt++] = (Item){.key = e->name + skip, .entry = e};
    }
    qsort(p->item, p->cnt, sizeof *p->item, by_key);
    if (!p->cnt) FAIL(ERR_FORMAT, "%s: no tensor's name begins with '%s'", p->path, p->prefix);
    return ERR_OK;
}

static Params *params_new(const char *prefix) {
    Params *p = calloc(1, sizeof *p);
    die_unless(p, "params: out of memory");
    p->prefix = arena_strdup(&p->arena, prefix ? prefix : "");
    return p;
}

Err params_open(Params **out, const char *path, const char *prefix, const char *sub) {
    Params *p = params_new(prefix);
    Err err = model_dir_open(&p->own, path, NULL, NULL, &(ModelDirOptions){.sub = sub});
    if (!err) err = list_items(p, p->own);
    if (err) {
        params_close(p);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = p;
    return ERR_OK;
}

Err params_of_part(Params **out, const ModelPart *part, const char *prefix) {
    Params *p = params_new(prefix);
    Err err = list_items(p, part);
    if (err) {
        params_close(p);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = p;
    return ERR_OK;
}

void params_close(Params *p) {
    if (!p) return;
    for (size_t i = 0; i < p->cnt; i++) free(p->item[i].wide);
    free(p->recorded);
    model_dir_close(p->own);
    arena_free(&p->arena);
    free(p);
}

const char *params_path(const Params *p) { return p->path; }

// ---- NaN and Inf: an exponent of all ones ----

// Whether the largest magnitude bits of cnt words reach `limit`. Blocks, so that the inner loop is a plain
// maximum, which compilers turn into vectors; a 16-bit model of gigabytes is scanned at memory speed.
#define SCAN(name, Word, magnitude)                           \
    static bool name(const Word *x, size_t cnt, Word limit) { \
        for (size_t i = 0; i < cnt;) {                        \
            size_t end = cnt - i < 4096 ? cnt : i + 4096;     \
            Word top = 0;                                     \
            for (; i < end; i++) {                            \
                Word m = (Word)(x[i] & (magnitude));          \
                top = m > top ? m : top;                      \
            }                                                 \
            if (top >= limit) return true;                    \
        }                                                     \
        return false;                                         \
    }
SCAN(reaches16, int16_t, 0x7fff)
SCAN(reaches32, int32_t, 0x7fffffff)
SCAN(reaches64, int64_t, 0x7fffffffffffffff)

static bool has_nonfinite(const SafetensorsEntry *e, size_t cnt) {
    switch (e->dtype) {
    case DTYPE_F16: return reaches16(e->data, cnt, 0x7c00);
    case DTYPE_BF16: return reaches16(e->data, cnt, 0x7f80);
    case DTYPE_F32: return reaches32(e->data, cnt, 0x7f800000);
    case DTYPE_F64: return reaches64(e->data, cnt, 0x7ff0000000000000);
    default: return false;
    }
}

// Says which element it is.
static Tensor *fail_nonfinite(Graph *g, const SafetensorsEntry *e, size_t cnt) {
    for (size_t i = 0; i < cnt; i++) {
        double x;
        dtype_convert(&x, DTYPE_F64, (const char *)e->data + i * dtype_bytes(e->dtype), e->dtype,
                      1);
        if (x - x != 0)
            return graph_fail(g, ERR_NUMERIC, "%s: %s has %s at element %zu of %zu", e->path,
                              e->name, x != x ? "NaN" : "Inf", i, cnt);
    }
    die("%s: %s: no element is NaN", e->path, e->name);
}

// ---- Lookup ----

static Item *find(const Params *p, const char *key) {
    if (!p->cnt) return NULL;
    Item want = {.key = key};
    return bsearch(&want, p->item, p->cnt, sizeof want, by_key);
}

bool params_has(const Params *p, const char *key) { return p->is_recorder || find(p, key) != NULL; }

static bool stored_as(const SafetensorsEntry *e, Shape s) {
    bool same = e->rank == s.rank;
    for (int i = 0; i < s.rank && same; i++) same = e->dim[i] == s.dim[i];
    return same;
}

// For messages: dims past what a tensor of a graph can have are left out.
static Shape entry_shape(const SafetensorsEntry *e) {
    return shape_make(e->rank < TENSOR_DIMS_MAX ? e->rank : TENSOR_DIMS_MAX, e->dim);
}

static uint64_t hash_of(const SafetensorsEntry *e, const char *key, size_t cnt) {
    uint64_t hash = XXH3_64bits_withSeed(key, strlen(key), (XXH64_hash_t)e->dtype);
    hash = XXH3_64bits_withSeed(e->dim, sizeof *e->dim * (size_t)e->rank, hash);
    return XXH3_64bits_withSeed(e->data, cnt * dtype_bytes(e->dtype), hash);
}

// Finds the key, checks shape and values, marks it used.
static Item *take(Params *p, Graph *g, const char *key, Shape stored) {
    char want[96], found[96];
    if (g->err) return NULL;
    Item *it = find(p, key);
    shape_text(stored, want);
    if (!it)
        return graph_fail(g, ERR_FORMAT, "%s: %s%s is missing, want a tensor %s", p->path,
                          p->prefix, key, want),
               NULL;
    const SafetensorsEntry *e = it->entry;
    if (!stored_as(e, stored))
        return graph_fail(g, ERR_FORMAT, "%s: %s is %s, want %s", e->path, e->name,
                          shape_text(entry_shape(e), found), want),
               NULL;
    if (!dtype_is_float(e->dtype))
        return graph_fail(g, ERR_FORMAT, "%s: %s holds %s, want a floating point type", e->path,
                          e->name, dtype_name(e->dtype)),
               NULL;
    size_t cnt = (size_t)shape_count(stored);
    if (!it->finite && has_nonfinite(e, cnt)) return fail_nonfinite(g, e, cnt), NULL;
    if (!it->finite) it->hash = hash_of(e, key, cnt);
    it->finite = it->used = true;
    g->weights_hash = XXH3_64bits_withSeed(&it->hash, sizeof it->hash, g->weights_hash);
    return it;
}

static Tensor *widened(Graph *g, Item *it, const char *name, Shape as) {
    const SafetensorsEntry *e = it->entry;
    if (e->dtype == DTYPE_F32) return graph_weight(g, name, DTYPE_F32, as, e->data);
    if (!it->wide) {
        size_t cnt = (size_t)shape_count(as);
        it->wide = aligned_alloc(64, (cnt * sizeof(float) + 63) / 64 * 64);
        die_unless(it->wide, "params: out of memory for %s", e->name);
        dtype_convert(it->wide, DTYPE_F32, e->data, e->dtype, cnt);
    }
    return graph_weight(g, name, DTYPE_F32, as, it->wide);
}

// What a recorder hands out: a tensor whose bytes nobody may read.
static Tensor *record(Params *p, Graph *g, const char *key, Shape stored, Shape as) {
    static const char nothing[64] __attribute__((aligned(64)));
    if (g->err) return NULL;
    bool known = false;
    for (int i = 0; i < p->recorded_cnt && !known; i++) known = !strcmp(p->recorded[i].key, key);
    if (!known) {
        if (p->recorded_cnt == p->recorded_room) {
            p->recorded_room = p->recorded_room ? 2 * p->recorded_room : 512;
            p->recorded = realloc(p->recorded, sizeof *p->recorded * (size_t)p->recorded_room);
            die_unless(p->recorded, "params: out of memory");
        }
        p->recorded[p->recorded_cnt++] = (Recorded){arena_strdup(&p->arena, key), stored};
    }
    return graph_weight(g, key, DTYPE_F32, as, nothing);
}

Tensor *params_get_as(Params *p, Graph *g, const char *key, Shape stored, Shape as) {
    die_unless(shape_count(stored) == shape_count(as), "params: %s seen in another size", key);
    if (p->is_recorder) return record(p, g, key, stored, as);
    Item *it = take(p, g, key, stored);
    if (!it) return NULL;
    if (stored.rank < 2 || it->entry->dtype == DTYPE_F64) return widened(g, it, key, as);
    return graph_weight(g, key, it->entry->dtype, as, it->entry->data);
}

Tensor *params_get(Params *p, Graph *g, const char *key, Shape shape) {
    return params_get_as(p, g, key, shape, shape);
}

Tensor *params_get_f32(Params *p, Graph *g, const char *key, Shape stored, Shape as) {
    die_unless(shape_count(stored) == shape_count(as), "params: %s seen in another size", key);
    if (p->is_recorder) return record(p, g, key, stored, as);
    Item *it = take(p, g, key, stored);
    return it ? widened(g, it, key, as) : NULL;
}

// ---- Without a file ----

Params *params_new_recorder(void) {
    Params *p = params_new("");
    p->path = "(no file)";
    p->is_recorder = true;
    return p;
}

int params_recorded_count(const Params *p) { return p->recorded_cnt; }

const char *params_recorded(const Params *p, int i, Shape *stored) {
    *stored = p->recorded[i].stored;
    return p->recorded[i].key;
}

// ---- Surplus ----

void params_ignore(Params *p, const char *pattern) {
    const char **more = arena_array(&p->arena, const char *, p->ignore_cnt + 1);
    if (p->ignore_cnt) memcpy(more, p->ignore, sizeof *more * (size_t)p->ignore_cnt);
    more[p->ignore_cnt++] = arena_strdup(&p->arena, pattern);
    p->ignore = more;
}

bool params_ignores(const Params *p, const char *key) {
    for (int i = 0; i < p->ignore_cnt; i++)
        if (!fnmatch(p->ignore[i], key, 0)) return true;
    return false;
}

Err params_finish(const Params *p) {
    char list[1024];
    size_t left = 0, len = 0;
    for (size_t i = 0; i < p->cnt; i++) {
        const Item *it = &p->item[i];
        if (it->used || params_ignores(p, it->key)) continue;
        if (left++ < 5 && len < sizeof list)
            len += (size_t)snprintf(list + len, sizeof list - len, left == 1 ? "%s" : ", %s",
                                    it->entry->name);
    }
    if (left)
        FAIL(ERR_FORMAT, "%s: %zu tensors that this model does not have: %s%s", p->path, left, list,
             left > 5 ? ", ..." : "");
    return ERR_OK;
}
