// ckpt: `vader ckpt ls|verify|extract|export BUNDLE ...`: what a bundle holds, and its adapter for other programs.
//
//   ls BUNDLE                         facts and entries
//   verify BUNDLE ...                 reads all of them whole; every bit is checked
//   extract BUNDLE DIR                all entries, into a folder that is made
//   export BUNDLE --peft DIR          the adapter as a PEFT folder, which is made
//   export BUNDLE --diffusers FILE    the adapter as pytorch_lora_weights.safetensors
#ifndef LAUNCH_CKPT_H
#define LAUNCH_CKPT_H

#include "common/base/err.h"

Err ckpt_main(int argc, char **argv);

#endif
