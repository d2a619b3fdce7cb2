// fault: what tests make a stage do wrong, on purpose: die, fail, sleep, lose messages.
//
// A spec is a list of words, given to `vader train --fault SPEC` and passed on to every stage:
//
//   kill:denoise.1@5:before    SIGKILL itself at step `denoise` of segment 1 of sample 5, before | after | commit
//                              (after the callback / after the slot advanced). Only in incarnation 0.
//   kill:update@3:before       the learner at update 3
//   crash:score@2:after        as kill, but in every incarnation
//   delay:SEED:MAX_US          a random sleep of up to MAX_US before and after every step
//   fail:score@2               the callback returns an error
//   bells:DROP:TWICE:DELAY     bells are dropped, doubled, delayed (per mille)
//   messages:DROP:TWICE:DELAY  all messages are, the launcher's too
#ifndef COMMON_PROC_FAULT_H
#define COMMON_PROC_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/proc/itinerary.h"
#include "common/transport/control.h"

typedef struct Fault Fault;
typedef enum FaultPhase { FAULT_BEFORE, FAULT_AFTER, FAULT_COMMIT } FaultPhase;

// ERR_USAGE names the word that is wrong. spec NULL or "": *out = NULL.
Err fault_parse(Fault **out, const char *spec, int incarnation);
void fault_free(Fault *f);

// At each phase of a step; may sleep, or never return. kind STEP_CNT is the update, sample its number.
void fault_at(const Fault *f, FaultPhase phase, StepKind kind, uint32_t segment, uint64_t sample);
// The error that the step is to return, if any.
Err fault_error(const Fault *f, StepKind kind, uint32_t segment, uint64_t sample);
// What happens to messages, without a seed; false if nothing is asked for.
bool fault_messages(const Fault *f, ControlDisturb *how);

#endif
