// safetensors: map, check the header, sort an index by name; write, fsync, rename.
#include "common/format/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/format/json.h"

typedef struct Slot { // an entry while its file is checked
    SafetensorsEntry entry;
    uint64_t begin, end; // from the first data byte
} Slot;

typedef struct Shard {
    const char *path;
    const unsigned char *bytes;
    size_t len;
    bool mapped;
    Json *header;
    Json *metadata; // child of header, or NULL
    Slot *slots;    // by place
    size_t cnt;
    unsigned char *copies; // of tensors that are not aligned
} Shard;

struct Safetensors {
    Arena arena;
    const char *path;
    Shard *shards;
    size_t shard_cnt;
    SafetensorsEntry *entries; // file order
    size_t cnt;
    const SafetensorsEntry **by_name; // sorted
    size_t copied_bytes;
};

// In the order in which the official writer lays them out: by size, then as its enum counts down.
static const struct {
    const char *name;
    DType dtype;
} dtypes[] = {
    {"I64", DTYPE_I64},   {"F64", DTYPE_F64}, {"F32", DTYPE_F32}, {"I32", DTYPE_I32},
    {"BF16", DTYPE_BF16}, {"F16", DTYPE_F16}, {"U8", DTYPE_U8},   {"BOOL", DTYPE_BOOL},
};
enum { DTYPES_CNT = sizeof dtypes / sizeof *dtypes };

char *safetensors_shape_text(const SafetensorsEntry *e, char buf[192]) {
    size_t n = (size_t)snprintf(buf, 192, "[");
    for (int i = 0; i < e->rank; i++)
        n += (size_t)snprintf(buf + n, 192 - n, "%s%" PRId64, i ? ", " : "", e->dim[i]);
    snprintf(buf + n, 192 - n, "]");
    return buf;
}

static int dtype_row(DType t) {
    int d = 0;
    while (d < DTYPES_CNT && dtypes[d].dtype != t) d++;
    die_unless(d < DTYPES_CNT, "safetensors: dtype %d", (int)t);
    return d;
}

static Err name_check(const char *path, const char *name) {
    if (!*name) FAIL(ERR_FORMAT, "%s: a tensor has an empty name", path);
    size_t n = strlen(name);
    if (n > SAFETENSORS_NAME_BYTES_MAX)
        FAIL(ERR_FORMAT, "%s: tensor '%.40s...': name has %zu bytes, want at most %d", path, name,
             n, SAFETENSORS_NAME_BYTES_MAX);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 127)
            FAIL(ERR_FORMAT, "%s: tensor '%.*s...': a control character in the name", path, (int)i,
                 name);
    return ERR_OK;
}

// Sets e->bytes. A zero among the dims does not excuse the others: any order of multiplication must be safe.
static Err shape_check(const char *path, SafetensorsEntry *e) {
    int64_t bytes = (int64_t)dtype_bytes(e->dtype);
    bool empty = false;
    for (int i = 0; i < SAFETENSORS_DIMS_MAX; i++) {
        if (i >= e->rank) {
            e->dim[i] = 1;
            continue;
        }
        if (e->dim[i] < 0)
            FAIL(ERR_FORMAT, "%s: tensor '%s': shape has %" PRId64 ", want 0 or more", path,
                 e->name, e->dim[i]);
        empty |= e->dim[i] == 0;
        if (e->dim[i] && __builtin_mul_overflow(bytes, e->dim[i], &bytes)) {
            char shape[192];
            FAIL(ERR_FORMAT, "%s: tensor '%s': shape %s overflows", path, e->name,
                 safetensors_shape_text(e, shape));
        }
    }
    e->bytes = empty ? 0 : (size_t)bytes;
    return ERR_OK;
}

