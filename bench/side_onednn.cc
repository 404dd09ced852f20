/* SPDX-License-Identifier: Apache-2.0 */
/* What oneDNN's sides share: engine, memory, the list of primitives, threads. */
#include "onednn.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstring>

namespace bench {

/* oneDNN's threads are OpenMP's, whatever compiler built it; without OpenMP it runs on its own terms. */
static void set_threads(int threads) {
  using Set = void (*)(int);
  if (const Set set = reinterpret_cast<Set>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))) set(threads);
}

static const dnnl::engine &cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

OneDnnSide::OneDnnSide(int threads) : engine_(cpu()), stream_(engine_) { set_threads(threads); }

dnnl::primitive_attr OneDnnSide::attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

dnnl::memory OneDnnSide::plain(const api::Dims &dims, Tag tag, const Array &values) {
  return {tagged(dims, tag), engine_, const_cast<float *>(values.data())};
}

dnnl::memory OneDnnSide::laid_out(const dnnl::memory &from, const api::Desc &desc) {
  if (from.get_desc() == desc) return from;
  dnnl::memory source = from, to(desc, engine_);
  dnnl::reorder(source, to).execute(stream_, source, to);
  stream_.wait();
  return to;
}

void OneDnnSide::append(const dnnl::primitive &p, const Args &args, bool measured) {
  Step s{p, {}, args};
  for (const auto &[index, memory] : s.keep) s.args.push_back({index, memory.get()});
  (measured ? measured_ : before_).push_back(std::move(s));
}

/* Through the C interface, whose arguments are ready: the C++ one gathers them anew on each call. */
void OneDnnSide::execute(const Step &s) {
  if (dnnl_primitive_execute(s.primitive.get(), stream_.get(), static_cast<int>(s.args.size()), s.args.data()) !=
      dnnl_success)
    throw std::runtime_error("oneDNN: a primitive failed");
}

void OneDnnSide::execute(const std::vector<Step> &steps) {
  for (const Step &s : steps) execute(s);
}

double OneDnnSide::run(int n) {
  double total = 0;
  if (before_.empty()) {
    const double start = now();
    for (int i = 0; i < n; i++) execute(measured_);
    stream_.wait();
    return now() - start;
  }
  for (int i = 0; i < n; i++) {
    execute(before_);
    stream_.wait();
    const double start = now();
    execute(measured_);
    stream_.wait();
    total += now() - start;
  }
  return total;
}

Results OneDnnSide::results() {
  Results all;
  for (const Result &r : results_) {
    const dnnl::memory m = laid_out(r.memory, r.plain);
    const float *p = static_cast<const float *>(m.get_data_handle());
    all.emplace_back(p, p + r.plain.get_size() / sizeof(float));
  }
  return all;
}

std::unique_ptr<Side> make_onednn_side(bool nhwc, const Case &c, const Data &data, const SideOptions &options) {
  const double start = now();
  std::unique_ptr<Side> side;
  try {
    switch (c.shape.kind) {
    case Kind::Conv:
      side = is_conv_norm(c.pass) ? make_onednn_conv_norm(c, data, nhwc) : make_onednn_conv(c, data, nhwc);
      break;
    case Kind::Norm: side = make_onednn_norm(c, data, nhwc); break;
    case Kind::Linear: side = make_onednn_linear(c, data, nhwc); break;
    case Kind::MaxPool:
    case Kind::AvgPool:
    case Kind::GlobalPool: side = make_onednn_pool(c, data, nhwc); break;
    case Kind::Softmax:
      if (nhwc) throw Unsupported("softmax has one layout");
      side = make_onednn_softmax(c, data);
      break;
    case Kind::Optimizer: throw Unsupported("oneDNN has no optimizers");
    case Kind::Net:
      if (c.pass == Pass::NetTraining) throw Unsupported("oneDNN trains no networks");
      side = make_onednn_net(c, options.model_path, nhwc);
      break;
    }
  } catch (const dnnl::error &e) {
    throw Unsupported(std::string("oneDNN: ") + e.what());
  }
  side->run(1);
  side->create_ms = (now() - start) * 1e3;
  return side;
}

std::string onednn_version() {
  const dnnl_version_t *v = dnnl_version();
  return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

void onednn_limit_isa(const std::string &isa) {
  dnnl::cpu_isa limit;
  if (isa.empty() || isa == "avx512" || isa == "neon")
    return;
  else if (isa == "avx2")
    limit = dnnl::cpu_isa::avx2;
  else // the least that it has
    limit = dnnl::cpu_isa::sse41;
  if (dnnl::set_max_cpu_isa(limit) != dnnl::status::success)
    throw Unsupported("oneDNN: this build cannot be held to " + isa);
}

} // namespace bench
