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
  int stream; /* n, c_row and c's address are multiples of a vector, and C may be written past the caches */
  const float *prefetch; /* memory that comes next (a weight panel), walked into L2 as k goes on; or NULL. For tiles of
                            several panels: the first of the next ones, and that B is to be fetched ahead at all */
  int prefetch_two;      /* for tiles of one panel: walk two lines a step, not one */
  int64_t prefetch_step; /* for tiles of one panel: floats from what a step fetches to what the next does; 0: it follows */
  int64_t more;          /* the same for so many further tiles, of the rows that follow; `prefetch` walks on */
  int64_t b_panel;       /* read by tiles of several panels: floats from one panel of B to the next */
} lamina_tile;

/* Tiles of up to `rows` rows and 1 to `panels` panels of B side by side: tile[m] computes m rows, n <= panels * nr,
   and reads the panels that n reaches into. An element has the same bits whatever the shape. */
typedef struct lamina_gemm_shape {
  int rows, panels;
  void (*const *tile)(const lamina_tile *tile);
} lamina_gemm_shape;

typedef struct lamina_gemm_kernels {
  int mr, nr;
  /* tile[m] computes m rows, 1 <= m <= mr. Depth is summed in one chain for each accumulator, from zero. */
  void (*const *tile)(const lamina_tile *tile);
  void (*stream_end)(void); /* makes what was streamed visible to other threads */
  /* Packs B(p, j) = b[p * b_k + j * b_n], p < k, j < n, as panels of nr columns: dst[(j / nr) * k * nr + p * nr + j % nr],
     the last panel padded with zeros; column j is multiplied by scale[j] if scale is not NULL. */
  void (*pack_b)(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst);
  /* The same past the caches, where that pays: for more than they hold until it is read. */
  void (*stream_b)(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst);
  /* dst[c * dst_ld + r] = src[r * src_ld + c]. */
  void (*transpose)(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld);
  /* By panels, ascending; the first is mr rows, one panel, `tile`. */
  int shapes;
  const lamina_gemm_shape *shape;
} lamina_gemm_kernels;

/**
 * One tile of a convolution: output pixels of a row as rows, output channels as columns.
 *   C(m, j) = epilogue( sum over runs r with first <= m < last, p < k of
 *                       a[r.a + m * a_row + p] * b[r.b + p * nr + j] ),
 * the epilogue as in lamina_tile. A run is a tap of the kernel, or neighbouring taps whose channels follow each other.
 */
typedef struct lamina_conv_taps {
  int64_t a, b; /* where it begins, counted from the tile's a and b */
  int64_t k;
  int first, last; /* rows that take part, at least one: the others lie beside the image. first = 0 or last = rows */
} lamina_conv_taps;

typedef struct lamina_conv_tile {
  int64_t runs;
  const lamina_conv_taps *run;
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

/**
 * Adds rows of products to rows of images that overlap (col2im): to[t][i * to_row + j] += from[i * from_row + t * length + j]
 * for i < rows, t < runs, j < length; runs whose to[t] is NULL are left out. Past the last run of the last row
 * LAMINA_CONV_SLACK floats of `from` are readable, and of each to[t] readable and written as they were.
 */
#define LAMINA_CONV_SLACK 16

typedef struct lamina_conv_overlap {
  int64_t rows, runs, length;
  const float *from;
  int64_t from_row;
  float *const *to;
  int64_t to_row;
} lamina_conv_overlap;

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
  void (*overlap_add)(const lamina_conv_overlap *overlap);
} lamina_conv_kernels;

/*
 * Both passes of the gradient of z = (x - mean) * scale + offset, y = clamp(z + add). The clamp lets dy through where y, or
 * z when nothing was added, lies inside of its bounds: dz = dy there, and 0 elsewhere.
 */
