/* SPDX-License-Identifier: Apache-2.0 */
/* Results in double precision at sampled points, by the definitions of the layers, and the error against them. */
#include "reference.h"
#include "stats.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace bench {

std::vector<std::string> result_names(const Case &c) {
  switch (c.pass) {
  case Pass::BackwardData:
  case Pass::PoolBackward: return {"x"};
  case Pass::BackwardWeights: return {"y.weight"};
  case Pass::LinearBackward: return {"x", "y.weight", "y.bias"};
  case Pass::NormBackward: return {"x", "y.weight", "y.bias"};
  case Pass::NormBackwardRelu: return {"x", "norm.weight", "norm.bias"};
  case Pass::NormBackwardAddRelu: return {"x", "norm.weight", "norm.bias", "add"};
  case Pass::ConvNormRelu:
  case Pass::ConvNormAddRelu: return conv_norm_results(c);
  case Pass::NetInference: return {"output"};
  case Pass::NetTraining: return {};
  default: return {"y"};
  }
}

namespace {

/* One output, input gradient or weight gradient of a convolution; a linear layer is one of 1x1 images. */
class Conv {
public:
  Conv(const Case &c, const Data &d) : s_(c.shape), d_(d), in_(s_.c / s_.groups), out_(s_.k / s_.groups) {}

  double forward(int64_t i) const {
    const int64_t k = i % s_.k, ox = i / s_.k % s_.ow(), oy = i / s_.k / s_.ow() % s_.oh(), n = i / s_.k / s_.ow() / s_.oh();
    double sum = d_.bias[k];
    for (int64_t r = 0; r < s_.kh; r++)
      for (int64_t q = 0; q < s_.kw; q++) {
        const int64_t y = oy * s_.sh - s_.ph + r, x = ox * s_.sw - s_.pw + q;
        if (y < 0 || y >= s_.h || x < 0 || x >= s_.w) continue;
        for (int64_t c = 0; c < in_; c++) sum += X(n, y, x, k / out_ * in_ + c) * W(k, c, r, q);
      }
    return sum;
  }
  double backward_data(int64_t i) const {
    return conv_d_x(s_, d_, i, [this](int64_t j) -> double { return d_.dy[j]; });
  }
  double backward_weights(int64_t i) const {
    return conv_d_weight(s_, d_, i, [this](int64_t j) -> double { return d_.dy[j]; });
  }
  double backward_bias(int64_t k) const {
    double sum = 0;
    for (int64_t i = k; i < d_.dy.size(); i += s_.k) sum += d_.dy[i];
    return sum;
  }

private:
  const Shape s_;
  const Data &d_;
  const int64_t in_, out_;

  double X(int64_t n, int64_t y, int64_t x, int64_t c) const { return d_.x[((n * s_.h + y) * s_.w + x) * s_.c + c]; }
  double W(int64_t k, int64_t c, int64_t r, int64_t q) const { return d_.weight[((k * in_ + c) * s_.kh + r) * s_.kw + q]; }
};

/* Ioffe and Szegedy 2015: statistics of a channel, then everything from them. */
class Norm {
public:
  Norm(const Case &c, const Data &d) : case_(c), d_(d), channels_(c.shape.c), rows_(d.x.size() / c.shape.c) {}

  double forward(int64_t i) { return masked(value(i)); }
  double d_add(int64_t i) { return gradient(i); }
  double d_x(int64_t i) {
    const Channel &s = channel(i % channels_);
    const double m = static_cast<double>(rows_);
    return d_.scale[i % channels_] * s.factor * (gradient(i) - s.sum_dy / m - normal(i) * s.sum_dy_x / m);
  }
  double d_scale(int64_t c) { return channel(c).sum_dy_x; }
  double d_shift(int64_t c) { return channel(c).sum_dy; }

private:
  struct Channel {
    double mean = 0, factor = 0, sum_dy = 0, sum_dy_x = 0;
    bool gradients = false;
  };
  const Case case_;
  const Data &d_;
  const int64_t channels_, rows_;
  std::map<int64_t, Channel> known_;

  double masked(double y) const { return has_relu(case_.pass) && y < 0 ? 0 : y; }
  double normal(int64_t i) {
    const Channel &s = statistics(i % channels_);
    return (d_.x[i] - s.mean) * s.factor;
  }
  double value(int64_t i) {
    const double y = normal(i) * d_.scale[i % channels_] + d_.shift[i % channels_];
    return has_add(case_.pass) ? y + d_.add[i] : y;
  }
  double gradient(int64_t i) { return has_relu(case_.pass) && value(i) <= 0 ? 0 : d_.dy[i]; }

