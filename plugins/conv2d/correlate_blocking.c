/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a correlation is cut: into tasks, by shape alone, of rows and panels that stay in the caches; and the rows of a
 * task into tiles.
 */
#include "correlate.h"

enum {
  ALIAS_ROWS = 6, /* pixels of a tile that do not stay in L1 together when all are in one set */
  PAGE_BYTES = 4096,
  TASK_FLOPS = 8 << 20,
  MAX_TASKS = 64,
  SMALL_TASK = 1 << 19, /* FLOPs: some 10 microseconds, ten times what it costs to hand a task out */
  FEW_TASKS = 8,        /* down to which a small correlation is cut into such tasks */
  MAX_COPYING_TASKS = 8,
  MIN_ROWS = 4,  /* of a block, where the grid has as many: below that too much is copied twice */
  MIN_TILES = 16 /* pixels of a block, in tiles, that are worth reading a panel of weights for */
};

static void find_reach(correlate_job *j) {
  const correlation *c = j->c;
  int64_t r0 = INT64_MAX, r1 = INT64_MIN;
  j->c0 = INT64_MAX;
  j->c1 = INT64_MIN;
  for (int64_t i = 0; i < c->phases_h; i++) {
    const conv_axis h = lamina_conv_axis(&c->shape->h, c->backward, i);
    j->count_h = layer_max(j->count_h, h.count);
    if (h.taps <= 0 || h.count <= 0) continue;
    r0 = layer_min(r0, h.first);
    r1 = layer_max(r1, h.first + (h.taps - 1) * h.step);
  }
  for (int64_t i = 0; i < c->phases_w; i++) {
    const conv_axis w = lamina_conv_axis(&c->shape->w, c->backward, i);
    j->count_w = layer_max(j->count_w, w.count);
    if (w.taps <= 0 || w.count <= 0) continue;
    j->c0 = layer_min(j->c0, w.first);
    j->c1 = layer_max(j->c1, (w.count - 1) * w.stride + w.first + (w.taps - 1) * w.step + 1);
  }
  if (r0 > r1 || j->c0 > j->c1) r0 = j->c0 = 0, r1 = 0, j->c1 = 1; /* no phase has a tap */
  j->first_row = r0;
  j->span = r1 - r0 + 1;
}

static int aliases(int64_t stride) { return stride * 4 % PAGE_BYTES == 0; }

/* Rows of x that rows t0 .. t0 + rows of the grid reach. */
static int64_t reached_rows(const correlate_job *j, int64_t rows) {
  if (j->compact) return rows;
  return layer_min((rows - 1) * correlate_row_stride(j->c) + j->span, j->c->in_h);
}

static int64_t copy_columns(const correlate_job *j) { return j->compact ? j->count_w : j->c1 - j->c0; }

/* Tasks that copy are fewer: those of the same rows copy the same. */
static int64_t wanted_tasks(const correlate_job *j) {
  const conv_shape *s = j->c->shape;
  const double flops = 2.0 * (double)s->images * (double)(s->groups * s->in * s->out) * (double)(s->h.out * s->w.out) *
                       (double)(s->h.kernel * s->w.kernel);
  const int64_t most = j->may_copy ? MAX_COPYING_TASKS : MAX_TASKS;
  const double small = flops / SMALL_TASK < FEW_TASKS ? flops / SMALL_TASK : FEW_TASKS, large = flops / TASK_FLOPS;
  return layer_max((int64_t)(large > most ? most : large > small ? large : small), 1);
}

/* Rows of a block: as many as stay in half of L2; then more blocks, of rows or of panels, until there are enough tasks;
   or several images to a block, where there are plenty. */
