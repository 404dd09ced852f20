/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file kernels.h
 * The contract between the portable loop nests and the kernels: one struct of groups of function pointers.
 *
 * Each ISA folder exports one `const lamina_kernels` (table.c). A group is replaced as a whole; a NULL group inherits
 * from the ISA below. The tables are data, so that no instruction of an ISA's object files runs before detection.
 *
 * Conventions. fp32; a matrix is rows x channels with a row stride (`ld`, in floats, >= channels). Pointers need no more
 * than float alignment. `lo`/`hi` clamp results; -INFINITY/+INFINITY leave them as they are; NaN always stays NaN.
 * Kernels are serial, allocate nothing and give the same bits on every call. kernels/generic is their specification.
 */
#ifndef LAMINA_KERNELS_H
#define LAMINA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define LAMINA_GEMM_MAX_MR 16

/**
 * One tile of a batch-reduce GEMM:
 *   C(m, j) = epilogue( sum over i < batch, p < k of a[i][m * a_row + p * a_k] * b[i * b_batch + p * b_k + j] )
 * for the rows of the function that is called and j < n <= nr. B always has nr readable columns (packing pads with
 * zeros); A and C are touched only inside. Epilogue: (+ C if accumulate) (+ bias[j]) (+ add) then clamp.
 */
typedef struct lamina_tile {
  int64_t batch, k;
  const float *const *a;
  int64_t a_row, a_k;
  const float *b;
  int64_t b_batch, b_k;
  float *c;
  int64_t c_row;
  int n;
  int accumulate;
  const float *bias; /* n floats, or NULL */
  const float *add;  /* row stride add_row, or NULL */
  int64_t add_row;
  float lo, hi;
  const float *prefetch; /* memory that comes next (a weight panel), walked into L2 as k goes on; or NULL */
} lamina_tile;

typedef struct lamina_gemm_kernels {
  int mr, nr;
  /* tile[m] computes m rows, 1 <= m <= mr. Depth is summed in one chain for each accumulator, from zero. */
  void (*const *tile)(const lamina_tile *tile);
  /* Packs B(p, j) = b[p * b_k + j * b_n], p < k, j < n, as panels of nr columns: dst[(j / nr) * k * nr + p * nr + j % nr],
     the last panel padded with zeros; column j is multiplied by scale[j] if scale is not NULL. */
  void (*pack_b)(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst);
  /* dst[c * dst_ld + r] = src[r * src_ld + c]. */
  void (*transpose)(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld);
} lamina_gemm_kernels;

/**
 * One tile of a convolution: output pixels of a row as rows, output channels as columns.
 *   C(m, j) = epilogue( sum over runs r with first <= m < last, p < k of
 *                       a[r.a + m * a_row + p] * b[r.b + p * nr + j] ),
 * the epilogue as in lamina_tile. A run is a tap of the kernel, or neighbouring taps whose channels follow each other.
 */
typedef struct lamina_conv_run {
  int64_t a, b; /* where it begins, counted from the tile's a and b */
  int64_t k;
  int first, last; /* rows that take part, at least one: the others lie beside the image. first = 0 or last = rows */
} lamina_conv_run;

typedef struct lamina_conv_tile {
  int64_t runs;
  const lamina_conv_run *run;
  const float *a;
  int64_t a_row;
  const float *b;
  int64_t b_panel; /* from a panel of weights to the next, for a tile of two panels */
  float *c;
  int64_t c_row;
  int n; /* columns: more than vectors - 1 vectors have, at most as many as all have */
  int accumulate;
  const float *bias;
  const float *add;
  int64_t add_row;
  float lo, hi;
  const float *prefetch; /* memory that comes next, as in lamina_tile */
  int64_t repeat;        /* as many such tiles, each beginning where the rows of the one before end */
} lamina_conv_tile;

typedef struct lamina_conv_kernels {
  int mr, nr;     /* rows at most; columns of a panel of weights, those of the gemm group */
  int vector;     /* columns of a vector */
  int wide_rows;  /* rows up to which a tile covers two panels; 0: none does */
  int good_rows;  /* rows that suffice to keep the FMA units busy with the vectors of a panel */
  int short_tile; /* rows * vectors up to which a tile's stores overlap with the next one's sums: best where sums are short */
  /* tile[m][v]: m rows and v vectors; v is at most nr / vector, or, for m <= wide_rows, twice that exactly. Depth is summed
     in one chain for each accumulator, from zero. Leaves a, c and add where the next tile begins, and repeat at zero;
     prefetch moves along with c. */
  void (*const *const *tile)(lamina_conv_tile *tile);
} lamina_conv_kernels;

typedef struct lamina_norm_kernels {
  /* sum[c] = sum over rows of (x - shift[c]); sum_sq[c] = the same of its square. Overwrites both. */
  void (*moments)(int64_t rows, int64_t channels, const float *x, int64_t ld, const float *shift, float *sum,
                  float *sum_sq);
  /* y = clamp((x - mean[c]) * scale[c] + offset[c] (+ add)). add may be NULL. y may be x or add. */
  void (*normalize)(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *mean, const float *scale,
                    const float *offset, const float *add, int64_t add_ld, float lo, float hi, float *y, int64_t y_ld);
  /* sum_dy[c] = sum of dy; sum_dy_xc[c] = sum of dy * (x - mean[c]). Overwrites both. */
  void (*backward_reduce)(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *dy, int64_t dy_ld,
                          const float *mean, float *sum_dy, float *sum_dy_xc);
  /* dx (+)= a[c] * dy + b[c] * (x - mean[c]) + d[c]. dx may be dy. */
  void (*backward_apply)(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *dy, int64_t dy_ld,
                         const float *mean, const float *a, const float *b, const float *d, int accumulate, float *dx,
                         int64_t dx_ld);
  /* sum[c] = sum over rows of x. Overwrites. */
  void (*column_sum)(int64_t rows, int64_t channels, const float *x, int64_t ld, float *sum);
} lamina_norm_kernels;