typedef struct lamina_norm_backward {
  int64_t rows, channels;
  const float *x, *dy;
  int64_t x_ld, dy_ld;
  const float *mean;
  /* The clamp: by y if that is given, else by z if scale is, else there is none. */
  const float *y;
  int64_t y_ld;
  const float *scale, *offset;
  float lo, hi;
  /* reduce: sum_dz[c] = sum of dz, sum_dz_xc[c] = sum of dz * (x - mean[c]). Overwrites both. */
  float *sum_dz, *sum_dz_xc;
  /* apply: dx (+)= a[c] * dz + b[c] * (x - mean[c]) + d[c], and d_add (+)= dz; dx may be dy. d_add only with y, and NULL if
     it is not wanted. */
  const float *a, *b, *d;
  int accumulate, accumulate_add;
  int stream, stream_add; /* dx and d_add as normalize's y; not where they accumulate or are dy */
  float *dx, *d_add;
  int64_t dx_ld, d_add_ld;
} lamina_norm_backward;

/* From a batch's statistics to what the passes over x need, for each channel. The mean is kept as hi + lo. */
typedef struct lamina_norm_channels {
  int64_t channels;
  double rows, eps;
  const double *mean, *m2;   /* m2: sum of squared deviations */
  const float *weight, *bias; /* or NULL: ones, zeros */
  float *hi, *lo, *invstd;
  float *scale, *offset; /* of normalize, which subtracts hi */
} lamina_norm_channels;

typedef struct lamina_norm_kernels {
  /* sum[c] = sum over rows of (x - shift[c]); sum_sq[c] = the same of its square. Overwrites both. */
  void (*moments)(int64_t rows, int64_t channels, const float *x, int64_t ld, const float *shift, float *sum,
                  float *sum_sq);
  /* Merges the mean and m2 of rows_b rows into those of `rows` rows (Chan, Golub and LeVeque 1979), in double. */
  void (*merge)(int64_t channels, double rows, double rows_b, const double *mean_b, const double *m2_b, double *mean,
                double *m2);
  /* The same with what `moments` gave for rows_b rows; the shift becomes their mean. */
  void (*merge_moments)(int64_t channels, double rows, double rows_b, const float *sum, const float *sum_sq, float *shift,
                        double *mean, double *m2);
  void (*finish)(const lamina_norm_channels *channels);
  /* y = clamp((x - mean[c]) * scale[c] + offset[c] (+ add)). add may be NULL. y may be x or add. With `stream`, y, which is
     neither, is written past the caches where it can be: what is read has them for itself. */
  void (*normalize)(int64_t rows, int64_t channels, const float *x, int64_t x_ld, const float *mean, const float *scale,
                    const float *offset, const float *add, int64_t add_ld, float lo, float hi, int stream,
                    float *y, int64_t y_ld);
  void (*backward_reduce)(const lamina_norm_backward *backward);
  void (*backward_apply)(const lamina_norm_backward *backward);
  /* sum[c] = sum over rows of x. Overwrites. */
  void (*column_sum)(int64_t rows, int64_t channels, const float *x, int64_t ld, float *sum);
} lamina_norm_kernels;

typedef enum lamina_activation {
  LAMINA_ACTIVATION_RELU,
  LAMINA_ACTIVATION_LEAKY_RELU, /* parameters: negative slope */
  LAMINA_ACTIVATION_SIGMOID,
  LAMINA_ACTIVATION_TANH,
  LAMINA_ACTIVATION_CLIP,         /* parameters: lo, hi */
  LAMINA_ACTIVATION_HARD_SIGMOID, /* clamp(x + 3, 0, 6) / 6 */
  LAMINA_ACTIVATION_SILU,         /* x * sigmoid(x); from here on the gradient is computed from x */
  LAMINA_ACTIVATION_HARD_SWISH,   /* x * hard_sigmoid(x) */
  LAMINA_ACTIVATION_COUNT
} lamina_activation;

