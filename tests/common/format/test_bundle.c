// test_bundle: what goes in comes out, the same bytes each time, and everything foreign or damaged is refused.
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/strbuf.h"
#include "common/format/bundle.h"
#include "tests/test.h"

static const BundleFacts facts = {"0.1.0", 100, 200, 0xfeedface, "isa avx2, \"quoted\", threads 2"};
static const char config[] = "seed: 1\n";

static char *at(const char *name) {
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
             name);
    return path[turn];
}

static void put(const char *path, const void *bytes, size_t len) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f)) abort();
}

static char *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    char *bytes = malloc(8 << 20);
    if (!f || !bytes) abort();
    *len = fread(bytes, 1, 8 << 20, f);
    fclose(f);
    return bytes;
}

// A bundle of three entries; "state" is a file of 200000 bytes of which the first 150001 go in.
static void make(const char *path, bool zstd) {
    BundleWriter *w;
    char *state = calloc(1, 200000);
    if (!state) abort();
    for (int i = 0; i < 200000; i++) state[i] = (char)((unsigned)i * (unsigned)i >> 3);
    put(at("state-0"), state, 200000);
    free(state);
    CHECK_OK(bundle_create(&w, path, zstd));
    CHECK_OK(bundle_add_bytes(w, "config.yaml", config, strlen(config)));
    CHECK_OK(bundle_add_file(w, "state", at("state-0"), 150001));
    CHECK_OK(bundle_add_bytes(w, "previews/step-000100-0.mp4", "", 0));
    CHECK(access(path, F_OK) != 0);
    CHECK_OK(bundle_commit(w, &facts));
    bundle_abandon(w);
}

TEST(what_goes_in_comes_out) {
    for (int zstd = 0; zstd < 2; zstd++) {
        Bundle *b;
        char *bytes;
        size_t len;
        unlink(at("a.tar"));
        make(at("a.tar"), zstd);
        CHECK_OK(bundle_open(&b, at("a.tar")));
        CHECK_EQ(bundle_count(b), 3);
        CHECK_EQ(bundle_facts(b)->version, 100);
        CHECK_EQ(bundle_facts(b)->updates, 200);
        CHECK_EQ(bundle_facts(b)->config_hash, 0xfeedface);
        CHECK_STR(bundle_facts(b)->numerics, facts.numerics);
        CHECK_STR(bundle_at(b, 1)->name, "state");
        CHECK_EQ(bundle_find(b, "state")->bytes, 150001);
        CHECK(!bundle_find(b, "metrics.jsonl"));
        CHECK_OK(bundle_load(b, "config.yaml", &bytes, &len));
        CHECK_STR(bytes, config);
        free(bytes);
        CHECK_ERR(bundle_load(b, "metrics.jsonl", &bytes, &len), ERR_FORMAT, "no metrics.jsonl");
        CHECK_OK(bundle_extract_entry(b, "state", at("state-back")));
        size_t all;
        char *want = slurp(at("state-0"), &all), *got = slurp(at("state-back"), &len);
        CHECK_EQ(len, 150001);
        CHECK(!memcmp(want, got, len));
        free(want);
        free(got);
        bundle_close(b);
    }
}

TEST(extract_makes_a_fresh_folder) {
    Bundle *b;
    size_t len;
    make(at("x.tar"), false);
    CHECK_OK(bundle_open(&b, at("x.tar")));
    CHECK_OK(bundle_extract(b, at("out")));
    char *text = slurp(at("out/config.yaml"), &len);
    CHECK(len == strlen(config) && !memcmp(text, config, len));
    free(text);
    CHECK(!access(at("out/previews/step-000100-0.mp4"), F_OK));
    CHECK_ERR(bundle_extract(b, at("out")), ERR_USAGE, "File exists");
    bundle_close(b);
}

TEST(the_same_entries_give_the_same_bytes) {
    for (int zstd = 0; zstd < 2; zstd++) {
        size_t n, m;
        make(at("one.tar"), zstd);
        sleep(zstd ? 0 : 1); // a date would show
        make(at("two.tar"), zstd);
        char *one = slurp(at("one.tar"), &n), *two = slurp(at("two.tar"), &m);
        CHECK(n == m && !memcmp(one, two, n));
        free(one);
        free(two);
        unlink(at("one.tar"));
        unlink(at("two.tar"));
    }
}

TEST(an_abandoned_bundle_leaves_nothing) {
    BundleWriter *w;
    mkdir(at("dir"), 0700);
    CHECK_OK(bundle_create(&w, at("dir/x.tar"), false));
    CHECK_OK(bundle_add_bytes(w, "config.yaml", config, strlen(config)));
    CHECK_ERR(bundle_add_file(w, "state", at("state-none"), BUNDLE_WHOLE_FILE), ERR_IO,
              "state-none");
    put(at("short"), "abc", 3);
    CHECK_ERR(bundle_add_file(w, "state", at("short"), 4), ERR_IO, "3 bytes, want 4");
    bundle_abandon(w);
    CHECK(!rmdir(at("dir")));
    CHECK_ERR(bundle_create(&w, at("dir/x.tar"), false), ERR_IO, "dir/x.tar");
}

