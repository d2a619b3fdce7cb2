// library: the bare oneDNN calls that our ops are measured against.
//
// One thread, weights packed once, memory bound beforehand. Only the benchmark uses oneDNN.
#ifndef TESTS_BENCH_LIBRARY_H
#define TESTS_BENCH_LIBRARY_H

#include <dlfcn.h>
#include <dnnl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"

enum { LIBRARY_PRIMITIVES_MAX = 8 };

typedef struct Library {
    int cnt;
    dnnl_primitive_t primitive[LIBRARY_PRIMITIVES_MAX];
    dnnl_exec_arg_t arg[LIBRARY_PRIMITIVES_MAX][5];
    int arg_cnt[LIBRARY_PRIMITIVES_MAX];
} Library;

static dnnl_engine_t library_engine;
static dnnl_stream_t library_stream;

static void library_run(void *ctx) {
    Library *l = ctx;
    for (int i = 0; i < l->cnt; i++)
        die_unless(
            !dnnl_primitive_execute(l->primitive[i], library_stream, l->arg_cnt[i], l->arg[i]),
            "oneDNN: execute");
}

#if DNNL_VERSION_MAJOR != 2
#error "the benchmark is written for oneDNN 2.x (Debian 12: libdnnl-dev 2.6)"
#endif

#define DNNL_DO(call) die_unless((call) == dnnl_success, "oneDNN: %s", #call)

static float *library_floats(size_t n) {
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    die_unless(p, "bench: out of memory");
    for (size_t i = 0; i < n; i++) p[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return p;
}

// A memory of its own with random values.
static dnnl_memory_t library_memory(const dnnl_memory_desc_t *md) {
    dnnl_memory_t m;
    DNNL_DO(dnnl_memory_create(&m, md, library_engine,
                               library_floats(dnnl_memory_desc_get_size(md) / 4 + 1)));
    return m;
}

static dnnl_memory_desc_t library_desc(int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag) {
    dnnl_memory_desc_t md;
    DNNL_DO(dnnl_memory_desc_init_by_tag(&md, rank, dims, dnnl_f32, tag));
    return md;
}
static dnnl_memory_desc_t library_strided(int rank, const dnnl_dims_t dims,
                                          const dnnl_dims_t strides) {
    dnnl_memory_desc_t md;
    DNNL_DO(dnnl_memory_desc_init_by_strides(&md, rank, dims, dnnl_f32, strides));
    return md;
}

static void library_open(void) {
    void (*set_threads)(int) = (void (*)(int))(uintptr_t)dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (set_threads) set_threads(1); // of the OpenMP that oneDNN brought along
    DNNL_DO(dnnl_engine_create(&library_engine, dnnl_cpu, 0));
    DNNL_DO(dnnl_stream_create(&library_stream, library_engine, dnnl_stream_default_flags));
}

// What oneDNN wants to see before it makes a data gradient: its forward convolution.
static dnnl_primitive_desc_t library_hint(const dnnl_convolution_desc_t *back) {
    dnnl_convolution_desc_t forward;
    dnnl_primitive_desc_t hint;
    DNNL_DO(dnnl_convolution_forward_desc_init(&forward, dnnl_forward_training,
                                               dnnl_convolution_direct, &back->diff_src_desc,
                                               &back->weights_desc, NULL, &back->diff_dst_desc,
                                               back->strides, back->padding[0], back->padding[1]));
    DNNL_DO(dnnl_primitive_desc_create(&hint, &forward, NULL, library_engine, NULL));
    return hint;
}

// Appends a primitive whose arguments get memories of their own, of the layouts that it chose.
static void library_add(Library *l, const_dnnl_op_desc_t desc, dnnl_primitive_desc_t hint,
                        const int *arg, const dnnl_query_t *query, int cnt) {
    dnnl_primitive_desc_t pd;
    DNNL_DO(dnnl_primitive_desc_create(&pd, desc, NULL, library_engine, hint));
    DNNL_DO(dnnl_primitive_create(&l->primitive[l->cnt], pd));
    for (int i = 0; i < cnt; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, query[i], 0);
        l->arg[l->cnt][i] = (dnnl_exec_arg_t){arg[i], library_memory(md)};
    }
    l->arg_cnt[l->cnt++] = cnt;
}

