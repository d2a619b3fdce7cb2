// vader-learner: the learner as a process.
#include "learner/learner.h"

int main(int argc, char **argv) { return stage_main(&learner_stage, argc, argv); }
