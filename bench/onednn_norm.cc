/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's batch norm, alone, with ReLU (which it fuses), with add and ReLU (its fastest sequence of primitives). */
#include "onednn.h"

namespace bench {

namespace {

class Norm : public OneDnnSide {
public:
  Norm(const Case &c, const Data &data, Tag layout) : OneDnnSide(c.threads), case_(c), data_(data) {
    const Shape &s = c.shape;
    dims_ = {c.batch, s.c, s.h, s.w};
    channels_ = {s.c};
    desc_ = tagged(dims_, layout);
    x_ = laid_out(plain(dims_, Tag::nhwc, data.x), desc_);
    scale_ = plain(channels_, Tag::a, data.scale);
    shift_ = plain(channels_, Tag::a, data.shift);
    if (is_norm_backward(c.pass))
      backward();
    else
      forward(c.pass != Pass::NormInference, true);
  }

private:
  using Flags = dnnl::normalization_flags;
  const Case case_;
  const Data &data_;
  api::Dims dims_, channels_;
  api::Desc desc_;
  dnnl::memory x_, scale_, shift_, mean_, variance_, workspace_, y_, add_;

  Flags flags(bool training) const {
    Flags f = Flags::use_scale | Flags::use_shift;
    if (!training) f = f | Flags::use_global_stats;
    if (has_relu(case_.pass) && !has_add(case_.pass)) f = f | Flags::fuse_norm_relu;
    return f;
  }

  dnnl::batch_normalization_forward::primitive_desc descriptor(bool training) {
    const auto kind = training ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    return api::norm_forward(engine_, kind, desc_, static_cast<float>(kNormEps), flags(training), attributes());
  }

  void forward(bool training, bool measured) {
    const auto pd = descriptor(training);
    mean_ = training ? empty(pd.mean_desc()) : plain(channels_, Tag::a, data_.mean);
    variance_ = training ? empty(pd.variance_desc()) : plain(channels_, Tag::a, data_.variance);
    y_ = empty(desc_);
    Args args = {{DNNL_ARG_SRC, x_},     {DNNL_ARG_SCALE, scale_},       {DNNL_ARG_SHIFT, shift_},
                 {DNNL_ARG_MEAN, mean_}, {DNNL_ARG_VARIANCE, variance_}, {DNNL_ARG_DST, y_}};
    if (training && has_relu(case_.pass) && !has_add(case_.pass)) {
      workspace_ = empty(pd.workspace_desc());
      args.insert({DNNL_ARG_WORKSPACE, workspace_});
    }
    step<dnnl::batch_normalization_forward>(pd, args, measured);
    if (has_add(case_.pass)) add_relu(measured);
    if (measured) result(y_, dims_, Tag::nhwc);
  }

  /* y = max(y + add, 0) in place: the add with the ReLU as its post-op. It is the same sum in any layout; told of one whose
     channels are padded, oneDNN 2.6's kernel writes past its end. */
  void add_relu(bool measured) {
    dnnl::primitive_attr attr = attributes();
    dnnl::post_ops ops;
    api::append_relu(ops);
    attr.set_post_ops(ops);
    add_ = laid_out(plain(dims_, Tag::nhwc, data_.add), desc_);
    const dnnl::memory y = flat(y_), add = flat(add_);
    step<dnnl::binary>(api::add(engine_, y.get_desc(), attr),
                       {{DNNL_ARG_SRC_0, y}, {DNNL_ARG_SRC_1, add}, {DNNL_ARG_DST, y}}, measured);
  }

  void backward() {
    forward(true, false);
    const auto fwd = descriptor(true);
    const auto pd =
        api::norm_backward(engine_, desc_, static_cast<float>(kNormEps), flags(true), fwd, attributes());
    dnnl::memory dy = laid_out(plain(dims_, Tag::nhwc, data_.dy), desc_);
    if (has_add(case_.pass)) { // the gradient past the ReLU is that of the summand
      const dnnl::memory masked = empty(desc_);
      step<dnnl::eltwise_backward>(api::relu_backward(engine_, desc_, attributes()),
                                   {{DNNL_ARG_DST, y_}, {DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_DIFF_SRC, masked}});
      dy = masked;
    }
    const dnnl::memory dx = empty(desc_), d_scale = empty(tagged(channels_, Tag::a)), d_shift = empty(tagged(channels_, Tag::a));
    Args args = {{DNNL_ARG_SRC, x_},
                 {DNNL_ARG_MEAN, mean_},
                 {DNNL_ARG_VARIANCE, variance_},
                 {DNNL_ARG_SCALE, scale_},
                 {DNNL_ARG_DIFF_DST, dy},
                 {DNNL_ARG_DIFF_SRC, dx},
                 {DNNL_ARG_DIFF_SCALE, d_scale},
                 {DNNL_ARG_DIFF_SHIFT, d_shift}};
    if (api::kNormBackwardTakesShift) args.insert({DNNL_ARG_SHIFT, shift_});
    if (has_relu(case_.pass) && !has_add(case_.pass)) args.insert({DNNL_ARG_WORKSPACE, workspace_});
    step<dnnl::batch_normalization_backward>(pd, args);
    result(dx, dims_, Tag::nhwc);
    result(d_scale, channels_, Tag::a);
    result(d_shift, channels_, Tag::a);
    if (has_add(case_.pass)) result(dy, dims_, Tag::nhwc);
  }
};

} // namespace

std::unique_ptr<Side> make_onednn_norm(const Case &c, const Data &data, bool nhwc) {
  using Tag = dnnl::memory::format_tag;
  static const Tag blocked[] = {Tag::nChw16c, Tag::nChw8c}, last[] = {Tag::nhwc};
  const Tag *ways = nhwc ? last : blocked;
  return fastest(nhwc ? 1 : 2, [&](size_t i) { return std::make_unique<Norm>(c, data, ways[i]); });
}

} // namespace bench
