/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file depthwise_groups.h
 * A part of depthwise_body.h, which includes it: 3x3 kernels of groups of several channels. As in depthwise_ring.h the
 * outputs of all rows that a row of x belongs to are in registers, and each channel of a group brings weights of its
 * own.
 *
 * A value of x must reach all lanes of its group. So the columns of a row are first copied, each vector with its G
 * groups interleaved: lane o * G + g is channel o of group g. Channel k of all of them is then G neighbours in memory,
 * which a load repeats for all lanes; a permutation instead would take ports from multiply-adds. The copy also lies in
 * as many cache sets as it can, where pixels that are many channels apart share few, and has zeros outside of the
 * image. The next row is copied a column or a few with each channel, while multiply-adds are busy.
 *
 * Weights are interleaved when they are packed, outputs are brought back before they are stored.
 */
#ifndef LAMINA_SHARED_DEPTHWISE_GROUPS_H
#define LAMINA_SHARED_DEPTHWISE_GROUPS_H

enum { DW_GROUP_ROOM = 16 }; /* columns, with those that are copied for nothing */
#define DW_GROUP_COLUMNS(STRIDE) ((DW_RING_WIDTH(STRIDE) - 1) * (STRIDE) + 3) /* of x */

/* Columns of x in a strip, which are the same for all channels. */
typedef struct depthwise_group_columns {
  ptrdiff_t offset[DW_GROUP_ROOM]; /* from the strip's first column; of a column that is inside where this one is not */
  int first, last;                 /* those that are inside and needed */
  int whole; /* the strip is as wide as can be, and but for one at each end all columns are inside */
} depthwise_group_columns;

/* A strip of groups on its way down: rows of x, those that are read and those that are copied meanwhile. */
typedef struct depthwise_group_rows {
  _Alignas(64) float x[4][DW_GROUP_ROOM][VF_LEN]; /* of row i in i % 4 */
  _Alignas(64) float bias[VF_LEN];                /* interleaved */
  int64_t end;                                    /* the row of x after the last one that is used */
} depthwise_group_rows;

/* Indices for vf_pick that interleave `groups` groups, and that bring them back. */
typedef struct depthwise_order {
  int32_t in[VF_LEN], out[VF_LEN];
} depthwise_order;

static depthwise_order depthwise_interleave(int group) {
  const int groups = VF_LEN / group;
  depthwise_order order;
  for (int i = 0; i < VF_LEN; i++) {
    order.in[i] = i % groups * group + i / groups;
    order.out[i] = i % group * groups + i / group;
  }
  return order;
}

/* `count` columns of row `in` of x from column j on. What is outside of the image is never read from the copy: another
   row or column takes its place, so that there are no branches, which would be met too often and too irregularly. */
VEC_INLINE void depthwise_group_copy(int groups, int whole, int count, const depthwise_strip *s, int64_t in, int j,
                                     const depthwise_group_columns *columns, depthwise_group_rows *rows) {
  const int64_t last = s->d->h.in - 1, row = in < 0 ? 0 : in < last ? in : last;
  const float *x = s->x + row * s->d->x_row;
  const ptrdiff_t ahead = 2 * s->d->x_row;
  float *to = rows->x[in & 3][j];
#pragma GCC unroll 16
  for (int i = 0; i < count; i++) {
    const vf v = depthwise_load(!whole, x + columns->offset[j + i], s->lanes);
    vf_prefetch_l1(x + columns->offset[j + i] + ahead);
    vf_store(to + i * VF_LEN, groups > 1 ? vf_pick(v, s->picks) : v);
  }
}

/* One row of x for channel k of each group. `whole`: as columns->whole, and all lanes are in use. */
VEC_INLINE void depthwise_group_row(int stride, int groups, int whole, unsigned taps, const float *p,
                                    const depthwise_group_columns *columns, depthwise_ring_weights *w,
                                    vf acc[3][DW_WIDTH]) {
  const int most = DW_GROUP_COLUMNS(stride);
#pragma GCC unroll 32
  for (int j = 0; j < most; j++) {
    if ((!whole || j == 0) && j < columns->first) continue;
    if ((!whole || j == most - 1) && j >= columns->last) break;
    __asm__ volatile("" : "+r"(p)); /* else the compiler moves loads until registers spill */
    depthwise_ring_products(stride, taps, j, vf_pin(vf_repeat(p + j * VF_LEN, groups)), w, acc);
  }
}

/* `count` rows of x from row `in` on: adds their products with those rows of weights that `taps` and, for the second
   row, `more` have bits for to the rows of outputs in flight, as depthwise_ring_step does; and copies the `next` rows
   behind. */
