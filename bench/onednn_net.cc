/* SPDX-License-Identifier: Apache-2.0 */
/* Inference of a whole network through oneDNN: batch norms folded into weights, additions and ReLUs as post-ops, layouts
   of its own choice or channels last, reorders only where two primitives differ (and then counted). Parameters are those
   that Lamina's own side draws, so that the outputs can be compared. */
#include "model.h"
#include "onednn.h"

#include <cmath>
#include <map>

namespace bench {

namespace {

class Net : public OneDnnSide {
public:
  Net(const Case &c, Model model, bool nhwc) : OneDnnSide(c.threads), model_(std::move(model)), nhwc_(nhwc) {
    images_ = model_images(model_, c.batch);
    const api::Dims dims = {c.batch, model_.channels, model_.height, model_.width};
    values_[model_.input] = plain(dims, Tag::nhwc, images_);
    for (const Layer &layer : model_.layers)
      if (!merged_[layer.name]) add(layer);
    const dnnl::memory &out = values_.at(model_.output);
    result(out, sizes(out), sizes(out).size() == 2 ? Tag::ab : Tag::nhwc);
    detail = std::to_string(count_) + " primitives";
  }

private:
  const Model model_;
  const bool nhwc_;
  Array images_;
  std::map<std::string, dnnl::memory> values_;
  std::map<std::string, bool> merged_;
  std::vector<Array> weights_; // of the primitives, kept alive
  int count_ = 0;

  static api::Dims sizes(const dnnl::memory &m) { return api::dims_of(m.get_desc()); }

  template <typename Primitive> void run(const typename Primitive::primitive_desc &pd, const Args &args) {
    step<Primitive>(pd, args);
    count_++;
  }

  /* The value in the layout that a primitive wants. */
  dnnl::memory as(const dnnl::memory &m, const api::Desc &desc) {
    if (m.get_desc() == desc) return m;
    const dnnl::memory to = empty(desc);
    run<dnnl::reorder>(dnnl::reorder::primitive_desc(m, to, attributes()), {{DNNL_ARG_FROM, m}, {DNNL_ARG_TO, to}});
    return to;
  }

  api::Desc layout(const api::Dims &dims) const { return nhwc_ && dims.size() == 4 ? tagged(dims, Tag::nhwc) : any(dims); }

  void add(const Layer &layer) {
    if (layer.type == "conv2d" || layer.type == "linear")
      product(layer);
    else if (layer.type == "max_pool2d" || layer.type == "avg_pool2d" || layer.type == "global_avg_pool")
      pool(layer);
    else if (layer.type == "relu")
      relu(layer);
    else if (layer.type == "add")
      sum(layer);
    else if (layer.type == "flatten" || layer.type == "dropout") // inner product takes (C, H, W) as it is
      values_[layer.name] = values_.at(layer.inputs[0]);
    else
      throw Unsupported("oneDNN's side has no layer " + layer.type);
  }

  /* The layer that alone reads `name`, if it is of this type. */
  const Layer *follower(const std::string &name, const char *type) const {
    const Layer *only = nullptr;
    for (const Layer &l : model_.layers)
      for (const std::string &input : l.inputs)
        if (input == name) {
          if (only) return nullptr;
          only = &l;
        }
    return only && only->type == type && name != model_.output ? only : nullptr;
  }

  /* Whether a value is read by this layer and by none that is still to come. */
  bool last_use(const std::string &name, const Layer &by) const {
    for (const Layer &l : model_.layers)
      if (&l > &by)
        for (const std::string &input : l.inputs)
          if (input == name) return false;
    return name != model_.input;
  }

  /* What follows a convolution or linear layer and can be merged into it. */
  struct Tail {
    std::string name; // of the value in the end
    const Layer *norm = nullptr;
    dnnl::memory sum; // accumulated into
    bool add = false, relu = false;
  };

  Tail merge(const Layer &layer) {
    Tail t;
    t.name = layer.name;
    if ((t.norm = follower(t.name, "batch_norm"))) t.name = t.norm->name;
    if (const Layer *l = follower(t.name, "add"); l && layer.type == "conv2d") {
      const std::string other = l->inputs[l->inputs[0] == t.name];
      const auto known = values_.find(other);
      if (known != values_.end() && last_use(other, *l)) {
        t.sum = known->second;
        t.add = true;
        merged_[l->name] = true;
        t.name = l->name;
      }
    }
    if (const Layer *l = follower(t.name, "relu")) {
      t.relu = true;
      merged_[l->name] = true;
      t.name = l->name;
    }
    if (t.norm) merged_[t.norm->name] = true;
    return t;
  }

  static dnnl::primitive_attr post_ops(const Tail &t) {
    dnnl::primitive_attr attr = attributes();
    dnnl::post_ops ops;
    if (t.add) ops.append_sum(1.f);
    if (t.relu) api::append_relu(ops);
    attr.set_post_ops(ops);
    return attr;
  }

  /* Weights and bias with the batch norm folded in. */
  std::pair<const Array *, const Array *> fold(const Layer &layer, const Layer *norm) {
    const std::vector<float> &w = model_.parameters.at(layer.name + ".weight");
    const auto bias = model_.parameters.find(layer.name + ".bias");
    const size_t outputs = static_cast<size_t>(layer.outputs), terms = w.size() / outputs;
    Array weights(static_cast<int64_t>(w.size())), shifts(layer.outputs);
    for (size_t o = 0; o < outputs; o++) {
      float scale = 1, shift = bias == model_.parameters.end() ? 0 : bias->second[o];
      if (norm) {
        const std::string n = norm->name;
        const float deviation = std::sqrt(model_.parameters.at(n + ".running_var")[o] + 1e-5f);
        scale = model_.parameters.at(n + ".weight")[o] / deviation;
        shift = (shift - model_.parameters.at(n + ".running_mean")[o]) * scale + model_.parameters.at(n + ".bias")[o];
      }
      for (size_t i = 0; i < terms; i++) weights[static_cast<int64_t>(o * terms + i)] = w[o * terms + i] * scale;
      shifts[static_cast<int64_t>(o)] = shift;
    }
    weights_.push_back(std::move(weights));
    weights_.push_back(std::move(shifts));
    return {&weights_[weights_.size() - 2], &weights_.back()};
  }