// The header's object for one tensor.
static Err slot_read(const Shard *sh, Json *header, const char *name, uint64_t data_len,
                     Slot *slot) {
    SafetensorsEntry *e = &slot->entry;
    const char *dtype;
    Json *j;
    int offset_cnt;
    int64_t offset[2];
    char shape[192];
    TRY(name_check(sh->path, name));
    *e = (SafetensorsEntry){.name = name, .path = sh->path};
    TRY(json_want_object(header, name, &j));
    TRY(json_want_str(j, "dtype", &dtype));
    int d = 0;
    while (d < DTYPES_CNT && strcmp(dtypes[d].name, dtype)) d++;
    if (d == DTYPES_CNT)
        FAIL(ERR_FORMAT,
             "%s: tensor '%s': dtype '%.16s', want F32, F16, BF16, F64, I32, I64, U8 or BOOL",
             sh->path, name, dtype);
    e->dtype = dtypes[d].dtype;
    TRY(json_want_i64s(j, "shape", e->dim, SAFETENSORS_DIMS_MAX, &e->rank));
    TRY(shape_check(sh->path, e));
    TRY(json_want_i64s(j, "data_offsets", offset, 2, &offset_cnt));
    TRY(json_finish(j, NULL));
    if (offset_cnt != 2)
        FAIL(ERR_FORMAT, "%s: tensor '%s': data_offsets has %d entries, want 2", sh->path, name,
             offset_cnt);
    if (offset[0] < 0 || offset[1] < offset[0])
        FAIL(ERR_FORMAT, "%s: tensor '%s': data_offsets [%" PRId64 ", %" PRId64 "] are not a range",
             sh->path, name, offset[0], offset[1]);
    if ((uint64_t)offset[1] > data_len)
        FAIL(ERR_FORMAT,
             "%s: tensor '%s': ends at data byte %" PRId64 ", the file has %" PRIu64
             " (truncated?)",
             sh->path, name, offset[1], data_len);
    if ((uint64_t)(offset[1] - offset[0]) != e->bytes)
        FAIL(ERR_FORMAT, "%s: tensor '%s': data_offsets hold %" PRId64 " bytes, %s %s wants %zu",
             sh->path, name, offset[1] - offset[0], dtype, safetensors_shape_text(e, shape),
             e->bytes);
    slot->begin = (uint64_t)offset[0];
    slot->end = (uint64_t)offset[1];
    return ERR_OK;
}

static int slot_order(const void *a, const void *b) {
    const Slot *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->entry.name, y->entry.name);
}

static Err metadata_check(const Shard *sh) {
    const char *key, *value;
    for (void *it = NULL; (key = json_next(sh->metadata, &it));)
        TRY(json_want_str(sh->metadata, key, &value));
    return ERR_OK;
}

// Memory that a tensor wants for itself because the file does not align it; one without bytes wants an
// address too.
static size_t copy_bytes(const SafetensorsEntry *e) {
    if ((uintptr_t)e->data % dtype_bytes(e->dtype) == 0) return 0;
    return e->bytes / 64 * 64 + 64;
}

// Tensors that do not lie on a multiple of their element size move to memory of their own.
static Err shard_align(Safetensors *s, Shard *sh) {
    size_t bytes = 0, at = 0;
    for (size_t i = 0; i < sh->cnt; i++) bytes += copy_bytes(&sh->slots[i].entry);
    if (!bytes) return ERR_OK;
    sh->copies = aligned_alloc(64, bytes);
    if (!sh->copies)
        FAIL(ERR_MEMORY, "%s: out of memory copying %zu bytes that the file does not align",
             sh->path, bytes);
    for (size_t i = 0; i < sh->cnt; i++) {
        SafetensorsEntry *e = &sh->slots[i].entry;
        size_t size = copy_bytes(e);
        if (!size) continue;
        e->data = memcpy(sh->copies + at, e->data, e->bytes);
        at += size;
        s->copied_bytes += e->bytes;
    }
    return ERR_OK;
}