VEC_INLINE void depthwise_group_step(int stride, int groups, int whole, int count, unsigned taps, unsigned more,
                                     int next, const depthwise_strip *s, int64_t in, const float *first,
                                     const float *next_y, const depthwise_group_columns *columns,
                                     depthwise_group_rows *rows, vf acc[3][DW_WIDTH]) {
  const int group = VF_LEN / groups;
  const int each = (DW_GROUP_COLUMNS(stride) + group - 1) / group; /* columns to copy with each channel */
  for (int k = 0; k < group; k++) {
#pragma GCC unroll 2
    for (int i = 0; i < next; i++)
      depthwise_group_copy(groups, whole, each, s, in + count + i, k * each, columns, rows);
    if (next == 0) /* the last row: what the channels beside begin with */
#pragma GCC unroll 16
      for (int i = 0; i < each; i++) {
        const float *beside = first + columns->offset[k * each + i] + LAMINA_DEPTHWISE_BLOCK;
        vf_prefetch_l1(beside);
        vf_prefetch_l1(beside + s->d->x_row);
        if (stride == 2) vf_prefetch_l1(beside + 2 * s->d->x_row);
      }
    if (s->next_x && count == stride && k * each < s->count * stride) {
#pragma GCC unroll 2
      for (int i = 0; i < count; i++)
#pragma GCC unroll 16
        for (int t = 0; t < each; t++)
          vf_prefetch_l2(s->next_x + (in + i) * s->d->x_row + (k * each + t) * LAMINA_DEPTHWISE_BLOCK);
      if (next_y && k < s->count) vf_prefetch_l2(next_y + k * LAMINA_DEPTHWISE_BLOCK);
    }
    depthwise_ring_weights w = depthwise_load_weights(s->weights + k * 9 * LAMINA_DEPTHWISE_BLOCK);
#pragma GCC unroll 2
    for (int i = 0; i < count; i++)
      if (in + i >= 0 && in + i < rows->end)
        depthwise_group_row(stride, groups, whole, i ? more : taps, rows->x[(in + i) & 3][0] + k * groups, columns, &w,
                            acc);
  }
}

/* Outputs, back in their order. */
VEC_INLINE void depthwise_group_store(int stride, int groups, int whole, const depthwise_strip *s, int64_t row,
                                      vf *acc) {
  vf y[DW_WIDTH];
#pragma GCC unroll 16
  for (int c = 0; c < DW_WIDTH; c++) y[c] = groups > 1 ? vf_pick(acc[c], s->picks + VF_LEN) : acc[c];
  depthwise_store(!whole, DW_RING_WIDTH(stride), s, row, y);
}

/* Down the rows. */
VEC_INLINE void depthwise_group_ring(int stride, int groups, int whole, const depthwise_strip *s,
                                     const depthwise_group_columns *columns, int64_t row0, int64_t row1) {
  const int64_t end = (row1 - 1) * stride + s->d->h.first + 3;
  int64_t in = row0 * stride + s->d->h.first;
  depthwise_group_rows rows;
  rows.end = end < s->d->h.in ? end : s->d->h.in;
  const vf bias = vf_load(s->bias);
  vf_store(rows.bias, groups > 1 ? vf_pick(bias, s->picks) : bias);
  depthwise_group_copy(groups, whole, DW_GROUP_COLUMNS(stride), s, in, 0, columns, &rows);
  vf acc[3][DW_WIDTH];
#pragma GCC unroll 16
  for (int c = 0; c < DW_WIDTH; c++) acc[0][c] = acc[1][c] = acc[2][c] = vf_load(rows.bias);
  const float *first = s->x + (in > 0 ? in : 0) * s->d->x_row;
#define DEPTHWISE_GROUP_STEP(COUNT, TAPS, MORE, NEXT, NEXT_Y)                                                          \
  depthwise_group_step(stride, groups, whole, COUNT, TAPS, MORE, NEXT, s, in, first, NEXT_Y, columns, &rows, acc)
  /* The rows of x that only the first rows of weights meet. */
  DEPTHWISE_GROUP_STEP(1, 1, 0, stride, NULL);
  in++;
  depthwise_ring_turn(stride, rows.bias, acc);
  if (stride == 1) {
    DEPTHWISE_GROUP_STEP(1, 3, 0, 1, NULL);
    in++;
    depthwise_ring_turn(stride, rows.bias, acc);
  }
  for (int64_t row = row0; row < row1; row++, in += stride) {
    const float *next_y = s->next_y ? s->next_y + row * s->d->y_row : NULL;
    /* What belongs to rows below the last one is left out. */
    if (stride == 2 && row + 1 == row1)
      DEPTHWISE_GROUP_STEP(2, 2, 4, 0, next_y);
    else if (stride == 2)
      DEPTHWISE_GROUP_STEP(2, 2, 5, 2, next_y);
    else if (row + 1 == row1)
      DEPTHWISE_GROUP_STEP(1, 4, 0, 0, next_y);
    else if (row + 2 == row1)
      DEPTHWISE_GROUP_STEP(1, 6, 0, 1, next_y);
    else
      DEPTHWISE_GROUP_STEP(1, 7, 0, 1, next_y);
    depthwise_group_store(stride, groups, whole, s, row, acc[0]);
    depthwise_ring_turn(stride, rows.bias, acc);
  }
#undef DEPTHWISE_GROUP_STEP
}

typedef void depthwise_groups_down(const depthwise_strip *s, const depthwise_group_columns *columns, int64_t row0,
                                   int64_t row1);