TEST(names_are_a_closed_list) {
    CHECK(bundle_knows("peft/adapter_model.safetensors"));
    CHECK(bundle_knows("previews/step-000100.0_a.png"));
    static const char *const no[] = {
        "",          "manifest.json",   "state-0",          "../state",          "/state",
        "previews/", "previews/.x.mp4", "previews/a/b.mp4", "previews/../x.mp4", "previews/x.sh",
        "./state",   "previews/.mp4",   "state/",           "previews/a\nb.mp4"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        CHECK_MSG(!bundle_knows(no[i]), "%s is taken", no[i]);
}

// ---- Hostile bundles ----

typedef struct Item {
    const char *name, *data;
    unsigned type;    // 0: a plain file
    const char *link; // symbolic, or with type 1 hard
} Item;

// A tar of these items, as bytes of the caller.
static char *tar_of(const Item *item, int cnt, size_t *len) {
    char *out = malloc(1 << 20);
    struct archive *a = archive_write_new();
    if (!out || !a) abort();
    archive_write_set_format_pax_restricted(a);
    archive_write_open_memory(a, out, 1 << 20, len);
    for (int i = 0; i < cnt; i++) {
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, item[i].name);
        archive_entry_set_filetype(e, item[i].type > 1 ? item[i].type : AE_IFREG);
        archive_entry_set_perm(e, 0644);
        if (item[i].link && item[i].type == 1) archive_entry_set_hardlink(e, item[i].link);
        if (item[i].link && item[i].type > 1) archive_entry_set_symlink(e, item[i].link);
        if (item[i].data) archive_entry_set_size(e, (la_int64_t)strlen(item[i].data));
        if (archive_write_header(a, e)) abort();
        if (item[i].data) archive_write_data(a, item[i].data, strlen(item[i].data));
        archive_entry_free(e);
    }
    archive_write_close(a);
    archive_write_free(a);
    return out;
}

static void expect_refusal(const Item *item, int cnt, const char *says) {
    Bundle *b;
    size_t len;
    char *bytes = tar_of(item, cnt, &len);
    CHECK_ERR(bundle_open_bytes(&b, "x.tar", bytes, len), ERR_FORMAT, says);
    free(bytes);
}

#define REFUSED(says, ...)                      \
    expect_refusal((const Item[]){__VA_ARGS__}, \
                   sizeof((const Item[]){__VA_ARGS__}) / sizeof(Item), says)

#define HEAD                                                                                 \
    "{\"format\": 1, \"vader\": \"0\", \"version\": 1, \"updates\": 1, \"numerics\": \"\", " \
    "\"config_hash\": \"0000000000000000\", \"entries\": ["

TEST(foreign_entries_are_refused) {
    REFUSED("\"evil\" is not one", {"evil", "x"});
    REFUSED("\"../state\" is not one", {"../state", "x"});
    REFUSED("\"/etc/passwd\" is not one", {"/etc/passwd", "x"});
    REFUSED("state is not a plain file", {"state", NULL, AE_IFLNK, "/etc/passwd"});
    REFUSED("state is not a plain file", {"config.yaml", "x"}, {"state", NULL, 1, "config.yaml"});
    REFUSED("state is not a plain file", {"state", NULL, AE_IFIFO});
    REFUSED("\"state/\" is not one", {"state", NULL, AE_IFDIR});
    REFUSED("config.yaml is there twice", {"config.yaml", "x"}, {"config.yaml", "y"});
    REFUSED("cut short", {"config.yaml", "x"});
    REFUSED("comes after manifest.json", {"manifest.json", HEAD "]}"}, {"config.yaml", "x"});
}

TEST(a_manifest_must_fit) {
    REFUSED("lists 0 entries, the bundle has 1", {"config.yaml", "x"},
            {"manifest.json", HEAD "]}"});
    REFUSED("names state where the bundle has config.yaml", {"config.yaml", "x"},
            {"manifest.json", HEAD "{\"name\": \"state\", \"bytes\": 1, \"xxh3_128\": \"\"}]}"});
    REFUSED(
        "has 1 bytes, the manifest wants 2", {"config.yaml", "x"},
        {"manifest.json", HEAD "{\"name\": \"config.yaml\", \"bytes\": 2, \"xxh3_128\": \"\"}]}"});
    REFUSED("config.yaml is damaged", {"config.yaml", "x"},
            {"manifest.json",
             HEAD "{\"name\": \"config.yaml\", \"bytes\": 1, \"xxh3_128\": \"00\"}]}"});
    REFUSED("manifest.json", {"manifest.json", "[]"});
    REFUSED("format 2, this vader reads 1", {"manifest.json", "{\"format\": 2, \"entries\": []}"});
    REFUSED("new_key", {"manifest.json", HEAD "], \"new_key\": 1}"});
}

