// bell: wakes one process that waits. An eventfd, made by the launcher and inherited like the segments (shm.h).
//
// A bell says nothing but "look again": what there is to do stands in shared memory. Several at once are one, and a
// lost one costs a rescan. From ringing to running is one wake-up of the process that waits.
#ifndef COMMON_TRANSPORT_BELL_H
#define COMMON_TRANSPORT_BELL_H

#include <stdbool.h>

#include "common/base/err.h"

// *fd polls readable once it has been rung. Not close-on-exec; close() ends it.
Err bell_create(int *fd);
void bell_ring(int fd); // never blocks
// True if it has been rung since the last answer.
bool bell_answer(int fd);

#endif
