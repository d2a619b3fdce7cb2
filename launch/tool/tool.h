// tool: the commands that compute, one program beside `vader`.
//
// Each takes the arguments from its own name on and returns an Err; main prints it.
#ifndef LAUNCH_TOOL_TOOL_H
#define LAUNCH_TOOL_TOOL_H

#include "common/base/err.h"

Err tool_forward(int argc, char **argv); // forward.c
Err tool_doctor(int argc, char **argv);  // doctor.c
Err tool_inline(int argc, char **argv);  // inline.c

#endif