static void cut_up(correlate_job *j) {
  const correlation *c = j->c;
  const conv_shape *s = c->shape;
  const int64_t l2 = (int64_t)s->host->cpu->l2 / 4, row = copy_columns(j) * j->pixel, rows = layer_max(j->count_h, 1);
  const int64_t wanted = wanted_tasks(j), units = s->images * s->groups;
  const int64_t fit = j->compact ? l2 / 2 / row : (l2 / 2 / row - j->span) / correlate_row_stride(c) + 1;
  int64_t row_blocks = layer_ceil_div(rows, layer_max(layer_min(fit, rows), 1));
  const int64_t max_row_blocks = layer_max(row_blocks, layer_max(rows / MIN_ROWS, 1));
  const int64_t weights = s->h.kernel * s->w.kernel * s->in * s->out, input = c->in_h * c->in_w * c->in;
  j->panels = layer_ceil_div(c->out, j->kernels->nr);
  j->panel_blocks = 1;
  if (weights > input && !j->may_copy && units * row_blocks < wanted)
    j->panel_blocks = layer_min(layer_ceil_div(wanted, units * row_blocks), j->panels);
  if (units * row_blocks * j->panel_blocks < wanted)
    row_blocks = layer_min(layer_ceil_div(wanted, units * j->panel_blocks), max_row_blocks);
  if (units * row_blocks * j->panel_blocks < wanted)
    j->panel_blocks = layer_min(layer_ceil_div(wanted, units * row_blocks), j->panels);
  j->rows_block = layer_ceil_div(rows, row_blocks);
  j->row_blocks = layer_ceil_div(rows, j->rows_block);

  const int64_t block_pixels = j->rows_block * j->count_w, block_floats = reached_rows(j, j->rows_block) * row;
  int64_t images = layer_ceil_div(MIN_TILES * j->kernels->mr, layer_max(block_pixels, 1));
  images = layer_min(images, l2 / 3 / layer_max(block_floats, 1));
  images = layer_min(images, units * j->row_blocks * j->panel_blocks / wanted);
  j->images_block = layer_max(layer_min(images, s->images), 1);
}

/*
 * Tiles of at most `limit` pixels that a row of `width` is spread over, for sums of `depth` products. A tile has so few
 * pixels that no tap leaves out some on both of its sides. Fewer, larger tiles read each weight less often; smaller
 * ones overlap their ends with the next tile's sums, which counts where sums are short. In FMAs: a row of weights costs
 * about a tenth, the end of a large tile about a hundred, that of a small one a quarter of it.
 */
int64_t lamina_conv_count_tiles(const correlate_job *j, int64_t width, int64_t limit, int64_t depth) {
  const int64_t large = layer_min(j->kernels->mr, limit),
                vectors = layer_min(j->panel_vectors, layer_ceil_div(j->c->out, j->kernels->vector));
  const int64_t small = layer_min(layer_min(j->kernels->short_tile / vectors, j->kernels->mr), limit);
  const int64_t fewer = layer_ceil_div(width, large), more = layer_ceil_div(width, small);
  const int64_t step = (depth * j->panel_vectors + 9) / 10;
  const int end = layer_ceil_div(width, fewer) > small ? 100 : 25;
  return fewer * (step + end) <= more * (step + 25) ? fewer : more;
}