// Parses and checks the header; fills the slots.
static Err shard_parse(Safetensors *s, Shard *sh) {
    uint64_t header_len;
    if (sh->len < 8)
        FAIL(ERR_FORMAT, "%s: %zu bytes, want a header length of 8 bytes", sh->path, sh->len);
    memcpy(&header_len, sh->bytes, 8);
    if (header_len > SAFETENSORS_HEADER_BYTES_MAX)
        FAIL(ERR_FORMAT, "%s: header length %" PRIu64 ", want at most %d: not a safetensors file?",
             sh->path, header_len, SAFETENSORS_HEADER_BYTES_MAX);
    if (header_len > sh->len - 8)
        FAIL(ERR_FORMAT,
             "%s: header length %" PRIu64 ", the file has %zu bytes after it (truncated?)",
             sh->path, header_len, sh->len - 8);
    if (!header_len || sh->bytes[8] != '{')
        FAIL(ERR_FORMAT, "%s: the header does not start with '{': not a safetensors file?",
             sh->path);
    TRY(json_open_text(&sh->header, sh->path, (const char *)sh->bytes + 8, header_len));
    TRY(json_get_object(sh->header, "__metadata__", &sh->metadata));
    if (sh->metadata) TRY(metadata_check(sh));

    size_t names =
        json_count(sh->header) - (json_kind(sh->header, "__metadata__") != JSON_KIND_ABSENT);
    if (names > SAFETENSORS_TENSORS_MAX)
        FAIL(ERR_FORMAT, "%s: %zu tensors, want at most %d", sh->path, names,
             SAFETENSORS_TENSORS_MAX);
    const unsigned char *data = sh->bytes + 8 + header_len;
    uint64_t data_len = sh->len - 8 - header_len;
    Slot *slot = sh->slots = arena_array(&s->arena, Slot, names);
    const char *name;
    for (void *it = NULL; (name = json_next(sh->header, &it));)
        if (strcmp(name, "__metadata__")) TRY(slot_read(sh, sh->header, name, data_len, slot++));
    qsort(sh->slots, names, sizeof *slot, slot_order);

    uint64_t at = 0;
    for (size_t i = 0; i < names; i++) {
        slot = sh->slots + i;
        if (slot->begin != at)
            FAIL(ERR_FORMAT,
                 "%s: tensor '%s': begins at data byte %" PRIu64 ", want %" PRIu64 " (%s)",
                 sh->path, slot->entry.name, slot->begin, at,
                 slot->begin < at ? "overlap" : "hole");
        slot->entry.data = data + at;
        at = slot->end;
    }
    if (at != data_len)
        FAIL(ERR_FORMAT, "%s: the tensors end at data byte %" PRIu64 ", the file at %" PRIu64,
             sh->path, at, data_len);
    sh->cnt = names;
    return shard_align(s, sh);
}

static Err shard_map(Shard *sh) {
    Err err = ERR_OK;
    struct stat st;
    int fd = open(sh->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", sh->path, strerror(errno));
    if (fstat(fd, &st)) FAIL_OUT(ERR_IO, "%s: %s", sh->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) FAIL_OUT(ERR_IO, "%s: not a regular file", sh->path);
    if (st.st_size < 8)
        FAIL_OUT(ERR_FORMAT, "%s: %lld bytes, want a header length of 8 bytes", sh->path,
                 (long long)st.st_size);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) FAIL_OUT(ERR_IO, "%s: mmap: %s", sh->path, strerror(errno));
    sh->bytes = p;
    sh->len = (size_t)st.st_size;
    sh->mapped = true;
out:
    close(fd);
    return err;
}

static int by_name_order(const void *a, const void *b) {
    return strcmp((*(const SafetensorsEntry *const *)a)->name,
                  (*(const SafetensorsEntry *const *)b)->name);
}

// All shards are parsed: one list in file order, one by name.
static Err collection_finish(Safetensors *s) {
    for (size_t i = 0; i < s->shard_cnt; i++) s->cnt += s->shards[i].cnt;
    if (s->cnt > SAFETENSORS_TENSORS_MAX)
        FAIL(ERR_FORMAT, "%s: %zu tensors, want at most %d", s->path, s->cnt,
             SAFETENSORS_TENSORS_MAX);
    SafetensorsEntry *e = s->entries = arena_array(&s->arena, SafetensorsEntry, s->cnt);
    const SafetensorsEntry **by = s->by_name =
        arena_array(&s->arena, const SafetensorsEntry *, s->cnt);
    for (size_t i = 0; i < s->shard_cnt; i++)
        for (size_t k = 0; k < s->shards[i].cnt; k++) {
            *by++ = e;
            *e++ = s->shards[i].slots[k].entry;
        }
    by = s->by_name;
    qsort(by, s->cnt, sizeof *by, by_name_order);
    for (size_t i = 1; i < s->cnt; i++)
        if (!strcmp(by[i]->name, by[i - 1]->name))
            FAIL(ERR_FORMAT, "%s: tensor '%s' is also in %s", by[i]->path, by[i]->name,
                 by[i - 1]->path);
    return ERR_OK;
}

static Safetensors *collection_new(const char *path, size_t shard_cnt) {
    Safetensors *s = calloc(1, sizeof *s);
    die_unless(s, "safetensors: out of memory");
    s->path = arena_strdup(&s->arena, path);
    s->shards = arena_array(&s->arena, Shard, shard_cnt);
    s->shard_cnt = shard_cnt;
    return s;
}

