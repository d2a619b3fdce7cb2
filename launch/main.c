// vader: the command.
#include "launch/cli.h"

int main(int argc, char **argv) { return cli_main(argc, argv); }