correlate_job lamina_conv_correlate_job(const correlation *c) {
  const conv_shape *s = c->shape;
  correlate_job j = {.c = c, .kernels = s->kernels->conv};
  find_reach(&j);
  const int single = c->phases_h * c->phases_w == 1 && (!c->backward || s->h.stride * s->w.stride == 1);
  const int64_t stride = correlate_stride(c), l2 = (int64_t)s->host->cpu->l2 / 4, nr = j.kernels->nr;
  j.compact = single && s->h.kernel == 1 && s->w.kernel == 1;
  const int64_t limit = layer_min(j.kernels->mr, correlate_one_sided(&j, stride)),
                tiles = layer_ceil_div(j.count_w, limit);
  const int64_t tile_rows = j.count_w / layer_max(tiles, 1);
  const int several = tile_rows >= ALIAS_ROWS;
  /* Flattened, all tiles are large. */
  const int flatten =
      j.compact && tile_rows < j.kernels->good_rows && tiles * limit > j.count_w + j.count_w / 8 && c->out >= 8 * nr;
  j.copy = flatten || (several && aliases(stride * c->x.pixel));
  j.may_copy = flatten || (several && aliases(stride * s->groups * c->in));
  if (!j.compact) { /* columns beside the image are never read */
    j.c0 = layer_min(layer_max(j.c0, 0), c->in_w - 1);
    j.c1 = layer_max(layer_min(j.c1, c->in_w), j.c0 + 1);
  }
  j.pixel = c->in;
  if (aliases((j.compact ? 1 : stride) * j.pixel)) j.pixel += CONV_LINE;
  cut_up(&j);
  j.panel_vectors = j.kernels->nr / j.kernels->vector;
  j.sweep = s->h.kernel * s->w.kernel * c->in * layer_ceil_div(j.panels, j.panel_blocks) * nr <= l2 / 2;
  j.group = tile_rows <= j.kernels->wide_rows && !(j.copy && j.compact) ? 2 : 1;
  j.max_depth = layer_max(l2 * 4 / 10 / (nr * j.group), 256);
  j.run_bytes =
      round_up(s->h.kernel * s->w.kernel * (int64_t)sizeof(lamina_conv_taps), CONV_LINE * (int64_t)sizeof(float));
  /* Asked for even when x can be read in place: at plan its strides are not known for certain. */
  j.thread_floats = round_up(j.images_block * reached_rows(&j, j.rows_block) * copy_columns(&j) * j.pixel, CONV_LINE);
  return j;
}

int64_t lamina_conv_correlate_thread_bytes(const correlate_job *j) {
  return CORRELATE_LISTS * j->run_bytes + j->thread_floats * (int64_t)sizeof(float);
}

size_t lamina_conv_correlate_workspace(const correlation *c) {
  const correlate_job j = lamina_conv_correlate_job(c);
  return (size_t)(lamina_conv_correlate_thread_bytes(&j) * c->shape->host->threads(c->shape->host));
}

/* Text that lives on, by rows and columns of a tile. */
#define TILE_TEXTS(rows)                                                                                               \
  {                                                                                                                    \
    "direct " #rows "x4", "direct " #rows "x8", "direct " #rows "x12", "direct " #rows "x16", "direct " #rows "x24",   \
        "direct " #rows "x32", "direct " #rows "x48", "direct " #rows "x64"                                            \
  }
static const int tile_columns[] = {4, 8, 12, 16, 24, 32, 48, 64};
static const char tile_texts[][8][16] = {TILE_TEXTS(1),  TILE_TEXTS(2),  TILE_TEXTS(3),  TILE_TEXTS(4), TILE_TEXTS(5),
                                         TILE_TEXTS(6),  TILE_TEXTS(7),  TILE_TEXTS(8),  TILE_TEXTS(9), TILE_TEXTS(10),
                                         TILE_TEXTS(11), TILE_TEXTS(12), TILE_TEXTS(13), TILE_TEXTS(14)};

const char *lamina_conv_correlate_algorithm(const correlation *c) {
  const correlate_job j = lamina_conv_correlate_job(c);
  const int64_t flat = j.copy && j.compact, width = flat ? j.rows_block * j.count_w : j.count_w;
  if (width <= 0) return "direct";
  const int64_t limit = flat ? width : correlate_one_sided(&j, correlate_stride(c));
  const int64_t depth = c->shape->h.kernel * c->shape->w.kernel * c->in;
  const int64_t rows = layer_ceil_div(width, lamina_conv_count_tiles(&j, width, limit, depth)), nr = j.kernels->nr;
  const int64_t whole = round_up(c->out, j.kernels->vector); /* a tile has whole vectors */
  const int64_t columns = layer_min(whole, rows <= j.kernels->wide_rows && whole >= 2 * nr ? 2 * nr : nr);
  for (int i = 0; i < (int)(sizeof tile_columns / sizeof *tile_columns); i++)
    if (columns == tile_columns[i] && rows <= (int64_t)(sizeof tile_texts / sizeof *tile_texts))
      return tile_texts[rows - 1][i];
  return "direct";
}