Err safetensors_open_bytes(Safetensors **out, const char *label, const void *bytes, size_t len) {
    Err err = ERR_OK;
    Safetensors *s = collection_new(label, 1);
    *out = NULL;
    s->shards[0] = (Shard){.path = s->path, .bytes = bytes, .len = len};
    TRY_OUT(shard_parse(s, s->shards));
    TRY_OUT(collection_finish(s));
    *out = s;
out:
    if (err) safetensors_close(s);
    return err;
}

static Err file_open(Safetensors **out, const char *path) {
    Err err = ERR_OK;
    Safetensors *s = collection_new(path, 1);
    s->shards[0].path = s->path;
    TRY_OUT(shard_map(s->shards));
    TRY_OUT(shard_parse(s, s->shards));
    TRY_OUT(collection_finish(s));
    *out = s;
out:
    if (err) safetensors_close(s);
    return err;
}

static int str_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The index may name only files beside itself.
static Err shard_name_check(const char *path, const char *tensor, const char *file) {
    size_t n = strlen(file);
    if (!n || n > NAME_MAX || strchr(file, '/') || !strcmp(file, ".") || !strcmp(file, ".."))
        FAIL(ERR_FORMAT,
             "%s: tensor '%s': file '%.100s', want the plain name of a file beside the index", path,
             tensor, file);
    return ERR_OK;
}

// Files of the weight map, sorted, each once.
static Err shard_names(const char *path, Json *map, Arena *a, const char ***files, size_t *cnt) {
    size_t names = json_count(map), unique = 0;
    const char *name;
    if (!names) FAIL(ERR_FORMAT, "%s: weight_map is empty", path);
    if (names > SAFETENSORS_TENSORS_MAX)
        FAIL(ERR_FORMAT, "%s: weight_map has %zu tensors, want at most %d", path, names,
             SAFETENSORS_TENSORS_MAX);
    const char **f = *files = arena_array(a, const char *, names);
    for (void *it = NULL; (name = json_next(map, &it));) {
        TRY(name_check(path, name));
        TRY(json_want_str(map, name, f));
        TRY(shard_name_check(path, name, *f++));
    }
    qsort(*files, names, sizeof **files, str_order);
    for (size_t i = 0; i < names; i++)
        if (!i || strcmp((*files)[i], (*files)[unique - 1])) (*files)[unique++] = (*files)[i];
    if (unique > SAFETENSORS_SHARDS_MAX)
        FAIL(ERR_FORMAT, "%s: %zu files, want at most %d", path, unique, SAFETENSORS_SHARDS_MAX);
    *cnt = unique;
    return ERR_OK;
}

// The index and the files must list the same tensors in the same places.
static Err index_check(const Safetensors *s, const char *path, Json *map) {
    const char *name, *file;
    for (void *it = NULL; (name = json_next(map, &it));) {
        TRY(json_want_str(map, name, &file));
        const SafetensorsEntry *e = safetensors_find(s, name);
        if (!e) FAIL(ERR_FORMAT, "%s: tensor '%s' is not in %s", path, name, file);
        if (strcmp(strrchr(e->path, '/') + 1, file))
            FAIL(ERR_FORMAT, "%s: tensor '%s' is in %s, want %s", path, name, e->path, file);
    }
    for (size_t i = 0; i < s->cnt; i++)
        if (json_kind(map, s->entries[i].name) == JSON_KIND_ABSENT)
            FAIL(ERR_FORMAT, "%s: tensor '%s' is not in the index %s", s->entries[i].path,
                 s->entries[i].name, path);
    return ERR_OK;
}

