// random_graph: small graphs of many ops, wired at random: views, branches, skips, several outputs.
//
// The same seed gives the same nodes, with or without recompute segments, so that two plans of it can be
// compared bit by bit. All ops are smooth, so that gradients can be compared with differences.
#ifndef TESTS_COMMON_TENSOR_RANDOM_GRAPH_H
#define TESTS_COMMON_TENSOR_RANDOM_GRAPH_H

#include "common/tensor/graph.h"

enum { RANDOM_INPUTS = 4, RANDOM_OUTPUTS = 3 };

typedef struct RandomGraph {
    Graph *g;
    Tensor *in[RANDOM_INPUTS];   // F32, named
    Tensor *out[RANDOM_OUTPUTS]; // outputs "y0".. : results, views, sometimes an input
    Tensor *cot[RANDOM_OUTPUTS]; // inputs "cot0"..; NULL without gradients
    Tensor *dx[RANDOM_INPUTS];   // outputs "dx0"..; NULL without gradients and where no path leads
} RandomGraph;

// Builds `ops` random nodes. The caller frees r->g; the weights' bytes live as long as the program.
Err random_graph_build(RandomGraph *r, uint64_t seed, int ops, bool gradients, bool segments);

#endif
