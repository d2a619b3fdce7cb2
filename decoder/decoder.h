// decoder: the VAE in both directions.
//
// encode:   image file, or LAST of the segment before -> PIXELS and COND (the conditioning latent)
// handover: clean latents -> LAST, the frame that the next segment starts from; a decode of its own, no gradient
// decode:   clean latents -> FRAMES, the frames that are scored
// pull:     GRAD_FRAMES -> GRAD_X_0, the vjp of decode (recomputed, same chunks)
#ifndef DECODER_DECODER_H
#define DECODER_DECODER_H

#include "common/proc/stage.h"

extern const Stage decoder_stage;

#endif
