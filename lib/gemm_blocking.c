/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost model of a matrix product. For each shape of tile that the kernels have, the cycles that one step in depth
 * takes over all of C are estimated:
 *
 *   arithmetic   rows x vectors of a tile, but no less than the latency of the chains allows: few rows need wide tiles
 *   A            rows that are a multiple of 4 KiB apart share the sets of L1; more of them than it has ways, and each
 *                element comes from L2
 *   B            its lines come from L2 again for each further tile of rows
 *
 * The cheapest shape wins, the narrowest of equals. Then blocks follow from the caches: a chunk of depth such that the
 * panels of a tile take an eighth of L2 each, rows such that their part of A takes half of it.
 */
#include "gemm_blocking.h"

#include "gemm.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>

enum {
  LINE_FLOATS = 16,
  LINE_BYTES = 64,
  WAY_BYTES = 4096,      /* of L1, in all processors that find a line while they translate its address */
  FREE_WAYS = 3,         /* of L1, for B and C that pass by, in each set more than a line at a time */
  LARGE_BYTES = 4 << 20, /* of C, the least that is held to come from memory */
  MAX_ROWS = 224,        /* of a block */
  MAX_TASKS = 256,
  SMALL_TASK = 1 << 19, /* FLOPs; below that a task costs more to hand out than it gains */
  FEW_TASKS = 32,       /* enough of them: larger products have larger tasks, which use panels and prefetches better */
  TASK_FLOPS = 4 << 20,
  MIN_KC = 128,
  MAX_KC = 1024,
  CHAIN_CYCLES = 8 /* latency of an FMA times the units that do them */
};

