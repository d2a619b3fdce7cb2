// torch_zip: checkpoints made by torch.save (tests/oracle/make_torch_zip.py), and zips that lie.
#include <archive.h>
#include <archive_entry.h>
#include <stdint.h>

#include "common/format/torch_zip.h"
#include "tests/common/format/zip_make.h"
#include "tests/test.h"

#define DATA "tests/common/format/data/"

static unsigned char *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    unsigned char *b = malloc(1 << 16);
    *len = f && b ? fread(b, 1, 1 << 16, f) : 0;
    if (f) fclose(f);
    return b;
}

// Element i of tensor number k is 100 k + i + add.
static void check_numbers(const TorchZip *t, const char *name, int k, double add) {
    const SafetensorsEntry *e;
    CHECK_OK(torch_zip_want(t, name, &e));
    CHECK_EQ((uintptr_t)e->data % dtype_bytes(e->dtype), 0);
    size_t cnt = e->bytes / dtype_bytes(e->dtype);
    for (size_t i = 0; i < cnt; i++) {
        double got;
        dtype_convert(&got, DTYPE_F64, (const char *)e->data + i * dtype_bytes(e->dtype), e->dtype,
                      1);
        CHECK_MSG(got == 100 * k + (double)i + add, "%s[%zu] is %g", name, i, got);
    }
}

static void check_tree(const char *path) {
    static const float transposed[] = {200, 204, 208, 201, 205, 209, 202, 206, 210, 203, 207, 211};
    TorchZip *t;
    const SafetensorsEntry *e;
    double x;
    CHECK_OK(torch_zip_open(&t, path, NULL));
    CHECK_EQ(torch_zip_count(t), 21);
    CHECK_STR(torch_zip_at(t, 0)->name, "encoder/module.backbone.pos_embed");
    check_numbers(t, "encoder/module.backbone.pos_embed", 0, 0);
    check_numbers(t, "encoder/module.backbone.blocks.0.attn.qkv.weight", 1, 0);
    check_numbers(t, "target_encoder/module.backbone.pos_embed", 0, 0.5);
    check_numbers(t, "views/whole", 2, 0);
    check_numbers(t, "views/row", 2, 4);
    check_numbers(t, "views/parameter", 3, 0);
    check_numbers(t, "opt/state/0/exp_avg", 4, 0);
    for (int d = 0; d < DTYPE_BOOL; d++) {
        static const char *const names[] = {"float32", "float16", "bfloat16", "float64",
                                            "int32",   "int64",   "uint8"};
        char name[32];
        snprintf(name, sizeof name, "types/%s", names[d]);
        CHECK_OK(torch_zip_want(t, name, &e));
        CHECK_EQ(e->dtype, d);
        check_numbers(t, name, 0, 0);
    }
    CHECK_OK(torch_zip_want(t, "views/transposed", &e));
    CHECK_EQ(e->rank, 2);
    CHECK_EQ(e->dim[0], 4);
    CHECK_EQ(e->dim[1], 3);
    CHECK(!memcmp(e->data, transposed, sizeof transposed));
    CHECK_OK(torch_zip_want(t, "views/column", &e));
    CHECK(!memcmp(e->data, (const float[]){202, 206, 210}, 12));
    CHECK_OK(torch_zip_want(t, "views/scalar", &e));
    CHECK_EQ(e->rank, 0);
    CHECK_NEAR((double)*(const float *)e->data, 7.25, 0);
    CHECK_OK(torch_zip_want(t, "views/empty", &e));
    CHECK_EQ(e->bytes, 0);
    CHECK(torch_zip_number(t, "epoch", &x) && x == 300);
    CHECK(torch_zip_number(t, "big", &x) && x == 0x1p40);
    CHECK(torch_zip_number(t, "negative", &x) && x == -5);
    CHECK(torch_zip_number(t, "opt/param_groups/0/betas/1", &x) && x == 0.999);
    CHECK(!torch_zip_number(t, "scaler", &x) && !torch_zip_number(t, "name", &x));
    CHECK_STR(torch_zip_text(t, "name"), "vit_tiny");
    CHECK(!torch_zip_text(t, "args"));
    CHECK_ERR(torch_zip_want(t, "nope", &e), ERR_FORMAT, "tensor 'nope' is missing");
    torch_zip_close(t);
}