static Err index_open(Safetensors **out, const char *path) {
    Err err = ERR_OK;
    Arena scratch = {0};
    Safetensors *s = NULL;
    Json *index = NULL, *map = NULL;
    const char **files = NULL, *slash = strrchr(path, '/');
    size_t cnt = 0;
    TRY_OUT(json_open(&index, path));
    TRY_OUT(json_want_object(index, "weight_map", &map));
    TRY_OUT(shard_names(path, map, &scratch, &files, &cnt));
    s = collection_new(path, cnt);
    for (size_t i = 0; i < cnt; i++) {
        s->shards[i].path =
            slash ? arena_printf(&s->arena, "%.*s/%s", (int)(slash - path), path, files[i])
                  : arena_printf(&s->arena, "./%s", files[i]);
        TRY_OUT(shard_map(s->shards + i));
        TRY_OUT(shard_parse(s, s->shards + i));
    }
    TRY_OUT(collection_finish(s));
    TRY_OUT(index_check(s, path, map));
    *out = s;
out:
    json_close(index);
    arena_free(&scratch);
    if (err) safetensors_close(s);
    return err;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

Err safetensors_open(Safetensors **out, const char *path) {
    char file[PATH_MAX], index[PATH_MAX];
    *out = NULL;
    if (ends_with(path, ".json")) return index_open(out, path);
    if (ends_with(path, ".safetensors")) return file_open(out, path);
    if (snprintf(file, sizeof file, "%s.safetensors", path) >= (int)sizeof file ||
        snprintf(index, sizeof index, "%s.safetensors.index.json", path) >= (int)sizeof index)
        FAIL(ERR_IO, "%.80s...: path too long", path);
    if (!access(file, F_OK)) return file_open(out, file);
    if (!access(index, F_OK)) return index_open(out, index);
    FAIL(ERR_IO, "%s: found neither %s nor %s.index.json", path, file, file);
}

void safetensors_close(Safetensors *s) {
    if (!s) return;
    for (size_t i = 0; i < s->shard_cnt; i++) {
        json_close(s->shards[i].header);
        free(s->shards[i].copies);
        if (s->shards[i].mapped) munmap((void *)s->shards[i].bytes, s->shards[i].len);
    }
    arena_free(&s->arena);
    free(s);
}

const SafetensorsEntry *safetensors_find(const Safetensors *s, const char *name) {
    const SafetensorsEntry key = {.name = name}, *k = &key;
    const SafetensorsEntry **found =
        s->cnt ? bsearch(&k, s->by_name, s->cnt, sizeof *s->by_name, by_name_order) : NULL;
    return found ? *found : NULL;
}

Err safetensors_want(const Safetensors *s, const char *name, const SafetensorsEntry **out) {
    *out = safetensors_find(s, name);
    if (!*out) FAIL(ERR_FORMAT, "%s: tensor '%s' is missing", s->path, name);
    return ERR_OK;
}

size_t safetensors_count(const Safetensors *s) { return s->cnt; }

const SafetensorsEntry *safetensors_at(const Safetensors *s, size_t i) {
    die_unless(i < s->cnt, "safetensors: entry %zu of %zu", i, s->cnt);
    return s->entries + i;
}

const char *safetensors_path(const Safetensors *s) { return s->path; }

const char *safetensors_metadata(const Safetensors *s, const char *key) {
    for (size_t i = 0; i < s->shard_cnt; i++) {
        const char *value = NULL;
        Json *m = s->shards[i].metadata;
        if (m && json_get_str(m, key, &value) == ERR_OK && value) return value;
    }
    return NULL;
}

size_t safetensors_copied_bytes(const Safetensors *s) { return s->copied_bytes; }

// ---- writing

static int write_order(const void *a, const void *b) {
    const SafetensorsEntry *x = *(const SafetensorsEntry *const *)a,
                           *y = *(const SafetensorsEntry *const *)b;
    int m = dtype_row(x->dtype), n = dtype_row(y->dtype);
    if (m != n) return m < n ? -1 : 1;
    return strcmp(x->name, y->name);
}

static Err quoted(Arena *a, const char *path, const char *s, char **out) {
    *out = json_quote(a, s);
    if (!*out) FAIL(ERR_FORMAT, "%s: a name or metadata text is not UTF-8", path);
    return ERR_OK;
}

static Err entry_header(FILE *f, Arena *a, const char *path, const SafetensorsEntry *e,
                        uint64_t at) {
    SafetensorsEntry checked = *e;
    char *name, shape[192];
    TRY(name_check(path, e->name));
    if (!strcmp(e->name, "__metadata__"))
        FAIL(ERR_FORMAT, "%s: a tensor is named __metadata__", path);
    die_unless(e->rank >= 0 && e->rank <= SAFETENSORS_DIMS_MAX, "%s: rank %d", e->name, e->rank);
    TRY(shape_check(path, &checked));
    if (checked.bytes != e->bytes)
        FAIL(ERR_SHAPE, "%s: tensor '%s': %zu bytes given, %s %s wants %zu", path, e->name,
             e->bytes, dtype_name(e->dtype), safetensors_shape_text(e, shape), checked.bytes);
    TRY(quoted(a, path, e->name, &name));
    fprintf(f, "%s:{\"dtype\":\"%s\",\"shape\":[", name, dtypes[dtype_row(e->dtype)].name);
    for (int i = 0; i < e->rank; i++) fprintf(f, "%s%" PRId64, i ? "," : "", e->dim[i]);
    fprintf(f, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + e->bytes);
    return ERR_OK;
}

// The 8 bytes of length and the padded header.
static Err header_make(FILE *f, Arena *a, const char *path, const SafetensorsEntry *const *sorted,
                       size_t cnt, const SafetensorsMetadata *metadata, size_t metadata_cnt) {
    uint64_t at = 0;
    char *key, *value;
    fprintf(f, "%8s{", "");
    if (metadata_cnt) fputs("\"__metadata__\":{", f);
    for (size_t i = 0; i < metadata_cnt; i++) {
        TRY(quoted(a, path, metadata[i].key, &key));
        TRY(quoted(a, path, metadata[i].value, &value));
        fprintf(f, "%s%s:%s", i ? "," : "", key, value);
    }
    if (metadata_cnt) fputs(cnt ? "}," : "}", f);
    for (size_t i = 0; i < cnt; i++) {
        if (i && !strcmp(sorted[i]->name, sorted[i - 1]->name))
            FAIL(ERR_FORMAT, "%s: tensor '%s' is given twice", path, sorted[i]->name);
        if (i) fputc(',', f);
        TRY(entry_header(f, a, path, sorted[i], at));
        at += sorted[i]->bytes;
    }
    fputc('}', f);
    while (ftell(f) % 8) fputc(' ', f);
    return ERR_OK;
}

static Err write_all(int fd, const char *path, const void *data, size_t len) {
    for (const char *p = data; len;) {
        ssize_t n = write(fd, p, len < 1 << 30 ? len : 1 << 30);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) FAIL(ERR_IO, "%s: write: %s", path, strerror(errno));
        p += n;
        len -= (size_t)n;
    }
    return ERR_OK;
}