int64_t lamina_gemm_a_stride(int64_t n) { return (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS | LINE_FLOATS; }

/* Whether `rows` lines, `stride` floats apart, are more than the ways of the sets of L1 that they fall into. */
static bool aliases(const lamina_context *context, int64_t stride, int64_t rows) {
  const int64_t bytes = stride * (int64_t)sizeof(float);
  if (bytes % LINE_BYTES != 0) return false;
  int64_t step = LINE_BYTES;
  while (step < WAY_BYTES && bytes % (2 * step) == 0) step *= 2;
  return ceil_div(rows, WAY_BYTES / step) + FREE_WAYS > max64((int64_t)context->cpu.l1 / WAY_BYTES, 1);
}

static double shape_cost(const lamina_context *context, const lamina_gemm *g, const lamina_gemm_shape *s) {
  const int64_t tiles = ceil_div(g->m, s->rows), panels = ceil_div(g->n, context->kernels.gemm->nr);
  const int64_t wide = min64(s->panels, panels), rows = ceil_div(g->m, tiles);
  const double vectors = (double)wide * context->kernels.gemm->nr / context->kernels.vector_floats;
  const double fma = (double)g->m / (double)tiles * vectors;
  double tile = fma > CHAIN_CYCLES ? fma : CHAIN_CYCLES;
  if (g->a_k == 1 && aliases(context, g->a_row, rows)) tile += 0.25 * (double)rows;
  const double again = 0.5 * vectors * (double)(tiles - 1);
  return ((double)tiles * tile + again) * (double)ceil_div(panels, wide);
}

static const lamina_gemm_shape *best_shape(const lamina_context *context, const lamina_gemm *g) {
  const lamina_gemm_kernels *kernels = context->kernels.gemm;
  const lamina_gemm_shape *best = &kernels->shape[0];
  const bool busy = g->m * kernels->nr >= CHAIN_CYCLES * context->kernels.vector_floats;
  if (busy && !(g->a_k == 1 && aliases(context, g->a_row, min64(g->m, best->rows)))) return best;
  double cost = shape_cost(context, g, best);
  for (int i = 1; i < kernels->shapes; i++) {
    const double other = shape_cost(context, g, &kernels->shape[i]);
    if (other < cost) {
      best = &kernels->shape[i];
      cost = other;
    }
  }
  return best;
}

/* Whether panels of B must be copied, whatever the blocks: other than packed or with columns of any order and number.
 */
static bool copies_b(const lamina_gemm *g, int64_t nr) {
  return !g->b_packed && g->k > 0 && (g->b_n != 1 || g->n % nr != 0);
}

/* `whole_columns`: rows are not cut for the sake of more tasks, each of which would copy B again. */
static lamina_gemm_blocking cut_for(const lamina_context *context, const lamina_gemm *g, const lamina_gemm_shape *s,
                                    bool whole_columns) {
  const int64_t nr = context->kernels.gemm->nr, l2 = (int64_t)(context->cpu.l2 / sizeof(float));
  lamina_gemm_blocking cut = {.shape = s, .tiles = ceil_div(g->m, s->rows), .panels = ceil_div(g->n, nr)};
  cut.groups = ceil_div(cut.panels, s->panels);
  const int64_t kc = min64(max64(l2 / 8 / nr, MIN_KC), MAX_KC);
  cut.chunks = max64(ceil_div(g->k, kc), 1);
  if (cut.tiles == 1 && g->k <= l2 / 2 / g->m) cut.chunks = 1; /* B is read once, and A stays in L2 */
  cut.max_depth = ceil_div(g->k, cut.chunks);

  const int64_t tiles = max64(min64(l2 / 2 / max64(cut.max_depth, 1), MAX_ROWS) / s->rows, 1);
  cut.row_blocks = ceil_div(cut.tiles, tiles);
  const double flops = 2.0 * (double)g->m * (double)g->n * (double)g->k;
  const double small = flops / SMALL_TASK < FEW_TASKS ? flops / SMALL_TASK : FEW_TASKS, large = flops / TASK_FLOPS;
  const int64_t wanted = max64(large < MAX_TASKS ? (int64_t)(large > small ? large : small) : MAX_TASKS, 1);
  /* More tasks: first by columns, since each then reads its own part of B, then by rows down to two tiles. */
  cut.column_blocks = 1;
  const int64_t least = s->panels > 1 || whole_columns ? 1 : 2;
  if (cut.row_blocks < wanted) cut.column_blocks = min64(ceil_div(wanted, cut.row_blocks), ceil_div(cut.groups, least));
  if (!whole_columns && cut.row_blocks * cut.column_blocks < wanted)
    cut.row_blocks = max64(cut.row_blocks, min64(ceil_div(wanted, cut.column_blocks), ceil_div(cut.tiles, 2)));
  cut.max_rows = ceil_div(cut.tiles, cut.row_blocks) * s->rows;
  return cut;
}

/* Whether a tile had better read a copy of A: rows that share cache sets, or an order in which each element is in
   another line; both only if several panels make use of the copy. */
static bool should_pack_a(const lamina_context *context, const lamina_gemm *g, const lamina_gemm_blocking *cut) {
  const int64_t reads = cut->groups / cut->column_blocks;
  if (g->k <= 1) return false;
  if (g->a_k == 1) return reads >= 2 && aliases(context, g->a_row, min64(g->m, cut->shape->rows));
  if (g->a_row == 1) return reads >= 3;
  return reads >= 2;
}

static bool should_pack_b(const lamina_gemm *g, const lamina_gemm_blocking *cut, int nr) {
  if (copies_b(g, nr)) return true;
  return !g->b_packed && g->b_k * (int64_t)sizeof(float) % WAY_BYTES == 0 && g->k > 64 &&
         cut->tiles / cut->row_blocks >= 4; /* its lines fall into a few sets of L1 and L2 */
}

/* Which blocks follow each other: those that share rows read A once, those that share columns B. What does not stay in
   L2 comes again for each block that does not share it. */
static bool goes_along_rows(const lamina_context *context, const lamina_gemm *g, const lamina_gemm_blocking *cut) {
  const double half = 0.5 * (double)context->cpu.l2 / sizeof(float);
  const double a = (double)g->m * (double)g->k, b = (double)g->n * (double)g->k;
  const double b_again = b > half ? b * (double)(cut->row_blocks - 1) : 0;
  const double a_again = a > half ? a * (double)(cut->column_blocks - 1) : 0;
  return b_again < a_again;
}

/* Whether C takes so much of L3 that little of it stays there from one run to the next. */
static bool beyond_l3(const lamina_context *context, const lamina_gemm *g) {
  return (double)g->m * (double)g->n * sizeof(float) > fmax((double)context->cpu.l3 / 8, LARGE_BYTES);
}

/* Whether C had better go past the caches: it takes so much of L3 that little of it would be found there later, and
   what it would push out is lost, while each of its lines is first read from memory only to be overwritten. Not if it
   is read again here, or has lines that are not written as a whole. */
static bool should_stream(const lamina_context *context, const lamina_gemm *g, const lamina_gemm_blocking *cut) {
  if (g->accumulate || g->activation || g->add == g->c || cut->chunks > 1) return false;
  if (g->n % LINE_FLOATS != 0 || g->c_row % LINE_FLOATS != 0 || (uintptr_t)g->c % LINE_BYTES != 0) return false;
  return beyond_l3(context, g);
}

lamina_gemm_blocking lamina_gemm_cut(const lamina_context *context, const lamina_gemm *g) {
  lamina_gemm_blocking cut = cut_for(context, g, best_shape(context, g), copies_b(g, context->kernels.gemm->nr));
  cut.pack_a = should_pack_a(context, g, &cut);
  cut.pack_b = should_pack_b(g, &cut, context->kernels.gemm->nr);
  cut.along_rows = goes_along_rows(context, g, &cut);
  const double bytes = (double)g->n * (double)g->k * sizeof(float);
  cut.stream = should_stream(context, g, &cut);
  cut.fetch_c = !cut.stream && beyond_l3(context, g);
  cut.b_in_l3 = bytes > 0.5 * (double)context->cpu.l2 && bytes <= 0.5 * (double)context->cpu.l3;
  return cut;
}

/* Strides, and so the shape, are not known when workspace is asked for: the most that any shape takes. */
size_t lamina_gemm_a_floats(const lamina_context *context, const lamina_gemm *g) {
  size_t most = 0;
  for (int i = 0; i < 2 * context->kernels.gemm->shapes; i++) {
    const lamina_gemm_blocking cut = cut_for(context, g, &context->kernels.gemm->shape[i / 2], i % 2);
    const int64_t by_rows = cut.max_rows * lamina_gemm_a_stride(cut.max_depth);
    const int64_t by_depth = cut.max_depth * lamina_gemm_a_stride(cut.max_rows);
    most = (size_t)max64((int64_t)most, max64(by_rows, by_depth));
  }
  return most;
}

size_t lamina_gemm_b_floats(const lamina_context *context, const lamina_gemm *g) {
  size_t most = 0;
  for (int i = 0; i < context->kernels.gemm->shapes && !g->b_packed; i++) {
    const lamina_gemm_shape *s = &context->kernels.gemm->shape[i];
    const int64_t floats = cut_for(context, g, s, false).max_depth * context->kernels.gemm->nr * s->panels;
    most = (size_t)max64((int64_t)most, floats);
  }
  return most;
}

void lamina_gemm_describe(const lamina_context *context, const lamina_gemm *g, char *text, size_t bytes) {
  if (g->m <= 0 || g->n <= 0) {
    snprintf(text, bytes, "gemm");
    return;
  }
  const lamina_gemm_blocking cut = lamina_gemm_cut(context, g);
  snprintf(text, bytes, "gemm %dx%d kc %lld%s%s", cut.shape->rows, cut.shape->panels * context->kernels.gemm->nr,
           (long long)cut.max_depth, cut.pack_a ? ", A packed" : "", cut.stream ? ", C past the caches" : "");
}
