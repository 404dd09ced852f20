/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C(m, n) = epilogue(A(m, k) * B(k, n)) by tiles, whose shape gemm_blocking.c chooses.
 *
 * C is cut into a grid of blocks, by shape alone; a block is one task. Within a block the depth is walked in chunks of
 * KC, so that a panel of B (KC x nr) and the block's rows of A (MC x KC) stay in L2 together; the chunks accumulate
 * into C and the epilogue is applied with the last one, an activation to the whole block in the end. Rows are spread
 * evenly over the tiles (37 rows are 12, 12, 13 and not 14, 14, 9).
 *
 * B that is neither packed nor readable in place is packed panel by panel as it is needed, A where its stride would
 * make the rows of a tile evict each other from the caches. Cost: 2 m n k flops; packing moves m k + k n floats a
 * block.
 */
#include "gemm.h"

#include "gemm_blocking.h"

#include <string.h>

enum {
  LINE_FLOATS = 16,
  STREAM_FLOATS = 2048 /* how far ahead B is fetched that is read but once */
};

typedef struct job {
  const lamina_gemm *gemm;
  const lamina_gemm_kernels *kernels;
  lamina_gemm_blocking cut;
  int64_t tile_rows, longer_tiles; /* rows of a tile; so many have one more */
  float *scratch;
  size_t a_floats, thread_floats;
} job;

/* A piece of the job: rows x panels x depth, with A where the tiles read it. */
typedef struct piece {
  int64_t tile0, tile1, row0;
  int64_t k0, k1;
  const float *a;
  int64_t a_row, a_k;
  bool first, last;
} piece;

/* Neighbouring panels of B as a tile reads them. */
typedef struct strip {
  int64_t n0, n;
  const float *b;
  int64_t b_k, b_panel;
  const float *ahead; /* the next ones, or NULL */
} strip;

static size_t workspace_of(const lamina_context *context, const lamina_gemm *g, size_t threads) {
  if (g->m <= 0 || g->n <= 0) return 0;
  size_t bytes;
  const size_t floats = lamina_gemm_a_floats(context, g) + lamina_gemm_b_floats(context, g);
  return lamina_multiply(floats, threads * sizeof(float), &bytes) ? bytes : SIZE_MAX;
}

size_t lamina_gemm_workspace(const lamina_context *context, const lamina_gemm *g) {
  return workspace_of(context, g, (size_t)max64(context->host.threads(&context->host), 1));
}

size_t lamina_gemm_serial_workspace(const lamina_context *context, const lamina_gemm *g) {
  return workspace_of(context, g, 1);
}

static int64_t first_row(const job *j, int64_t tile) { return tile * j->tile_rows + min64(tile, j->longer_tiles); }

/* Copies the piece's part of A into `to`, in the order it has; the tiles then read it from there. */
static void pack_a(const lamina_gemm *g, int64_t row1, piece *p, float *to) {
  const int64_t rows = row1 - p->row0, depth = p->k1 - p->k0;
  const float *from = g->a + p->row0 * g->a_row + p->k0 * g->a_k;
  p->a = to;
  if (g->a_row == 1) {
    p->a_row = 1;
    p->a_k = lamina_gemm_a_stride(rows);
    for (int64_t k = 0; k < depth; k++) memcpy(to + k * p->a_k, from + k * g->a_k, (size_t)rows * sizeof(float));
    return;
  }
  p->a_row = lamina_gemm_a_stride(depth);
  p->a_k = 1;
  for (int64_t m = 0; m < rows; m++) {
    float *row = to + m * p->a_row;
    if (g->a_k == 1)
      memcpy(row, from + m * g->a_row, (size_t)depth * sizeof(float));
    else
      for (int64_t k = 0; k < depth; k++) row[k] = from[m * g->a_row + k * g->a_k];
  }
}

/* What tile t of a strip shall fetch, and in *tiles for how many tiles of the `most` that follow alike. The processor
   alone follows B best while it comes from L3 and nothing else keeps it busy. A single tile of rows fetches B some way
   ahead; several tiles share the next strip among them, a line each step, or in the first strip, which finds A cold,
   fetch the rows of the next tiles if they are one run of memory. */
static const float *what_comes(const job *j, const piece *p, const strip *s, int64_t t, int64_t most,
                               const float *next_a, int64_t *tiles) {
  const bool thin = p->tile1 - p->tile0 == 1;
  *tiles = 1;
  if (j->cut.shape->panels > 1) {
    if (j->cut.b_in_l3 && thin && j->gemm->m <= 2) return NULL;
    return t + 1 == p->tile1 && s->ahead ? s->ahead : s->b;
  }
  if (thin) return s->b + STREAM_FLOATS;
  *tiles = most;
  if (next_a) return next_a;
  const int64_t depth = max64(p->k1 - p->k0, 1), line = (t - p->tile0) * depth;
  const int64_t left = s->ahead ? depth * j->kernels->nr / LINE_FLOATS - line : 0;
  if (left <= 0) return NULL;
  *tiles = min64(ceil_div(left, depth), most);
  return s->ahead + line * LINE_FLOATS;
}

