/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gru: one layer, one direction, from a state of zeros. Cho et al. 2014; torch.nn.GRU(batch_first=True).
 *
 *   r = sigmoid(W_ir x_t + b_ir + W_hr h + b_hr),   z = sigmoid(W_iz x_t + b_iz + W_hz h + b_hz),   h = h_{t-1}
 *   n = tanh(W_in x_t + b_in + r (W_hn h + b_hn)),   h_t = (1 - z) n + z h
 *
 * Shapes: x (N, L, C); weight_ih_l0 (3H, C), weight_hh_l0 (3H, H), bias_ih_l0 and bias_hh_l0 (3H), gates in the order
 * r, z, n; y (N, L, H), or with output=last the last h, (N, H). Cost: 6 N L H (C + H) operations, twice that backward;
 * see recurrent.c.
 */
#include "recurrent.h"

MODULE_INLINE void forward_row(const lamina_host *host, const recurrent_row *row) {
  const int64_t n = row->n;
  float *r = row->gates, *z = r + n, *m = z + n;
  const float *hidden = row->hidden;
  for (int64_t k = 0; k < 2 * n; k++) r[k] += hidden[k];
  host->vector->sigmoid(2 * n, NULL, r, r);
  for (int64_t k = 0; k < n; k++) m[k] += r[k] * hidden[2 * n + k];
  host->vector->tanh(n, NULL, m, m);
  for (int64_t k = 0; k < n; k++) row->h1[k] = (1 - z[k]) * m[k] + z[k] * row->h0[k];
}

MODULE_INLINE void backward_row(const lamina_host *host, const recurrent_row *row) {
  const int64_t n = row->n;
  const float *r = row->gates, *z = r + n, *m = z + n, *hidden = row->hidden + 2 * n;
  float *dr = row->d_gates, *dz = dr + n, *dm = dz + n, *hr = row->d_hidden, *hz = hr + n, *hm = hz + n;
  (void)host;
  for (int64_t k = 0; k < n; k++) {
    const float dh = row->dh[k], d = dh * (1 - z[k]) * (1 - m[k] * m[k]);
    dm[k] = d;
    hm[k] = d * r[k];
    dr[k] = hr[k] = d * hidden[k] * r[k] * (1 - r[k]);
    dz[k] = hz[k] = dh * (row->h0[k] - m[k]) * z[k] * (1 - z[k]);
    row->dh[k] = dh * z[k];
  }
}

static void forward_plain(const lamina_host *host, const recurrent_row *row) { forward_row(host, row); }
static void backward_plain(const lamina_host *host, const recurrent_row *row) { backward_row(host, row); }
MODULE_AVX2 static void forward_avx2(const lamina_host *host, const recurrent_row *row) { forward_row(host, row); }
MODULE_AVX2 static void backward_avx2(const lamina_host *host, const recurrent_row *row) { backward_row(host, row); }

static const recurrent_cell cell = {.gates = 3,
                                    .separate = 1,
                                    .forward = forward_plain,
                                    .backward = backward_plain,
                                    .forward_avx2 = forward_avx2,
                                    .backward_avx2 = backward_avx2};

#include "recurrent_layer.h"

RECURRENT_LAYER(gru, "gated recurrent unit over the times of a sequence", "(3H, C)", "(3H, H)", "(3H)", RECURRENT_NONE,
                RECURRENT_NONE);