TEST(a_tree_of_torch_is_read) { check_tree(DATA "nested.pth.tar"); }
TEST(a_compressed_one_too) { check_tree(DATA "deflated.pt"); }
TEST(and_one_of_a_newer_protocol) { check_tree(DATA "protocol4.pt"); }

TEST(one_dictionary_is_picked) {
    TorchZip *t;
    double x;
    CHECK_OK(torch_zip_open(&t, DATA "nested.pth.tar", "target_encoder"));
    CHECK_EQ(torch_zip_count(t), 2);
    check_numbers(t, "module.backbone.pos_embed", 0, 0.5);
    CHECK(torch_zip_number(t, "epoch", &x) && x == 300); // scalars are found from the top
    torch_zip_close(t);
    CHECK_OK(torch_zip_open(&t, DATA "nested.pth.tar", "opt/state/0"));
    CHECK_EQ(torch_zip_count(t), 2);
    torch_zip_close(t);
    CHECK_ERR(torch_zip_open(&t, DATA "nested.pth.tar", "model"), ERR_FORMAT,
              "no dictionary 'model'; there is: encoder, target_encoder, views");
    CHECK_ERR(torch_zip_open(&t, DATA "nested.pth.tar", "opt/none"), ERR_FORMAT,
              "there is: state, param_groups");
    CHECK_ERR(torch_zip_open(&t, DATA "nested.pth.tar", "epoch"), ERR_FORMAT,
              "'epoch' is not a dictionary");
    CHECK_OK(torch_zip_open(&t, DATA "flat.pt", NULL));
    check_numbers(t, "layers.0.weight", 0, 0);
    check_numbers(t, "layers.0.bias", 1, 0);
    torch_zip_close(t);
}

TEST(other_files_say_what_they_are) {
    TorchZip *t;
    CHECK_ERR(torch_zip_open(&t, DATA "attack.pt", NULL), ERR_FORMAT,
              "global 'posix.system' is not allowed");
    CHECK_ERR(torch_zip_open(&t, DATA "module.pt", NULL), ERR_FORMAT,
              "global '__main__.Tiny' is not allowed");
    CHECK_ERR(torch_zip_open(&t, DATA "script.pt", NULL), ERR_FORMAT, "a TorchScript archive");
    CHECK_ERR(torch_zip_open(&t, DATA "legacy.pt", NULL), ERR_FORMAT,
              "the format of PyTorch before 1.6");
    CHECK_ERR(torch_zip_open(&t, DATA "official.safetensors", NULL), ERR_FORMAT,
              "does not start as a zip");
    CHECK_ERR(torch_zip_open(&t, DATA "none.pt", NULL), ERR_IO, "No such file");
    CHECK_ERR(torch_zip_open(&t, DATA, NULL), ERR_IO, "not a regular file");
}

// ---- zips made here

// {"w": a tensor of 4 floats, storage 0}
static const char pkl[] =
    "\x80\x02}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\n"
    "X\1\0\0\0"
    "0X\3\0\0\0cpuK\4tQK\0K\4\x85K\1\x85\x89}tRs.";
static const float four[4] = {1, 2, 3, 4};

