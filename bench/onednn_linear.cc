/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's inner product, forward and backward, and its softmax. */
#include "onednn.h"

namespace bench {

namespace {

class Linear : public OneDnnSide {
public:
  /* weights: `any`, or one of the two plain layouts. */
  Linear(const Case &c, const Data &data, Tag activation, Tag weights)
      : OneDnnSide(c.threads), activation_(activation), weight_(weights), data_(data) {
    const Shape &s = c.shape;
    src_ = {c.batch, s.c};
    dst_ = {c.batch, s.k};
    weights_ = {s.k, s.c};
    bias_ = {s.k};
    if (c.pass == Pass::LinearForward)
      forward(true);
    else
      backward();
  }

private:
  const Tag activation_, weight_;
  const Data &data_;
  api::Dims src_, dst_, weights_, bias_;

  dnnl::inner_product_forward::primitive_desc descriptor(bool inference) {
    return api::linear_forward(engine_, inference ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training,
                               tagged(src_, activation_), tagged(weights_, weight_), tagged(bias_, Tag::a),
                               tagged(dst_, activation_), attributes());
  }
  dnnl::memory x() { return plain(src_, Tag::ab, data_.x); }
  dnnl::memory w() { return plain(weights_, Tag::ab, data_.weight); }
  dnnl::memory dy() { return plain(dst_, Tag::ab, data_.dy); }

  void forward(bool inference) {
    const auto pd = descriptor(inference);
    const dnnl::memory y = empty(pd.dst_desc());
    step<dnnl::inner_product_forward>(pd,
                                      {{DNNL_ARG_SRC, laid_out(x(), pd.src_desc())},
                                       {DNNL_ARG_WEIGHTS, laid_out(w(), pd.weights_desc())},
                                       {DNNL_ARG_BIAS, plain(bias_, Tag::a, data_.bias)},
                                       {DNNL_ARG_DST, y}},
                                      inference);
    if (inference) result(y, dst_, Tag::ab);
  }

  void backward() {
    const auto fwd = descriptor(false);
    const auto data = api::linear_backward_data(engine_, tagged(src_, activation_), tagged(weights_, weight_),
                                                tagged(dst_, activation_), fwd, attributes());
    const auto weights = api::linear_backward_weights(engine_, tagged(src_, activation_), tagged(weights_, weight_),
                                                      tagged(bias_, Tag::a), tagged(dst_, activation_), fwd, attributes());
    forward(false);
    const dnnl::memory dx = empty(data.diff_src_desc()), dw = empty(weights.diff_weights_desc()),
                       db = empty(tagged(bias_, Tag::a));
    step<dnnl::inner_product_backward_data>(data, {{DNNL_ARG_DIFF_DST, laid_out(dy(), data.diff_dst_desc())},
                                                   {DNNL_ARG_WEIGHTS, laid_out(w(), data.weights_desc())},
                                                   {DNNL_ARG_DIFF_SRC, dx}});
    step<dnnl::inner_product_backward_weights>(weights, {{DNNL_ARG_SRC, laid_out(x(), weights.src_desc())},
                                                         {DNNL_ARG_DIFF_DST, laid_out(dy(), weights.diff_dst_desc())},
                                                         {DNNL_ARG_DIFF_WEIGHTS, dw},
                                                         {DNNL_ARG_DIFF_BIAS, db}});
    result(dx, src_, Tag::ab);
    result(dw, weights_, Tag::ab);
    result(db, bias_, Tag::a);
  }
};

class Softmax : public OneDnnSide {
public:
  Softmax(const Case &c, const Data &data) : OneDnnSide(c.threads) {
    const api::Dims dims = {c.batch, c.shape.c};
    const auto pd = api::softmax(engine_, tagged(dims, Tag::ab), 1, attributes());
    const dnnl::memory y = empty(tagged(dims, Tag::ab));
    step<dnnl::softmax_forward>(pd, {{DNNL_ARG_SRC, plain(dims, Tag::ab, data.x)}, {DNNL_ARG_DST, y}});
    result(y, dims, Tag::ab);
  }
};

} // namespace

std::unique_ptr<Side> make_onednn_linear(const Case &c, const Data &data, bool plain) {
  using Tag = dnnl::memory::format_tag;
  static const Tag any[] = {Tag::any}, layouts[] = {Tag::any, Tag::ba, Tag::ab};
  const Tag *ways = plain ? layouts : any;
  return fastest(plain ? 3 : 1, [&](size_t i) {
    return std::make_unique<Linear>(c, data, plain ? Tag::ab : Tag::any, ways[i]);
  });
}

std::unique_ptr<Side> make_onednn_softmax(const Case &c, const Data &data) { return std::make_unique<Softmax>(c, data); }

} // namespace bench
