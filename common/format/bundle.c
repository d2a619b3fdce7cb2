// bundle: libarchive's tar and zstd, and a list of names.
#include "common/format/bundle.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/arena.h"
#include "common/base/atomic_file.h"
#include "common/base/strbuf.h"
#include "common/format/json.h"

enum { CHUNK_BYTES = 1 << 16, SEAL_BYTES = 512, ENTRIES_MAX = 6 + BUNDLE_PREVIEWS_MAX };
#define MANIFEST "manifest.json"
#define PREVIEWS "previews/"

// ---- Names ----

static const struct {
    const char *name;
    uint64_t most; // bytes
} known[] = {
    {"config.yaml", 4 << 20},
    {"metrics.jsonl", 4ull << 30},
    {"state", 64ull << 30},
    {"peft/adapter_config.json", 16 << 20},
    {"peft/adapter_model.safetensors", 16ull << 30},
    {"diffusers/pytorch_lora_weights.safetensors", 16ull << 30},
    {MANIFEST, 4 << 20},
};

static bool is_preview(const char *name) {
    size_t n = strlen(name), prefix = strlen(PREVIEWS);
    if (strncmp(name, PREVIEWS, prefix) || n >= BUNDLE_NAME_BYTES || n < prefix + 5) return false;
    if (strcmp(name + n - 4, ".mp4") && strcmp(name + n - 4, ".png")) return false;
    if (name[prefix] == '.') return false;
    return strspn(name + prefix,
                  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
           n - prefix;
}

// Bytes that an entry of this name may have; 0: there is no such entry.
static uint64_t most_bytes(const char *name) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) return known[i].most;
    return is_preview(name) ? 1ull << 30 : 0;
}

bool bundle_knows(const char *name) { return strcmp(name, MANIFEST) && most_bytes(name); }

static int find(const BundleEntry *e, int cnt, const char *name) {
    for (int i = 0; i < cnt; i++)
        if (!strcmp(e[i].name, name)) return i;
    return -1;
}

static void hash_text(char out[33], XXH3_state_t *state) {
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(state));
    for (size_t i = 0; i < sizeof c.digest; i++) snprintf(out + 2 * i, 3, "%02x", c.digest[i]);
}

static XXH3_state_t *hash_new(void) {
    XXH3_state_t *s = XXH3_createState();
    die_unless(s, "bundle: out of memory");
    XXH3_128bits_reset(s);
    return s;
}

// The seal of a file with this hash: magic and length of a skippable frame (RFC 8878, 3.1.2), text, zeros.
static void seal_of(unsigned char out[SEAL_BYTES], XXH3_state_t *file_hash) {
    static const unsigned char frame[8] = {
        0x50, 0x2a, 0x4d, 0x18, (SEAL_BYTES - 8) & 255, (SEAL_BYTES - 8) >> 8};
    char hash[33];
    memset(out, 0, SEAL_BYTES);
    memcpy(out, frame, sizeof frame);
    hash_text(hash, file_hash);
    snprintf((char *)out + sizeof frame, SEAL_BYTES - sizeof frame,
             "vader bundle, XXH3-128 of all before this block: %s\n", hash);
}

// ---- Writing ----

struct BundleWriter {
    AtomicFile file;
    struct archive *a;
    BundleEntry entry[ENTRIES_MAX];
    int cnt;
    XXH3_state_t *hash, *file_hash; // of the entry, of the file so far
    Err err;                        // of the file, below the archive library
    bool is_abandoned;
};

static la_ssize_t on_write(struct archive *a, void *self, const void *bytes, size_t len) {
    BundleWriter *w = self;
    if (w->is_abandoned) return (la_ssize_t)len;
    XXH3_128bits_update(w->file_hash, bytes, len);
    w->err = atomic_file_write(&w->file, bytes, len);
    if (!w->err) return (la_ssize_t)len;
    archive_set_error(a, EIO, "%s", "write");
    return -1;
}

static Err write_fail(BundleWriter *w, const char *what) {
    if (w->err) return err_up(w->err, __FILE__, __LINE__, __func__);
    FAIL(ERR_IO, "%s: %s: %s", w->file.path, what, archive_error_string(w->a));
}

