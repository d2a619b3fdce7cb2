// tool: the commands that compute, one program beside `vader`.
//
// Each takes the arguments from its own name on and returns an Err; main prints it.
#ifndef LAUNCH_TOOL_TOOL_H
#define LAUNCH_TOOL_TOOL_H

#include "common/base/err.h"
#include "common/format/media.h"

Err tool_forward(int argc, char **argv); // forward.c
Err tool_doctor(int argc, char **argv);  // doctor.c
Err tool_inline(int argc, char **argv);  // inline.c
Err tool_sample(int argc, char **argv);  // sample.c
Err tool_verify(int argc, char **argv);  // verify.c
Err tool_encode(int argc, char **argv);  // encode.c
Err tool_poster(int argc, char **argv);  // encode.c
Err tool_eval(int argc, char **argv);    // eval.c

// NAME.mp4 and NAME.png (a sheet of all frames) of a clip. (encode.c)
Err encode_clip(const MediaClip *clip, const char *name, int fps);

#endif
