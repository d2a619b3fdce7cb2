// safetensors: official files read and written byte for byte, every malformed header refused by name, shards.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/format/safetensors.h"
#include "tests/test.h"

static const char official[] = "tests/common/format/data/official.safetensors";

// A file in memory: length, header, data of n bytes (0, 1, 2, ...). Caller frees.
static unsigned char *file_make(const char *header, size_t data_len, size_t *len) {
    uint64_t n = strlen(header);
    unsigned char *f = malloc(8 + n + data_len + 1);
    if (!f) abort();
    memcpy(f, &n, 8);
    memcpy(f + 8, header, n);
    for (size_t i = 0; i < data_len; i++) f[8 + n + i] = (unsigned char)i;
    *len = 8 + n + data_len;
    return f;
}

static Err open_header(Safetensors **s, const char *header, size_t data_len, unsigned char **file) {
    size_t len;
    *file = file_make(header, data_len, &len);
    return safetensors_open_bytes(s, "x.safetensors", *file, len);
}

static const char *tmp(const char *name) {
    static char path[4][512];
    static int next;
    const char *dir = getenv("TMPDIR");
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir ? dir : "/tmp", name);
    return p;
}

static void put(const char *path, const void *bytes, size_t len) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f)) TEST_FAIL("%s: cannot write", path);
}

static void put_file(const char *path, const char *header, size_t data_len) {
    size_t len;
    unsigned char *f = file_make(header, data_len, &len);
    put(path, f, len);
    free(f);
}

static unsigned char *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    unsigned char *b = malloc(1 << 16);
    *len = f && b ? fread(b, 1, 1 << 16, f) : 0;
    if (f) fclose(f);
    return b;
}

TEST(an_official_file_is_read) {
    Safetensors *s;
    const SafetensorsEntry *e;
    char shape[192];
    CHECK_OK(safetensors_open(&s, official));
    CHECK_EQ(safetensors_count(s), 9);
    CHECK_STR(safetensors_metadata(s, "format"), "pt");
    CHECK(!safetensors_metadata(s, "other"));
    CHECK_OK(safetensors_want(s, "a", &e));
    CHECK_EQ(e->dtype, DTYPE_F32);
    CHECK_STR(safetensors_shape_text(e, shape), "[2, 3]");
    CHECK_EQ(e->bytes, 24);
    CHECK_STR(e->path, official);
    for (int i = 0; i < 6; i++) CHECK_NEAR((double)((const float *)e->data)[i], 100 + i, 0);
    CHECK_OK(safetensors_want(s, "b.half", &e));
    for (int i = 0; i < 3; i++)
        CHECK_NEAR((double)dtype_f16_to_f32(((const uint16_t *)e->data)[i]), i, 0);
    CHECK_OK(safetensors_want(s, "bf", &e));
    for (int i = 0; i < 5; i++)
        CHECK_NEAR((double)dtype_bf16_to_f32(((const uint16_t *)e->data)[i]), i, 0);
    CHECK_OK(safetensors_want(s, "\xc3\xa9", &e));
    CHECK_EQ(((const int64_t *)e->data)[2], 2);
    CHECK_OK(safetensors_want(s, "empty", &e));
    CHECK_EQ(e->bytes, 0);
    CHECK_EQ(e->rank, 2);
    CHECK(e->data);
    CHECK_OK(safetensors_want(s, "scalar", &e));
    CHECK_EQ(e->rank, 0);
    CHECK_NEAR(*(const double *)e->data, 3.5, 0);
    CHECK_ERR(safetensors_want(s, "none", &e), ERR_FORMAT,
              "official.safetensors: tensor 'none' is missing");
    for (size_t i = 1; i < safetensors_count(s); i++)
        CHECK(safetensors_at(s, i)->data >= safetensors_at(s, i - 1)->data);
    CHECK_EQ(safetensors_copied_bytes(s), 0);
    safetensors_close(s);
}

