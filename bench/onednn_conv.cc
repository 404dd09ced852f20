/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's convolutions: forward with bias, backward data, backward weights. */
#include "onednn.h"

namespace bench {

namespace {

/* What layouts to ask for: the activations' and the weights'. */
struct Layout {
  bool nhwc;
  enum Weights { Any, Hwio, Oihw } weights;
};

class Conv : public OneDnnSide {
public:
  Conv(const Case &c, const Data &data, Layout layout) : OneDnnSide(c.threads), case_(c), data_(data), layout_(layout) {
    const Shape &s = c.shape;
    src_ = {c.batch, s.c, s.h, s.w};
    dst_ = {c.batch, s.k, s.oh(), s.ow()};
    weights_ = s.groups > 1 ? api::Dims{s.groups, s.k / s.groups, s.c / s.groups, s.kh, s.kw} : api::Dims{s.k, s.c, s.kh, s.kw};
    window_ = {{s.kh, s.kw}, {s.sh, s.sw}, {0, 0}, {s.ph, s.pw}, {s.ph, s.pw}};
    plain_weights_ = s.groups > 1 ? Tag::goihw : Tag::oihw;
    x_ = plain(src_, Tag::nhwc, data.x);
    w_ = plain(weights_, plain_weights_, data.weight);
    dy_ = plain(dst_, Tag::nhwc, data.dy);
    switch (c.pass) {
    case Pass::Forward: forward(); break;
    case Pass::BackwardData: backward_data(); break;
    default: backward_weights(); break;
    }
  }

private:
  const Case case_;
  const Data &data_;
  const Layout layout_;
  api::Dims src_, dst_, weights_;
  api::Window window_;
  Tag plain_weights_;
  dnnl::memory x_, w_, dy_;

  api::Desc activation(const api::Dims &dims) const { return layout_.nhwc ? tagged(dims, Tag::nhwc) : any(dims); }
  api::Desc weights() const {
    const bool grouped = case_.shape.groups > 1;
    switch (layout_.weights) {
    case Layout::Hwio: return tagged(weights_, grouped ? Tag::hwigo : Tag::hwio);
    case Layout::Oihw: return tagged(weights_, plain_weights_);
    default: return any(weights_);
    }
  }

  /* Weights in a plain layout may leave oneDNN with its plain loops alone, a thousand times slower than what it has. */
  template <typename Descriptor> void refuse_reference(const Descriptor &pd) const {
    if (layout_.weights != Layout::Any && std::string(pd.impl_info_str()).rfind("ref", 0) == 0)
      throw dnnl::error(dnnl_unimplemented, "only reference code for this layout");
  }

  void forward() {
    const api::Dims bias = {case_.shape.k};
    const auto pd = api::conv_forward(engine_, dnnl::prop_kind::forward_inference, activation(src_), weights(),
                                      tagged(bias, Tag::a), activation(dst_), window_, attributes());
    refuse_reference(pd);
    const dnnl::memory y = empty(pd.dst_desc());
    step<dnnl::convolution_forward>(pd, {{DNNL_ARG_SRC, laid_out(x_, pd.src_desc())},
                                         {DNNL_ARG_WEIGHTS, laid_out(w_, pd.weights_desc())},
                                         {DNNL_ARG_BIAS, plain(bias, Tag::a, data_.bias)},
                                         {DNNL_ARG_DST, y}});
    result(y, dst_, Tag::nhwc);
  }

  /* The training forward, which a backward pass wants as a hint and which runs before it. */
  dnnl::convolution_forward::primitive_desc hint() {
    return api::conv_forward(engine_, dnnl::prop_kind::forward_training, activation(src_), weights(), api::Desc(),
                             activation(dst_), window_, attributes());
  }
  void run_before(const dnnl::convolution_forward::primitive_desc &pd) {
    step<dnnl::convolution_forward>(pd,
                                    {{DNNL_ARG_SRC, laid_out(x_, pd.src_desc())},
                                     {DNNL_ARG_WEIGHTS, laid_out(w_, pd.weights_desc())},
                                     {DNNL_ARG_DST, empty(pd.dst_desc())}},
                                    false);
  }

  void backward_data() {
    const auto fwd = hint();
    const auto pd = api::conv_backward_data(engine_, activation(src_), weights(), activation(dst_), window_, fwd, attributes());
    refuse_reference(fwd);
    refuse_reference(pd);
    const dnnl::memory dx = empty(pd.diff_src_desc());
    run_before(fwd);
    step<dnnl::convolution_backward_data>(pd, {{DNNL_ARG_DIFF_DST, laid_out(dy_, pd.diff_dst_desc())},
                                               {DNNL_ARG_WEIGHTS, laid_out(w_, pd.weights_desc())},
                                               {DNNL_ARG_DIFF_SRC, dx}});
    result(dx, src_, Tag::nhwc);
  }

  void backward_weights() {
    const auto fwd = hint();
    const auto pd = api::conv_backward_weights(engine_, activation(src_), weights(), activation(dst_), window_, fwd, attributes());
    refuse_reference(fwd);
    refuse_reference(pd);
    const dnnl::memory dw = empty(pd.diff_weights_desc());
    run_before(fwd);
    step<dnnl::convolution_backward_weights>(pd, {{DNNL_ARG_SRC, laid_out(x_, pd.src_desc())},
                                                  {DNNL_ARG_DIFF_DST, laid_out(dy_, pd.diff_dst_desc())},
                                                  {DNNL_ARG_DIFF_WEIGHTS, dw}});
    result(dw, weights_, plain_weights_);
  }
};

} // namespace

std::unique_ptr<Side> make_onednn_conv(const Case &c, const Data &data, bool nhwc) {
  static const Layout any[] = {{false, Layout::Any}};
  static const Layout last[] = {{true, Layout::Any}, {true, Layout::Hwio}, {true, Layout::Oihw}};
  const Layout *ways = nhwc ? last : any;
  return fastest(nhwc ? 3 : 1, [&](size_t i) { return std::make_unique<Conv>(c, data, ways[i]); });
}

} // namespace bench
