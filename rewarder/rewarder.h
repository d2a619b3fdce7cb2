// rewarder: the reward models.
//
// score: FRAMES of all segments -> R and its terms (the slot's score line), GRAD_FRAMES
#ifndef REWARDER_REWARDER_H
#define REWARDER_REWARDER_H

#include "common/proc/stage.h"

extern const Stage rewarder_stage;

#endif
