// torch_pickle: pickles written by hand, instruction by instruction; what is not on the list is refused.
#include <inttypes.h>

#include "common/format/torch_pickle.h"
#include "tests/test.h"

// A pickle in a row: text and its length, since it may hold NULs.
#define PKL(s) (s), sizeof(s) - 1

#define HEAD "\x80\x02"
#define FLOATS(key, n) "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" key "X\3\0\0\0cpuK" n "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"

static Err parse(TorchPickle *p, Arena *a, const char *bytes, size_t len) {
    char *exact = malloc(len ? len : 1); // so that a sanitizer sees a read beyond
    memcpy(exact, bytes, len);
    Err err = torch_pickle_parse(p, a, "x.pt", exact, len);
    free(exact);
    return err;
}

TEST(scalars_and_containers) {
    Arena a = {0};
    TorchPickle p;
    CHECK_OK(parse(
        &p, &a,
        PKL(HEAD "}(X\1\0\0\0iJ\xfe\xff\xff\xffX\1\0\0\0bK\xffX\1\0\0\0hM\x01\x02X\1\0\0\0l\x8a\x06"
                 "\0\0\0\0\0\x01X\1\0\0\0n\x8a\x01\xff"
                 "X\1\0\0\0fG\x3f\xf8\0\0\0\0\0\0X\1\0\0\0t\x88"
                 "X\1\0\0\0s\x8c\2hiX\1\0\0\0zNX\1\0\0\0q](K\1K\2eu.")));
    static const struct {
        const char *key;
        int64_t want;
    } ints[] = {{"i", -2}, {"b", 255}, {"h", 513}, {"l", 1ll << 40}, {"n", -1}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        const TorchPickleValue *v = torch_pickle_at(p.root, ints[i].key, 1);
        CHECK(v && v->kind == TORCH_PICKLE_INT);
        CHECK_EQ(v->i, ints[i].want);
    }
    CHECK_NEAR(torch_pickle_at(p.root, "f", 1)->f, 1.5, 0);
    CHECK_EQ(torch_pickle_at(p.root, "t", 1)->kind, TORCH_PICKLE_BOOL);
    CHECK_STR(torch_pickle_at(p.root, "s", 1)->str.s, "hi");
    CHECK_EQ(torch_pickle_at(p.root, "z", 1)->kind, TORCH_PICKLE_NONE);
    const TorchPickleValue *list = torch_pickle_at(p.root, "q", 1);
    CHECK_EQ(list->items.cnt, 2);
    CHECK_EQ(torch_pickle_at(list, "1", 1)->i, 2);
    CHECK(!torch_pickle_at(list, "2", 1));
    CHECK(!torch_pickle_at(p.root, "none", 4));
    arena_free(&a);
}

TEST(memo_shares_values) {
    Arena a = {0};
    TorchPickle p;
    CHECK_OK(parse(&p, &a, PKL("\x80\x04\x95\x0a\0\0\0\0\0\0\0]\x94(\x8c\1x\x94h\1h\0e.")));
    CHECK_EQ(p.root->items.cnt, 3);
    CHECK(p.root->items.item[0] == p.root->items.item[1]);
    CHECK(p.root->items.item[2] == p.root); // a list in itself is a tree that readers must bound
    arena_free(&a);
}

TEST(a_tensor_is_a_view_of_a_storage) {
    Arena a = {0};
    TorchPickle p;
    CHECK_OK(
        parse(&p, &a, PKL(HEAD REBUILD "(" FLOATS("2", "\x0c") "K\4K\2K\3\x86K\3K\1\x86\x89}tR.")));
    CHECK_EQ(p.root->kind, TORCH_PICKLE_TENSOR);
    const TorchPickleTensor *t = p.root->tensor;
    CHECK_EQ(t->storage, 2);
    CHECK_EQ(t->offset, 4);
    CHECK_EQ(t->rank, 2);
    CHECK_EQ(t->dim[1], 3);
    CHECK_EQ(t->stride[0], 3);
    CHECK_EQ(t->numel, 6);
    CHECK_EQ(p.storage_cnt, 3);
    CHECK(p.storages[2].used && !p.storages[0].used);
    CHECK_EQ(p.storages[2].numel, 12);
    arena_free(&a);
}