/* Brings the lines of a tile's C, while the tile computes what goes there. */
static void fetch_rows(const lamina_gemm *g, const float *c, int64_t rows, int64_t n) {
  for (int64_t m = 0; m < rows; m++)
    for (int64_t i = 0; i < n; i += LINE_FLOATS) __builtin_prefetch(c + m * g->c_row + i, 1);
}

/* All tiles of rows of one strip of B. */
static void run_strip(const job *j, const piece *p, const strip *s, bool fetch_a) {
  const lamina_gemm *g = j->gemm;
  const float *a;
  lamina_tile tile = {.batch = 1,
                      .k = p->k1 - p->k0,
                      .a = &a,
                      .a_row = p->a_row,
                      .a_k = p->a_k,
                      .b = s->b,
                      .b_k = s->b_k,
                      .b_panel = s->b_panel,
                      .prefetch_two = p->tile1 - p->tile0 == 1,
                      .c_row = g->c_row,
                      .n = (int)s->n,
                      .accumulate = g->accumulate || !p->first,
                      .bias = p->last && g->bias ? g->bias + s->n0 : NULL,
                      .add_row = g->add_row,
                      .stream = j->cut.stream,
                      .lo = p->last ? g->lo : -__builtin_inff(),
                      .hi = p->last ? g->hi : __builtin_inff()};
  for (int64_t t = p->tile0, tiles; t < p->tile1; t += tiles) {
    const bool longer = t < j->longer_tiles; /* tiles that follow are as long up to where the shorter ones begin */
    const int64_t m0 = first_row(j, t), rows = j->tile_rows + longer;
    const int64_t alike = (longer ? min64(j->longer_tiles, p->tile1) : p->tile1) - t;
    a = p->a + (m0 - p->row0) * p->a_row;
    tile.c = g->c + m0 * g->c_row + s->n0;
    tile.add = p->last && g->add ? g->add + m0 * g->add_row + s->n0 : NULL;
    tile.prefetch = what_comes(j, p, s, t, alike, fetch_a ? a + rows * p->a_row : NULL, &tiles);
    if (j->cut.fetch_c) {
      tiles = 1;
      fetch_rows(g, tile.c, rows, s->n);
    }
    tile.more = tiles - 1;
    j->cut.shape->tile[rows](&tile);
  }
}

static void run_chunk(const job *j, const piece *p, int64_t panel0, int64_t panel1, float *b_scratch) {
  const lamina_gemm *g = j->gemm;
  const int64_t nr = j->kernels->nr, depth = p->k1 - p->k0, wide = j->cut.shape->panels;
  for (int64_t panel = panel0; panel < panel1; panel += wide) {
    strip s = {.n0 = panel * nr, .b_k = nr};
    s.n = min64(min64(panel + wide, panel1) * nr, g->n) - s.n0;
    if (g->b_packed) {
      const int64_t packed_k = g->packed_k ? g->packed_k : g->k;
      s.b = g->b_packed + s.n0 * packed_k + p->k0 * nr;
      s.b_panel = nr * packed_k;
      if (panel + wide < panel1) s.ahead = s.b + wide * s.b_panel;
    } else if (j->cut.pack_b) {
      s.b = b_scratch;
      s.b_panel = nr * depth;
      j->kernels->pack_b(depth, s.n, g->b + p->k0 * g->b_k + s.n0 * g->b_n, g->b_k, g->b_n, NULL, b_scratch);
    } else if (g->k > 0) {
      s.b = g->b + p->k0 * g->b_k + s.n0;
      s.b_k = g->b_k;
      s.b_panel = nr;
    }
    run_strip(j, p, &s, panel == panel0 && p->a_k == 1 && p->a_row == g->k && !j->cut.pack_a);
  }
}

/* The activation on a block of C that is complete. */
static void activate_block(const lamina_gemm *g, int64_t row0, int64_t row1, int64_t column0, int64_t column1) {
  const int64_t width = column1 - column0, run = width == g->c_row ? row1 - row0 : 1;
  for (int64_t m = row0; g->activation && m < row1; m += run) {
    float *c = g->c + m * g->c_row + column0;
    g->activation(run * width, g->parameters, c, c);
  }
}