TEST(what_it_writes_is_what_the_official_writer_writes) {
    Safetensors *s;
    SafetensorsEntry e[16];
    SafetensorsMetadata m = {"format", "pt"};
    size_t n, want_len, got_len;
    CHECK_OK(safetensors_open(&s, official));
    n = safetensors_count(s);
    for (size_t i = 0; i < n; i++) e[n - 1 - i] = *safetensors_at(s, i);
    const char *path = tmp("written.safetensors");
    CHECK_OK(safetensors_write(path, e, n, &m, 1));
    safetensors_close(s);
    unsigned char *want = slurp(official, &want_len), *got = slurp(path, &got_len);
    CHECK_EQ(got_len, want_len);
    CHECK(!memcmp(got, want, want_len));
    free(want);
    free(got);
}

TEST(malformed_headers_are_refused) {
    static const struct {
        const char *header;
        size_t data_len;
        const char *says;
    } rows[] = {
        {"", 0, "does not start with '{'"},
        {" {}", 0, "does not start with '{'"},
        {"[]", 0, "does not start with '{'"},
        {"{", 0, "x.safetensors, line 1"},
        {"{} junk", 0, "x.safetensors, line 1"},
        {"{}\xff", 0, "x.safetensors, line 1"},
        {"{\"\xff\": {}}", 0, "x.safetensors, line 1"},
        {"{}", 1, "the tensors end at data byte 0, the file at 1"},
        {"{\"a\": 3}", 0, "key 'a' is 3, want an object"},
        {"{\"a\": null}", 0, "key 'a' is null"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{}}", 4,
         "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "duplicate"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "x.safetensors: a: key 'dtype' is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "a: key 'shape' is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "a: key 'data_offsets' is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
         "a: key 'x' = 1 is not"},
        {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
         "'a': dtype 'F8_E4M3', want F32"},
        {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype 'f32'"},
        {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "want a string"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4,
         "an array of integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4,
         "an array of integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
         "'a': shape has -1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1,-1],\"data_offsets\":[0,4]}}", 4, "shape has -1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "9 entries, want at most 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "'a': shape [4294967296, 4294967296] overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
         "overflows"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,9223372036854775807,2],\"data_offsets\":[0,0]}}", 0,
         "overflows"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551616],\"data_offsets\":[0,0]}}", 0,
         "too big integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4,
         "data_offsets has 1 entries, want 2"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "has 3 entries"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
         "[4, 0] are not a range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4,
         "[-4, 0] are not a range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
         "data_offsets hold 4 bytes, F32 [2] wants 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,8]}}", 8,
         "hold 8 bytes, F32 [] wants 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
         "ends at data byte 8, the file has 7"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
         "'a': begins at data byte 4, want 0 (hole)"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
         "\"data_offsets\":[3,5]}}",
         5, "'b': begins at data byte 3, want 2 (hole)"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
         "\"data_offsets\":[1,3]}}",
         3, "'b': begins at data byte 1, want 2 (overlap)"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
         "\"data_offsets\":[0,2]}}",
         2, "overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"e\":{\"dtype\":\"U8\",\"shape\":[0],"
         "\"data_offsets\":[1,1]}}",
         2, "'e': begins at data byte 1, want 2 (overlap)"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3,
         "end at data byte 2, the file at 3"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "empty name"},
        {"{\"a\\n\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2,
         "a control character in the name"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__: key 'format' is 1, want a string"},
        {"{\"__metadata__\":[]}", 0, "key '__metadata__' is [], want an object"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Safetensors *s;
        unsigned char *file;
        Err err = open_header(&s, rows[i].header, rows[i].data_len, &file);
        CHECK_MSG(err == ERR_FORMAT, "row %zu %s: %s", i, rows[i].header, err_name(err));
        CHECK_HAS(err_text(), rows[i].says);
        CHECK_HAS(err_text(), "x.safetensors");
        CHECK(!s);
        free(file);
    }
}

