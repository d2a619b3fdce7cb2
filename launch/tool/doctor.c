// doctor: placeholder.
#include "launch/tool/tool.h"

Err tool_doctor(int argc, char **argv) { FAIL(ERR_USAGE, "doctor: not yet"); }