#define DEPTHWISE_GROUPS_KIND(NAME, STRIDE, GROUPS, WHOLE)                                                             \
  static __attribute__((noinline)) void NAME(const depthwise_strip *s, const depthwise_group_columns *columns,         \
                                             int64_t row0, int64_t row1) {                                             \
    depthwise_group_ring(STRIDE, GROUPS, WHOLE, s, columns, row0, row1);                                               \
  }
#define DEPTHWISE_GROUPS(GROUPS)                                                                                       \
  DEPTHWISE_GROUPS_KIND(depthwise_groups_short_s1_##GROUPS, 1, GROUPS, 0)                                              \
  DEPTHWISE_GROUPS_KIND(depthwise_groups_whole_s1_##GROUPS, 1, GROUPS, 1)                                              \
  DEPTHWISE_GROUPS_KIND(depthwise_groups_short_s2_##GROUPS, 2, GROUPS, 0)                                              \
  DEPTHWISE_GROUPS_KIND(depthwise_groups_whole_s2_##GROUPS, 2, GROUPS, 1)
#define DEPTHWISE_GROUPS_ROW(GROUPS)                                                                                   \
  {                                                                                                                    \
    {depthwise_groups_short_s1_##GROUPS, depthwise_groups_whole_s1_##GROUPS},                                          \
        {depthwise_groups_short_s2_##GROUPS, depthwise_groups_whole_s2_##GROUPS},                                      \
  }

DEPTHWISE_GROUPS(1)
DEPTHWISE_GROUPS(2)
#if VF_LEN >= 8
DEPTHWISE_GROUPS(4)
#endif
#if VF_LEN >= 16
DEPTHWISE_GROUPS(8)
#endif

static int depthwise_grouped(const lamina_depthwise *d) {
  const lamina_depthwise_axis *h = &d->h, *w = &d->w;
  return d->group > 1 && VF_LEN % d->group == 0 && h->taps == 3 && w->taps == 3 && h->step == 1 && w->step == 1 &&
         h->stride == w->stride && w->stride <= 2;
}

/* Which of the kernels with 1, 2, 4 .. groups in a vector. */
static int depthwise_groups_kind(int64_t group) {
  int kind = 0;
  while (VF_LEN >> kind > group) kind++;
  return kind;
}

/* The strip of `count` outputs from q on. */
static depthwise_group_columns depthwise_group_place(const lamina_depthwise *d, int64_t q, int count, int width) {
  const int64_t column = q * d->w.stride + d->w.first, inside = d->w.in - column;
  const int needed = (int)((count - 1) * d->w.stride + 3), most = (int)((width - 1) * d->w.stride + 3);
  depthwise_group_columns c;
  c.last = inside < 0 ? 0 : inside < needed ? (int)inside : needed;
  c.first = column >= 0 ? 0 : -column < needed ? (int)-column : needed;
  c.whole = count == width && c.first <= 1 && c.last >= most - 1;
  for (int j = 0; j < DW_GROUP_ROOM; j++) {
    const int64_t at = column + j < 0 ? 0 : column + j < d->w.in ? column + j : d->w.in - 1;
    c.offset[j] = (at - column) * d->x_pixel;
  }
  return c;
}

static void depthwise_groups(const lamina_depthwise *d, int64_t row0, int64_t row1) {
  static depthwise_groups_down *const downs[][2][2] = {
    DEPTHWISE_GROUPS_ROW(1),
    DEPTHWISE_GROUPS_ROW(2),
#if VF_LEN >= 8
    DEPTHWISE_GROUPS_ROW(4),
#endif
#if VF_LEN >= 16
    DEPTHWISE_GROUPS_ROW(8)
#endif
  };
  const depthwise_order order = depthwise_interleave((int)d->group);
  depthwise_groups_down *const *const kinds = downs[depthwise_groups_kind(d->group)][d->w.stride - 1];
  const int width = d->w.stride == 1 ? DW_RING_WIDTH(1) : DW_RING_WIDTH(2);
  const int64_t strips = (d->columns + width - 1) / width;
  int64_t q = 0;
  for (int64_t strip = 0; strip < strips; strip++) {
    const int count = (int)((d->columns - q + strips - strip - 1) / (strips - strip));
    const depthwise_group_columns columns = depthwise_group_place(d, q, count, width);
    for (int64_t c = 0; c < d->channels; c += LAMINA_DEPTHWISE_BLOCK) {
      depthwise_strip s[DW_LINE_VECTORS];
      int used;
      depthwise_line(d, c, q, count, 9, order.in, s, &used);
      depthwise_next(d, c, q, count, row1 - row0, s);
      for (int v = 0; v < used; v++) kinds[columns.whole && s[v].lanes == VF_LEN](s + v, &columns, row0, row1);
    }
    q += count;
  }
}

static void depthwise_group_weights(int64_t group, int64_t n, float *weights) {
  const depthwise_order order = depthwise_interleave((int)group);
  for (int64_t i = 0; i < n; i += VF_LEN) vf_store(weights + i, vf_pick(vf_load(weights + i), order.in));
}

#endif