  Channel &statistics(int64_t c) {
    Channel &s = known_[c];
    if (s.factor != 0) return s;
    double variance = 0;
    if (case_.pass == Pass::NormInference) {
      s.mean = d_.mean[c];
      variance = d_.variance[c];
    } else {
      for (int64_t r = 0; r < rows_; r++) s.mean += d_.x[r * channels_ + c];
      s.mean /= static_cast<double>(rows_);
      for (int64_t r = 0; r < rows_; r++) variance += std::pow(d_.x[r * channels_ + c] - s.mean, 2);
      variance /= static_cast<double>(rows_);
    }
    s.factor = 1 / std::sqrt(variance + kNormEps);
    return s;
  }
  Channel &channel(int64_t c) {
    Channel &s = statistics(c);
    if (s.gradients) return s;
    for (int64_t r = 0; r < rows_; r++) {
      s.sum_dy += gradient(r * channels_ + c);
      s.sum_dy_x += gradient(r * channels_ + c) * normal(r * channels_ + c);
    }
    s.gradients = true;
    return s;
  }
};

/* Padding counts in an average, as in PyTorch's default. */
double pool_forward(const Case &k, const Data &d, int64_t i) {
  const Shape &s = k.shape;
  const int64_t c = i % s.c, ox = i / s.c % s.ow(), oy = i / s.c / s.ow() % s.oh(), n = i / s.c / s.ow() / s.oh();
  const bool max = s.kind == Kind::MaxPool;
  double result = max ? -HUGE_VAL : 0;
  for (int64_t r = 0; r < s.kh; r++)
    for (int64_t q = 0; q < s.kw; q++) {
      const int64_t y = oy * s.sh - s.ph + r, x = ox * s.sw - s.pw + q;
      if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
      const double v = d.x[((n * s.h + y) * s.w + x) * s.c + c];
      result = max ? std::max(result, v) : result + v;
    }
  return max ? result : result / static_cast<double>(s.kh * s.kw);
}

/* Whether window (oy, ox) has its largest element, the first of equals, at (y, x). */
bool is_largest(const Shape &s, const Data &d, int64_t n, int64_t oy, int64_t ox, int64_t c, int64_t y, int64_t x) {
  const double v = d.x[((n * s.h + y) * s.w + x) * s.c + c];
  for (int64_t r = 0; r < s.kh; r++)
    for (int64_t q = 0; q < s.kw; q++) {
      const int64_t a = oy * s.sh - s.ph + r, b = ox * s.sw - s.pw + q;
      if (a < 0 || a >= s.h || b < 0 || b >= s.w) continue;
      const double other = d.x[((n * s.h + a) * s.w + b) * s.c + c];
      if (other > v || (other == v && (a < y || (a == y && b < x)))) return false;
    }
  return true;
}

double pool_backward(const Case &k, const Data &d, int64_t i) {
  const Shape &s = k.shape;
  const int64_t c = i % s.c, x = i / s.c % s.w, y = i / s.c / s.w % s.h, n = i / s.c / s.w / s.h;
  double sum = 0;
  for (int64_t r = 0; r < s.kh; r++)
    for (int64_t q = 0; q < s.kw; q++) {
      const int64_t ay = y + s.ph - r, ax = x + s.pw - q;
      if (ay < 0 || ax < 0 || ay % s.sh || ax % s.sw || ay / s.sh >= s.oh() || ax / s.sw >= s.ow()) continue;
      const double g = d.dy[((n * s.oh() + ay / s.sh) * s.ow() + ax / s.sw) * s.c + c];
      if (s.kind != Kind::MaxPool)
        sum += g / static_cast<double>(s.kh * s.kw);
      else if (is_largest(s, d, n, ay / s.sh, ax / s.sw, c, y, x))
        sum += g;
    }
  return sum;
}

double softmax(const Case &k, const Data &d, int64_t i) {
  const int64_t row = i / k.shape.c * k.shape.c;
  double most = -HUGE_VAL, sum = 0;
  for (int64_t c = 0; c < k.shape.c; c++) most = std::max<double>(most, d.x[row + c]);
  for (int64_t c = 0; c < k.shape.c; c++) sum += std::exp(d.x[row + c] - most);
  return std::exp(d.x[i] - most) / sum;
}

/* The first step of PyTorch's optimizers: moments start at zero, so that Adam's step is lr * g / (|g| + eps). */
double first_step(const Case &k, const Data &d, const Conv &conv, int64_t i) {
  const std::string name = k.shape.text;
  double w = d.weight[i], g = conv.backward_weights(i);
  if (name == "adamw") w *= 1 - kLearningRate * kWeightDecay;
  if (name != "adamw") g += kWeightDecay * w;
  return name == "sgd" ? w - kLearningRate * g : w - kLearningRate * g / (std::fabs(g) + 1e-8);
}

std::vector<Point> points_of(const Case &k, const Data &d, const Results &results) {
  const auto conv = std::make_shared<Conv>(k, d);
  const auto norm = std::make_shared<Norm>(k, d);
  switch (k.pass) {
  case Pass::Forward:
  case Pass::LinearForward: return {[conv](int64_t i) { return conv->forward(i); }};
  case Pass::BackwardData: return {[conv](int64_t i) { return conv->backward_data(i); }};
  case Pass::BackwardWeights: return {[conv](int64_t i) { return conv->backward_weights(i); }};
  case Pass::LinearBackward:
    return {[conv](int64_t i) { return conv->backward_data(i); }, [conv](int64_t i) { return conv->backward_weights(i); },
            [conv](int64_t i) { return conv->backward_bias(i); }};
  case Pass::NormForward:
  case Pass::NormForwardRelu:
  case Pass::NormForwardAddRelu:
  case Pass::NormInference: return {[norm](int64_t i) { return norm->forward(i); }};
  case Pass::NormBackward:
  case Pass::NormBackwardRelu:
  case Pass::NormBackwardAddRelu:
    return {[norm](int64_t i) { return norm->d_x(i); }, [norm](int64_t i) { return norm->d_scale(i); },
            [norm](int64_t i) { return norm->d_shift(i); }, [norm](int64_t i) { return norm->d_add(i); }};
  case Pass::PoolForward: return {[&k, &d](int64_t i) { return pool_forward(k, d, i); }};
  case Pass::PoolBackward: return {[&k, &d](int64_t i) { return pool_backward(k, d, i); }};
  case Pass::SoftmaxForward: return {[&k, &d](int64_t i) { return softmax(k, d, i); }};
  case Pass::OptimizerStep: return {[&k, &d, conv](int64_t i) { return first_step(k, d, *conv, i); }};
  case Pass::ConvNormRelu:
  case Pass::ConvNormAddRelu: return conv_norm_points(k, d, results.at(0));
  case Pass::NetInference:
  case Pass::NetTraining: break;
  }
  return {};
}

/* Terms of one point, so that costly ones are sampled less. */
double terms(const Case &k) {
  const Shape &s = k.shape;
  const double pixels = static_cast<double>(k.batch * s.oh() * s.ow());
  if (k.pass == Pass::BackwardWeights || k.pass == Pass::LinearBackward || is_conv_norm(k.pass) ||
      s.kind == Kind::Optimizer)
    return pixels;
  return static_cast<double>((s.kind == Kind::Conv ? s.c + s.k : 1) * s.kh * s.kw);
}

/* Batch norms are sampled in few channels, whose sums are dear. */
int64_t draw(const Case &k, int64_t count, Random &random) {
  const int64_t channels = k.shape.c;
  const int64_t i = static_cast<int64_t>(random.below(static_cast<uint64_t>(count)));
  if (k.shape.kind != Kind::Norm) return i;
  const int64_t channel = i * 7 % std::min<int64_t>(channels, 8) * (channels / std::min<int64_t>(channels, 8));
  return i / channels * channels + channel;
}

} // namespace

