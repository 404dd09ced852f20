/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file onednn.h
 * oneDNN's sides, not handicapped: formats of its own choice or channels last with the fastest of several weight layouts;
 * primitives, memory and scratchpad made once; reorders outside what is timed.
 */
#ifndef LAMINA_BENCH_ONEDNN_H
#define LAMINA_BENCH_ONEDNN_H

#include "onednn_api.h"
#include "side.h"

#include <algorithm>
#include <unordered_map>

namespace bench {

/** A side that is a list of primitives: those before the measured part (a forward pass), then those measured. */
class OneDnnSide : public Side {
public:
  explicit OneDnnSide(int threads);
  double run(int n) override;
  Results results() override;

protected:
  using Tag = dnnl::memory::format_tag;
  static constexpr auto f32 = dnnl::memory::data_type::f32;

  dnnl::engine engine_;
  dnnl::stream stream_;

  /** Attributes of every primitive: the scratchpad is ours. */
  static dnnl::primitive_attr attributes();
  static api::Desc any(const api::Dims &dims) { return {dims, f32, Tag::any}; }
  static api::Desc tagged(const api::Dims &dims, Tag tag) { return {dims, f32, tag}; }
  /** A view of numbers in a plain layout. */
  dnnl::memory plain(const api::Dims &dims, Tag tag, const Array &values);
  dnnl::memory empty(const api::Desc &desc) { return {desc, engine_}; }
  /** The numbers of an activation without their layout, padding included. */
  dnnl::memory flat(const dnnl::memory &m) {
    const auto floats = static_cast<api::Dims::value_type>(m.get_desc().get_size() / sizeof(float));
    return {tagged({floats}, Tag::a), engine_, m.get_data_handle()};
  }
  /** A copy in another layout, made once. */
  dnnl::memory laid_out(const dnnl::memory &from, const api::Desc &desc);

  using Args = std::unordered_map<int, dnnl::memory>;
  /** Adds a primitive made from its descriptor, with a scratchpad. */
  template <typename Primitive> void step(const typename Primitive::primitive_desc &pd, Args args, bool measured = true) {
    const api::Desc scratchpad = pd.scratchpad_desc();
    if (scratchpad.get_size() > 0) args.insert({DNNL_ARG_SCRATCHPAD, empty(scratchpad)});
    scratch += measured ? static_cast<double>(scratchpad.get_size()) : 0;
    if (measured) detail += (detail.empty() ? "" : ", ") + std::string(pd.impl_info_str());
    append(Primitive(pd), args, measured);
  }
  /** A result: it is read in this plain layout. */
  void result(const dnnl::memory &m, const api::Dims &dims, Tag tag) { results_.push_back({m, tagged(dims, tag)}); }

  /** Runs one of the measured primitives alone. */
  void run_step(size_t i) { execute(measured_[i]); }

private:
  struct Step {
    dnnl::primitive primitive;
    std::vector<dnnl_exec_arg_t> args;
    Args keep;
  };
  struct Result {
    dnnl::memory memory;
    api::Desc plain;
  };
  std::vector<Step> before_, measured_;
  std::vector<Result> results_;

  void append(const dnnl::primitive &p, const Args &args, bool measured);
  void execute(const Step &step);
  void execute(const std::vector<Step> &steps);
};

std::unique_ptr<Side> make_onednn_conv(const Case &c, const Data &data, bool nhwc);
std::unique_ptr<Side> make_onednn_conv_norm(const Case &c, const Data &data, bool nhwc);
std::unique_ptr<Side> make_onednn_norm(const Case &c, const Data &data, bool nhwc);
std::unique_ptr<Side> make_onednn_linear(const Case &c, const Data &data, bool nhwc);
std::unique_ptr<Side> make_onednn_pool(const Case &c, const Data &data, bool nhwc);
std::unique_ptr<Side> make_onednn_softmax(const Case &c, const Data &data);
std::unique_ptr<Side> make_onednn_net(const Case &c, const std::string &folder, bool nhwc);

/** The fastest of several ways to run a case; those that oneDNN cannot create are passed over. */
template <typename Make> std::unique_ptr<Side> fastest(size_t ways, Make make) {
  std::unique_ptr<Side> best;
  double best_time = 0;
  std::string error = "no implementation";
  for (size_t i = 0; i < ways; i++) {
    std::unique_ptr<Side> side;
    try {
      side = make(i);
    } catch (const dnnl::error &e) {
      error = e.what();
      continue;
    }
    double time = 1e30;
    if (ways > 1) {
      side->run(2);
      const int n = 3;
      for (int k = 0; k < 4; k++) time = std::min(time, side->run(n));
    }
    if (best && time >= best_time) continue;
    best = std::move(side);
    best_time = time;
  }
  if (!best) throw Unsupported("oneDNN: " + error);
  return best;
}

} // namespace bench

#endif
