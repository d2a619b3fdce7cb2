// torch_zip: tensors of a PyTorch checkpoint (.pt, .pth, .pth.tar, .ckpt, .bin), read without executing it.
//
// torch.save writes a zip of  <root>/data.pkl  (the tree, torch_pickle.h)  and  <root>/data/<n>  (storages).
// The tree is flattened: keys and list positions joined by '/', so that a state_dict at the top gives
// "layers.0.weight" and V-JEPA's checkpoints give "target_encoder/module.backbone.pos_embed". With `sub`
// only that dictionary is read and the names start below it; the bytes of others are never touched.
//
//     TorchZip *t;
//     TRY(torch_zip_open(&t, "vitl16.pth.tar", "target_encoder"));
//     const SafetensorsEntry *w = torch_zip_find(t, "module.backbone.pos_embed");
//     torch_zip_close(t);
//
// Zip only, entries stored or deflated, names from a closed list, no entry twice, checksums checked, sizes
// equal to what the tree says; memory for inflated bytes is at most TORCH_ZIP_RATIO_MAX times the file.
// Storages that are stored and aligned are used where they are mapped, others are copied; a tensor that is
// not contiguous is copied into row-major order. Entries are as safetensors.h describes them.
// Refused with a message of their own: checkpoints of PyTorch before 1.6, TorchScript, big-endian files.
#ifndef COMMON_FORMAT_TORCH_ZIP_H
#define COMMON_FORMAT_TORCH_ZIP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/format/safetensors.h"

enum {
    TORCH_ZIP_RATIO_MAX = 256,
    TORCH_ZIP_ENTRIES_MAX = 131072,
    TORCH_ZIP_DEPTH_MAX = 16,
};

typedef struct TorchZip TorchZip;

// Opens a file and loads the tensors under `sub` ("a/b" descends twice; NULL or "": everything). Caller
// closes. ERR_FORMAT names the file and what is wrong; a sub that is not there lists those that are.
Err torch_zip_open(TorchZip **out, const char *path, const char *sub);

// The same for a file in memory, borrowed until close. label is what messages call it.
Err torch_zip_open_bytes(TorchZip **out, const char *label, const void *bytes, size_t len,
                         const char *sub);

// Releases everything; entries and names are gone. NULL is fine.
void torch_zip_close(TorchZip *t);

// By name: NULL when there is none / ERR_FORMAT that names file and tensor.
const SafetensorsEntry *torch_zip_find(const TorchZip *t, const char *name);
Err torch_zip_want(const TorchZip *t, const char *name, const SafetensorsEntry **out);

// All tensors, in the order of the tree.
size_t torch_zip_count(const TorchZip *t);
const SafetensorsEntry *torch_zip_at(const TorchZip *t, size_t i);

const char *torch_zip_path(const TorchZip *t);

// A number (bool, int or float) or a text of the tree, by its path from the top ("epoch"), whatever `sub` was.
// False / NULL when there is none of that kind.
bool torch_zip_number(const TorchZip *t, const char *path, double *out);
const char *torch_zip_text(const TorchZip *t, const char *path);

#endif
