// grad: appends the vector-Jacobian product of a graph to the graph.
//
// Given outputs y_k and cotangents c_k (tensors of the same shapes: inputs, usually, because the reward
// may live in another process), the gradients are those of  sum_k <c_k, y_k>  with respect to wrt_j.
// Nodes are made only on paths from wrt to the outputs: frozen weights cost nothing.
//
//     Tensor *cot = graph_input(g, "cot", DTYPE_F32, y->shape);
//     Tensor *wrt[] = {lora_a, lora_b}, *dx[2];
//     TRY(grad_build(g, 1, &y, &cot, 2, wrt, dx));
//     graph_output(g, &dx[0], "dA");
//
// dx[j] is NULL where no path leads from wrt[j] to an output: its gradient is zero by construction.
// Recompute segments (graph_segment_begin) are re-emitted before their gradient.
#ifndef COMMON_TENSOR_GRAD_H
#define COMMON_TENSOR_GRAD_H

#include "common/tensor/graph.h"

Err grad_build(Graph *g, int out_cnt, Tensor *const *out, Tensor *const *cot, int wrt_cnt,
               Tensor *const *wrt, Tensor **dx);

#endif
