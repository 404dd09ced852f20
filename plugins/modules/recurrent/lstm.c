/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lstm: one layer, one direction, from a state of zeros. Hochreiter and Schmidhuber 1997, Gers et al. 2000;
 * torch.nn.LSTM(batch_first=True).
 *
 *   i, f, g, o = gates of W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, through sigmoid, sigmoid, tanh, sigmoid
 *   c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
 *
 * Shapes: x (N, L, C); weight_ih_l0 (4H, C), weight_hh_l0 (4H, H), bias_ih_l0 and bias_hh_l0 (4H); y (N, L, H), or with
 * output=last the last h, (N, H). Cost: 8 N L H (C + H) operations, twice that backward; see recurrent.c,
 * and norm.c for what batch_norm_steps adds.
 */
#include "recurrent.h"

MODULE_INLINE void forward_row(const lamina_host *host, const recurrent_row *r) {
  const int64_t n = r->n;
  float *i = r->gates, *f = i + n, *g = f + n, *o = g + n;
  host->vector->sigmoid(2 * n, NULL, i, i);
  host->vector->tanh(n, NULL, g, g);
  host->vector->sigmoid(n, NULL, o, o);
  for (int64_t k = 0; k < n; k++) r->c1[k] = f[k] * r->c0[k] + i[k] * g[k];
  host->vector->tanh(n, NULL, r->c1, r->h1);
  for (int64_t k = 0; k < n; k++) r->h1[k] = o[k] * r->h1[k];
}

MODULE_INLINE void backward_row(const lamina_host *host, const recurrent_row *r) {
  const int64_t n = r->n;
  const float *i = r->gates, *f = i + n, *g = f + n, *o = g + n;
  float *di = r->d_gates, *df = di + n, *dg = df + n, *d_o = dg + n;
  host->vector->tanh(n, NULL, r->c1, d_o);
  for (int64_t k = 0; k < n; k++) {
    const float t = d_o[k], dh = r->dh[k], dc = r->dc[k] + dh * o[k] * (1 - t * t);
    d_o[k] = dh * t * o[k] * (1 - o[k]);
    di[k] = dc * g[k] * i[k] * (1 - i[k]);
    df[k] = dc * r->c0[k] * f[k] * (1 - f[k]);
    dg[k] = dc * i[k] * (1 - g[k] * g[k]);
    r->dc[k] = dc * f[k];
    r->dh[k] = 0;
  }
}

static void forward_plain(const lamina_host *host, const recurrent_row *row) { forward_row(host, row); }
static void backward_plain(const lamina_host *host, const recurrent_row *row) { backward_row(host, row); }
MODULE_AVX2 static void forward_avx2(const lamina_host *host, const recurrent_row *row) { forward_row(host, row); }
MODULE_AVX2 static void backward_avx2(const lamina_host *host, const recurrent_row *row) { backward_row(host, row); }

static const recurrent_cell cell = {.gates = 4,
                                    .norm = 1,
                                    .forward = forward_plain,
                                    .backward = backward_plain,
                                    .forward_avx2 = forward_avx2,
                                    .backward_avx2 = backward_avx2};

#include "recurrent_layer.h"

MODULE_ATTR(norm_steps, "batch_norm_steps", LAMINA_ATTR_INT, "0", 0, 1 << 16,
            "recurrent batch normalisation, with statistics for each of so many times; 0: none");
MODULE_ATTR(norm_eps, "batch_norm_eps", LAMINA_ATTR_FLOAT, "1e-5", 0, 1, "added to the variances");
MODULE_ATTR(norm_momentum, "batch_norm_momentum", LAMINA_ATTR_FLOAT, "0.1", 0, 1,
            "weight of a batch in the running statistics");
MODULE_PARAMETER(norm_x, "batch_norm_ih.weight", LAMINA_PORT_NO_DECAY, "constant:0.1", "(4H)");
MODULE_PARAMETER(norm_h, "batch_norm_hh.weight", LAMINA_PORT_NO_DECAY, "constant:0.1", "(4H)");
MODULE_PARAMETER(norm_c, "batch_norm_c.weight", LAMINA_PORT_NO_DECAY, "constant:0.1", "(H)");
MODULE_PARAMETER(norm_c_bias, "batch_norm_c.bias", LAMINA_PORT_NO_DECAY, "zeros", "(H)");
MODULE_STATE(mean_x, "batch_norm_ih.running_mean", "zeros", "(T, 4H)");
MODULE_STATE(var_x, "batch_norm_ih.running_var", "ones", "(T, 4H)");
MODULE_STATE(mean_h, "batch_norm_hh.running_mean", "zeros", "(T, 4H)");
MODULE_STATE(var_h, "batch_norm_hh.running_var", "ones", "(T, 4H)");
MODULE_STATE(mean_c, "batch_norm_c.running_mean", "zeros", "(T, H)");
MODULE_STATE(var_c, "batch_norm_c.running_var", "ones", "(T, H)");

#define LSTM_ATTRS , &norm_steps, &norm_eps, &norm_momentum
#define LSTM_PORTS , &norm_x, &norm_h, &norm_c, &norm_c_bias, &mean_x, &var_x, &mean_h, &var_h, &mean_c, &var_c

RECURRENT_LAYER(lstm, "long short-term memory over the times of a sequence", "(4H, C)", "(4H, H)", "(4H)", LSTM_ATTRS,
                LSTM_PORTS);