typedef struct lamina_eltwise_kernels {
  /* y = f(x); y may be x. Relative error of sigmoid, tanh and silu <= 4e-7 (absolute below 1e-37). What has no parameters
     takes NULL. */
  void (*activation[LAMINA_ACTIVATION_COUNT])(int64_t n, const float *parameters, const float *x, float *y);
  /* dx (+)= dy * f'(.), where a is the output y (a leaky slope is > 0, so that the sign of y tells) or, for silu and hard
     swish, the input x. dx may be dy. */
  void (*activation_backward[LAMINA_ACTIVATION_COUNT])(int64_t n, const float *parameters, const float *a,
                                                       const float *dy, int accumulate, float *dx);
  void (*add)(int64_t n, const float *a, const float *b, float lo, float hi, float *y); /* y = clamp(a + b); y may be a or b */
  void (*add_scaled)(int64_t n, float scale, const float *x, float *y);                 /* y += scale * x */
  void (*multiply)(int64_t n, const float *a, const float *b, int accumulate, float *y); /* y (+)= a * b */
  void (*clamp)(int64_t n, float lo, float hi, const float *x, float *y);               /* y may be x */
  int (*all_finite)(int64_t n, const float *x);                                         /* nonzero if none is inf or NaN */
  void (*stream_zero)(int64_t rows, int64_t n, int64_t ld, float *y); /* y(row, j < n) = 0, written past the caches */
} lamina_eltwise_kernels;

/* Floats from a tap to the one below it, to the one at its right, and from a window to the next. */
typedef struct lamina_pool_distance {
  int64_t row, column, window;
} lamina_pool_distance;

/* A run of pooling windows of one row, all with the same rows x columns taps inside the image, at least one. */
typedef struct lamina_pool_row {
  int64_t windows, channels, rows, columns;
  const float *x; /* tap (0, 0) of the first window; of dx the same */
  lamina_pool_distance x_at, dx_at;
  float *y; /* a pixel for each window, y_ld floats apart; backward reads it */
  int64_t y_ld, dy_ld;
  const float *dy;
  float *dx;
  float scale;
  int streamed;  /* forward: x is too large for the caches */
  int overwrite; /* backward: no other window has these taps: set dx, instead of adding to it */
  uint8_t *winner; /* max_winner: the tap that won, for each window and channel; winner_ld from window to window */
  int64_t winner_ld;
  int tap, tap_row; /* max_winner: the number of tap (0, 0), and what it grows by from one row of taps to the next */
} lamina_pool_row;

/* One row of the gradient of a max pool, and the `rows` rows of windows that it lies in. Window o of a row begins at column
   o * stride - padding and is `width` wide; this row's taps in it are numbered tap - i * tap_row and on, i being the row of
   windows. */
typedef struct lamina_pool_gather {
  int64_t columns, channels;
  float *dx;
  int64_t dx_ld;
  int64_t rows, windows;
  const float *dy;
  int64_t dy_ld, dy_row; /* floats from window to window, from one row of windows to the next */
  const uint8_t *winner;
  int64_t winner_ld, winner_row;
  int64_t tap, tap_row, width, stride, padding;
  int accumulate, stream; /* add to dx; write past the caches what lies on boundaries of vectors */
} lamina_pool_gather;

typedef struct lamina_pool_kernels {
  void (*max)(const lamina_pool_row *run);              /* reads x; NaN wins */
  void (*max_backward)(const lamina_pool_row *run);     /* dy to the first tap, row by row, whose x equals y; 0 to others */
  void (*average)(const lamina_pool_row *run);          /* y = scale * sum */
  void (*average_backward)(const lamina_pool_row *run); /* scale * dy to each tap */
  /* max, and the number of the first tap of those with the largest value; of a NaN, if there is one. At most 256 taps. */
  void (*max_winner)(const lamina_pool_row *run);
  void (*max_gather)(const lamina_pool_gather *row); /* dx = the sum of dy of the windows that this pixel has won */
} lamina_pool_kernels;