static Err open_writer(BundleWriter *w, const char *path, bool zstd) {
    TRY(atomic_file_open(&w->file, path));
    bool ok = !archive_write_set_format_pax_restricted(w->a) &&
              !(zstd ? archive_write_add_filter_zstd(w->a) : archive_write_add_filter_none(w->a)) &&
              !archive_write_set_bytes_in_last_block(w->a, 1) &&
              !archive_write_open(w->a, w, NULL, on_write, NULL);
    return ok ? ERR_OK : write_fail(w, zstd ? "tar with zstd" : "tar");
}

Err bundle_create(BundleWriter **out, const char *path, bool zstd) {
    BundleWriter *w = calloc(1, sizeof *w);
    die_unless(w && (w->a = archive_write_new()), "bundle: out of memory");
    w->hash = hash_new();
    w->file_hash = hash_new();
    Err err = open_writer(w, path, zstd);
    if (err) {
        bundle_abandon(w);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = w;
    return ERR_OK;
}

static Err write_header(BundleWriter *w, const char *name, uint64_t bytes) {
    struct archive_entry *e = archive_entry_new();
    die_unless(e, "bundle: out of memory");
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, (la_int64_t)bytes);
    archive_entry_set_mtime(e, 0, 0);
    int rc = archive_write_header(w->a, e);
    archive_entry_free(e);
    return rc ? write_fail(w, name) : ERR_OK;
}

static Err write_data(BundleWriter *w, const void *bytes, size_t len) {
    XXH3_128bits_update(w->hash, bytes, len);
    if (len && archive_write_data(w->a, bytes, len) != (la_ssize_t)len)
        return write_fail(w, "write");
    return ERR_OK;
}

static Err begin_entry(BundleWriter *w, const char *name, uint64_t bytes) {
    die_unless(bundle_knows(name) && w->cnt < ENTRIES_MAX && find(w->entry, w->cnt, name) < 0,
               "bundle: entry %s is unknown, there already, or one too many", name);
    if (bytes > most_bytes(name))
        FAIL(ERR_FORMAT, "%s: %s has %" PRIu64 " bytes, want at most %" PRIu64, w->file.path, name,
             bytes, most_bytes(name));
    BundleEntry *e = &w->entry[w->cnt++];
    snprintf(e->name, sizeof e->name, "%s", name);
    e->bytes = bytes;
    XXH3_128bits_reset(w->hash);
    return write_header(w, name, bytes);
}

static void end_entry(BundleWriter *w) { hash_text(w->entry[w->cnt - 1].hash, w->hash); }

Err bundle_add_bytes(BundleWriter *w, const char *name, const void *bytes, size_t len) {
    TRY(begin_entry(w, name, len));
    TRY(write_data(w, bytes, len));
    end_entry(w);
    return ERR_OK;
}

static Err copy_file(BundleWriter *w, int fd, const char *path, uint64_t left) {
    char buf[CHUNK_BYTES];
    while (left) {
        ssize_t n = read(fd, buf, left < sizeof buf ? (size_t)left : sizeof buf);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
        if (n == 0) FAIL(ERR_IO, "%s: ends %" PRIu64 " bytes early", path, left);
        TRY(write_data(w, buf, (size_t)n));
        left -= (uint64_t)n;
    }
    return ERR_OK;
}

Err bundle_add_file(BundleWriter *w, const char *name, const char *path, uint64_t bytes) {
    Err err = ERR_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st)) FAIL_OUT(ERR_IO, "%s: %s", path, strerror(errno));
    if (bytes == BUNDLE_WHOLE_FILE) bytes = (uint64_t)st.st_size;
    if (bytes > (uint64_t)st.st_size)
        FAIL_OUT(ERR_IO, "%s: %lld bytes, want %" PRIu64, path, (long long)st.st_size, bytes);
    TRY_OUT(begin_entry(w, name, bytes));
    TRY_OUT(copy_file(w, fd, path, bytes));
    end_entry(w);
out:
    close(fd);
    return err;
}

