// vader-rewarder: the rewarder as a process.
#include "rewarder/rewarder.h"

int main(int argc, char **argv) { return stage_main(&rewarder_stage, argc, argv); }