typedef struct lamina_softmax_kernels {
  /* One row: y = exp(x - max) / sum; y may be x. Returns log(sum exp(x)), the maximum included. */
  float (*forward)(int64_t n, const float *x, float *y);
  /* dx (+)= y * (dy - sum(y * dy)); dx may be dy. */
  void (*backward)(int64_t n, const float *y, const float *dy, int accumulate, float *dx);
  /* One row without the division: y = exp(x - max); y may be x. Returns the sum of y. */
  float (*unscaled)(int64_t n, const float *x, float *y);
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

/* One axis of a depthwise convolution: output t reads input t * stride + first + j * step with each tap j; outside of
   0 .. in there are zeros. */
typedef struct lamina_depthwise_axis {
  int64_t in, taps, stride, first, step;
} lamina_depthwise_axis;

#define LAMINA_DEPTHWISE_BLOCK 16
#define LAMINA_DEPTHWISE_TILE_TAPS 18 /* of winograd's weights */

/**
 * Channels of one image, each convolved with a kernel of its own:
 *   y(r, q, c) = clamp( bias[c] + sum over taps (i, j) of x(row i of r, column j of q, c) * w(i, j, c) (+ add(r, q, c)) )
 * or, with a group of several channels, with the sum over all channels of c's group in x's place, each with weights of
 * its own. Weights lie in blocks of 16 channels, (block, channel of the group, taps of h, taps of w, 16); weights and bias are readable up to the end
 * of the last block. add may be y. Strides count floats.
 */
typedef struct lamina_depthwise {
  int64_t channels, columns; /* of y */
  int64_t group;             /* channels of a group: 1, or what grouped() allows */
  int far;                   /* x and y come from beyond the L2 cache: where the kernel can, it fetches them early */
  lamina_depthwise_axis h, w;
  const float *x;
  int64_t x_row, x_pixel;
  const float *weights, *bias; /* bias may be NULL */
  const float *add;            /* or NULL */
  int64_t add_row, add_pixel;
  float *y;
  int64_t y_row, y_pixel;
  float lo, hi;
} lamina_depthwise;

/**
 * The gradient of its weights, groups of one channel: x and the axes as in forward, dy where y is.
 *   dw(i, j, c) += sum over pixels (r, q) of x(row i of r, column j of q, c) * dy(r, q, c)
 * dw lies as the weights do and is written up to the end of the last block, where zeros are added.
 */
typedef struct lamina_depthwise_weights {
  int64_t channels, columns; /* of dy */
  lamina_depthwise_axis h, w;
  const float *x;
  int64_t x_row, x_pixel;
  const float *dy;
  int64_t dy_row, dy_pixel;
  float *dw;
} lamina_depthwise_weights;

typedef struct lamina_depthwise_kernels {
  void (*forward)(const lamina_depthwise *d, int64_t row0, int64_t row1); /* rows row0 .. row1 of y */
  int (*grouped)(const lamina_depthwise *d); /* whether forward can do this, from group, h and w */
  /* Brings n floats of weights of groups of several channels, whole blocks as they lie above, into the order in which
     forward of this ISA reads them. */
  void (*group_weights)(int64_t group, int64_t n, float *weights);
  /* Adds rows row0 .. row1 of dy. A few rows of a few columns are summed apart, so that chains of additions are short. */
  void (*backward_weights)(const lamina_depthwise_weights *d, int64_t row0, int64_t row1);
  /* forward by Winograd's F(4, 3) along the height (points as in lamina_winograd_form), for what grouped() allows of 3x3
     taps with strides and steps of 1. Its weights are, for each block, group * 18 * 16 floats in an order of its own, into
     which winograd_weights transforms those of forward. Tiles begin at row0. */
  void (*winograd)(const lamina_depthwise *d, int64_t row0, int64_t row1);
  void (*winograd_weights)(int64_t group, const float *taps, float *u); /* of one block */
  int (*scatters)(const lamina_depthwise *d); /* whether backward_data can do this, from h and w */
  /* The gradient of the input, groups of one channel. x is the gradient of the output; in h and w `in` is its size, the rest
     as in forward. Rows row0 .. row1 of y, of `columns` each, the gradient:
       y(r, q, c) = sum over i, j and those o, p with o * stride + first + i * step = r, and likewise p, of
                    x(o, p, c) * w(i, j, c) (+ add(r, q, c))
     group, far, bias, lo and hi are not read. */
  void (*backward_data)(const lamina_depthwise *d, int64_t row0, int64_t row1);
} lamina_depthwise_kernels;

/*
 * Winograd's minimal filtering F(m x m, 3 x 3) (Lavin and Gray 2015): y = A^T ((G g G^T) . (B^T d B)) A for tiles of m x m
 * outputs, from m + 2 points along each axis, of which the last is infinity. A narrow tile has one output less along an
 * axis and leaves that last point out; all other points, and so the weights, are the same. Point (i, j) is number
 * i * points + j; `rows` and `columns` are a tile's points along the axes, points or points - 1.
 */
typedef struct lamina_winograd_output {
  int64_t channels;
  const float *m;  /* m[p * m_point + c] */
  int64_t m_point; /* m has whole vectors of channels */
  int rows, columns;
  const float *bias;       /* channels floats, or NULL */
  const float *const *add; /* outputs * outputs pixels, or NULL; read where y is written */
  float *const *y;         /* outputs * outputs pixels; NULL for one that is not wanted */
  float lo, hi;            /* y = clamp(A^T m A + bias + add) */
} lamina_winograd_output;

typedef struct lamina_winograd_form {
  int outputs, points; /* along an axis: 2 and 4, or 4 and 6 */
  /* v[p * v_point + c] = (B^T d B)(p) for d(i, j) = x[i * points + j][c], c < channels, x pointing at points * points
     pixels. v gets whole vectors, with zeros after the last channel. */
  void (*input)(int64_t channels, const float *const *x, int rows, int columns, float *v, int64_t v_point);
  void (*output)(const lamina_winograd_output *output);
  /* u[p * u_point + i] = (G g G^T)(p) for g(r, s) = g[(3 r + s) * g_tap + i], i < n; with `stream` past the caches, where
     that pays. */
  void (*weights)(int64_t n, const float *g, int64_t g_tap, float *u, int64_t u_point, int stream);
  /* The transposes of the last two, for the gradient of the weights: m[p * m_point + c] = (A dy A^T)(p) for dy pointing at
     outputs * outputs pixels, those that the tile has not being zeros; g[(3 r + s) * g_tap + i] = (G^T u G)(r, s). */
  void (*output_transposed)(int64_t channels, const float *const *dy, int rows, int columns, float *m, int64_t m_point);
  void (*weights_transposed)(int64_t n, const float *u, int64_t u_point, float *g, int64_t g_tap);
} lamina_winograd_form;

typedef struct lamina_winograd_kernels {
  lamina_winograd_form f2, f4;
} lamina_winograd_kernels;

typedef struct lamina_kernels {
  const char *isa;   /* "generic", "avx2", "avx512", "neon" */
  int vector_floats;
  const lamina_gemm_kernels *gemm;
  const lamina_norm_kernels *norm;
  const lamina_eltwise_kernels *eltwise;
  const lamina_pool_kernels *pool;
  const lamina_softmax_kernels *softmax;
  const lamina_optimizer_kernels *optimizer;
  const lamina_depthwise_kernels *depthwise;
  const lamina_conv_kernels *conv;
  const lamina_winograd_kernels *winograd;
} lamina_kernels;

extern const lamina_kernels lamina_kernels_generic;
extern const lamina_kernels lamina_kernels_avx2;   /* x86-64 builds: AVX2 and FMA */
extern const lamina_kernels lamina_kernels_avx512; /* x86-64 builds: AVX-512 F, BW, DQ and VL */
extern const lamina_kernels lamina_kernels_neon;   /* AArch64 builds */

/* The id under which the host service `ext` hands out the composed table (a const lamina_kernels). */
#define LAMINA_KERNELS_EXT "lamina.kernels"

#endif