static void manifest_text(const BundleWriter *w, const BundleFacts *f, Arena *a, StrBuf *b) {
    const char *vader = json_quote(a, f->vader), *numerics = json_quote(a, f->numerics);
    die_unless(vader && numerics, "bundle: facts are not UTF-8");
    strbuf_printf(b, "{\n \"format\": %d,\n \"vader\": %s,\n", BUNDLE_FORMAT, vader);
    strbuf_printf(b, " \"version\": %" PRIu64 ",\n \"updates\": %" PRIu64 ",\n", f->version,
                  f->updates);
    strbuf_printf(b, " \"config_hash\": \"%016" PRIx64 "\",\n \"numerics\": %s,\n \"entries\": [",
                  f->config_hash, numerics);
    for (int i = 0; i < w->cnt; i++)
        strbuf_printf(b, "%s\n  {\"name\": \"%s\", \"bytes\": %" PRIu64 ", \"xxh3_128\": \"%s\"}",
                      i ? "," : "", w->entry[i].name, w->entry[i].bytes, w->entry[i].hash);
    strbuf_add(b, "\n ]\n}\n");
}

Err bundle_commit(BundleWriter *w, const BundleFacts *facts) {
    Err err = ERR_OK;
    Arena arena = {0};
    StrBuf text = {0};
    unsigned char seal[SEAL_BYTES];
    manifest_text(w, facts, &arena, &text);
    TRY_OUT(write_header(w, MANIFEST, text.len));
    TRY_OUT(write_data(w, text.data, text.len));
    if (archive_write_close(w->a)) TRY_OUT(write_fail(w, "close"));
    seal_of(seal, w->file_hash);
    TRY_OUT(atomic_file_write(&w->file, seal, sizeof seal));
    TRY_OUT(atomic_file_commit(&w->file, ATOMIC_FILE_DURABLE));
out:
    strbuf_fini(&text);
    arena_free(&arena);
    return err;
}

void bundle_abandon(BundleWriter *w) {
    if (!w) return;
    w->is_abandoned = true; // freeing closes, and would write on; archive_write_fail would leak
    archive_write_free(w->a);
    XXH3_freeState(w->hash);
    XXH3_freeState(w->file_hash);
    atomic_file_abandon(&w->file);
    free(w);
}

// ---- Reading ----

struct Bundle {
    char *label;       // its path
    const void *bytes; // NULL: read the file
    size_t len;
    BundleFacts facts;
    BundleEntry entry[ENTRIES_MAX];
    int cnt;
};

// Takes a piece of an entry's data.
typedef Err Sink(void *to, const void *bytes, size_t len);

typedef struct Reader {
    struct archive *a;
    const Bundle *b;
    XXH3_state_t *hash;
} Reader;

static Err read_fail(const Reader *r, const char *what) {
    const char *why = archive_error_string(r->a);
    FAIL(ERR_FORMAT, "%s: %s: %s", r->b->label, what, why ? why : "damaged");
}

static Err reader_open(Reader *r, const Bundle *b) {
    *r = (Reader){.a = archive_read_new(), .b = b, .hash = hash_new()};
    die_unless(r->a, "bundle: out of memory");
    archive_read_support_format_tar(r->a);
    archive_read_support_filter_zstd(r->a);
    if (!b->bytes && access(b->label, R_OK)) FAIL(ERR_IO, "%s: %s", b->label, strerror(errno));
    int rc = b->bytes ? archive_read_open_memory(r->a, b->bytes, b->len)
                      : archive_read_open_filename(r->a, b->label, CHUNK_BYTES);
    return rc ? read_fail(r, "not a bundle") : ERR_OK;
}

static void reader_close(Reader *r) {
    archive_read_free(r->a);
    if (r->hash) XXH3_freeState(r->hash);
}

