// device_mem: a block of bulk memory that one process writes and others read, whatever device it lies on.
//
// The owner makes the block and exports a handle; a reader opens the handle in its epoch and acquires pieces. What it
// gets is always memory that its own device reads directly: the mapping itself, or a staging copy where the block
// cannot be mapped (another device, or a mapping that fails the pattern test). An offset means the same on both sides;
// an address does not.
//
//     owner    TRY(device_mem_create(&mem, &device_mem_host, "sections of the decoder", bytes));
//              DeviceHandle handle = device_mem_export(&mem, epoch);            // plain bytes: fits any message
//              float *x = device_mem_write(&mem, at, n);
//     reader   TRY(device_mem_open(&mem, &device_mem_host, what, &handle, epoch, false, staging_bytes));
//              const void *x;
//              TRY(device_mem_acquire(&mem, at, n, &x));                        // valid until the release
//              device_mem_release(&mem);                                        // after the step: all pieces
//              device_mem_close(&mem);                                          // before a new epoch is acknowledged
//
// Kinds of memory are tables of functions. `device_mem_host` is POSIX shared memory (shm.h): the launcher creates the
// block, its handle names the inherited descriptor, and a reader's mapping is read-only, so that a stray store ends
// the process that made it and not another one's data. A handle holds what cudaIpcMemHandle_t needs (64 bytes), so
// that memory of a GPU is one more table.
#ifndef COMMON_TRANSPORT_DEVICE_MEM_H
#define COMMON_TRANSPORT_DEVICE_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/transport/shm.h"

enum { DEVICE_MEM_OPAQUE = 64, DEVICE_MEM_TAIL = 64 };

// What a reader needs; no pointers, equal in every process.
typedef struct DeviceHandle {
    uint64_t bytes;   // of the block
    uint64_t pattern; // lies behind its last byte: what is mapped is what was exported
    uint32_t epoch;   // void in any other
    uint32_t kind;    // id of a DeviceMemKind
    unsigned char opaque[DEVICE_MEM_OPAQUE];
} DeviceHandle;

typedef struct DeviceMem DeviceMem;

// One kind of memory. Blocks are DEVICE_MEM_TAIL bytes longer than asked for; there lies the pattern.
typedef struct DeviceMemKind {
    uint32_t id;
    const char *name;
    Err (*create)(DeviceMem *m, const char *what, uint64_t bytes); // zeroed; sets base
    void (*export)(const DeviceMem *m, unsigned char opaque[DEVICE_MEM_OPAQUE]);
    Err (*open)(DeviceMem *m, const char *what, const unsigned char opaque[DEVICE_MEM_OPAQUE],
                uint64_t bytes); // sets base, or leaves it NULL: every piece is fetched
    Err (*fetch)(DeviceMem *m, uint64_t at, uint64_t bytes, void *to); // NULL: only mappings
    void (*close)(DeviceMem *m);
} DeviceMemKind;

extern const DeviceMemKind device_mem_host;

struct DeviceMem {
    const DeviceMemKind *kind; // NULL = none
    unsigned char *base;       // mapping; NULL = staged
    uint64_t bytes, pattern;
    bool writes;
    Shm shm;                        // host
    int64_t device_word;            // other kinds: what they need
    unsigned char *staging;         // pieces of the current step, one behind the other
    uint64_t staging_bytes, staged; // room, used
};

// Owner. ERR_MEMORY as shm_create says it.
Err device_mem_create(DeviceMem *m, const DeviceMemKind *kind, const char *what, uint64_t bytes);
DeviceHandle device_mem_export(const DeviceMem *m, uint32_t epoch);
// writes: this process is the block's writer. staging_bytes: room for all pieces of one step where the block cannot be
// mapped; allocated then only. ERR_PEER: another kind, another epoch, or memory that is not what was exported.
Err device_mem_open(DeviceMem *m, const DeviceMemKind *kind, const char *what,
                    const DeviceHandle *handle, uint32_t epoch, bool writes,
                    uint64_t staging_bytes);
// n bytes at offset `at`; the block's writer only. Dies outside the block.
void *device_mem_write(const DeviceMem *m, uint64_t at, uint64_t n);
// Dies outside the block; ERR_DEVICE: the copy failed. Staged pieces begin at multiples of 64 bytes.
Err device_mem_acquire(DeviceMem *m, uint64_t at, uint64_t n, const void **out);
void device_mem_release(DeviceMem *m);
void device_mem_close(DeviceMem *m); // one of zeros is fine

#endif
