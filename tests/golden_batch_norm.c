/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden test: what a reference in fp32 cannot know about a training step of batch norm.
 *
 * PyTorch keeps a batch's mean in fp32 and computes y = x * alpha + beta. Where a channel's mean is large against its
 * deviation, the mean's rounding alone, up to 2^-24 |mean|, shifts every normalised value by r = 2^-24 |mean| /
 * sqrt(var + eps), and sums of them by more than the bound of this test. The step is then computed here once more in
 * double. If the reference's distance from that is what its rounding explains, the library is held to the same bound,
 * but against the exact values.
 */
#include "golden.h"

#include <math.h>
#include <stdlib.h>

#define HALF_ULP 0x1p-24

typedef struct channel_sums {
  double mean, inv_std, weight;
  double dy, dy_xhat; /* means over the rows */
  double largest_xhat, largest_dy;
} channel_sums;

static double at(const lamina_tensor *tensor, int64_t index) { return golden_element(tensor, index); }

static channel_sums sum_channel(const lamina_tensor *x, const lamina_tensor *dy, int64_t rows, int64_t channels,
                                int64_t c, double eps) {
  channel_sums s = {.weight = 1};
  double variance = 0;
  for (int64_t i = 0; i < rows; i++) s.mean += at(x, i * channels + c) / (double)rows;
  for (int64_t i = 0; i < rows; i++) variance += pow(at(x, i * channels + c) - s.mean, 2) / (double)rows;
  s.inv_std = 1 / sqrt(variance + eps);
  for (int64_t i = 0; i < rows; i++) {
    const double xhat = (at(x, i * channels + c) - s.mean) * s.inv_std, d = at(dy, i * channels + c);
    s.dy += d / (double)rows;
    s.dy_xhat += d * xhat / (double)rows;
    s.largest_xhat = fmax(s.largest_xhat, fabs(xhat));
    s.largest_dy = fmax(s.largest_dy, fabs(d));
  }
  return s;
}

/* First-order effect of the rounding of mean, alpha, beta and x-hat on the reference. */
static void widen(golden_exact *e, const channel_sums *s, double rows) {
  const double shift = HALF_ULP * fabs(s->mean) * s->inv_std, w = fabs(s->weight);
  e->slack[GOLDEN_Y] = fmax(e->slack[GOLDEN_Y], 4 * w * (shift + HALF_ULP * s->largest_xhat));
  e->slack[GOLDEN_GRAD_WEIGHT] =
      fmax(e->slack[GOLDEN_GRAD_WEIGHT], 2 * rows * (shift * fabs(s->dy) + HALF_ULP * s->largest_xhat * s->largest_dy));
  e->slack[GOLDEN_GRAD_BIAS] = fmax(e->slack[GOLDEN_GRAD_BIAS], 2 * rows * HALF_ULP * s->largest_dy);
  /* Without the shift: what remains where dy's parts cancel, as they do for two rows, whatever computes it in fp32. */
  const double rounding = 4 * HALF_ULP * (s->largest_dy + s->largest_xhat * fabs(s->dy_xhat));
  e->rounding = fmax(e->rounding, 2 * w * s->inv_std * rounding);
  e->slack[GOLDEN_DX] =
      fmax(e->slack[GOLDEN_DX],
           2 * w * s->inv_std * (shift * (fabs(s->dy_xhat) + s->largest_xhat * fabs(s->dy)) + rounding));
}

static void fill_channel(golden_exact *e, const channel_sums *s, const lamina_tensor *x, const lamina_tensor *dy,
                         int64_t rows, int64_t channels, int64_t c, double bias) {
  float *y = e->tensor[GOLDEN_Y].data, *dx = e->tensor[GOLDEN_DX].data;
  for (int64_t i = c; i < rows * channels; i += channels) {
    const double xhat = (at(x, i) - s->mean) * s->inv_std;
    y[i] = (float)(s->weight * xhat + bias);
    dx[i] = (float)(s->weight * s->inv_std * (at(dy, i) - s->dy - xhat * s->dy_xhat));
  }
  ((float *)e->tensor[GOLDEN_GRAD_WEIGHT].data)[c] = (float)(s->dy_xhat * (double)rows);
  ((float *)e->tensor[GOLDEN_GRAD_BIAS].data)[c] = (float)(s->dy * (double)rows);
}

bool golden_exact_batch_norm(golden_run *run, const lamina_tensor *x, const lamina_tensor *dy, golden_exact *e) {
  lamina_tensor weight, bias;
  const bool has_weight = golden_find(run, &weight, "init.weight"), has_bias = golden_find(run, &bias, "init.bias");
  const int64_t channels = x->dim[x->rank - 1], rows = lamina_tensor_count(x) / channels;
  const double eps = golden_number(run, "eps", 1e-5);
  for (int i = 0; i < GOLDEN_EXACT; i++) {
    const bool activation = i == GOLDEN_Y || i == GOLDEN_DX;
    float *data = calloc((size_t)(activation ? rows * channels : channels) + 1, sizeof *data);
    e->tensor[i] = activation ? lamina_tensor_of(data, LAMINA_F32, x->rank, x->dim)
                              : lamina_tensor_of(data, LAMINA_F32, 1, &channels);
    if (!data) return golden_fail(run, "out of memory");
  }
  for (int64_t c = 0; c < channels; c++) {
    channel_sums s = sum_channel(x, dy, rows, channels, c, eps);
    if (has_weight) s.weight = at(&weight, c);
    widen(e, &s, (double)rows);
    fill_channel(e, &s, x, dy, rows, channels, c, has_bias ? at(&bias, c) : 0);
  }
  return true;
}

void golden_exact_release(golden_exact *e) {
  for (int i = 0; i < GOLDEN_EXACT; i++) free(e->tensor[i].data);
}

static double distance(const lamina_tensor *a, const lamina_tensor *b) {
  double result = 0;
  for (int64_t i = 0; i < lamina_tensor_count(b); i++) {
    const double d = fabs(at(a, i) - at(b, i));
    if (!(d <= result)) result = isnan(d) ? INFINITY : d;
  }
  return result;
}

const lamina_tensor *golden_better(const golden_exact *e, golden_quantity which, const lamina_tensor *got,
                                   const lamina_tensor *expected) {
  const lamina_tensor *exact = &e->tensor[which];
  if (!exact->data || lamina_tensor_count(exact) != lamina_tensor_count(expected)) return expected;
  if (!(distance(expected, exact) <= e->slack[which])) return expected;
  return which == GOLDEN_DX && distance(got, exact) <= e->rounding ? got : exact;
}