static Err check_header(const Reader *r, struct archive_entry *h, BundleEntry *e) {
    const char *name = archive_entry_pathname(h);
    if (!name) FAIL(ERR_FORMAT, "%s: an entry has no plain name", r->b->label);
    uint64_t most = most_bytes(name);
    if (!most)
        FAIL(ERR_FORMAT, "%s: entry \"%.200s\" is not one that bundles have", r->b->label, name);
    if (archive_entry_filetype(h) != AE_IFREG || archive_entry_hardlink(h) ||
        archive_entry_symlink(h) || archive_entry_sparse_count(h) > 0)
        FAIL(ERR_FORMAT, "%s: entry %s is not a plain file", r->b->label, name);
    if (!archive_entry_size_is_set(h) || archive_entry_size(h) < 0 ||
        (uint64_t)archive_entry_size(h) > most)
        FAIL(ERR_FORMAT, "%s: entry %s has %lld bytes, want at most %" PRIu64, r->b->label, name,
             (long long)archive_entry_size(h), most);
    *e = (BundleEntry){.bytes = (uint64_t)archive_entry_size(h)};
    snprintf(e->name, sizeof e->name, "%s", name);
    return ERR_OK;
}

static Err reader_next(Reader *r, BundleEntry *e, bool *end) {
    struct archive_entry *h;
    int rc = archive_read_next_header(r->a, &h);
    *end = rc == ARCHIVE_EOF;
    if (*end) return ERR_OK;
    if (rc) return read_fail(r, "not a bundle, or damaged");
    return check_header(r, h, e);
}

// Streams the current entry through the hash into the sink (NULL: nowhere), and fills e->hash.
static Err reader_copy(Reader *r, BundleEntry *e, Sink *sink, void *to) {
    char buf[CHUNK_BYTES];
    uint64_t got = 0;
    XXH3_128bits_reset(r->hash);
    for (la_ssize_t n; (n = archive_read_data(r->a, buf, sizeof buf)) != 0; got += (uint64_t)n) {
        if (n < 0) return read_fail(r, e->name);
        if ((uint64_t)n > e->bytes - got) break;
        XXH3_128bits_update(r->hash, buf, (size_t)n);
        if (sink) TRY(sink(to, buf, (size_t)n));
    }
    if (got != e->bytes)
        FAIL(ERR_FORMAT, "%s: entry %s does not have the %" PRIu64 " bytes that it states",
             r->b->label, e->name, e->bytes);
    hash_text(e->hash, r->hash);
    return ERR_OK;
}

static Err sink_text(void *to, const void *bytes, size_t len) {
    strbuf_add_bytes(to, bytes, len);
    return ERR_OK;
}

// Everything in the archive, in order: entries into b, the manifest's text into *manifest.
static Err scan(Bundle *b, Reader *r, StrBuf *manifest) {
    for (bool last = false;;) {
        BundleEntry e;
        bool end;
        TRY(reader_next(r, &e, &end));
        if (end && last) return ERR_OK;
        if (end)
            FAIL(ERR_FORMAT, "%s: no " MANIFEST " at the end: the bundle is cut short", b->label);
        if (last) FAIL(ERR_FORMAT, "%s: entry %s comes after " MANIFEST, b->label, e.name);
        last = !strcmp(e.name, MANIFEST);
        if (find(b->entry, b->cnt, e.name) >= 0)
            FAIL(ERR_FORMAT, "%s: entry %s is there twice", b->label, e.name);
        if (!last && b->cnt == ENTRIES_MAX)
            FAIL(ERR_FORMAT, "%s: more than %d entries", b->label, ENTRIES_MAX);
        TRY(reader_copy(r, &e, last ? sink_text : NULL, manifest));
        if (!last) b->entry[b->cnt++] = e;
    }
}

static Err check_entry(const Bundle *b, Json *j, const BundleEntry *found) {
    const char *name, *hash;
    int64_t bytes;
    TRY(json_want_str(j, "name", &name));
    TRY(json_want_i64(j, "bytes", &bytes));
    TRY(json_want_str(j, "xxh3_128", &hash));
    if (strcmp(name, found->name))
        FAIL(ERR_FORMAT, "%s: the manifest names %.200s where the bundle has %s", b->label, name,
             found->name);
    if (bytes < 0 || (uint64_t)bytes != found->bytes)
        FAIL(ERR_FORMAT, "%s: entry %s has %" PRIu64 " bytes, the manifest wants %lld", b->label,
             name, found->bytes, (long long)bytes);
    if (strcmp(hash, found->hash))
        FAIL(ERR_FORMAT, "%s: entry %s is damaged: its hash is %s, the manifest wants %.64s",
             b->label, name, found->hash, hash);
    return ERR_OK;
}

