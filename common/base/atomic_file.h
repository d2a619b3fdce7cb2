// atomic_file: files that are whole or absent, whatever kills the writer.
//
// What is written goes to a temporary file beside the target (PATH.tmp-PID); commit makes it durable and renames it.
//
//     AtomicFile f;
//     TRY(atomic_file_open(&f, "ckpt/step-000100.tar"));
//     TRY_OUT(atomic_file_write(&f, bytes, len));      // or a library writes to f.tmp by name
//     TRY_OUT(atomic_file_commit(&f, ATOMIC_FILE_DURABLE));
//   out:
//     atomic_file_abandon(&f);                         // after commit: nothing is left to do
#ifndef COMMON_BASE_ATOMIC_FILE_H
#define COMMON_BASE_ATOMIC_FILE_H

#include <stddef.h>

#include "common/base/err.h"

// DURABLE: fsync of file and folder, so that it survives a power cut. VISIBLE: rename only; readers still see the old
// file or the new one, never half of one.
typedef enum AtomicFileCommit { ATOMIC_FILE_DURABLE, ATOMIC_FILE_VISIBLE } AtomicFileCommit;

typedef struct AtomicFile {
    char *path, *tmp; // tmp is NULL once committed or abandoned
    int fd;
} AtomicFile;

// Makes the temporary file with mode 0666 less the umask. ERR_IO; f may then be abandoned, too.
Err atomic_file_open(AtomicFile *f, const char *path);
Err atomic_file_write(AtomicFile *f, const void *bytes, size_t len);
Err atomic_file_commit(AtomicFile *f, AtomicFileCommit how);
// Removes what was not committed and releases f. A zeroed AtomicFile is fine.
void atomic_file_abandon(AtomicFile *f);

// All of it at once.
Err atomic_file_put(const char *path, const void *bytes, size_t len, AtomicFileCommit how);

#endif
