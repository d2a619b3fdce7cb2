// vjepa: V-JEPA's masked prediction loss in feature space, and which part of it carries gradient.
//
// A clip is cut into tubelets. The encoder sees the tokens of C (context) only; the predictor guesses the
// features of the tokens of M (masked); the target encoder, its moving average, sees everything:
//
//     z_j = predictor(encoder(x[C_j]), C_j, M_j, mask token j)      j = 0 short-range, 1 long-range masks
//     h   = layernorm(target_encoder(x)), no gain, eps 1e-5
//     L   = 1/2 sum_j mean |z_j - h[M_j]|^p / p                     p = loss_exp = 1; the reward is -L
//
// Pixels reach L on two paths, Z (through z) and H (through h). The value never depends on the option:
//     stop_target   Z          V-JEPA's own autograd graph
//     full          Z and H    the literal dL/dx
//     target_only   H          hidden content moves towards its prediction
//     segmented     H, and of the pixels only frames from `first_frame` on; C lies before it
// An option is a set of places where the clip enters the graph: vjepa_build splits the pixels there and
// reports the places, and a vjp is asked for with respect to these and no others.
//
//     Vjepa *v;
//     TRY(vjepa_open(&v, "vjepa-l"));                         // folder, or vitl16.pth.tar
//     VjepaLoss out;
//     vjepa_build(v, g, clips, mask, 2, VJEPA_STOP_TARGET, 0, false, &out);
//     TRY(grad_build(g, 1, &out.loss, &cot, out.entry_cnt, out.entry, d_entry));   // then on to the frames
//
// Bardes et al. 2024, arXiv:2404.08471; facebookresearch/jepa, src/models and src/masks/multiblock3d.py.
#ifndef COMMON_MODEL_VJEPA_H
#define COMMON_MODEL_VJEPA_H

#include "common/base/rng.h"
#include "common/format/json.h"
#include "common/model/nn.h"

typedef struct VjepaConfig {
    int image_h, image_w; // crop_size: one number or [height, width]
    int patch;            // pixels
    int frames, tubelet;  // of the position tables; clips may be shorter
    int width, depth, heads;
    int predictor_width, predictor_depth; // its heads are the encoder's
    double mlp_ratio;
    bool uniform_power; // how the position table was built
    int mask_tokens;
    bool squared; // loss_exp 2 instead of 1
} VjepaConfig;

typedef struct Vjepa Vjepa;

// Opens a folder with config.json and model.safetensors (keys "encoder.module.backbone...." and so on), or a
// released checkpoint (.pth.tar) beside whose weights config.json lies in the same folder. Caller closes,
// after every plan that uses it.
Err vjepa_open(Vjepa **out, const char *path);
// The same with weights that are open already, named as in the folder; borrowed.
Err vjepa_of_params(Vjepa **out, Json *config, Params *params);
void vjepa_close(Vjepa *v);
const VjepaConfig *vjepa_config(const Vjepa *v);
// After a build: no key of the files may be left over.
Err vjepa_finish(const Vjepa *v);

typedef enum VjepaGradient {
    VJEPA_STOP_TARGET,
    VJEPA_FULL,
    VJEPA_TARGET_ONLY,
    VJEPA_SEGMENTED,
    VJEPA_GRADIENT_CNT,
} VjepaGradient;
// "stop_target", ...; ERR_USAGE lists them.
const char *vjepa_gradient_name(VjepaGradient option);
Err vjepa_gradient_parse(const char *name, VjepaGradient *out);

// One pair of token lists, (N, cnt) I32 each: graph inputs, ascending. Row n belongs to clip n.
typedef struct VjepaMask {
    Tensor *context; // C
    Tensor *masked;  // M
} VjepaMask;

typedef struct VjepaLoss {
    Tensor *loss; // (1)
    Tensor *h;    // (N, L, D)
    Tensor *z[2]; // (N, |M_j|, D)
    Tensor *entry
        [2]; // where pixels enter with gradient; shapes as clips, or its frames from first_frame on
    int entry_cnt;
    int64_t entry_frame; // first frame of clips that entry[] begins with
} VjepaLoss;

// clips (N, T, image_h, image_w, 3), normalised; T a multiple of tubelet, at most `frames`. mask: mask_cnt 1 or 2.
// first_frame: for VJEPA_SEGMENTED, a multiple of tubelet within (0, T); else 0. Failures are the graph's.
void vjepa_build(Vjepa *v, Graph *g, Tensor *clips, const VjepaMask *mask, int mask_cnt,
                 VjepaGradient option, int64_t first_frame, bool recompute, VjepaLoss *out);

// Appends the vjp: d_clips = cotangent of clips for the cotangent cot (1) of loss. A segmented option
// gives zeros in front of its first frame.
Err vjepa_grad(Graph *g, const VjepaLoss *out, Tensor *cot, Tensor *clips, Tensor **d_clips);

// The position table as V-JEPA makes it, (t * grid_h * grid_w, width): per axis a sin-cos of integer positions,
// [all sin | all cos], axes in the order time, height, width, cut to `width` columns. What the checkpoint
// holds is what is used; this is for tests and for files without one. Memory of the arena.
float *vjepa_positions(Arena *a, int64_t t, int64_t grid_h, int64_t grid_w, int64_t width,
                       bool uniform_power);

// ---- Masks ---------------------------------------------------------------------------------------

// One generator of multi-block masks: M is the union of `blocks` rectangles that span all time steps.
typedef struct VjepaMaskSpec {
    int blocks;
    double scale;                  // area of one block over the area of the frame
    double aspect_min, aspect_max; // height over width
} VjepaMaskSpec;
extern const VjepaMaskSpec
    vjepa_masks[2]; // short-range: 8 of 0.15; long-range: 2 of 0.7; aspect 0.75 to 1.5

// Draws masks for `batch` clips of t x grid_h x grid_w tokens. One block size for all of them, a place per
// block and clip. C is what no block covers, redrawn when empty; with from_time > 0 (segmented) C is all tokens
// of earlier time steps and M what blocks cover from there on. All lists are cut to the shortest (leading
// entries), as V-JEPA does across its batch. shape's context_cnt and masked_cnt on entry are limits for that (0:
// none): places are redrawn until lists reach them, because a plan has fixed shapes. Draw once with a large
// batch and no limit to learn counts that later draws can reach (vjepa_mask_counts).
// On return they are the counts: context (batch, context_cnt), masked (batch, masked_cnt), ascending; room for batch * t * grid_h * grid_w
// each. Numbers are elements of `key` (use RNG_MASKS, draw = the generator's number). ERR_USAGE if 1000 draws
// do not reach the limits.
typedef struct VjepaMaskShape {
    int64_t t, grid_h, grid_w; // tokens of a clip: their product
    int64_t from_time;         // 0, or the first time step that may be masked
    int64_t context_cnt, masked_cnt;
} VjepaMaskShape;
Err vjepa_mask_draw(const VjepaMaskSpec *spec, RngKey key, int64_t batch, VjepaMaskShape *shape,
                    int32_t *context, int32_t *masked);

// Sets context_cnt and masked_cnt: the shortest lists of 64 draws under `key`.
Err vjepa_mask_counts(const VjepaMaskSpec *spec, RngKey key, VjepaMaskShape *shape);

#endif