static Err want_text(Json *j, const char *key, char *out, size_t room) {
    const char *text;
    TRY(json_want_str(j, key, &text));
    if (strlen(text) >= room)
        FAIL(ERR_FORMAT, "%s: %s has %zu bytes, want at most %zu", json_label(j), key, strlen(text),
             room - 1);
    snprintf(out, room, "%s", text);
    return ERR_OK;
}

static Err read_facts(BundleFacts *f, Json *j) {
    int64_t version, updates;
    char hash[17], *end;
    TRY(want_text(j, "vader", f->vader, sizeof f->vader));
    TRY(want_text(j, "numerics", f->numerics, sizeof f->numerics));
    TRY(want_text(j, "config_hash", hash, sizeof hash));
    TRY(json_want_i64(j, "version", &version));
    TRY(json_want_i64(j, "updates", &updates));
    f->config_hash = strtoull(hash, &end, 16);
    if (version < 0 || updates < 0 || strlen(hash) != 16 || *end)
        FAIL(ERR_FORMAT, "%s: version %lld, updates %lld, config_hash \"%s\": out of range",
             json_label(j), (long long)version, (long long)updates, hash);
    f->version = (uint64_t)version;
    f->updates = (uint64_t)updates;
    return ERR_OK;
}

static Err read_manifest(Bundle *b, const StrBuf *text) {
    Err err = ERR_OK;
    Json *j = NULL, *entry[ENTRIES_MAX];
    int64_t format;
    int cnt;
    char label[4096];
    snprintf(label, sizeof label, "%s: " MANIFEST, b->label);
    TRY_OUT(json_open_text(&j, label, strbuf_text(text), text->len));
    TRY_OUT(json_want_i64(j, "format", &format));
    if (format != BUNDLE_FORMAT)
        FAIL_OUT(ERR_FORMAT, "%s: format %lld, this vader reads %d", label, (long long)format,
                 BUNDLE_FORMAT);
    TRY_OUT(read_facts(&b->facts, j));
    TRY_OUT(json_want_objects(j, "entries", entry, ENTRIES_MAX, &cnt));
    if (cnt != b->cnt)
        FAIL_OUT(ERR_FORMAT, "%s: lists %d entries, the bundle has %d", label, cnt, b->cnt);
    for (int i = 0; i < cnt; i++) TRY_OUT(check_entry(b, entry[i], &b->entry[i]));
    TRY_OUT(json_finish(j, NULL));
out:
    json_close(j);
    return err;
}

static Err open_bundle(Bundle **out, const char *label, const void *bytes, size_t len) {
    Err err = ERR_OK;
    Reader r = {0};
    StrBuf manifest = {0};
    Bundle *b = calloc(1, sizeof *b);
    die_unless(b && (b->label = strdup(label)), "bundle: out of memory");
    b->bytes = bytes;
    b->len = len;
    TRY_OUT(reader_open(&r, b));
    TRY_OUT(scan(b, &r, &manifest));
    TRY_OUT(read_manifest(b, &manifest));
    *out = b;
out:
    reader_close(&r);
    strbuf_fini(&manifest);
    if (err) bundle_close(b);
    return err;
}

Err bundle_open(Bundle **out, const char *path) { return open_bundle(out, path, NULL, 0); }

Err bundle_open_bytes(Bundle **out, const char *label, const void *bytes, size_t len) {
    return open_bundle(out, label, bytes ? bytes : "", len);
}

void bundle_close(Bundle *b) {
    if (!b) return;
    free(b->label);
    free(b);
}

