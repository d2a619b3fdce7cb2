// bundle: one file with all of a checkpoint: a tar, plain or zstd, that is whole or absent.
//
//   config.yaml  metrics.jsonl  state                      what `vader resume` needs
//   peft/adapter_config.json  peft/adapter_model.safetensors
//   diffusers/pytorch_lora_weights.safetensors             what others load
//   previews/<name>.mp4|png                                at most BUNDLE_PREVIEWS_MAX
//   manifest.json                                          last: facts, and name, length and XXH3-128 of each entry
//
// Behind the archive lies one block of 512 bytes, the seal: XXH3-128 of every byte before it, in the form of a skippable
// frame of zstd. tar and zstd pass it by; bundle_verify finds any changed bit with it, also in fields that nobody reads.
//
// This list is closed: nothing else is written, and a tar that holds anything else is refused. `tar xf` opens a
// bundle, too. The same entries give the same bytes: no dates, no owners.
//
//     BundleWriter *w;
//     TRY(bundle_create(&w, "ckpt/step-000100.tar", false));
//     TRY_OUT(bundle_add_bytes(w, "config.yaml", text, len));
//     TRY_OUT(bundle_add_file(w, "state", "state-0", BUNDLE_WHOLE_FILE));
//     TRY_OUT(bundle_commit(w, &facts));                      // manifest, fsync, rename
//   out:
//     bundle_abandon(w);
//
//     Bundle *b;
//     TRY(bundle_open(&b, path));                             // reads all of it: every hash has been checked
//     TRY_OUT(bundle_extract_entry(b, "state", "run/state-0"));
//     bundle_close(b);
//
// Reading trusts nothing: regular files only (no link, device, folder or sparse file), each name at most once, the
// manifest last, sizes within the bounds of their names and exactly those of the manifest, hashes equal. Entries are
// streamed; the archive library never touches the disk. A later read of an entry checks its hash again, before
// the file that it goes to gets its name. All refusals are ERR_FORMAT with the bundle's path and the entry's name.
#ifndef COMMON_FORMAT_BUNDLE_H
#define COMMON_FORMAT_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum { BUNDLE_FORMAT = 1, BUNDLE_PREVIEWS_MAX = 64, BUNDLE_NAME_BYTES = 160 };
#define BUNDLE_WHOLE_FILE UINT64_MAX

typedef struct BundleFacts {
    char vader[32];       // version of the program that made it
    uint64_t version;     // updates made
    uint64_t updates;     // updates wanted
    uint64_t config_hash; // config.h
    char numerics[512];   // fingerprint of all stages
} BundleFacts;

typedef struct BundleEntry {
    char name[BUNDLE_NAME_BYTES];
    uint64_t bytes;
    char hash[33]; // XXH3-128, hexadecimal
} BundleEntry;

// May an entry have this name?
bool bundle_knows(const char *name);

// ---- Writing ----

typedef struct BundleWriter BundleWriter;

Err bundle_create(BundleWriter **out, const char *path, bool zstd);
// Entries in any order; the same order gives the same bytes. An unknown or second name dies: names are ours.
Err bundle_add_bytes(BundleWriter *w, const char *name, const void *bytes, size_t len);
// The first `bytes` of a file, or all of it. ERR_IO if it has fewer.
Err bundle_add_file(BundleWriter *w, const char *name, const char *path, uint64_t bytes);
// Writes the manifest and gives the bundle its name. Abandon it in any case.
Err bundle_commit(BundleWriter *w, const BundleFacts *facts);
void bundle_abandon(BundleWriter *w); // NULL is fine

// ---- Reading ----

typedef struct Bundle Bundle;

// Reads and checks everything.
Err bundle_open(Bundle **out, const char *path);
// The same from memory, borrowed until close; label is what messages call it.
Err bundle_open_bytes(Bundle **out, const char *label, const void *bytes, size_t len);
void bundle_close(Bundle *b); // NULL is fine

// As bundle_open, and every byte of the file is the one that was written: its seal holds.
Err bundle_verify(const char *path);

const BundleFacts *bundle_facts(const Bundle *b);
// Entries in order, without the manifest. i < count.
int bundle_count(const Bundle *b);
const BundleEntry *bundle_at(const Bundle *b, int i);
const BundleEntry *bundle_find(const Bundle *b, const char *name); // NULL: not in this bundle

// One entry as memory of the caller, for free(); a zero byte follows. ERR_FORMAT if it is not there.
Err bundle_load(const Bundle *b, const char *name, char **bytes, size_t *len);
// One entry as a file, which is whole or absent and must lie in an existing folder.
Err bundle_extract_entry(const Bundle *b, const char *name, const char *path);
// All entries into a folder, which is made: ERR_USAGE if it exists.
Err bundle_extract(const Bundle *b, const char *dir);

#endif