// y (m, n) = x (m, k) w (n, k)^T + bias; w in the library's own layout.
static Library *library_linear(const int64_t *d) {
    Library *l = calloc(1, sizeof *l);
    dnnl_dims_t xs = {d[0], d[2]}, ws = {d[2], d[1]}, bs = {1, d[1]}, ys = {d[0], d[1]};
    dnnl_memory_desc_t x = library_desc(2, xs, dnnl_ab),
                       w = library_desc(2, ws, dnnl_format_tag_any),
                       b = library_desc(2, bs, dnnl_ab), y = library_desc(2, ys, dnnl_ab);
    dnnl_matmul_desc_t desc;
    DNNL_DO(dnnl_matmul_desc_init(&desc, &x, &w, &b, &y));
    library_add(l, &desc, NULL,
                (int[]){DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST},
                (dnnl_query_t[]){dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_weights_md,
                                 dnnl_query_dst_md},
                4);
    l->arg[0][2].memory = library_memory(&b);
    return l;
}

// Channels-last 2-D convolution of n images (h, w, c) -> o channels, or its data gradient.
typedef struct LibraryConv {
    int64_t n, h, w, c, o, kernel[2], stride, pad[2];
    bool backward;
} LibraryConv;
static Library *library_conv(LibraryConv c) {
    Library *l = calloc(1, sizeof *l);
    int64_t oh = (c.h + 2 * c.pad[0] - c.kernel[0]) / c.stride + 1,
            ow = (c.w + 2 * c.pad[1] - c.kernel[1]) / c.stride + 1;
    dnnl_dims_t xs = {c.n, c.c, c.h, c.w}, ws = {c.o, c.c, c.kernel[0], c.kernel[1]},
                ys = {c.n, c.o, oh, ow}, bs = {c.o};
    dnnl_memory_desc_t x = library_desc(4, xs, dnnl_nhwc),
                       w = library_desc(4, ws, dnnl_format_tag_any),
                       b = library_desc(1, bs, dnnl_a), y = library_desc(4, ys, dnnl_nhwc);
    dnnl_dims_t stride = {c.stride, c.stride}, pad = {c.pad[0], c.pad[1]};
    dnnl_convolution_desc_t desc;
    if (c.backward) {
        DNNL_DO(dnnl_convolution_backward_data_desc_init(&desc, dnnl_convolution_direct, &x, &w, &y,
                                                         stride, pad, pad));
        library_add(
            l, &desc, library_hint(&desc),
            (int[]){DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
            (dnnl_query_t[]){dnnl_query_diff_dst_md, dnnl_query_weights_md, dnnl_query_diff_src_md},
            3);
    } else {
        DNNL_DO(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference,
                                                   dnnl_convolution_direct, &x, &w, &b, &y, stride,
                                                   pad, pad));
        library_add(l, &desc, NULL,
                    (int[]){DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS},
                    (dnnl_query_t[]){dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md,
                                     dnnl_query_weights_md},
                    4);
        l->arg[0][3].memory = library_memory(&b);
    }
    return l;
}

