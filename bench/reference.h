/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file reference.h
 * What the references in double precision share.
 */
#ifndef LAMINA_BENCH_REFERENCE_H
#define LAMINA_BENCH_REFERENCE_H

#include "data.h"

#include <functional>

namespace bench {

/** The value of a result at a flat canonical index. */
using Point = std::function<double(int64_t)>;

/** One element of a convolution's gradients, by their definitions; `dy(i)` is the gradient of output i. */
template <typename Gradient> double conv_d_x(const Shape &s, const Data &d, int64_t i, Gradient dy) {
  const int64_t in = s.c / s.groups, out = s.k / s.groups;
  const int64_t c = i % s.c, x = i / s.c % s.w, y = i / s.c / s.w % s.h, n = i / s.c / s.w / s.h;
  double sum = 0;
  for (int64_t r = 0; r < s.kh; r++)
    for (int64_t q = 0; q < s.kw; q++) {
      const int64_t ay = y + s.ph - r, ax = x + s.pw - q;
      if (ay < 0 || ax < 0 || ay % s.sh || ax % s.sw || ay / s.sh >= s.oh() || ax / s.sw >= s.ow()) continue;
      const int64_t pixel = ((n * s.oh() + ay / s.sh) * s.ow() + ax / s.sw) * s.k;
      for (int64_t k = c / in * out; k < (c / in + 1) * out; k++)
        sum += dy(pixel + k) * d.weight[((k * in + c % in) * s.kh + r) * s.kw + q];
    }
  return sum;
}

template <typename Gradient> double conv_d_weight(const Shape &s, const Data &d, int64_t i, Gradient dy) {
  const int64_t in = s.c / s.groups, out = s.k / s.groups;
  const int64_t q = i % s.kw, r = i / s.kw % s.kh, c = i / s.kw / s.kh % in, k = i / s.kw / s.kh / in;
  double sum = 0;
  for (int64_t row = 0; row < d.dy.size() / s.k; row++) {
    const int64_t ox = row % s.ow(), oy = row / s.ow() % s.oh(), n = row / s.ow() / s.oh();
    const int64_t y = oy * s.sh - s.ph + r, x = ox * s.sw - s.pw + q;
    if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
    sum += d.x[((n * s.h + y) * s.w + x) * s.c + k / out * in + c] * dy(row * s.k + k);
  }
  return sum;
}

/** Convolution, batch norm, (add,) ReLU, forward and backward: the results' names, and their values. `y` is the output
   of the side that is judged: its gradient passes where that output is positive, since the sign of a sum near zero is
    rounding's to choose. */
std::vector<std::string> conv_norm_results(const Case &c);
std::vector<Point> conv_norm_points(const Case &c, const Data &data, const std::vector<float> &y);

} // namespace bench

#endif
