// torch_pickle: the tree that a PyTorch checkpoint's data.pkl describes, built without executing anything.
//
// A pickle is a program for a small stack machine whose GLOBAL and REDUCE instructions can import and call
// any Python function. This reader knows a closed list of instructions and of globals, gives each listed
// global a fixed meaning in C, and refuses everything else with file, byte position and name:
//   ckpt.pt: data.pkl byte 37: global 'os.system' is not allowed in a checkpoint of tensors
//
// Globals with a value: the storage classes (FloatStorage, ...), _rebuild_tensor_v2, _rebuild_parameter,
// OrderedDict, defaultdict, torch.Size. Others that checkpoints carry beside their weights (numpy scalars,
// argparse.Namespace, torch dtypes and devices) become values of kind OPAQUE: they can be passed by, not read.
//
// Instructions and their meaning: CPython's pickletools.py, protocols 2 to 5. Used by torch_zip.h.
#ifndef COMMON_FORMAT_TORCH_PICKLE_H
#define COMMON_FORMAT_TORCH_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/dtype.h"
#include "common/base/err.h"

enum {
    TORCH_PICKLE_BYTES_MAX = 16 << 20,
    TORCH_PICKLE_VALUES_MAX = 1 << 20, // values, stack and memo, each
    TORCH_PICKLE_STORAGES_MAX = 65536,
    TORCH_PICKLE_DIMS_MAX = 8,
};

typedef enum TorchPickleKind {
    TORCH_PICKLE_NONE,
    TORCH_PICKLE_BOOL,
    TORCH_PICKLE_INT,
    TORCH_PICKLE_FLOAT,
    TORCH_PICKLE_STR,     // text or bytes
    TORCH_PICKLE_SEQ,     // list or tuple
    TORCH_PICKLE_DICT,    // keys and values alternate in item
    TORCH_PICKLE_GLOBAL,  // a function or class on its way to be called
    TORCH_PICKLE_STORAGE, // reference to a storage
    TORCH_PICKLE_TENSOR,
    TORCH_PICKLE_OPAQUE,
} TorchPickleKind;

typedef struct TorchPickleValue TorchPickleValue;

typedef struct TorchPickleItems {
    TorchPickleValue **item;
    size_t cnt, room;
} TorchPickleItems;

// A view of a storage: element (i, j, ...) is at offset + i stride[0] + j stride[1] + ..., all within it.
typedef struct TorchPickleTensor {
    int storage; // index into TorchPickle.storages
    int rank;
    int64_t offset; // in elements
    int64_t dim[TORCH_PICKLE_DIMS_MAX], stride[TORCH_PICKLE_DIMS_MAX];
    int64_t numel;
} TorchPickleTensor;

struct TorchPickleValue {
    TorchPickleKind kind;
    union {
        int64_t i; // INT, BOOL, STORAGE (index), GLOBAL (row of the list)
        double f;
        struct {
            const char *s; // followed by a NUL, may hold others
            size_t len;
        } str;
        TorchPickleItems items; // SEQ, DICT; may contain itself
        const TorchPickleTensor *tensor;
    };
};

typedef struct TorchPickleStorage {
    bool used; // false: no value refers to this number
    DType dtype;
    int64_t numel;
} TorchPickleStorage;

typedef struct TorchPickle {
    TorchPickleValue *root;
    TorchPickleStorage *storages; // by number: storage k is the entry data/k
    int storage_cnt;
} TorchPickle;

// Reads one pickle. Everything in *out lives in the arena. The bytes are not kept. ERR_FORMAT.
Err torch_pickle_parse(TorchPickle *out, Arena *a, const char *label, const void *bytes,
                       size_t len);

// The value under a text or integer key of a DICT, or a position of a SEQ, given as text; NULL when there
// is none.
const TorchPickleValue *torch_pickle_at(const TorchPickleValue *v, const char *key, size_t key_len);

#endif
