/* SPDX-License-Identifier: Apache-2.0 */
/* Whose batch statistics are right: ten million values far from zero, in Lamina and in oneDNN's layouts, against sums in
   long double. Prints a row for each; docs/batch-norm.md quotes them. Exit status 1 if Lamina is off by more than 1e-6. */
#include "onednn_api.h"

#include "lamina/lamina.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

namespace {

constexpr float kEps = 1e-5f;

struct Statistics {
  std::vector<double> mean, variance; // biased
};

struct Input {
  int64_t rows, channels;
  std::vector<float> x;
};

Input make_input(int64_t rows, int64_t channels, double mean, double deviation) {
  Input in = {rows, channels, std::vector<float>(static_cast<size_t>(rows * channels))};
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal(mean, deviation);
  for (float &x : in.x) x = static_cast<float>(normal(random));
  return in;
}

Statistics exact(const Input &in) {
  Statistics s;
  for (int64_t c = 0; c < in.channels; c++) {
    long double sum = 0, squares = 0;
    for (int64_t r = 0; r < in.rows; r++) sum += in.x[static_cast<size_t>(r * in.channels + c)];
    const long double mean = sum / static_cast<long double>(in.rows);
    for (int64_t r = 0; r < in.rows; r++) {
      const long double d = in.x[static_cast<size_t>(r * in.channels + c)] - mean;
      squares += d * d;
    }
    s.mean.push_back(static_cast<double>(mean));
    s.variance.push_back(static_cast<double>(squares / static_cast<long double>(in.rows)));
  }
  return s;
}

void check(lamina_status status, const lamina_context *context) {
  if (status == LAMINA_OK) return;
  std::fprintf(stderr, "norm-accuracy: %s\n", lamina_error_message(context));
  std::exit(2);
}

/* The running statistics after one batch at momentum 1, which are unbiased. */
Statistics of_lamina(const Input &in) {
  lamina_context *context = nullptr;
  lamina_graph *graph = nullptr;
  lamina_plan *plan = nullptr;
  lamina_exec *exec = nullptr;
  lamina_context_options options = {};
  options.size = sizeof options;
  options.threads = 1;
  if (lamina_context_create(&options, &context)) std::exit(2);
  check(lamina_graph_create(context, nullptr, &graph), context);
  check(lamina_graph_input(graph, "x", LAMINA_F32, 1, &in.channels), context);
  check(lamina_graph_add(graph, "batch_norm", "y", "x", "momentum=1"), context);
  lamina_plan_options p = {};
  p.size = sizeof p;
  p.mode = LAMINA_TRAIN;
  p.batch = in.rows;
  check(lamina_plan_create(graph, &p, &plan), context);
  check(lamina_exec_create(plan, &exec), context);
  const int64_t dim[] = {in.rows, in.channels};
  const lamina_tensor x = lamina_tensor_of(const_cast<float *>(in.x.data()), LAMINA_F32, 2, dim);
  check(lamina_exec_set_input(exec, "x", &x), context);
  check(lamina_exec_forward(exec), context);
  Statistics s;
  for (const char *name : {"y.running_mean", "y.running_var"}) {
    lamina_parameter parameter = {};
    parameter.size = sizeof parameter;
    check(lamina_graph_parameter_find(graph, name, &parameter), context);
    const float *from = static_cast<const float *>(parameter.tensor.data);
    (s.mean.empty() ? s.mean : s.variance).assign(from, from + in.channels);
  }
  for (double &v : s.variance) v *= static_cast<double>(in.rows - 1) / static_cast<double>(in.rows);
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
  lamina_context_destroy(context);
  return s;
}

/* 1000 images of rows / 1000 pixels in a layout. */
Statistics of_onednn(const Input &in, dnnl::memory::format_tag layout) {
  using dnnl::memory;
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::dims dims = {1000, in.channels, in.rows / 1000, 1};
  const memory::desc plain(dims, memory::data_type::f32, memory::format_tag::nhwc), desc(dims, memory::data_type::f32, layout);
  memory from(plain, engine, const_cast<float *>(in.x.data())), x(desc, engine), y(desc, engine);
  dnnl::reorder(from, x).execute(stream, from, x);
  const auto pd = bench::api::norm_forward(engine, dnnl::prop_kind::forward_training, desc, kEps,
                                           dnnl::normalization_flags::none, dnnl::primitive_attr());
  memory mean(pd.mean_desc(), engine), variance(pd.variance_desc(), engine);
  dnnl::batch_normalization_forward(pd).execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_MEAN, mean}, {DNNL_ARG_VARIANCE, variance}, {DNNL_ARG_DST, y}});
  stream.wait();
  const float *m = static_cast<const float *>(mean.get_data_handle()), *v = static_cast<const float *>(variance.get_data_handle());
  return {std::vector<double>(m, m + in.channels), std::vector<double>(v, v + in.channels)};
}

/* The worst channel's relative error of the variance, and the least and largest ratio to the exact one. */
double report(const char *who, const Input &in, const Statistics &got, const Statistics &want) {
  double worst = 0, least = INFINITY, most = 0, mean = 0;
  for (size_t c = 0; c < want.variance.size(); c++) {
    const double ratio = got.variance[c] / want.variance[c];
    worst = std::max(worst, std::fabs(ratio - 1));
    least = std::min(least, ratio);
    most = std::max(most, ratio);
    mean = std::max(mean, std::fabs(got.mean[c] - want.mean[c]) / std::fabs(want.mean[c]));
  }
  std::printf("%-22s %4lld x %8lld   mean off by %.1e   variance off by %.1e (%.6g to %.6g times)\n", who,
              static_cast<long long>(in.channels), static_cast<long long>(in.rows), mean, worst, least, most);
  return worst;
}

} // namespace

int main() {
  double worst = 0;
  for (int64_t channels : {10, 16, 64}) {
    const Input in = make_input(10000000 / channels / 1000 * 1000, channels, 1e4, 1e-2);
    const Statistics want = exact(in);
    worst = std::max(worst, report("lamina", in, of_lamina(in), want));
    report("onednn channels last", in, of_onednn(in, dnnl::memory::format_tag::nhwc), want);
    report("onednn channels first", in, of_onednn(in, dnnl::memory::format_tag::nchw), want);
    report("onednn blocked by 16", in, of_onednn(in, dnnl::memory::format_tag::nChw16c), want);
  }
  return worst > 1e-6;
}