// Each of these is what an attacker or an unlucky user might bring.
TEST(everything_else_is_refused) {
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } rows[] = {
        {PKL(""), "byte 0: the pickle ends"},
        {PKL(HEAD), "the pickle ends"},
        {PKL("\x80\x01N."), "protocol 1, want 2 to 5"},
        {PKL("\x80\x06N."), "protocol 6"},
        {PKL(HEAD "cos\nsystem\n."), "byte 2: global 'os.system' is not allowed"},
        {PKL(HEAD "cposix\nsystem\n."), "global 'posix.system'"},
        {PKL(HEAD "cbuiltins\neval\n."), "global 'builtins.eval'"},
        {PKL(HEAD "c__builtin__\ngetattr\n."), "global '__builtin__.getattr'"},
        {PKL(HEAD "ctorch\nload\n."), "global 'torch.load'"},
        {PKL(HEAD "ctorch.FloatStorage\n\n."), "global 'torch.FloatStorage.'"},
        {PKL(HEAD "ctorch\nFloatStorage.x\n."), "global 'torch.FloatStorage.x'"},
        {PKL(HEAD "c\x1b[31m\nx\n."), "global '?[31m.x'"},
        {PKL("\x80\x04\x8c\2os\x8c\6system\x93."), "global 'os.system'"},
        {PKL("\x80\x04K\1\x8c\6system\x93."), "a global without name"},
        {PKL(HEAD "cos"), "ends in the middle of a line"},
        {PKL(HEAD "cos\nsystem"), "ends in the middle of a line"},
        {PKL(HEAD "(ios\nsystem\n."), "instruction 0x69 is not allowed"},
        {PKL(HEAD "(oN."), "instruction 0x6f"},
        {PKL(HEAD "P1\n."), "instruction 0x50"},
        {PKL(HEAD "\x82\1."), "instruction 0x82"},
        {PKL(HEAD "\x92."), "instruction 0x92"},
        {PKL(HEAD "S'x'\n."), "instruction 0x53"},
        {PKL(HEAD "I1\n."), "instruction 0x49"},
        {PKL(HEAD "."), "the stack is empty"},
        {PKL(HEAD "(."), "the stack is empty"},
        {PKL(HEAD "0."), "the stack is empty"},
        {PKL(HEAD "NN."), "stops with 1 values on the stack and 0 bytes unread"},
        {PKL(HEAD "N.N"), "0 values on the stack and 1 bytes unread"},
        {PKL(HEAD "t."), "no MARK on the stack"},
        {PKL(HEAD "NNu."), "no MARK"},
        {PKL(HEAD "}(Nu."), "a key without value"},
        {PKL(HEAD "N(Nu."), "a value that is none"},
        {PKL(HEAD "NK\1a."), "appending to a list to a value that is none"},
        {PKL(HEAD "}NNNs."), "to a value that is none"},
        {PKL(HEAD "h\0."), "memo index 0 was never set"},
        {PKL(HEAD "j\xff\xff\xff\xff."), "memo index 4294967295 was never set"},
        {PKL(HEAD "q\0."), "the stack is empty"},
        {PKL(HEAD "Nr\xff\xff\xff\xff."), "memo index 4294967295, want below"},
        {PKL(HEAD "X\xff\xff\xff\xff"
                  "a."),
         "ends in the middle of an instruction"},
        {PKL(HEAD "\x8a\x09"
                  "123456789."),
         "an integer of 9 bytes"},
        {PKL("\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff."), "a frame of"},
        {PKL(HEAD "NN\x86R."), "the stack is empty"},
        {PKL(HEAD "N)R."), "a call of a value that is no function"},
        {PKL(HEAD "ctorch\nFloatStorage\n)R."), "torch.FloatStorage is not called"},
        {PKL(HEAD "ctorch\nFloatStorage\nNR."), "a call of a value that is no function"},
        {PKL(HEAD "ccollections\nOrderedDict\n](K\1e\x85R."), "a dict made from values"},
        {PKL(HEAD "ctorch\nSize\n)R."), "a torch.Size without tuple"},
        {PKL(HEAD "ctorch._utils\n_rebuild_parameter\n)R."), "a parameter without tensor"},
        {PKL(HEAD "ctorch\nSize\n)\x81."), "an object of a class that is not known"},
        {PKL(HEAD "K\1}b."), "state for a value that has none"},
        {PKL(HEAD "NQ."), "a persistent id that is no tuple"},
        {PKL(HEAD ")Q."), "a persistent id that is not"},
        {PKL(HEAD "(X\7\0\0\0storageNX\1\0\0\0"
                  "0X\3\0\0\0cpuK\1tQ."),
         "a persistent id that is not"},
        {PKL(HEAD "(X\7\0\0\0storagectorch\nSize\nX\1\0\0\0"
                  "0X\3\0\0\0cpuK\1tQ."),
         "a persistent id that is not"},
        {PKL(HEAD FLOATS("a", "\1") "."), "a storage number"},
        {PKL(HEAD "(X\7\0\0\0storagectorch\nFloatStorage\nX\5\0\0\0"
                  "65536X\3\0\0\0cpuK\1tQ."),
         "a storage number"},
        {PKL(HEAD "(X\7\0\0\0storagectorch\nFloatStorage\nX\2\0\0\0"
                  "01X\3\0\0\0cpuK\1tQ."),
         "a storage number"},
        {PKL(HEAD "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
                  "0X\3\0\0\0cpuJ\xff\xff\xff\xfftQ."),
         "storage 0 of -1 elements"},
        {PKL(HEAD "(" FLOATS("0", "\1") FLOATS("0", "\2") "t."),
         "storage 0 is f32 x 2, before it was f32 x 1"},
        {PKL(HEAD REBUILD ")R."), "a tensor without storage and offset"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "J\xff\xff\xff\xffK\1\x85K\1\x85tR."),
         "a tensor without storage"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0NK\1\x85tR."),
         "a tensor's size is not a tuple"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0J\xff\xff\xff\xff\x85K\1\x85tR."),
         "size has an entry that is not"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0K\1\x85J\xff\xff\xff\xff\x85tR."),
         "stride has an entry that is not"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0K\1\x85)tR."), "1 dims with 0 strides"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0K\5\x85K\1\x85tR."),
         "reaches element 4 of storage 0, which has 4"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\1K\4\x85K\1\x85tR."), "reaches element 4"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0K\2\x85K\4\x85tR."), "reaches element 4"},
        {PKL(HEAD REBUILD "(" FLOATS("0", "\4") "K\0K\5\x85K\0\x85tR."),
         "an expanded tensor: 5 elements"},
        {PKL(HEAD REBUILD "(" FLOATS(
             "0", "\4") "K\0\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\2\x86K\1K\1\x86tR."),
         "shape overflows"},
        {PKL(HEAD REBUILD
             "(" FLOATS("0", "\4") "K\0K\3\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85tR."),
         "strides overflow"},
        {PKL(HEAD REBUILD "(" FLOATS(
             "0", "\4") "K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1K\1K\1K\1ttR."),
         "size is not a tuple of at most 8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Arena a = {0};
        TorchPickle p;
        Err err = parse(&p, &a, rows[i].bytes, rows[i].len);
        CHECK_MSG(err == ERR_FORMAT, "row %zu, want \"%s\": %s", i, rows[i].says, err_name(err));
        CHECK_HAS(err_text(), rows[i].says);
        CHECK_HAS(err_text(), "x.pt: data.pkl");
        arena_free(&a);
    }
}

