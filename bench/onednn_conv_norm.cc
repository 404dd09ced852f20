/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's convolution, batch norm, (add,) ReLU, forward and backward: its fastest sequence of primitives. Each
   convolution has the layout that it likes best; what must be reordered between them is not timed. */
#include "onednn.h"

#include <array>

namespace bench {

namespace {

enum Weights { Any, Hwio, Oihw };
enum Part { Forward, BackwardData, BackwardWeights, Norm, Reorder, kParts };
/* The layout of the weights for each of the three convolutions. */
using Ways = std::array<Weights, 3>;

class ConvNorm : public OneDnnSide {
public:
  ConvNorm(const Case &c, const Data &data, bool nhwc, Ways ways)
      : OneDnnSide(c.threads), case_(c), data_(data), nhwc_(nhwc), ways_(ways) {
    const Shape &s = c.shape;
    src_ = {c.batch, s.c, s.h, s.w};
    dst_ = {c.batch, s.k, s.oh(), s.ow()};
    channels_ = {s.k};
    weights_ = s.groups > 1 ? api::Dims{s.groups, s.k / s.groups, s.c / s.groups, s.kh, s.kw}
                            : api::Dims{s.k, s.c, s.kh, s.kw};
    window_ = {{s.kh, s.kw}, {s.sh, s.sw}, {0, 0}, {s.ph, s.pw}, {s.ph, s.pw}};
    plain_weights_ = s.groups > 1 ? Tag::goihw : Tag::oihw;
    x_ = plain(src_, Tag::nhwc, data.x);
    w_ = plain(weights_, plain_weights_, data.weight);
    const auto conv = conv_forward();
    const auto norm = norm_forward();
    const dnnl::memory dz = norm_backward(norm);
    backward_weights(conv, dz);
    if (!s.takes_image()) backward_data(conv, dz);
    result(d_weights_, weights_, plain_weights_);
    result(d_scale_, channels_, Tag::a);
    result(d_shift_, channels_, Tag::a);
    if (!s.takes_image()) result(dx_, src_, Tag::nhwc);
    if (has_add(c.pass)) result(d_add_, dst_, Tag::nhwc);
  }

  double run(int n) override {
    seconds = {};
    for (int i = 0; i < n; i++)
      for (size_t k = 0; k < parts_.size(); k++) {
        const double start = now();
        run_step(k);
        stream_.wait();
        seconds[parts_[k]] += now() - start;
      }
    norm_seconds = seconds[Norm] / n;
    return seconds[Forward] + seconds[BackwardData] + seconds[BackwardWeights] + seconds[Norm];
  }

  std::array<double, kParts> seconds = {}; ///< of the last run, by part

private:
  using Flags = dnnl::normalization_flags;
  const Case case_;
  const Data &data_;
  const bool nhwc_;
  const Ways ways_;
  api::Dims src_, dst_, channels_, weights_;
  api::Window window_;
  Tag plain_weights_;
  std::vector<Part> parts_; ///< of each step
  api::Desc between_;       ///< layout of what batch norm reads and writes
  dnnl::memory x_, w_, z_, y_, mean_, variance_, scale_, shift_, workspace_, add_;
  dnnl::memory d_weights_, d_scale_, d_shift_, dx_, d_add_;

  template <typename Primitive> void take(Part part, const typename Primitive::primitive_desc &pd, const Args &args) {
    step<Primitive>(pd, args);
    parts_.push_back(part);
  }

  api::Desc activation(const api::Dims &dims) const { return nhwc_ ? tagged(dims, Tag::nhwc) : any(dims); }
  api::Desc weights(Weights way) const {
    const bool grouped = case_.shape.groups > 1;
    if (way == Any) return any(weights_);
    return tagged(weights_, way == Oihw ? plain_weights_ : grouped ? Tag::hwigo : Tag::hwio);
  }

  /* With the chosen layout of the weights, or with oneDNN's own where it has but reference code for the chosen one. */
  template <typename Make> auto choose(Part part, Make make) const -> decltype(make(any(weights_))) {
    const Weights way = ways_[part];
    if (way != Any) {
      try {
        const auto pd = make(weights(way));
        if (std::string(pd.impl_info_str()).rfind("ref", 0) != 0) return pd;
      } catch (const dnnl::error &) {
      }
    }
    return make(any(weights_));
  }

  dnnl::convolution_forward::primitive_desc conv_forward() {
    const auto pd = choose(Forward, [&](const api::Desc &w) {
      return api::conv_forward(engine_, dnnl::prop_kind::forward_training, activation(src_), w, api::Desc(),
                               activation(dst_), window_, attributes());
    });
    between_ = pd.dst_desc();
    z_ = empty(between_);
    take<dnnl::convolution_forward>(Forward, pd,
                                    {{DNNL_ARG_SRC, laid_out(x_, pd.src_desc())},
                                     {DNNL_ARG_WEIGHTS, laid_out(w_, pd.weights_desc())},
                                     {DNNL_ARG_DST, z_}});
    return pd;
  }

  Flags flags() const {
    const Flags f = Flags::use_scale | Flags::use_shift;
    return has_add(case_.pass) ? f : f | Flags::fuse_norm_relu;
  }