static Err folder_sync(const char *path) {
    char dir[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    if (slash) snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", dir, strerror(errno));
    int rc = fsync(fd);
    close(fd);
    if (rc) FAIL(ERR_IO, "%s: fsync: %s", dir, strerror(errno));
    return ERR_OK;
}

Err safetensors_write(const char *path, const SafetensorsEntry *entries, size_t cnt,
                      const SafetensorsMetadata *metadata, size_t metadata_cnt) {
    Err err = ERR_OK;
    Arena a = {0};
    char tmp[PATH_MAX] = "", *header = NULL;
    size_t header_len = 0;
    int fd = -1;
    const SafetensorsEntry **sorted = arena_array(&a, const SafetensorsEntry *, cnt);
    for (size_t i = 0; i < cnt; i++) sorted[i] = entries + i;
    qsort(sorted, cnt, sizeof *sorted, write_order);
    FILE *f = open_memstream(&header, &header_len);
    die_unless(f, "safetensors: out of memory");
    err = header_make(f, &a, path, sorted, cnt, metadata, metadata_cnt);
    die_unless(!fclose(f), "safetensors: out of memory");
    TRY_OUT(err);
    uint64_t len = header_len - 8;
    if (len > SAFETENSORS_HEADER_BYTES_MAX || cnt > SAFETENSORS_TENSORS_MAX)
        FAIL_OUT(ERR_FORMAT, "%s: a header of %" PRIu64 " bytes for %zu tensors is too large", path,
                 len, cnt);
    memcpy(header, &len, 8);

    if (snprintf(tmp, sizeof tmp, "%s.tmp-%d", path, (int)getpid()) >= (int)sizeof tmp) {
        *tmp = 0;
        FAIL_OUT(ERR_IO, "%.80s...: path too long", path);
    }
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) FAIL_OUT(ERR_IO, "%s: %s", tmp, strerror(errno));
    TRY_OUT(write_all(fd, tmp, header, header_len));
    for (size_t i = 0; i < cnt; i++) TRY_OUT(write_all(fd, tmp, sorted[i]->data, sorted[i]->bytes));
    if (fsync(fd)) FAIL_OUT(ERR_IO, "%s: fsync: %s", tmp, strerror(errno));
    if (rename(tmp, path)) FAIL_OUT(ERR_IO, "%s: rename: %s", path, strerror(errno));
    *tmp = 0;
    TRY_OUT(folder_sync(path));
out:
    if (fd >= 0) close(fd);
    if (*tmp) unlink(tmp);
    free(header);
    arena_free(&a);
    return err;
}