static void run_block(void *arg, int64_t index, int thread) {
  const job *j = arg;
  const lamina_gemm *g = j->gemm;
  const lamina_gemm_blocking *cut = &j->cut;
  static const float nothing = 0;
  const int64_t row_block = cut->along_rows ? index / cut->column_blocks : index % cut->row_blocks;
  const int64_t column_block = cut->along_rows ? index % cut->column_blocks : index / cut->row_blocks;
  const int64_t panel0 = lamina_part(cut->groups, cut->column_blocks, column_block) * cut->shape->panels;
  const int64_t panel1 = lamina_part(cut->groups, cut->column_blocks, column_block + 1) * cut->shape->panels;
  float *a_scratch = j->scratch + (size_t)thread * j->thread_floats, *b_scratch = a_scratch + j->a_floats;
  piece p = {.tile0 = lamina_part(cut->tiles, cut->row_blocks, row_block),
             .tile1 = lamina_part(cut->tiles, cut->row_blocks, row_block + 1)};
  p.row0 = first_row(j, p.tile0);
  for (int64_t chunk = 0; chunk < cut->chunks; chunk++) {
    p.k0 = lamina_part(g->k, cut->chunks, chunk);
    p.k1 = lamina_part(g->k, cut->chunks, chunk + 1);
    p.first = chunk == 0;
    p.last = chunk + 1 == cut->chunks;
    if (g->k == 0) { /* nothing to read: A may even be NULL */
      p.a = &nothing;
      p.a_row = p.a_k = 0;
    } else if (cut->pack_a) {
      pack_a(g, first_row(j, p.tile1), &p, a_scratch);
    } else {
      p.a = g->a + p.row0 * g->a_row + p.k0 * g->a_k;
      p.a_row = g->a_row;
      p.a_k = g->a_k;
    }
    run_chunk(j, &p, panel0, min64(panel1, cut->panels), b_scratch);
  }
  if (cut->stream) j->kernels->stream_end();
  activate_block(g, p.row0, first_row(j, p.tile1), panel0 * j->kernels->nr,
                 min64(panel1 * j->kernels->nr, g->n));
}

static job prepare(const lamina_context *context, const lamina_gemm *g) {
  job j = {.gemm = g, .kernels = context->kernels.gemm, .cut = lamina_gemm_cut(context, g), .scratch = g->workspace};
  j.tile_rows = g->m / j.cut.tiles;
  j.longer_tiles = g->m % j.cut.tiles;
  if (j.cut.pack_a || j.cut.pack_b) {
    j.a_floats = lamina_gemm_a_floats(context, g);
    j.thread_floats = j.a_floats + lamina_gemm_b_floats(context, g);
  }
  return j;
}

void lamina_gemm_run_serial(const lamina_context *context, const lamina_gemm *g) {
  if (g->m <= 0 || g->n <= 0) return;
  job j = prepare(context, g);
  for (int64_t i = 0; i < j.cut.row_blocks * j.cut.column_blocks; i++) run_block(&j, i, 0);
}

void lamina_gemm_run(const lamina_context *context, const lamina_gemm *g) {
  if (g->m <= 0 || g->n <= 0) return;
  job j = prepare(context, g);
  context->host.parallel(&context->host, j.cut.row_blocks * j.cut.column_blocks, run_block, &j);
}

size_t lamina_gemm_packed_bytes(const lamina_context *context, int64_t k, int64_t n) {
  const size_t nr = (size_t)context->kernels.gemm->nr;
  size_t columns, floats, bytes;
  if (k < 0 || n < 0 || !lamina_add((size_t)n, nr - 1, &columns)) return SIZE_MAX;
  columns = columns / nr * nr;
  if (!lamina_multiply(columns, (size_t)k, &floats) || !lamina_multiply(floats, sizeof(float), &bytes)) return SIZE_MAX;
  return bytes;
}

typedef struct pack_job {
  const lamina_gemm_kernels *kernels;
  int64_t k, n, panels, tasks;
  const float *b;
  int64_t b_k, b_n;
  const float *scale;
  float *packed;
  bool stream; /* past the caches */
} pack_job;

static void pack_panels(void *arg, int64_t index, int thread) {
  const pack_job *j = arg;
  (void)thread;
  const int64_t nr = j->kernels->nr, n0 = lamina_part(j->panels, j->tasks, index) * nr;
  const int64_t n1 = min64(lamina_part(j->panels, j->tasks, index + 1) * nr, j->n);
  (j->stream ? j->kernels->stream_b : j->kernels->pack_b)(j->k, n1 - n0, j->b + n0 * j->b_n, j->b_k, j->b_n,
                                                          j->scale ? j->scale + n0 : NULL, j->packed + n0 * j->k);
}

void lamina_gemm_pack_b(const lamina_context *context, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                        const float *scale, float *packed) {
  if (k <= 0 || n <= 0) return;
  pack_job j = {context->kernels.gemm, k, n, ceil_div(n, context->kernels.gemm->nr), 1, b, b_k, b_n, scale, packed,
                false};
  j.stream = (double)k * (double)n * sizeof(float) > 2 * (double)context->cpu.l2;
  const int64_t task_floats = 1 << 16;
  j.tasks = min64(j.panels, max64(k * n / task_floats, 1));
  context->host.parallel(&context->host, j.tasks, pack_panels, &j);
}
