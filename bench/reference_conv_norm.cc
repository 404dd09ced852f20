/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution, batch norm, (add,) ReLU in double precision, forward and backward. The statistics of a channel need all
   of its pixels, and the gradient of an input needs all channels: so the convolution is computed in full, once for a
   case. */
#include "reference.h"

#include <cmath>

namespace bench {

std::vector<std::string> conv_norm_results(const Case &c) {
  std::vector<std::string> names = {"y", "conv.weight", "norm.weight", "norm.bias"};
  if (!c.shape.takes_image()) names.push_back("x");
  if (has_add(c.pass)) names.push_back("add");
  return names;
}

namespace {

/* Weights as (KH, KW, I / groups, O), so that the innermost sum runs over output channels. */
std::vector<double> transposed(const Shape &s, const Array &weight) {
  const int64_t in = s.c / s.groups, taps = s.kh * s.kw;
  std::vector<double> t(static_cast<size_t>(s.k * in * taps));
  for (int64_t k = 0; k < s.k; k++)
    for (int64_t c = 0; c < in; c++)
      for (int64_t tap = 0; tap < taps; tap++)
        t[static_cast<size_t>((tap * in + c) * s.k + k)] = weight[(k * in + c) * taps + tap];
  return t;
}

/* Adds one pixel of the input, through one tap, to one pixel of the output. */
void add_tap(const Shape &s, const float *x, const double *weight, double *z) {
  const int64_t in = s.c / s.groups, out = s.k / s.groups;
  for (int64_t g = 0; g < s.groups; g++)
    for (int64_t c = 0; c < in; c++) {
      const double v = x[g * in + c];
      const double *w = weight + c * s.k + g * out;
      for (int64_t k = 0; k < out; k++) z[g * out + k] += v * w[k];
    }
}

std::vector<double> convolve(const Case &k, const Data &d) {
  const Shape &s = k.shape;
  const std::vector<double> weight = transposed(s, d.weight);
  std::vector<double> z(static_cast<size_t>(k.batch * s.oh() * s.ow() * s.k));
  double *to = z.data();
  for (int64_t n = 0; n < k.batch; n++)
    for (int64_t oy = 0; oy < s.oh(); oy++)
      for (int64_t ox = 0; ox < s.ow(); ox++, to += s.k)
        for (int64_t tap = 0; tap < s.kh * s.kw; tap++) {
          const int64_t y = oy * s.sh - s.ph + tap / s.kw, x = ox * s.sw - s.pw + tap % s.kw;
          if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
          add_tap(s, d.x.data() + ((n * s.h + y) * s.w + x) * s.c, weight.data() + tap * (s.c / s.groups) * s.k, to);
        }
  return z;
}

class ConvNorm {
public:
  ConvNorm(const Case &c, const Data &d, const std::vector<float> &y)
      : case_(c), s_(case_.shape), d_(d), y_(y),
        rows_(d.dy.size() / s_.k), channels_(static_cast<size_t>(s_.k)) {
    if (d_.conv.empty()) d_.conv = convolve(c, d);
    each([](Channel &h, double z, double) { h.mean += z; });
    for (Channel &h : channels_) h.mean /= static_cast<double>(rows_);
    each([](Channel &h, double z, double) { h.factor += (z - h.mean) * (z - h.mean); });
    for (Channel &h : channels_) h.factor = 1 / std::sqrt(h.factor / static_cast<double>(rows_) + kNormEps);
    each([](Channel &h, double z, double g) {
      h.sum_g += g;
      h.sum_gx += g * (z - h.mean) * h.factor;
    });
  }

  double forward(int64_t i) const {
    const double y = normal(i) * d_.scale[i % s_.k] + d_.shift[i % s_.k] + (has_add(case_.pass) ? d_.add[i] : 0);
    return y < 0 ? 0 : y;
  }
  double d_add(int64_t i) const { return gradient(i); }
  double d_scale(int64_t k) const { return channels_[static_cast<size_t>(k)].sum_gx; }
  double d_shift(int64_t k) const { return channels_[static_cast<size_t>(k)].sum_g; }

  double d_weight(int64_t i) const {
    return conv_d_weight(s_, d_, i, [this](int64_t j) { return d_conv(j); });
  }
  double d_x(int64_t i) const {
    return conv_d_x(s_, d_, i, [this](int64_t j) { return d_conv(j); });
  }

private:
  struct Channel {
    double mean = 0, factor = 0, sum_g = 0, sum_gx = 0;
  };
  const Case case_;
  const Shape &s_;
  const Data &d_;
  const std::vector<float> &y_;
  const int64_t rows_;
  std::vector<Channel> channels_;

  /* Every element with its channel. */
  template <typename Each> void each(Each act) {
    for (int64_t i = 0; i < d_.dy.size(); i++)
      act(channels_[static_cast<size_t>(i % s_.k)], d_.conv[static_cast<size_t>(i)], gradient(i));
  }
  /* Past the ReLU. */
  double gradient(int64_t i) const { return y_[static_cast<size_t>(i)] > 0 ? d_.dy[i] : 0; }
  double normal(int64_t i) const {
    const Channel &h = channels_[static_cast<size_t>(i % s_.k)];
    return (d_.conv[static_cast<size_t>(i)] - h.mean) * h.factor;
  }
  double d_conv(int64_t i) const {
    const Channel &h = channels_[static_cast<size_t>(i % s_.k)];
    const double m = static_cast<double>(rows_);
    return d_.scale[i % s_.k] * h.factor * (gradient(i) - h.sum_g / m - normal(i) * h.sum_gx / m);
  }
};

} // namespace

std::vector<Point> conv_norm_points(const Case &c, const Data &d, const std::vector<float> &y) {
  if (static_cast<int64_t>(y.size()) != d.dy.size())
    return {[](int64_t) { return HUGE_VAL; }}; // no error is small then
  const auto f = std::make_shared<ConvNorm>(c, d, y);
  std::vector<Point> points = {[f](int64_t i) { return f->forward(i); }, [f](int64_t i) { return f->d_weight(i); },
                               [f](int64_t k) { return f->d_scale(k); }, [f](int64_t k) { return f->d_shift(k); }};
  if (!c.shape.takes_image()) points.push_back([f](int64_t i) { return f->d_x(i); });
  if (has_add(c.pass)) points.push_back([f](int64_t i) { return f->d_add(i); });
  return points;
}

} // namespace bench