TEST(zips_that_lie_are_refused) {
    typedef struct Entry {
        const char *name;
        const void *bytes;
        size_t len;
        uint32_t harm;
    } Entry;
#define TREE \
    { "a/data.pkl", pkl, sizeof pkl - 1, 0 }
#define FOUR \
    { "a/data/0", four, 16, 0 }
    static const struct {
        Entry entry[4];
        const char *says; // NULL: it is fine
    } rows[] = {
        {{TREE, FOUR}, NULL},
        {{FOUR, TREE}, NULL},
        {{TREE, FOUR, {"a/version", "3\n", 2, 0}, {"a/byteorder", "little", 6, 0}}, NULL},
        {{TREE, FOUR, {"a/data/1", four, 4, 7}}, NULL}, // not asked for, not read
        {{TREE, FOUR, {"a/byteorder", "big", 3, 0}}, "byteorder is not little"},
        {{TREE, FOUR, {"a/byteorder", "", 0, 0}}, "byteorder is not little"},
        {{FOUR}, "the zip has no data.pkl"},
        {{{"a/x/data.pkl", pkl, sizeof pkl - 1, 0}, FOUR}, "the zip has no data.pkl"},
        {{TREE}, "zip entry data/0 is missing"},
        {{TREE, {"a/data/00", four, 16, 0}}, "zip entry data/0 is missing"},
        {{TREE, {"a/data/0", four, 12, 0}}, "data/0 has 12 bytes, want 16"},
        {{TREE, {"a/data/0", pkl, 32, 0}}, "data/0 has 32 bytes, want 16"},
        {{TREE, FOUR, FOUR}, "data/0 is there twice"},
        {{TREE, TREE, FOUR}, "data.pkl is there twice"},
        {{TREE, {"b/data/0", four, 16, 0}}, "entry 2 lies under another root"},
        {{TREE, {"ab/data/0", four, 16, 0}}, "entry 2 lies under another root"},
        {{TREE, {"data/0", four, 16, 0}}, "entry 2 lies under another root"},
        {{{"data.pkl", pkl, sizeof pkl - 1, 0}}, "entry 1 is not <root>/..."},
        {{{"a/data.pkl", pkl, sizeof pkl - 1, 1}, FOUR}, "zip entry data.pkl: "},
        {{TREE, {"a/data/0", four, 16, 1}}, "zip entry data/0: "},
        {{{"a/data.pkl", pkl, sizeof pkl - 2, 0}, FOUR}, "the pickle ends"},
        {{TREE, FOUR, {"a/code/x.py", "", 0, 0}}, "a TorchScript archive"},
        {{TREE, FOUR, {"a/constants.pkl", "", 0, 0}}, "a TorchScript archive"},
        {{{"a/data.pkl", "\x80\x02N.", 4, 0}}, "the top of 'data.pkl' is not a dictionary"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Zip z = {0};
        TorchZip *t;
        for (int k = 0; k < 4 && rows[i].entry[k].name; k++)
            zip_add(&z, rows[i].entry[k].name, rows[i].entry[k].bytes, rows[i].entry[k].len,
                    rows[i].entry[k].harm);
        zip_end(&z);
        Err err = torch_zip_open_bytes(&t, "x.pt", z.file, z.len, NULL);
        CHECK_MSG(err == (rows[i].says ? ERR_FORMAT : ERR_OK), "row %zu: %s %s", i, err_name(err),
                  err_text());
        if (rows[i].says) {
            CHECK_HAS(err_text(), rows[i].says);
            CHECK_HAS(err_text(), "x.pt: ");
            continue;
        }
        CHECK(!memcmp(torch_zip_find(t, "w")->data, four, 16));
        torch_zip_close(t);
    }
}

// A tree whose pickle is given, and storage 0 of four floats.
static Err open_tree(TorchZip **t, const void *tree, size_t len) {
    static Zip z;
    z = (Zip){0};
    zip_add(&z, "a/data.pkl", tree, len, 0);
    zip_add(&z, "a/data/0", four, 16, 0);
    zip_end(&z);
    return torch_zip_open_bytes(t, "x.pt", z.file, z.len, NULL);
}

#define TENSOR                                                                             \
    "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" \
    "0X\3\0\0\0cpuK\4tQ"                                                                   \
    "K\0K\4\x85K\1\x85\x89}tR"

TEST(trees_that_lie_are_refused) {
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } rows[] = {
#define TREE_ROW(s, says) {s, sizeof(s) - 1, says}
        TREE_ROW("\x80\x02]q\0h\0a.", "lies more than 16 deep"),
        TREE_ROW("\x80\x02}(N" TENSOR "u.", "neither text nor integer"),
        TREE_ROW("\x80\x02}(X\1\0\0\0w" TENSOR "q\0X\1\0\0\0wh\0u.", "two tensors are named 'w'"),
        TREE_ROW("\x80\x02}(X\1\0\0\0\n" TENSOR "u.", "a control character"),
        TREE_ROW("\x80\x02}(X\1\0\0\0\0" TENSOR "u.", "a control character"),
        TREE_ROW("\x80\x02" TENSOR ".", "the top of 'data.pkl' is not a dictionary"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        TorchZip *t;
        CHECK_ERR(open_tree(&t, rows[i].bytes, rows[i].len), ERR_FORMAT, rows[i].says);
    }
    // Lists of two references to the list before: 2^15 paths to a tensor, but 2^20 are refused.
    char bomb[600];
    size_t n = 0;
    TorchZip *t;
    memcpy(bomb,
           "\x80\x02" TENSOR "q\0"
           "0",
           n = sizeof("\x80\x02" TENSOR "q\0"
                      "0") -
               1);
    for (int i = 0; i < 14; i++) {
        char twice[64] = "](";
        size_t m = 2;
        for (int k = 0; k < 16; k++) twice[m++] = 'h', twice[m++] = (char)i;
        memcpy(bomb + n, twice, m);
        n += m;
        bomb[n++] = 'e', bomb[n++] = 'q', bomb[n++] = (char)(i + 1), bomb[n++] = '0';
        if (n > sizeof bomb - 80) break;
    }
    bomb[n++] = 'h', bomb[n++] = 10, bomb[n++] = '.';
    CHECK_ERR(open_tree(&t, bomb, n), ERR_FORMAT, "more than ");
}

TEST(a_zip_bomb_is_refused) {
    enum { ROOM = 1 << 20, ZEROS = 1 << 28 };
    char *file = malloc(ROOM), *zeros = calloc(1, 1 << 20);
    size_t used = 0;
    struct archive *w = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    CHECK(file && zeros && w && e);
    archive_write_set_format_zip(w);
    archive_write_zip_set_compression_deflate(w);
    archive_write_set_bytes_in_last_block(w, 1);
    CHECK_EQ(archive_write_open_memory(w, file, ROOM, &used), ARCHIVE_OK);
    static const char tree[] =
        "\x80\x02}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n"
        "ByteStorage\nX\1\0\0\0"
        "0X\3\0\0\0cpuJ\0\0\0\x10tQK\0J\0\0\0\x10\x85K\1\x85\x89}tRs.";
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_pathname(e, "a/data.pkl");
    archive_entry_set_size(e, sizeof tree - 1);
    CHECK_EQ(archive_write_header(w, e), ARCHIVE_OK);
    CHECK_EQ(archive_write_data(w, tree, sizeof tree - 1), sizeof tree - 1);
    archive_entry_set_pathname(e, "a/data/0");
    archive_entry_set_size(e, ZEROS);
    CHECK_EQ(archive_write_header(w, e), ARCHIVE_OK);
    for (int i = 0; i < ZEROS >> 20; i++) CHECK_EQ(archive_write_data(w, zeros, 1 << 20), 1 << 20);
    CHECK_EQ(archive_write_close(w), ARCHIVE_OK);
    archive_entry_free(e);
    archive_write_free(w);
    TorchZip *t;
    CHECK_ERR(torch_zip_open_bytes(&t, "x.pt", file, used, NULL), ERR_FORMAT,
              "inflates to more than 256 times");
    free(file);
    free(zeros);
}

TEST(a_file_cut_anywhere_is_refused) {
    size_t len;
    unsigned char *all = slurp(DATA "flat.pt", &len);
    CHECK(len > 1000);
    for (size_t n = 0; n < len; n++) {
        TorchZip *t;
        unsigned char *part = malloc(n ? n : 1); // exact, so that a sanitizer sees a read beyond
        memcpy(part, all, n);
        CHECK_ERR(torch_zip_open_bytes(&t, "cut", part, n, NULL), ERR_FORMAT, "cut");
        free(part);
    }
    free(all);
}

TEST(a_changed_byte_never_does_harm) {
    static const char *const files[] = {DATA "flat.pt", DATA "deflated.pt"};
    static const unsigned char values[] = {0, 1, 0x7f, 0xff};
    for (int f = 0; f < 2; f++) {
        size_t len;
        unsigned char *all = slurp(files[f], &len);
        for (size_t at = 0; at < len; at += f ? 3 : 1)
            for (size_t v = 0; v < sizeof values; v++) {
                TorchZip *t;
                unsigned char was = all[at];
                all[at] = values[v];
                if (torch_zip_open_bytes(&t, "x", all, len, NULL) == ERR_OK) {
                    unsigned sum = 0;
                    for (size_t i = 0; i < torch_zip_count(t); i++)
                        for (size_t k = 0; k < torch_zip_at(t, i)->bytes; k++)
                            sum += ((const unsigned char *)torch_zip_at(t, i)->data)[k];
                    CHECK(sum < 1u << 24);
                    torch_zip_close(t);
                }
                all[at] = was;
            }
        free(all);
    }
}
