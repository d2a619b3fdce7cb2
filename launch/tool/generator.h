// generator: sampler and decoder in this process, one video after the other: what `vader sample` and `vader eval` share.
//
// The itinerary of a preview, played by the stages of a run: the same noise, the same arithmetic and therefore the same
// frames as they would make. There are no processes, no board and no rewards.
//
//     Generator *g;
//     TRY(generator_open(&g, cfg, threads));
//     SlotHeader h = {.purpose = SLOT_PREVIEW, .tuned = 1, .source = "dog.jpg"};
//     TRY_OUT(generator_run(g, &h, frames));       // (S F, H, W, 3) raw
//   out:
//     generator_close(g);
#ifndef LAUNCH_TOOL_GENERATOR_H
#define LAUNCH_TOOL_GENERATOR_H

#include "common/config/config.h"
#include "common/model/lora.h"
#include "common/transport/slot.h"

typedef struct Generator Generator;

// cfg is borrowed until close; its lora.init is the adapter of tuned videos. threads: of each operator. One generator at a
// time belongs to one thread; several may exist.
Err generator_open(Generator **out, const Config *cfg, int threads);
void generator_close(Generator *g); // NULL is fine

// Memory that one needs, in bytes, without opening it.
Err generator_memory(const Config *cfg, int threads, uint64_t *bytes);

// The adapter. Its values (lora_theta) may be changed before the first tuned video.
Lora *generator_lora(Generator *g);

// The frames of all segments, raw in about [-1, 1], (S F, H, W, 3). header->tuned: with the adapter.
Err generator_run(Generator *g, const SlotHeader *header, float *frames);

// The pictures that the segments of the last video began with, (S, H, W, 3) in [0, 1]: the image, then the last frame of
// the segment before; until the next video.
const float *generator_pictures(Generator *g);

// The model's image encoder: pixels (H, W, 3) in [0, 1] -> embedding (generator_embed_dim). Both 64-byte aligned.
Err generator_embed(Generator *g, const float *pixels, float *embedding);
int64_t generator_embed_dim(const Generator *g);

#endif
