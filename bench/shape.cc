/* SPDX-License-Identifier: Apache-2.0 */
#include "shape.h"

namespace bench {

const std::vector<PassInfo> &passes() {
  static const std::vector<PassInfo> all = {
      {Pass::Forward, "forward", "convolution with bias, inference"},
      {Pass::BackwardData, "backward_data", "gradient of a convolution's input"},
      {Pass::BackwardWeights, "backward_weights", "gradient of a convolution's weights"},
      {Pass::NormForward, "bn_forward_training", "batch norm with the batch's statistics"},
      {Pass::NormForwardRelu, "bn_forward_training_relu", "batch norm and ReLU"},
      {Pass::NormForwardAddRelu, "bn_forward_training_add_relu", "batch norm, add and ReLU"},
      {Pass::NormBackward, "bn_backward", "gradients of batch norm"},
      {Pass::NormBackwardRelu, "bn_backward_relu", "gradients of batch norm and ReLU"},
      {Pass::NormBackwardAddRelu, "bn_backward_add_relu", "gradients of batch norm, add and ReLU"},
      {Pass::NormInference, "bn_inference", "batch norm with running statistics"},
      {Pass::LinearForward, "linear_forward", "linear layer with bias, inference"},
      {Pass::LinearBackward, "linear_backward", "gradients of a linear layer's input, weight and bias"},
      {Pass::PoolForward, "pool_forward", "pooling, inference"},
      {Pass::PoolBackward, "pool_backward", "gradient of pooling"},
      {Pass::SoftmaxForward, "softmax", "softmax"},
      {Pass::OptimizerStep, "optimizer_step", "one step of an optimizer over all parameters"},
      {Pass::NetInference, "net_inference", "a whole network, inference"},
      {Pass::NetTraining, "net_training", "a whole network: forward, backward and step"},
      {Pass::ConvNormRelu, "conv_bn_relu_training", "convolution, batch norm and ReLU, forward and backward together"},
      {Pass::ConvNormAddRelu, "conv_bn_add_relu_training", "the same with an add, of the last 1x1 of a bottleneck"},
  };
  return all;
}

const char *pass_name(Pass pass) { return passes()[static_cast<size_t>(pass)].name; }

bool is_norm_forward(Pass p) {
  return p == Pass::NormForward || p == Pass::NormForwardRelu || p == Pass::NormForwardAddRelu;
}
bool is_norm_backward(Pass p) {
  return p == Pass::NormBackward || p == Pass::NormBackwardRelu || p == Pass::NormBackwardAddRelu;
}
bool is_conv_norm(Pass p) { return p == Pass::ConvNormRelu || p == Pass::ConvNormAddRelu; }
bool has_add(Pass p) {
  return p == Pass::NormForwardAddRelu || p == Pass::NormBackwardAddRelu || p == Pass::ConvNormAddRelu;
}
bool has_relu(Pass p) {
  return has_add(p) || p == Pass::NormForwardRelu || p == Pass::NormBackwardRelu || p == Pass::ConvNormRelu;
}

/* ResNet's: the 1x1 that widens to four times the channels, behind which stands the add. */
static bool ends_bottleneck(const Shape &s) { return s.kh * s.kw * s.sh * s.sw == 1 && s.k == 4 * s.c && !s.takes_image(); }

bool pass_fits(Pass pass, const Shape &shape) {
  switch (shape.kind) {
  case Kind::Conv:
    if (is_conv_norm(pass)) return has_add(pass) == ends_bottleneck(shape); // both passes together: each layer once
    return pass == Pass::Forward || pass == Pass::BackwardData || pass == Pass::BackwardWeights;
  case Kind::Norm: return is_norm_forward(pass) || is_norm_backward(pass) || pass == Pass::NormInference;
  case Kind::Linear: return pass == Pass::LinearForward || pass == Pass::LinearBackward;
  case Kind::MaxPool:
  case Kind::AvgPool:
  case Kind::GlobalPool: return pass == Pass::PoolForward || pass == Pass::PoolBackward;
  case Kind::Softmax: return pass == Pass::SoftmaxForward;
  case Kind::Optimizer: return pass == Pass::OptimizerStep;
  case Kind::Net: return pass == Pass::NetInference || pass == Pass::NetTraining;
  }
  return false;
}

static std::string number(int64_t n) { return std::to_string(n); }

/* "3x3" as 3, "1x7" in full. */
static std::string pair(int64_t a, int64_t b) { return a == b ? number(a) : number(a) + "x" + number(b); }

std::string Shape::name() const {
  const std::string image = number(c) + "x" + number(h) + "x" + number(w);
  const std::string pad = ph || pw ? "p" + pair(ph, pw) : "";
  const std::string window = pair(kh, kw) + "s" + pair(sh, sw) + pad;
  switch (kind) {
  case Kind::Conv: return image + "_" + number(k) + "k" + window + (groups > 1 ? "g" + number(groups) : "");
  case Kind::Norm: return image;
  case Kind::Linear: return number(c) + "_" + number(k);
  case Kind::MaxPool: return image + "_max" + window;
  case Kind::AvgPool: return image + "_avg" + window;
  case Kind::GlobalPool: return image + "_global";
  case Kind::Softmax: return number(c);
  case Kind::Optimizer: return std::string(text) + "_" + number(c * k);
  case Kind::Net: return text;
  }
  return "";
}

std::string Case::name() const {
  return std::string(pass_name(pass)) + "/" + suite->name + "/" + shape.name() + "/b" + number(batch) + "/t" +
         std::to_string(threads);
}

double Case::flops() const {
  const double outputs = static_cast<double>(batch * shape.k * shape.oh() * shape.ow());
  switch (pass) {
  case Pass::Forward:
  case Pass::BackwardData:
  case Pass::BackwardWeights:
  case Pass::LinearForward: return 2 * outputs * static_cast<double>(shape.c / shape.groups * shape.kh * shape.kw);
  case Pass::LinearBackward: return 4 * outputs * static_cast<double>(shape.c);
  case Pass::ConvNormRelu:
  case Pass::ConvNormAddRelu: // the convolution's sums alone: forward, weights, and input but for the first layer's
    return (shape.takes_image() ? 4 : 6) * outputs * static_cast<double>(shape.c / shape.groups * shape.kh * shape.kw);
  default: return 0;
  }
}

double Case::bytes() const {
  if (shape.kind == Kind::Net) return 0;
  const double x = static_cast<double>(batch * shape.c * shape.h * shape.w);
  const double y = static_cast<double>(batch * shape.k * shape.oh() * shape.ow());
  const double weights = static_cast<double>(shape.k * (shape.c / shape.groups) * shape.kh * shape.kw);
  const double adam = shape.text && shape.text[0] == 'a' ? 2 : 1; // state vectors of the optimizer
  const double add = has_add(pass) ? x : 0;
  switch (pass) {
  case Pass::Forward:
  case Pass::BackwardData:
  case Pass::BackwardWeights:
  case Pass::LinearForward: return 4 * (x + y + weights);
  case Pass::LinearBackward: return 4 * (2 * x + y + 2 * weights);
  case Pass::ConvNormRelu:
  case Pass::ConvNormAddRelu: // y thrice: what batch norm keeps, the output, its gradient
    return 4 * ((shape.takes_image() ? 1 : 2) * x + (has_add(pass) ? 5 : 3) * y + 2 * weights);
  case Pass::NormForward:
  case Pass::NormForwardRelu:
  case Pass::NormForwardAddRelu:
  case Pass::NormInference: return 4 * (2 * x + add);
  case Pass::NormBackward: return 4 * 3 * x;
  case Pass::NormBackwardRelu:
  case Pass::NormBackwardAddRelu: return 4 * (3 * x + 2 * add);
  case Pass::PoolForward:
  case Pass::PoolBackward: return 4 * (x + y);
  case Pass::SoftmaxForward: return 4 * 2 * x;
  case Pass::OptimizerStep: return 4 * weights * (3 + 2 * adam); // weight and state read and written, gradient read
  default: return 0;
  }
}

} // namespace bench