  void product(const Layer &layer) {
    if (weights_.capacity() == 0) weights_.reserve(2 * model_.layers.size());
    const dnnl::memory x = values_.at(layer.inputs[0]);
    const Tail tail = merge(layer);
    const auto [w, b] = fold(layer, tail.norm);
    const api::Dims bias = {layer.outputs};
    values_[tail.name] = layer.type == "conv2d" ? convolve(layer, tail, x, plain_weights(layer, x, *w), plain(bias, Tag::a, *b))
                                                : multiply(layer, tail, x, plain_weights(layer, x, *w), plain(bias, Tag::a, *b));
  }

  dnnl::memory plain_weights(const Layer &l, const dnnl::memory &x, const Array &w) {
    api::Dims dims = sizes(x);
    if (l.type == "linear") {
      dims[0] = l.outputs;
      return plain(dims, dims.size() == 4 ? Tag::oihw : Tag::ab, w);
    }
    if (l.groups == 1) return plain({l.outputs, dims[1], l.kh, l.kw}, Tag::oihw, w);
    return plain({l.groups, l.outputs / l.groups, dims[1] / l.groups, l.kh, l.kw}, Tag::goihw, w);
  }

  static api::Window window(const Layer &l) {
    return {{l.kh, l.kw}, {l.sh, l.sw}, {0, 0}, {l.top, l.left}, {l.bottom, l.right}};
  }
  static api::Dims window_output(const Layer &l, const api::Dims &x, int64_t channels) {
    return {x[0], channels, (x[2] + l.top + l.bottom - l.kh) / l.sh + 1, (x[3] + l.left + l.right - l.kw) / l.sw + 1};
  }

  dnnl::memory convolve(const Layer &l, const Tail &tail, const dnnl::memory &x, const dnnl::memory &w, const dnnl::memory &b) {
    const api::Dims dst = window_output(l, sizes(x), l.outputs);
    const api::Desc y = tail.add ? tail.sum.get_desc() : layout(dst);
    const auto pd = api::conv_forward(engine_, dnnl::prop_kind::forward_inference, layout(sizes(x)), any(sizes(w)), b.get_desc(),
                                      y, window(l), post_ops(tail));
    const dnnl::memory out = tail.add ? tail.sum : empty(pd.dst_desc());
    run<dnnl::convolution_forward>(pd, {{DNNL_ARG_SRC, as(x, pd.src_desc())},
                                        {DNNL_ARG_WEIGHTS, laid_out(w, pd.weights_desc())},
                                        {DNNL_ARG_BIAS, b},
                                        {DNNL_ARG_DST, out}});
    return out;
  }

  dnnl::memory multiply(const Layer &l, const Tail &tail, const dnnl::memory &x, const dnnl::memory &w, const dnnl::memory &b) {
    const api::Dims dst = {sizes(x)[0], l.outputs};
    const auto pd = api::linear_forward(engine_, dnnl::prop_kind::forward_inference, x.get_desc(), any(sizes(w)), b.get_desc(),
                                        tagged(dst, Tag::ab), post_ops(tail));
    const dnnl::memory out = empty(pd.dst_desc());
    run<dnnl::inner_product_forward>(pd, {{DNNL_ARG_SRC, as(x, pd.src_desc())},
                                          {DNNL_ARG_WEIGHTS, laid_out(w, pd.weights_desc())},
                                          {DNNL_ARG_BIAS, b},
                                          {DNNL_ARG_DST, out}});
    return out;
  }

  void pool(const Layer &layer) {
    const dnnl::memory x = values_.at(layer.inputs[0]);
    Layer l = layer;
    if (l.type == "global_avg_pool") l.kh = sizes(x)[2], l.kw = sizes(x)[3], l.sh = l.sw = 1;
    const auto kind = l.type == "max_pool2d" ? dnnl::algorithm::pooling_max : dnnl::algorithm::pooling_avg_include_padding;
    const auto pd = api::pool_forward(engine_, dnnl::prop_kind::forward_inference, kind, x.get_desc(),
                                      any(window_output(l, sizes(x), sizes(x)[1])), window(l), attributes());
    const dnnl::memory out = empty(pd.dst_desc());
    run<dnnl::pooling_forward>(pd, {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, out}});
    values_[l.name] = out;
  }

  void relu(const Layer &l) {
    const dnnl::memory x = values_.at(l.inputs[0]), out = empty(x.get_desc());
    run<dnnl::eltwise_forward>(api::relu_inference(engine_, x.get_desc(), attributes()), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, out}});
    values_[l.name] = out;
  }

  void sum(const Layer &l) {
    const dnnl::memory x = values_.at(l.inputs[0]), other = as(values_.at(l.inputs[1]), x.get_desc()), out = empty(x.get_desc());
    run<dnnl::binary>(api::add(engine_, x.get_desc(), attributes()),
                      {{DNNL_ARG_SRC_0, x}, {DNNL_ARG_SRC_1, other}, {DNNL_ARG_DST, out}});
    values_[l.name] = out;
  }
};

} // namespace

std::unique_ptr<Side> make_onednn_net(const Case &c, const std::string &folder, bool nhwc) {
  return std::make_unique<Net>(c, load_model(folder + "/" + c.shape.text + ".json"), nhwc);
}

} // namespace bench
