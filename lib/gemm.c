/* SPDX-License-Identifier: Apache-2.0 */
/*
 * C(m, n) = epilogue(A(m, k) * B(k, n)) by tiles of mr x nr.
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

#include <string.h>

enum {
  LINE_FLOATS = 16,
  PAGE_BYTES = 4096, /* rows this far apart, or a multiple, share a set of L1 */
  MAX_TILES = 16,    /* of rows in a block */
  MAX_TASKS = 256,
  TASK_FLOPS = 4 << 20, /* below that a task costs more to hand out than it gains */
  MIN_KC = 128,
  MAX_KC = 1024
};

/* How one product is cut up; a function of its shape and the caches. */
typedef struct blocking {
  int64_t tiles, row_blocks; /* tiles of rows in C; blocks that they are spread over */
  int64_t panels, column_blocks;
  int64_t chunks; /* of depth */
  int64_t max_rows, max_depth;
} blocking;

typedef struct job {
  const lamina_gemm *gemm;
  const lamina_gemm_kernels *kernels;
  blocking cut;
  bool pack_a, pack_b;
  float *scratch;
  size_t a_floats, thread_floats;
} job;

/* A piece of the job: rows x panels x depth, with A and B where the tiles read them. */
typedef struct piece {
  int64_t tile0, tile1, row0;
  int64_t k0, k1;
  const float *a;
  int64_t a_row, a_k;
  bool first, last;
} piece;

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/* Start of part i of n even parts of `total`. */
static int64_t part(int64_t total, int64_t n, int64_t i) { return total / n * i + min64(i, total % n); }

static blocking cut_up(const lamina_context *context, const lamina_gemm *g) {
  const int64_t mr = context->kernels.gemm->mr, nr = context->kernels.gemm->nr, l2 = (int64_t)context->cpu.l2 / 4;
  blocking cut = {.tiles = ceil_div(g->m, mr), .panels = ceil_div(g->n, nr)};
  const int64_t kc = min64(max64(l2 / 8 / nr, MIN_KC), MAX_KC);
  cut.chunks = max64(ceil_div(g->k, kc), 1);
  cut.max_depth = ceil_div(g->k, cut.chunks);

  int64_t tiles = min64(max64(l2 / 2 / (max64(cut.max_depth, 1) * mr), 1), MAX_TILES);
  cut.row_blocks = ceil_div(cut.tiles, tiles);
  const double flops = 2.0 * (double)g->m * (double)g->n * (double)g->k;
  const int64_t wanted = flops >= (double)MAX_TASKS * TASK_FLOPS ? MAX_TASKS : max64((int64_t)(flops / TASK_FLOPS), 1);
  /* More tasks: first by columns, since each then reads its own part of B, then by rows down to two tiles. */
  cut.column_blocks = 1;
  if (cut.row_blocks < wanted) cut.column_blocks = min64(ceil_div(wanted, cut.row_blocks), ceil_div(cut.panels, 2));
  if (cut.row_blocks * cut.column_blocks < wanted)
    cut.row_blocks = max64(cut.row_blocks, min64(ceil_div(wanted, cut.column_blocks), ceil_div(cut.tiles, 2)));
  cut.max_rows = ceil_div(cut.tiles, cut.row_blocks) * mr;
  return cut;
}

