// vader-sampler: the sampler as a process.
#include "sampler/sampler.h"

int main(int argc, char **argv) { return stage_main(&sampler_stage, argc, argv); }