typedef enum lamina_activation {
  LAMINA_ACTIVATION_RELU,
  LAMINA_ACTIVATION_LEAKY_RELU, /* parameter: negative slope */
  LAMINA_ACTIVATION_SIGMOID,
  LAMINA_ACTIVATION_TANH,
  LAMINA_ACTIVATION_COUNT
} lamina_activation;

typedef struct lamina_eltwise_kernels {
  /* y = f(x); y may be x. Relative error of sigmoid and tanh <= 4e-7 (absolute below 1e-37). */
  void (*activation[LAMINA_ACTIVATION_COUNT])(int64_t n, float parameter, const float *x, float *y);
  /* dx (+)= dy * f'(.), computed from the output y (a leaky slope is > 0, so that the sign of y tells). dx may be dy. */
  void (*activation_backward[LAMINA_ACTIVATION_COUNT])(int64_t n, float parameter, const float *y, const float *dy,
                                                       int accumulate, float *dx);
  void (*add)(int64_t n, const float *a, const float *b, float lo, float hi, float *y); /* y = clamp(a + b); y may be a or b */
  void (*add_scaled)(int64_t n, float scale, const float *x, float *y);                 /* y += scale * x */
  void (*multiply)(int64_t n, const float *a, const float *b, int accumulate, float *y); /* y (+)= a * b */
  void (*clamp)(int64_t n, float lo, float hi, const float *x, float *y);               /* y may be x */
  int (*all_finite)(int64_t n, const float *x);                                         /* nonzero if none is inf or NaN */
} lamina_eltwise_kernels;

/* One output pixel of a pooling window: x[t] points at the channels of tap t, `taps` of them inside the image. */
typedef struct lamina_pool_kernels {
  void (*max)(int64_t taps, const float *const *x, int64_t channels, float *y); /* NaN wins */
  /* Adds dy to the dx of the first tap whose x equals y. */
  void (*max_backward)(int64_t taps, const float *const *x, float *const *dx, int64_t channels, const float *y,
                       const float *dy);
  void (*average)(int64_t taps, const float *const *x, float scale, int64_t channels, float *y); /* y = scale * sum */
  void (*average_backward)(int64_t taps, float *const *dx, float scale, int64_t channels, const float *dy); /* dx += scale * dy */
} lamina_pool_kernels;

typedef struct lamina_softmax_kernels {
  /* One row: y = exp(x - max) / sum; y may be x. Returns log(sum exp(x)), the maximum included. */
  float (*forward)(int64_t n, const float *x, float *y);
  /* dx (+)= y * (dy - sum(y * dy)); dx may be dy. */
  void (*backward)(int64_t n, const float *y, const float *dy, int accumulate, float *dx);
} lamina_softmax_kernels;

/* PyTorch's rules, operation by operation in fp32. The scalars come in double, since what is derived from them is computed
   in double and rounded where PyTorch rounds it: 1 - 0.999 in fp32 would be wrong in its fifth digit. */
typedef struct lamina_sgd_step {
  double lr, momentum, dampening, weight_decay;
  int nesterov, first; /* first: the momentum buffer starts as the gradient */
} lamina_sgd_step;

typedef struct lamina_adam_step {
  double lr, beta1, beta2, eps, weight_decay;
  int decoupled;              /* AdamW: w *= 1 - lr * weight_decay before the step, instead of adding to the gradient */
  double bias1, sqrt_bias2;   /* 1 - beta1^t, sqrt(1 - beta2^t) */
} lamina_adam_step;

typedef struct lamina_optimizer_kernels {
  void (*sgd)(int64_t n, const lamina_sgd_step *step, const float *g, float *momentum, float *w); /* momentum NULL if 0 */
  void (*adam)(int64_t n, const lamina_adam_step *step, const float *g, float *m, float *v, float *w);
  double (*sum_squares)(int64_t n, const float *x); /* accumulated in double, in a fixed order */
} lamina_optimizer_kernels;

typedef struct lamina_kernels {
  const char *isa;   /* "generic", "avx2", "avx512", "neon" */
  int vector_floats;
  const lamina_gemm_kernels *gemm;
  const lamina_norm_kernels *norm;
  const lamina_eltwise_kernels *eltwise;
  const lamina_pool_kernels *pool;
  const lamina_softmax_kernels *softmax;
  const lamina_optimizer_kernels *optimizer;
  const lamina_conv_kernels *conv;
} lamina_kernels;

extern const lamina_kernels lamina_kernels_generic;
extern const lamina_kernels lamina_kernels_avx2;   /* x86-64 builds: AVX2 and FMA */
extern const lamina_kernels lamina_kernels_avx512; /* x86-64 builds: AVX-512 F, BW, DQ and VL */
extern const lamina_kernels lamina_kernels_neon;   /* AArch64 builds */

/* The id under which the host service `ext` hands out the composed table (a const lamina_kernels). */
#define LAMINA_KERNELS_EXT "lamina.kernels"

#endif