TEST(known_classes_beside_the_weights_are_passed_by) {
    Arena a = {0};
    TorchPickle p;
    CHECK_OK(parse(
        &p, &a,
        PKL(HEAD
            "(cargparse\nNamespace\n)\x81}X\2\0\0\0lrK\1sbcnumpy.core.multiarray\nscalar\n(cnumpy\ndtype"
            "\n(X\2\0\0\0f8\x89\x88tR(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbc_codecs"
            "\nencode\n(X\1\0\0\0zX\6\0\0\0latin1tRtRctorch\nfloat16\nt.")));
    CHECK_EQ(p.root->items.cnt, 3);
    CHECK_EQ(p.root->items.item[0]->kind, TORCH_PICKLE_OPAQUE);
    CHECK_EQ(p.root->items.item[1]->kind, TORCH_PICKLE_OPAQUE);
    arena_free(&a);
}

TEST(size_and_number_of_values_are_bounded) {
    Arena a = {0};
    TorchPickle p;
    size_t len = TORCH_PICKLE_VALUES_MAX + 16;
    char *many = malloc(len);
    CHECK(many);
    memset(many, 'N', len);
    CHECK_ERR(torch_pickle_parse(&p, &a, "x.pt", many, len), ERR_FORMAT,
              "more than 1048576 values");
    arena_free(&a);
    memset(many, '(', len);
    CHECK_ERR(torch_pickle_parse(&p, &a, "x.pt", many, len), ERR_FORMAT,
              "more than 1048576 values on the stack");
    arena_free(&a);
    CHECK_ERR(torch_pickle_parse(&p, &a, "x.pt", many, TORCH_PICKLE_BYTES_MAX + 1), ERR_FORMAT,
              "want at most 16777216");
    free(many);
    arena_free(&a);
}