TEST(a_cut_or_changed_bundle_is_refused) {
    for (int zstd = 0; zstd < 2; zstd++) {
        size_t len;
        unlink(at("c.tar"));
        make(at("c.tar"), zstd);
        char *bytes = slurp(at("c.tar"), &len);
        Bundle *b;
        CHECK_OK(bundle_open_bytes(&b, "c.tar", bytes, len));
        bundle_close(b);
        for (size_t n = 0; n + 1100 < len; n += 997) {
            Err err = bundle_open_bytes(&b, "c.tar", bytes, n);
            CHECK_MSG(err == ERR_FORMAT, "cut at %zu of %zu: %s", n, len, err_name(err));
        }
        for (size_t n = 0; n < len - 1500; n += 1009) { // the last blocks hold padding
            bytes[n] ^= 0x20;
            Err err = bundle_open_bytes(&b, "c.tar", bytes, len);
            if (!err) { // harmless: tar fields that nobody reads
                CHECK_EQ(bundle_count(b), 3);
                bundle_close(b);
            }
            bytes[n] ^= 0x20;
        }
        free(bytes);
    }
}

static void set_byte(const char *path, size_t place, int byte) {
    FILE *f = fopen(path, "r+b");
    if (!f || fseek(f, (long)place, SEEK_SET) || fputc(byte & 255, f) < 0 || fclose(f)) abort();
}

// Every bit of both ends and of a header, one bit of bytes in between.
TEST(no_bit_can_change) {
    for (int zstd = 0; zstd < 2; zstd++) {
        size_t len, tried = 0;
        unlink(at("v.tar"));
        make(at("v.tar"), zstd);
        CHECK_OK(bundle_verify(at("v.tar")));
        char *bytes = slurp(at("v.tar"), &len);
        for (size_t n = 0; n < len * 8; n += n < 64 * 8 || n > (len - 600) * 8 ? 1 : 8 * 1511 + 1) {
            set_byte(at("v.tar"), n / 8, bytes[n / 8] ^ 1 << n % 8);
            CHECK_MSG(bundle_verify(at("v.tar")) == ERR_FORMAT, "bit %zu of %zu: taken", n,
                      len * 8);
            set_byte(at("v.tar"), n / 8, bytes[n / 8]);
            tried++;
        }
        CHECK(tried > 3000);
        CHECK_OK(bundle_verify(at("v.tar")));
        put(at("w.tar"), bytes, len - 512);
        CHECK_ERR(bundle_verify(at("w.tar")), ERR_FORMAT, "not the file that was sealed");
        free(bytes);
    }
}

// The seal disturbs neither tar nor zstd, which tar calls.
TEST(tar_reads_it) {
    bool has_zstd = !system("command -v zstd >/dev/null");
    if (!has_zstd) puts("no zstd here: only plain bundles are tried");
    for (int zstd = 0; zstd <= has_zstd; zstd++) {
        char command[2048];
        unlink(at("t.tar"));
        make(at("t.tar"), zstd);
        snprintf(
            command, sizeof command,
            "cd '%s' && rm -rf x && mkdir x && tar xf t.tar -C x 2>x/said && head -c 150001 state-0 | cmp - "
            "x/state && test -s x/manifest.json && ! test -s x/said",
            at(""));
        CHECK_EQ(system(command), 0);
        if (!zstd) continue;
        snprintf(command, sizeof command, "cd '%s' && zstd -q -t <t.tar", at(""));
        CHECK_EQ(system(command), 0);
    }
}

TEST(a_file_that_is_no_bundle_says_so) {
    Bundle *b;
    CHECK_ERR(bundle_open(&b, "no/such.tar"), ERR_IO, "no/such.tar");
    CHECK_ERR(bundle_open(&b, "tests/test.h"), ERR_FORMAT, "tests/test.h: not a bundle");
    CHECK_ERR(bundle_open_bytes(&b, "empty", NULL, 0), ERR_FORMAT, "empty");
    CHECK_ERR(bundle_open(&b, "tests"), ERR_FORMAT, "tests");
}

TEST(an_entry_that_changed_after_opening_gets_no_file) {
    Bundle *b;
    size_t len;
    make(at("d.tar"), false);
    char *bytes = slurp(at("d.tar"), &len);
    CHECK_OK(bundle_open_bytes(&b, "d.tar", bytes, len));
    char *state = memmem(bytes, len, "state", 5);
    CHECK(state);
    state[512 + 1000] ^= 1;
    CHECK_ERR(bundle_extract_entry(b, "state", at("state-bad")), ERR_FORMAT, "changed while");
    CHECK(access(at("state-bad"), F_OK) != 0);
    bundle_close(b);
    free(bytes);
}
