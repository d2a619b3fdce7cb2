// vader-decoder: the decoder as a process.
#include "decoder/decoder.h"

int main(int argc, char **argv) { return stage_main(&decoder_stage, argc, argv); }
