// ledger: the durable state of a run, written after every update.
//
// Two files, RUN/state-0 and RUN/state-1, written alternately: whatever kill -9 or a power cut does to one, the
// other is whole. A file is a fixed header, then the payload (theta versions v - lag .. v, m, v of version
// v, each theta_cnt floats), and ends with an XXH3-128 hash over everything before it. It is written to a
// temporary name, fsynced, renamed, and the folder fsynced. ledger_read takes the newest whole one.
#ifndef COMMON_TRANSPORT_LEDGER_H
#define COMMON_TRANSPORT_LEDGER_H

#include <stdint.h>

#include "common/base/err.h"
#include "common/transport/board.h"

typedef struct LedgerHead {
    uint64_t version;       // committed updates
    uint64_t next_sample;   // version x B
    uint64_t metrics_bytes; // length of metrics.jsonl once this version's line is in it
    char numerics[512];     // fingerprint of all stages
    uint64_t config_hash;   // of the settings that decide numbers
} LedgerHead;

Err ledger_write(const char *run_dir, const LedgerHead *head, const Board *board);

// The newest whole state; *found is 0 when neither file exists. A file that is damaged is reported in the log and
// skipped; ERR_FORMAT if one exists and none is whole; ERR_IO if one cannot be read, for it may be the newest.
// board: NULL reads the head only, else its theta, moments, version and durable are restored (spec must match:
// ERR_FORMAT says which number differs).
Err ledger_read(const char *run_dir, LedgerHead *head, Board *board, int *found);

#endif