static Err check_seal(FILE *f, const char *path, XXH3_state_t *hash) {
    unsigned char buf[CHUNK_BYTES], seal[SEAL_BYTES], want[SEAL_BYTES];
    struct stat st;
    if (fstat(fileno(f), &st)) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    off_t left = st.st_size - SEAL_BYTES;
    if (left < 0)
        FAIL(ERR_FORMAT, "%s: %lld bytes: too short for a bundle", path, (long long)st.st_size);
    for (size_t n; left; left -= (off_t)n) {
        n = fread(buf, 1, left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES, f);
        if (!n) FAIL(ERR_IO, "%s: cannot be read", path);
        XXH3_128bits_update(hash, buf, n);
    }
    seal_of(want, hash);
    if (fread(seal, 1, sizeof seal, f) != sizeof seal || memcmp(seal, want, sizeof seal))
        FAIL(ERR_FORMAT, "%s: damaged: it is not the file that was sealed", path);
    return ERR_OK;
}

// What the archive's own checks say comes first: they name the entry.
Err bundle_verify(const char *path) {
    Bundle *b;
    TRY(bundle_open(&b, path));
    bundle_close(b);
    FILE *f = fopen(path, "rb");
    if (!f) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    XXH3_state_t *hash = hash_new();
    Err err = check_seal(f, path, hash);
    XXH3_freeState(hash);
    fclose(f);
    return err;
}

const BundleFacts *bundle_facts(const Bundle *b) { return &b->facts; }
int bundle_count(const Bundle *b) { return b->cnt; }
const BundleEntry *bundle_at(const Bundle *b, int i) { return &b->entry[i]; }

const BundleEntry *bundle_find(const Bundle *b, const char *name) {
    int i = find(b->entry, b->cnt, name);
    return i < 0 ? NULL : &b->entry[i];
}

// Streams one entry again; it must still be what it was when the bundle was opened.
static Err deliver(const Bundle *b, const char *name, Sink *sink, void *to) {
    Err err = ERR_OK;
    Reader r = {0};
    BundleEntry e;
    bool end = false;
    const BundleEntry *want = bundle_find(b, name);
    if (!want) FAIL(ERR_FORMAT, "%s: there is no %s in it", b->label, name);
    TRY_OUT(reader_open(&r, b));
    do TRY_OUT(reader_next(&r, &e, &end));
    while (!end && strcmp(e.name, name));
    if (end || e.bytes != want->bytes)
        FAIL_OUT(ERR_FORMAT, "%s: changed while it was read", b->label);
    TRY_OUT(reader_copy(&r, &e, sink, to));
    if (strcmp(e.hash, want->hash))
        FAIL_OUT(ERR_FORMAT, "%s: %s changed while it was read", b->label, name);
out:
    reader_close(&r);
    return err;
}

Err bundle_load(const Bundle *b, const char *name, char **bytes, size_t *len) {
    StrBuf text = {0};
    Err err = deliver(b, name, sink_text, &text);
    *len = text.len;
    if (!err) *bytes = strbuf_take(&text);
    strbuf_fini(&text);
    return err;
}

static Err sink_file(void *to, const void *bytes, size_t len) {
    return atomic_file_write(to, bytes, len);
}

Err bundle_extract_entry(const Bundle *b, const char *name, const char *path) {
    Err err = ERR_OK;
    AtomicFile f = {0};
    TRY_OUT(atomic_file_open(&f, path));
    TRY_OUT(deliver(b, name, sink_file, &f));
    TRY_OUT(atomic_file_commit(&f, ATOMIC_FILE_DURABLE));
out:
    atomic_file_abandon(&f);
    return err;
}

static Err make_folder(const char *path) {
    if (mkdir(path, 0777) && errno != EEXIST) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    return ERR_OK;
}

Err bundle_extract(const Bundle *b, const char *dir) {
    Err err = ERR_OK;
    Arena arena = {0};
    if (mkdir(dir, 0777))
        FAIL(errno == EEXIST ? ERR_USAGE : ERR_IO, "%s: %s (want a folder that can be made)", dir,
             strerror(errno));
    for (int i = 0; i < b->cnt; i++) {
        const char *name = b->entry[i].name, *slash = strchr(name, '/');
        if (slash)
            TRY_OUT(make_folder(arena_printf(&arena, "%s/%.*s", dir, (int)(slash - name), name)));
        TRY_OUT(bundle_extract_entry(b, name, arena_printf(&arena, "%s/%s", dir, name)));
    }
out:
    arena_free(&arena);
    return err;
}