  dnnl::batch_normalization_forward::primitive_desc norm_forward() {
    const auto pd = api::norm_forward(engine_, dnnl::prop_kind::forward_training, between_,
                                      static_cast<float>(kNormEps), flags(), attributes());
    mean_ = empty(pd.mean_desc());
    variance_ = empty(pd.variance_desc());
    scale_ = plain(channels_, Tag::a, data_.scale);
    shift_ = plain(channels_, Tag::a, data_.shift);
    y_ = empty(between_);
    Args args = {{DNNL_ARG_SRC, z_},     {DNNL_ARG_SCALE, scale_},       {DNNL_ARG_SHIFT, shift_},
                 {DNNL_ARG_MEAN, mean_}, {DNNL_ARG_VARIANCE, variance_}, {DNNL_ARG_DST, y_}};
    if (!has_add(case_.pass)) {
      workspace_ = empty(pd.workspace_desc());
      args.insert({DNNL_ARG_WORKSPACE, workspace_});
    }
    take<dnnl::batch_normalization_forward>(Norm, pd, args);
    if (has_add(case_.pass)) add_relu();
    result(y_, dst_, Tag::nhwc);
    return pd;
  }

  /* As onednn_norm.cc has it: the add with the ReLU as its post-op, in place, over the numbers without their layout. */
  void add_relu() {
    dnnl::primitive_attr attr = attributes();
    dnnl::post_ops ops;
    api::append_relu(ops);
    attr.set_post_ops(ops);
    add_ = laid_out(plain(dst_, Tag::nhwc, data_.add), between_);
    const dnnl::memory add = flat(add_), y = flat(y_);
    take<dnnl::binary>(Norm, api::add(engine_, y.get_desc(), attr),
                       {{DNNL_ARG_SRC_0, y}, {DNNL_ARG_SRC_1, add}, {DNNL_ARG_DST, y}});
  }

  /* The gradient of the convolution's output. */
  dnnl::memory norm_backward(const dnnl::batch_normalization_forward::primitive_desc &forward) {
    dnnl::memory dy = laid_out(plain(dst_, Tag::nhwc, data_.dy), between_);
    if (has_add(case_.pass)) {
      d_add_ = empty(between_);
      take<dnnl::eltwise_backward>(Norm, api::relu_backward(engine_, between_, attributes()),
                                   {{DNNL_ARG_DST, y_}, {DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_DIFF_SRC, d_add_}});
      dy = d_add_;
    }
    const auto pd = api::norm_backward(engine_, between_, static_cast<float>(kNormEps), flags(), forward, attributes());
    const dnnl::memory dz = empty(between_);
    d_scale_ = empty(tagged(channels_, Tag::a));
    d_shift_ = empty(tagged(channels_, Tag::a));
    Args args = {{DNNL_ARG_SRC, z_},
                 {DNNL_ARG_MEAN, mean_},
                 {DNNL_ARG_VARIANCE, variance_},
                 {DNNL_ARG_SCALE, scale_},
                 {DNNL_ARG_DIFF_DST, dy},
                 {DNNL_ARG_DIFF_SRC, dz},
                 {DNNL_ARG_DIFF_SCALE, d_scale_},
                 {DNNL_ARG_DIFF_SHIFT, d_shift_}};
    if (api::kNormBackwardTakesShift) args.insert({DNNL_ARG_SHIFT, shift_});
    if (!has_add(case_.pass)) args.insert({DNNL_ARG_WORKSPACE, workspace_});
    take<dnnl::batch_normalization_backward>(Norm, pd, args);
    return dz;
  }

  /* The same numbers in the layout that a primitive wants, each run anew. */
  dnnl::memory reordered(const dnnl::memory &from, const api::Desc &desc) {
    if (from.get_desc() == desc) return from;
    const dnnl::memory to = empty(desc);
    const dnnl::reorder::primitive_desc pd(engine_, from.get_desc(), engine_, desc, attributes());
    take<dnnl::reorder>(Reorder, pd, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
    return to;
  }

  void backward_weights(const dnnl::convolution_forward::primitive_desc &forward, const dnnl::memory &dz) {
    const auto pd = choose(BackwardWeights, [&](const api::Desc &w) {
      return api::conv_backward_weights(engine_, activation(src_), w, activation(dst_), window_, forward, attributes());
    });
    d_weights_ = empty(pd.diff_weights_desc());
    const dnnl::memory dy = reordered(dz, pd.diff_dst_desc());
    take<dnnl::convolution_backward_weights>(
        BackwardWeights, pd,
        {{DNNL_ARG_SRC, laid_out(x_, pd.src_desc())}, {DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_DIFF_WEIGHTS, d_weights_}});
  }

  void backward_data(const dnnl::convolution_forward::primitive_desc &forward, const dnnl::memory &dz) {
    const auto pd = choose(BackwardData, [&](const api::Desc &w) {
      return api::conv_backward_data(engine_, activation(src_), w, activation(dst_), window_, forward, attributes());
    });
    dx_ = empty(pd.diff_src_desc());
    const dnnl::memory dy = reordered(dz, pd.diff_dst_desc());
    take<dnnl::convolution_backward_data>(
        BackwardData, pd,
        {{DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_WEIGHTS, laid_out(w_, pd.weights_desc())}, {DNNL_ARG_DIFF_SRC, dx_}});
  }
};

} // namespace

std::unique_ptr<Side> make_onednn_conv_norm(const Case &c, const Data &data, bool nhwc) {
  if (!nhwc) return std::make_unique<ConvNorm>(c, data, nhwc, Ways{Any, Any, Any});
  Ways best = {Any, Any, Any};
  std::array<double, 3> least = {1e30, 1e30, 1e30};
  for (Weights way : {Any, Hwio, Oihw}) {
    ConvNorm side(c, data, nhwc, {way, way, way});
    side.run(1);
    for (int k = 0; k < 3; k++) {
      side.run(2);
      for (size_t part = 0; part < 3; part++)
        if (side.seconds[part] < least[part]) {
          least[part] = side.seconds[part];
          best[part] = way;
        }
    }
  }
  return std::make_unique<ConvNorm>(c, data, nhwc, best);
}

} // namespace bench
