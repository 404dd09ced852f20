/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file shape.h
 * What is measured: shapes of layers, the passes over them, and the suites (networks) that list them.
 */
#ifndef LAMINA_BENCH_SHAPE_H
#define LAMINA_BENCH_SHAPE_H

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

enum class Kind { Conv, Norm, Linear, MaxPool, AvgPool, GlobalPool, Softmax, Optimizer, Net };

/** One layer as a row of a table; `count` says how many layers of the network have this shape. */
struct Shape {
  Kind kind;
  int64_t c, h, w; ///< of the input
  int64_t k;       ///< output channels or features
  int64_t kh, kw, sh, sw, ph, pw, groups;
  int count;
  const char *text; ///< Net: the model's name; Optimizer: its name

  int64_t oh() const { return (h + 2 * ph - kh) / sh + 1; }
  int64_t ow() const { return (w + 2 * pw - kw) / sw + 1; }
  /** The first layer of a network, whose input needs no gradient. */
  bool takes_image() const { return c <= 3; }
  /** "64x56x56_128k3s2": input, then what is done to it. */
  std::string name() const;
};

/* Rows. Images are square and padding keeps the size at stride 1, unless a row says otherwise. */
constexpr Shape conv_pad(int64_t c, int64_t size, int64_t k, int64_t kernel, int64_t stride, int64_t pad, int count = 1,
                         int64_t groups = 1) {
  return {Kind::Conv, c, size, size, k, kernel, kernel, stride, stride, pad, pad, groups, count, nullptr};
}
constexpr Shape conv(int64_t c, int64_t size, int64_t k, int64_t kernel, int64_t stride = 1, int count = 1) {
  return conv_pad(c, size, k, kernel, stride, kernel / 2, count);
}
constexpr Shape depthwise(int64_t c, int64_t size, int64_t kernel, int64_t stride = 1, int count = 1) {
  return conv_pad(c, size, c, kernel, stride, kernel / 2, count, c);
}
constexpr Shape grouped(int64_t c, int64_t size, int64_t k, int64_t kernel, int64_t stride, int64_t groups, int count = 1) {
  return conv_pad(c, size, k, kernel, stride, kernel / 2, count, groups);
}
constexpr Shape conv_rect(int64_t c, int64_t size, int64_t k, int64_t kh, int64_t kw, int count = 1) {
  return {Kind::Conv, c, size, size, k, kh, kw, 1, 1, kh / 2, kw / 2, 1, count, nullptr};
}
constexpr Shape norm(int64_t c, int64_t size, int count = 1) {
  return {Kind::Norm, c, size, size, c, 1, 1, 1, 1, 0, 0, 1, count, nullptr};
}
constexpr Shape linear(int64_t in, int64_t out, int count = 1) {
  return {Kind::Linear, in, 1, 1, out, 1, 1, 1, 1, 0, 0, 1, count, nullptr};
}
constexpr Shape pool(Kind kind, int64_t c, int64_t size, int64_t kernel, int64_t stride, int64_t pad, int count = 1) {
  return {kind, c, size, size, c, kernel, kernel, stride, stride, pad, pad, 1, count, nullptr};
}
constexpr Shape max_pool(int64_t c, int64_t size, int64_t kernel, int64_t stride, int64_t pad = 0, int count = 1) {
  return pool(Kind::MaxPool, c, size, kernel, stride, pad, count);
}
constexpr Shape avg_pool(int64_t c, int64_t size, int64_t kernel, int64_t stride, int64_t pad = 0, int count = 1) {
  return pool(Kind::AvgPool, c, size, kernel, stride, pad, count);
}
constexpr Shape global_pool(int64_t c, int64_t size, int count = 1) {
  return pool(Kind::GlobalPool, c, size, size, 1, 0, count);
}
constexpr Shape softmax(int64_t classes, int count = 1) {
  return {Kind::Softmax, classes, 1, 1, classes, 1, 1, 1, 1, 0, 0, 1, count, nullptr};
}
/** A step over in * out parameters: "sgd" (momentum 0.9), "adam" or "adamw". */
constexpr Shape optimizer(const char *name, int64_t in, int64_t out) {
  return {Kind::Optimizer, in, 1, 1, out, 1, 1, 1, 1, 0, 0, 1, 1, name};
}
constexpr Shape net(const char *model) { return {Kind::Net, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, model}; }

enum class Pass {
  Forward,
  BackwardData,
  BackwardWeights,
  NormForward,
  NormForwardRelu,
  NormForwardAddRelu,
  NormBackward,
  NormBackwardRelu,
  NormBackwardAddRelu,
  NormInference,
  LinearForward,
  LinearBackward,
  PoolForward,
  PoolBackward,
  SoftmaxForward,
  OptimizerStep,
  NetInference,
  NetTraining,
  ConvNormRelu,
  ConvNormAddRelu
};

struct PassInfo {
  Pass pass;
  const char *name, *doc;
};
/** All passes, in the order of the enumeration. */
const std::vector<PassInfo> &passes();
const char *pass_name(Pass pass);
/** Whether the pass is one over this kind of layer. */
bool pass_fits(Pass pass, const Shape &shape);
/** A training pass of batch norm: forward or backward. */
bool is_norm_forward(Pass pass);
bool is_norm_backward(Pass pass);
/** A convolution, batch norm and ReLU in training, forward and backward together. */
bool is_conv_norm(Pass pass);
bool has_relu(Pass pass);
bool has_add(Pass pass);

/** Where a network has its batch norms, whose shapes then follow from its convolutions. */
enum class Norms { None, AfterConv, BeforeConv };

struct Suite {
  const char *name, *doc;
  Norms norms;
  const Shape *rows;
  size_t row_count;
};
const std::vector<Suite> &suites();
const Suite *find_suite(const std::string &name);
/** The suite's shapes that the pass fits, equal ones merged (counts added). */
std::vector<Shape> shapes_of(const Suite &suite, Pass pass);

/** One thing to measure. */
struct Case {
  const Suite *suite;
  Pass pass;
  Shape shape;
  int64_t batch;
  int threads;

  /** "pass/network/shape/bN/tN". */
  std::string name() const;
  /** Multiply and add count as two, as a direct algorithm would do them, padding included. */
  double flops() const;
  /** What must be read and written at least once: activations, weights, gradients. */
  double bytes() const;
};

} // namespace bench

#endif
