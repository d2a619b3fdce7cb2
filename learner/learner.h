// learner: the gradient window and the optimiser. Owns theta: writes the board.
//
// denoise: X_K -> X_0, with theta of the current version (window and every step after it)
// learn:   GRAD_X_0 -> GRAD_THETA of the segment; the last segment of a sample (segment 0) sums them, in segment order,
//          into the sample's row of the board and sets its tag
// update:  rows of the update, in sample order -> mean gradient -> clip -> AdamW -> the next version
#ifndef LEARNER_LEARNER_H
#define LEARNER_LEARNER_H

#include "common/proc/stage.h"

extern const Stage learner_stage;

#endif