// (3,1,1) over the frames of (t, pixels, c), as a 3-D convolution, or its data gradient.
static Library *library_conv_time(int64_t t, int64_t pixels, int64_t c, int64_t o, bool backward) {
    Library *l = calloc(1, sizeof *l);
    dnnl_dims_t xs = {1, c, t, 1, pixels}, ws = {o, c, 3, 1, 1}, ys = {1, o, t, 1, pixels};
    dnnl_dims_t stride = {1, 1, 1}, pad = {1, 0, 0};
    dnnl_memory_desc_t x = library_desc(5, xs, dnnl_ndhwc), y = library_desc(5, ys, dnnl_ndhwc),
                       w = library_desc(5, ws, dnnl_format_tag_any);
    dnnl_convolution_desc_t desc;
    if (backward) {
        DNNL_DO(dnnl_convolution_backward_data_desc_init(&desc, dnnl_convolution_direct, &x, &w, &y,
                                                         stride, pad, pad));
        library_add(
            l, &desc, library_hint(&desc),
            (int[]){DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
            (dnnl_query_t[]){dnnl_query_diff_dst_md, dnnl_query_weights_md, dnnl_query_diff_src_md},
            3);
    } else {
        DNNL_DO(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference,
                                                   dnnl_convolution_direct, &x, &w, NULL, &y,
                                                   stride, pad, pad));
        library_add(l, &desc, NULL, (int[]){DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                    (dnnl_query_t[]){dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md},
                    3);
    }
    return l;
}

// Attention on packed rows (batch, len, heads * d), strided heads: scores, softmax, product;
// backward keeps P and adds dV, dP, softmax gradient, dQ, dK. time_axis: rows are (len, batch)
// instead, as over frames.
static void library_matmul(Library *l, const dnnl_dims_t a, const dnnl_dims_t as,
                           const dnnl_dims_t b, const dnnl_dims_t bs, const dnnl_dims_t c,
                           const dnnl_dims_t cs) {
    dnnl_memory_desc_t x = library_strided(4, a, as), w = library_strided(4, b, bs),
                       y = library_strided(4, c, cs);
    dnnl_matmul_desc_t desc;
    DNNL_DO(dnnl_matmul_desc_init(&desc, &x, &w, NULL, &y));
    library_add(l, &desc, NULL, (int[]){DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                (dnnl_query_t[]){dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md}, 3);
}
static Library *library_attention(int64_t batch, int64_t heads, int64_t len, int64_t d,
                                  bool time_axis, bool backward) {
    Library *l = calloc(1, sizeof *l);
    int64_t width = heads * d, row = time_axis ? batch * width : width,
            entry = time_axis ? width : len * width;
    dnnl_dims_t q = {batch, heads, len, d},
                qs = {entry, d, row, 1}; // also v, y and their gradients
    dnnl_dims_t kt = {batch, heads, d, len}, kts = {entry, d, 1, row}; // k or v, transposed
    dnnl_dims_t p = {batch, heads, len, len}, ps = {heads * len * len, len * len, len, 1};
    dnnl_dims_t pts = {heads * len * len, len * len, 1, len};
    dnnl_memory_desc_t pd = library_strided(4, p, ps);
    if (!backward) {
        library_matmul(l, q, qs, kt, kts, p, ps);
        dnnl_softmax_desc_t soft;
        DNNL_DO(dnnl_softmax_forward_desc_init(&soft, dnnl_forward_inference, &pd, 3));
        library_add(l, &soft, NULL, (int[]){DNNL_ARG_SRC, DNNL_ARG_DST},
                    (dnnl_query_t[]){dnnl_query_src_md, dnnl_query_dst_md}, 2);
        library_matmul(l, p, ps, q, qs, q, qs);
        l->arg[1][0].memory = l->arg[0][2].memory, l->arg[2][0].memory = l->arg[1][1].memory;
        return l;
    }
    library_matmul(l, p, pts, q, qs, q, qs);  // dV = P^T dO
    library_matmul(l, q, qs, kt, kts, p, ps); // dP = dO V^T
    dnnl_softmax_desc_t soft;
    DNNL_DO(dnnl_softmax_backward_desc_init(&soft, &pd, &pd, 3));
    dnnl_softmax_desc_t fwd;
    DNNL_DO(dnnl_softmax_forward_desc_init(&fwd, dnnl_forward_training, &pd, 3));
    dnnl_primitive_desc_t hint, back;
    DNNL_DO(dnnl_primitive_desc_create(&hint, &fwd, NULL, library_engine, NULL));
    DNNL_DO(dnnl_primitive_desc_create(&back, &soft, NULL, library_engine, hint));
    DNNL_DO(dnnl_primitive_create(&l->primitive[2], back));
    dnnl_memory_t ds = library_memory(&pd);
    l->arg[2][0] = (dnnl_exec_arg_t){DNNL_ARG_DST, l->arg[0][0].memory};
    l->arg[2][1] = (dnnl_exec_arg_t){DNNL_ARG_DIFF_DST, l->arg[1][2].memory};
    l->arg[2][2] = (dnnl_exec_arg_t){DNNL_ARG_DIFF_SRC, ds};
    l->arg_cnt[2] = 3, l->cnt = 3;
    DNNL_DO(dnnl_memory_create(&l->arg[2][0].memory, &pd, library_engine,
                               library_floats((size_t)(batch * heads * len * len))));
    library_matmul(l, p, ps, q, qs, q, qs);  // dQ = dS K
    library_matmul(l, p, pts, q, qs, q, qs); // dK = dS^T Q
    l->arg[3][0].memory = ds;
    return l;
}

// Primitives and the values of their memories.
static void library_free(Library *l) {
    for (int i = 0; l && i < l->cnt; i++) {
        dnnl_primitive_destroy(l->primitive[i]);
        for (int k = 0; k < l->arg_cnt[i]; k++) {
            void *data = NULL;
            bool shared = false;
            for (int a = 0; a < i && !shared; a++)
                for (int b = 0; b < l->arg_cnt[a]; b++)
                    shared |= l->arg[a][b].memory == l->arg[i][k].memory;
            if (shared) continue;
            dnnl_memory_get_data_handle(l->arg[i][k].memory, &data);
            free(data);
        }
    }
    free(l);
}

#endif