static int64_t round_line(int64_t n) { return (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS; }

/* Row stride of packed A: whole lines, an odd number of them. */
static int64_t packed_stride(int64_t n) { return round_line(n) | LINE_FLOATS; }

static size_t packed_a_floats(const blocking *cut) {
  return (size_t)max64(cut->max_rows * packed_stride(cut->max_depth), cut->max_depth * packed_stride(cut->max_rows));
}

static size_t thread_floats(const lamina_context *context, const lamina_gemm *g, const blocking *cut) {
  const size_t b = g->b_packed ? 0 : (size_t)(cut->max_depth * context->kernels.gemm->nr);
  return packed_a_floats(cut) + b;
}

size_t lamina_gemm_workspace(const lamina_context *context, const lamina_gemm *g) {
  if (g->m <= 0 || g->n <= 0) return 0;
  const blocking cut = cut_up(context, g);
  size_t bytes;
  const size_t threads = (size_t)max64(context->host.threads(&context->host), 1);
  return lamina_multiply(thread_floats(context, g, &cut), threads * sizeof(float), &bytes) ? bytes : SIZE_MAX;
}

static bool aliases(int64_t stride) { return stride * 4 % PAGE_BYTES == 0; }

/* Whether a tile had better read a copy of A: rows that share cache sets, or an order in which each element is in
   another line; both only if several panels make use of the copy. */
static bool should_pack_a(const lamina_gemm *g, const blocking *cut) {
  const int64_t panels = cut->panels / cut->column_blocks;
  if (g->k <= 1) return false;
  if (g->a_k == 1) return panels >= 2 && g->m > 4 && aliases(g->a_row);
  if (g->a_row == 1) return panels >= 3;
  return panels >= 2;
}

static bool should_pack_b(const lamina_gemm *g, const blocking *cut, int nr) {
  if (g->b_packed || g->k == 0) return false;
  if (g->b_n != 1 || g->n % nr != 0) return true;
  return aliases(g->b_k) && g->k > 64 &&
         cut->tiles / cut->row_blocks >= 4; /* its lines fall into a few sets of L1 and L2 */
}

/* Copies the piece's part of A into `to`, in the order it has; the tiles then read it from there. */
static void pack_a(const lamina_gemm *g, int64_t row1, piece *p, float *to) {
  const int64_t rows = row1 - p->row0, depth = p->k1 - p->k0;
  const float *from = g->a + p->row0 * g->a_row + p->k0 * g->a_k;
  p->a = to;
  if (g->a_row == 1) {
    p->a_row = 1;
    p->a_k = packed_stride(rows);
    for (int64_t k = 0; k < depth; k++) memcpy(to + k * p->a_k, from + k * g->a_k, (size_t)rows * sizeof(float));
    return;
  }
  p->a_row = packed_stride(depth);
  p->a_k = 1;
  for (int64_t m = 0; m < rows; m++) {
    float *row = to + m * p->a_row;
    if (g->a_k == 1)
      memcpy(row, from + m * g->a_row, (size_t)depth * sizeof(float));
    else
      for (int64_t k = 0; k < depth; k++) row[k] = from[m * g->a_row + k * g->a_k];
  }
}

/* All tiles of rows of one panel of B. `ahead` is the memory that the next panel will read, or NULL. The first panel is
   the one that finds A cold: there each tile fetches the rows of the next one instead, if they are one run of memory.
 */
static void run_panel(const job *j, const piece *p, int64_t panel, const float *b, int64_t b_k, const float *ahead,
                      bool fetch_a) {
  const lamina_gemm *g = j->gemm;
  const int nr = j->kernels->nr;
  const int64_t n0 = panel * nr, lines = (p->k1 - p->k0) * nr / LINE_FLOATS;
  const float *a;
  lamina_tile tile = {.batch = 1,
                      .k = p->k1 - p->k0,
                      .a = &a,
                      .a_row = p->a_row,
                      .a_k = p->a_k,
                      .b = b,
                      .b_k = b_k,
                      .c_row = g->c_row,
                      .n = (int)min64(nr, g->n - n0),
                      .accumulate = g->accumulate || !p->first,
                      .bias = p->last && g->bias ? g->bias + n0 : NULL,
                      .add_row = g->add_row,
                      .lo = p->last ? g->lo : -__builtin_inff(),
                      .hi = p->last ? g->hi : __builtin_inff()};
  for (int64_t t = p->tile0; t < p->tile1; t++) {
    const int64_t m0 = part(g->m, j->cut.tiles, t), m1 = part(g->m, j->cut.tiles, t + 1);
    a = p->a + (m0 - p->row0) * p->a_row;
    tile.c = g->c + m0 * g->c_row + n0;
    tile.add = p->last && g->add ? g->add + m0 * g->add_row + n0 : NULL;
    const int64_t line = (t - p->tile0) * tile.k; /* a tile walks one line a step */
    tile.prefetch = ahead && line < lines ? ahead + line * LINE_FLOATS : NULL;
    if (fetch_a && t + 1 < p->tile1) tile.prefetch = a + (m1 - m0) * p->a_row;
    j->kernels->tile[m1 - m0](&tile);
  }
}

static void run_chunk(const job *j, const piece *p, int64_t panel0, int64_t panel1, float *b_scratch) {
  const lamina_gemm *g = j->gemm;
  const int64_t nr = j->kernels->nr, depth = p->k1 - p->k0;
  for (int64_t panel = panel0; panel < panel1; panel++) {
    const int64_t n0 = panel * nr;
    const float *b = NULL, *ahead = NULL;
    int64_t b_k = nr;
    if (g->b_packed) {
      b = g->b_packed + n0 * g->k + p->k0 * nr;
      if (panel + 1 < panel1) ahead = b + nr * g->k;
    } else if (j->pack_b) {
      b = b_scratch;
      j->kernels->pack_b(depth, min64(nr, g->n - n0), g->b + p->k0 * g->b_k + n0 * g->b_n, g->b_k, g->b_n, NULL,
                         b_scratch);
    } else if (g->k > 0) {
      b = g->b + p->k0 * g->b_k + n0;
      b_k = g->b_k;
    }
    run_panel(j, p, panel, b, b_k, ahead, panel == panel0 && p->a_k == 1 && p->a_row == g->k && !j->pack_a);
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
  const blocking *cut = &j->cut;
  static const float nothing = 0;
  const int64_t row_block = index % cut->row_blocks, column_block = index / cut->row_blocks;
  const int64_t panel0 = part(cut->panels, cut->column_blocks, column_block);
  const int64_t panel1 = part(cut->panels, cut->column_blocks, column_block + 1);
  float *a_scratch = j->scratch + (size_t)thread * j->thread_floats, *b_scratch = a_scratch + j->a_floats;
  piece p = {.tile0 = part(cut->tiles, cut->row_blocks, row_block),
             .tile1 = part(cut->tiles, cut->row_blocks, row_block + 1)};
  p.row0 = part(g->m, cut->tiles, p.tile0);
  for (int64_t chunk = 0; chunk < cut->chunks; chunk++) {
    p.k0 = part(g->k, cut->chunks, chunk);
    p.k1 = part(g->k, cut->chunks, chunk + 1);
    p.first = chunk == 0;
    p.last = chunk + 1 == cut->chunks;
    if (g->k == 0) { /* nothing to read: A may even be NULL */
      p.a = &nothing;
      p.a_row = p.a_k = 0;
    } else if (j->pack_a) {
      pack_a(g, part(g->m, cut->tiles, p.tile1), &p, a_scratch);
    } else {
      p.a = g->a + p.row0 * g->a_row + p.k0 * g->a_k;
      p.a_row = g->a_row;
      p.a_k = g->a_k;
    }
    run_chunk(j, &p, panel0, panel1, b_scratch);
  }
  activate_block(g, p.row0, part(g->m, cut->tiles, p.tile1), panel0 * j->kernels->nr,
                 min64(panel1 * j->kernels->nr, g->n));
}

void lamina_gemm_run(const lamina_context *context, const lamina_gemm *g) {
  if (g->m <= 0 || g->n <= 0) return;
  job j = {.gemm = g, .kernels = context->kernels.gemm, .cut = cut_up(context, g), .scratch = g->workspace};
  j.pack_a = should_pack_a(g, &j.cut);
  j.pack_b = should_pack_b(g, &j.cut, j.kernels->nr);
  j.a_floats = packed_a_floats(&j.cut);
  j.thread_floats = thread_floats(context, g, &j.cut);
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
} pack_job;

static void pack_panels(void *arg, int64_t index, int thread) {
  const pack_job *j = arg;
  (void)thread;
  const int64_t nr = j->kernels->nr, n0 = part(j->panels, j->tasks, index) * nr;
  const int64_t n1 = min64(part(j->panels, j->tasks, index + 1) * nr, j->n);
  j->kernels->pack_b(j->k, n1 - n0, j->b + n0 * j->b_n, j->b_k, j->b_n, j->scale ? j->scale + n0 : NULL,
                     j->packed + n0 * j->k);
}

void lamina_gemm_pack_b(const lamina_context *context, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                        const float *scale, float *packed) {
  if (k <= 0 || n <= 0) return;
  pack_job j = {context->kernels.gemm, k, n, ceil_div(n, context->kernels.gemm->nr), 1, b, b_k, b_n, scale, packed};
  const int64_t task_floats = 1 << 16;
  j.tasks = min64(j.panels, max64(k * n / task_floats, 1));
  context->host.parallel(&context->host, j.tasks, pack_panels, &j);
}