TEST(lengths_are_bounded) {
    Safetensors *s;
    unsigned char b[16] = {0};
    for (size_t n = 0; n < 8; n++)
        CHECK_ERR(safetensors_open_bytes(&s, "x", b, n), ERR_FORMAT, "want a header length");
    const uint64_t lengths[] = {100000001, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
    for (int i = 0; i < 4; i++) {
        memcpy(b, lengths + i, 8);
        CHECK_ERR(safetensors_open_bytes(&s, "x", b, 16), ERR_FORMAT, "want at most 100000000");
    }
    memcpy(b, &(uint64_t){9}, 8);
    CHECK_ERR(safetensors_open_bytes(&s, "x", b, 16), ERR_FORMAT,
              "header length 9, the file has 8 bytes after it");
}

TEST(tensor_count_and_name_length_are_bounded) {
    Safetensors *s;
    size_t room = 64 * (SAFETENSORS_TENSORS_MAX + 2), n = 1;
    char *h = malloc(room);
    unsigned char *file;
    CHECK(h);
    *h = '{';
    for (int i = 0; i <= SAFETENSORS_TENSORS_MAX; i++)
        n += (size_t)snprintf(h + n, room - n,
                              "%s\"%x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                              i ? "," : "", (unsigned)i);
    strcpy(h + n, "}");
    CHECK_ERR(open_header(&s, h, 0, &file), ERR_FORMAT, "65537 tensors, want at most 65536");
    free(file);
    n = (size_t)snprintf(h, room, "{\"");
    memset(h + n, 'n', SAFETENSORS_NAME_BYTES_MAX + 1);
    strcpy(h + n + SAFETENSORS_NAME_BYTES_MAX + 1,
           "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    CHECK_ERR(open_header(&s, h, 0, &file), ERR_FORMAT, "name has 513 bytes, want at most 512");
    free(file);
    free(h);
}

TEST(odd_but_legal_files_are_read) {
    Safetensors *s;
    unsigned char *file;
    CHECK_OK(open_header(&s, "{}      ", 0, &file));
    CHECK_EQ(safetensors_count(s), 0);
    CHECK(!safetensors_find(s, "a"));
    safetensors_close(s);
    free(file);
    // Two empty tensors in one place, one at the end; names in any order.
    CHECK_OK(open_header(
        &s,
        "{\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},\"b\":{\"dtype\":\"U8\","
        "\"shape\":[2],\"data_offsets\":[0,2]},\"a\":{\"dtype\":\"F32\",\"shape\":[3,0],"
        "\"data_offsets\":[0,0]}}",
        2, &file));
    CHECK_STR(safetensors_at(s, 0)->name, "a");
    CHECK_STR(safetensors_at(s, 1)->name, "b");
    CHECK_STR(safetensors_at(s, 2)->name, "z");
    safetensors_close(s);
    free(file);
}

TEST(tensors_that_the_file_does_not_align_are_copied) {
    for (int pad = 0; pad < 8; pad++) {
        Safetensors *s;
        unsigned char *file;
        char header[200];
        snprintf(
            header, sizeof header,
            "{\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"w\":{\"dtype\":\"F64\",\"shape\":[2],"
            "\"data_offsets\":[1,17]}}%*s",
            pad, "");
        CHECK_OK(open_header(&s, header, 17, &file));
        const SafetensorsEntry *e = safetensors_find(s, "w");
        CHECK_EQ((uintptr_t)e->data % 8, 0);
        for (int i = 0; i < 16; i++) CHECK_EQ(((const unsigned char *)e->data)[i], i + 1);
        size_t odd = (uintptr_t)(file + 8 + strlen(header) + 1) % 8;
        CHECK_EQ(safetensors_copied_bytes(s), odd ? 16 : 0);
        safetensors_close(s);
        free(file);
    }
}

TEST(tensors_without_bytes_are_aligned_too) {
    for (int pad = 0; pad < 8; pad++) {
        Safetensors *s;
        unsigned char *file;
        char header[200];
        snprintf(
            header, sizeof header,
            "{\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"w\":{\"dtype\":\"F64\",\"shape\":[0,2],"
            "\"data_offsets\":[1,1]}}%*s",
            pad, "");
        CHECK_OK(open_header(&s, header, 1, &file));
        CHECK_EQ((uintptr_t)safetensors_find(s, "w")->data % 8, 0);
        CHECK_EQ(safetensors_copied_bytes(s), 0);
        safetensors_close(s);
        free(file);
    }
}

TEST(a_file_cut_anywhere_is_refused) {
    size_t len;
    unsigned char *all = slurp(official, &len);
    CHECK(len > 100);
    for (size_t n = 0; n < len; n++) {
        Safetensors *s;
        unsigned char *part = malloc(n + 1); // exact, so that a sanitizer sees a read beyond
        part = realloc(part, n ? n : 1);
        memcpy(part, all, n);
        CHECK_ERR(safetensors_open_bytes(&s, "cut", part, n), ERR_FORMAT, "cut");
        free(part);
    }
    const char *path = tmp("cut.safetensors");
    for (size_t n = 0; n < len; n += 37) {
        Safetensors *s;
        put(path, all, n);
        CHECK_ERR(safetensors_open(&s, path), ERR_FORMAT, path);
    }
    free(all);
}

TEST(a_changed_byte_never_does_harm) {
    size_t len;
    unsigned char *all = slurp(official, &len);
    static const unsigned char values[] = {0, '"', '{', '}', ',', '9', 0xff};
    for (size_t at = 0; at < len; at++)
        for (size_t v = 0; v < sizeof values; v++) {
            Safetensors *s;
            unsigned char was = all[at];
            all[at] = values[v];
            if (safetensors_open_bytes(&s, "x", all, len) == ERR_OK) {
                unsigned sum = 0;
                for (size_t i = 0; i < safetensors_count(s); i++)
                    for (size_t k = 0; k < safetensors_at(s, i)->bytes; k++)
                        sum += ((const unsigned char *)safetensors_at(s, i)->data)[k];
                CHECK(sum < 1u << 20);
                safetensors_close(s);
            }
            all[at] = was;
        }
    free(all);
}

#define U8(name, begin, end, n) \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[" #begin "," #end "]}"

TEST(shards_are_one_collection) {
    Safetensors *s;
    put_file(tmp("m-00001-of-00002.safetensors"),
             "{\"__metadata__\":{\"format\":\"pt\"}," U8("b", 0, 2, 2) "}", 2);
    put_file(tmp("m-00002-of-00002.safetensors"), "{" U8("a", 0, 3, 3) "}", 3);
    const char *index = tmp("m.safetensors.index.json");
    char *text =
        "{\"metadata\": {\"total_size\": 5}, \"weight_map\": {\"a\": \"m-00002-of-00002.safetensors\", "
        "\"b\": \"m-00001-of-00002.safetensors\"}}";
    put(index, text, strlen(text));
    const char *ways[] = {tmp("m.safetensors.index.json"), tmp("m")};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(safetensors_open(&s, ways[i]));
        CHECK_EQ(safetensors_count(s), 2);
        CHECK_STR(safetensors_at(s, 0)->name, "b");
        CHECK_HAS(safetensors_find(s, "a")->path, "m-00002-of-00002.safetensors");
        CHECK_HAS(safetensors_path(s), "m.safetensors.index.json");
        CHECK_STR(safetensors_metadata(s, "format"), "pt");
        safetensors_close(s);
    }
    put_file(tmp("m.safetensors"), "{" U8("only", 0, 1, 1) "}", 1); // a whole file goes first
    CHECK_OK(safetensors_open(&s, tmp("m")));
    CHECK(safetensors_find(s, "only"));
    safetensors_close(s);
}

TEST(a_bad_index_is_refused) {
    put_file(tmp("s1.safetensors"), "{" U8("a", 0, 2, 2) "}", 2);
    put_file(tmp("s2.safetensors"), "{" U8("a", 0, 2, 2) "," U8("b", 2, 3, 1) "}", 3);
    static const struct {
        const char *text, *says;
        Err code;
    } rows[] = {
        {"{}", "key 'weight_map' is missing", ERR_FORMAT},
        {"{\"weight_map\": {}}", "weight_map is empty", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": 1}}", "key 'a' is 1, want a string", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"../s1.safetensors\"}}",
         "'a': file '../s1.safetensors', want the plain name", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "want the plain name", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"..\"}}", "want the plain name", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"\"}}", "want the plain name", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"none.safetensors\"}}", "none.safetensors: No such file",
         ERR_IO},
        {"{\"weight_map\": {\"a\": \"s1.safetensors\", \"a\": \"s1.safetensors\"}}", "duplicate",
         ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"s1.safetensors\", \"c\": \"s1.safetensors\"}}",
         "tensor 'c' is not in s1", ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"s2.safetensors\"}}", "tensor 'b' is not in the index",
         ERR_FORMAT},
        {"{\"weight_map\": {\"a\": \"s1.safetensors\", \"b\": \"s2.safetensors\"}}",
         "tensor 'a' is also in", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Safetensors *s;
        const char *path = tmp("bad.json");
        put(path, rows[i].text, strlen(rows[i].text));
        CHECK_ERR(safetensors_open(&s, path), rows[i].code, rows[i].says);
    }
}

TEST(paths_that_are_no_files) {
    Safetensors *s;
    CHECK_ERR(safetensors_open(&s, tmp("none.safetensors")), ERR_IO,
              "none.safetensors: No such file");
    CHECK_ERR(safetensors_open(&s, tmp("none")), ERR_IO, "found neither");
    const char *dir = tmp("d.safetensors");
    CHECK(!mkdir(dir, 0700) || errno == EEXIST);
    CHECK_ERR(safetensors_open(&s, dir), ERR_IO, "not a regular file");
    put(tmp("empty.safetensors"), "", 0);
    CHECK_ERR(safetensors_open(&s, tmp("empty.safetensors")), ERR_FORMAT,
              "0 bytes, want a header length");
}

TEST(the_writer_refuses_what_the_reader_would) {
    float x[2] = {1, 2};
    SafetensorsEntry ok = {
        .name = "a", .dtype = DTYPE_F32, .rank = 1, .dim = {2}, .data = x, .bytes = 8};
    const char *path = tmp("w.safetensors");
    SafetensorsEntry two[2] = {ok, ok};
    CHECK_ERR(safetensors_write(path, two, 2, NULL, 0), ERR_FORMAT, "tensor 'a' is given twice");
    SafetensorsEntry e = ok;
    e.bytes = 4;
    CHECK_ERR(safetensors_write(path, &e, 1, NULL, 0), ERR_SHAPE, "4 bytes given, f32 [2] wants 8");
    e = ok;
    e.name = "\xff";
    CHECK_ERR(safetensors_write(path, &e, 1, NULL, 0), ERR_FORMAT, "not UTF-8");
    e.name = "a\nb";
    CHECK_ERR(safetensors_write(path, &e, 1, NULL, 0), ERR_FORMAT, "control character");
    e.name = "__metadata__";
    CHECK_ERR(safetensors_write(path, &e, 1, NULL, 0), ERR_FORMAT, "named __metadata__");
    e = ok;
    e.dim[0] = -2;
    CHECK_ERR(safetensors_write(path, &e, 1, NULL, 0), ERR_FORMAT, "shape has -2");
    CHECK(access(path, F_OK));
    CHECK_ERR(safetensors_write(tmp("no/such/w.safetensors"), &ok, 1, NULL, 0), ERR_IO,
              "No such file");
}

TEST(writing_replaces_the_file_at_once_or_not_at_all) {
    float x[2] = {1, 2};
    Safetensors *s;
    SafetensorsEntry e = {
        .name = "quote\"d", .dtype = DTYPE_F32, .rank = 1, .dim = {2}, .data = x, .bytes = 8};
    SafetensorsMetadata m[] = {{"format", "pt"}, {"note", "a \"b\"\n"}};
    const char *path = tmp("r.safetensors");
    CHECK_OK(safetensors_write(path, NULL, 0, NULL, 0));
    CHECK_OK(safetensors_write(path, &e, 1, m, 2));
    CHECK_OK(safetensors_open(&s, path));
    x[0] = 9;
    CHECK_OK(safetensors_write(path, &e, 1, m, 2)); // the open mapping keeps the old bytes
    CHECK_NEAR((double)*(const float *)safetensors_find(s, "quote\"d")->data, 1, 0);
    CHECK_STR(safetensors_metadata(s, "note"), "a \"b\"\n");
    safetensors_close(s);
    char leftover[600];
    snprintf(leftover, sizeof leftover, "%s.tmp-%d", path, (int)getpid());
    CHECK(access(leftover, F_OK));
    const char *dir = tmp("target.safetensors"); // the rename fails: nothing is left
    CHECK(!mkdir(dir, 0700) || errno == EEXIST);
    CHECK_ERR(safetensors_write(dir, &e, 1, NULL, 0), ERR_IO, "rename");
    snprintf(leftover, sizeof leftover, "%s.tmp-%d", dir, (int)getpid());
    CHECK(access(leftover, F_OK));
}