double error_of(const Case &c, const Data &data, const Results &results) {
  if (results.size() < result_names(c).size()) return HUGE_VAL;
  const std::vector<Point> points = points_of(c, data, results);
  const size_t count = std::min(points.size(), result_names(c).size());
  const int samples = static_cast<int>(std::clamp(4e6 / terms(c), 24.0, 400.0));
  Random random(11);
  double worst = 0;
  for (size_t r = 0; r < count; r++) {
    if (results[r].empty()) return HUGE_VAL;
    double errors = 0, squares = 0;
    for (int i = 0; i < samples; i++) {
      const int64_t at = draw(c, static_cast<int64_t>(results[r].size()), random);
      const double exact = points[r](at), error = results[r][static_cast<size_t>(at)] - exact;
      errors += error * error;
      squares += exact * exact;
    }
    const double relative = errors == 0 ? 0 : std::sqrt(errors / squares);
    worst = std::max(worst, std::isfinite(relative) ? relative : HUGE_VAL);
  }
  return worst;
}

double error_bound(const Case &c, bool strict) {
  // Rounding errors of a sum of n terms grow like a random walk; sums of weight gradients are the longest.
  const double n = std::max(terms(c), 16.0), eps = std::numeric_limits<float>::epsilon();
  const double window = static_cast<double>(c.shape.c / c.shape.groups * c.shape.kh * c.shape.kw);
  switch (c.pass) {
  case Pass::Forward:
  case Pass::BackwardData:
  case Pass::BackwardWeights: return eps * (2 + 0.5 * std::sqrt(n)) * (strict ? 1 : 4);
  case Pass::ConvNormRelu:
  case Pass::ConvNormAddRelu: return eps * (8 + 0.5 * std::sqrt(std::max(n, window))) * (strict ? 1 : 4);
  case Pass::LinearForward:
  case Pass::LinearBackward: return eps * (2 + 0.5 * std::sqrt(std::max(n, static_cast<double>(c.shape.c))));
  case Pass::NetInference: return 1e-4;
  default: return 64 * eps;
  }
}

} // namespace bench
