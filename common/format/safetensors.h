// safetensors: named tensors in one file or in shards, read by mapping and written atomically.
//
// A file is: u64 little-endian header length | JSON header | data. The header is
// {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets": [begin, end]}}, offsets counted
// from the first data byte (public description: the safetensors README).
//
//     Safetensors *s;
//     TRY(safetensors_open(&s, "unet/diffusion_pytorch_model"));   // or a .safetensors or .index.json
//     const SafetensorsEntry *w;
//     TRY_OUT(safetensors_want(s, "conv_in.weight", &w));
//     ... w->data, w->dtype, w->dim ...
//     safetensors_close(s);
//
// Nothing in a file is trusted: every size is checked before use, tensors must lie side by side without a
// hole or overlap, and an error names file, tensor, wanted and found (ERR_FORMAT; ERR_IO for system calls).
// Refused although JSON allows it: control characters in names, other fields beside the three.
//
// Alignment: `data` is aligned to the size of its element. The official writer lays files out so; where a
// file does not, those tensors are copied when it is opened (safetensors_copied_bytes).
// The file must not be truncated while it is open: that ends the process (SIGBUS).
#ifndef COMMON_FORMAT_SAFETENSORS_H
#define COMMON_FORMAT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/dtype.h"
#include "common/base/err.h"

enum {
    SAFETENSORS_HEADER_BYTES_MAX = 100000000,
    SAFETENSORS_TENSORS_MAX = 65536, // in one collection
    SAFETENSORS_NAME_BYTES_MAX = 512,
    SAFETENSORS_DIMS_MAX = 8,
    SAFETENSORS_SHARDS_MAX = 1024,
};

// One tensor of a weight file; readers of other formats hand out the same record.
typedef struct SafetensorsEntry {
    const char *name;
    const char *path; // the file it lies in
    DType dtype;
    int rank;                          // 0 for a scalar
    int64_t dim[SAFETENSORS_DIMS_MAX]; // outermost first, row-major; those past rank are 1
    const void *data;                  // never NULL from safetensors_*, also when bytes is 0
    size_t bytes;                      // product of dims times dtype_bytes
} SafetensorsEntry;

typedef struct SafetensorsMetadata {
    const char *key, *value;
} SafetensorsMetadata;

typedef struct Safetensors Safetensors;

// Opens a collection. Caller closes. `path` is one of
//   X.safetensors   a file
//   X.json          an index {"weight_map": {tensor: file beside the index}}: all its files as one collection
//   X               a stem: X.safetensors if it exists, else X.safetensors.index.json
Err safetensors_open(Safetensors **out, const char *path);

// The same for the bytes of one file in memory, borrowed until close. label is what messages call it.
Err safetensors_open_bytes(Safetensors **out, const char *label, const void *bytes, size_t len);

// Unmaps; entries and names are gone. NULL is fine.
void safetensors_close(Safetensors *s);

// By name: NULL when there is none / ERR_FORMAT that names file and tensor.
const SafetensorsEntry *safetensors_find(const Safetensors *s, const char *name);
Err safetensors_want(const Safetensors *s, const char *name, const SafetensorsEntry **out);

// All tensors, in file order (shards in order of their names). i < count.
size_t safetensors_count(const Safetensors *s);
const SafetensorsEntry *safetensors_at(const Safetensors *s, size_t i);

// The path it was opened by, with what was completed of a stem.
const char *safetensors_path(const Safetensors *s);

// The header's metadata, of the first shard that has the key; NULL when there is none.
const char *safetensors_metadata(const Safetensors *s, const char *key);

// Bytes copied at open because of their alignment.
size_t safetensors_copied_bytes(const Safetensors *s);

// "[2, 3, 64]" into buf; returns buf.
char *safetensors_shape_text(const SafetensorsEntry *e, char buf[192]);

// Writes one file as the official writer lays it out: tensors by element size (large first, I64
// F64 F32 I32 BF16 F16 U8 BOOL), then name;
// header padded with spaces to 8 bytes. Atomic: a temporary file beside it, fsync, rename, fsync of the
// folder; on failure nothing is left. entries need name, dtype, rank, dim, data and bytes; any order.
Err safetensors_write(const char *path, const SafetensorsEntry *entries, size_t cnt,
                      const SafetensorsMetadata *metadata, size_t metadata_cnt);

#endif
