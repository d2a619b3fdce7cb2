// aesthetic: the LAION aesthetic predictor V2: how much people like a picture, about 1 to 10.
//
//     Aesthetic *a;
//     TRY(aesthetic_open(&a, "clip-vit-large-patch14", "sac+logos+ava1-l14-linearMSE.pth"));
//     AestheticScore s;
//     aesthetic_build(a, g, pixels, false, &s);                 // s.score (N)
//     TRY(aesthetic_finish(a));
//
// score = head(e / |e|), e the image embedding of CLIP ViT-L/14 (quick_gelu) and head five linears with no
// activation between them (768-1024-128-64-16-1; the widths are read from the file).
// Public source: christophschuhmann/improved-aesthetic-predictor.
#ifndef COMMON_MODEL_AESTHETIC_H
#define COMMON_MODEL_AESTHETIC_H

#include "common/model/clip_vision.h"

typedef struct Aesthetic Aesthetic;

typedef struct AestheticScore {
    Tensor *image_embeds; // (N, projection), as CLIP gives it
    Tensor *score;        // (N)
} AestheticScore;

// clip: a folder for clip_vision. head: a folder with safetensors, a .safetensors file or the released .pth
// (keys layers.{0,2,4,6,7}.{weight,bias}). Caller closes, after every plan that uses it.
Err aesthetic_open(Aesthetic **out, const char *clip, const char *head);
void aesthetic_close(Aesthetic *a);
const ClipVisionConfig *aesthetic_config(const Aesthetic *a);

// pixels (N, 1, image, image, 3), normalised with CLIP's mean and std. Failures are the graph's.
void aesthetic_build(Aesthetic *a, Graph *g, Tensor *pixels, bool recompute, AestheticScore *out);
// After a build: no key of the two files may be left over.
Err aesthetic_finish(const Aesthetic *a);

#endif
