/* SPDX-License-Identifier: Apache-2.0 */
/* Lamina's side: a graph of one layer (or a model file), planned and run through the public interface. */
#include "model.h"
#include "side.h"

#include "lamina/lamina.h"

#include <cmath>
#include <cstring>
#include <ctime>

namespace bench {

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

namespace {

struct Destroy {
  void operator()(lamina_context *p) const { lamina_context_destroy(p); }
  void operator()(lamina_graph *p) const { lamina_graph_destroy(p); }
  void operator()(lamina_plan *p) const { lamina_plan_destroy(p); }
  void operator()(lamina_exec *p) const { lamina_exec_destroy(p); }
};
template <typename T> using Handle = std::unique_ptr<T, Destroy>;

Handle<lamina_context> create_context(const std::string &isa, int threads, bool strict) {
  char error[256] = "";
  lamina_context_options o = {};
  o.size = sizeof o;
  o.isa = isa.empty() ? nullptr : isa.c_str();
  o.threads = threads;
  o.math = strict ? LAMINA_MATH_STRICT : LAMINA_MATH_DEFAULT;
  o.error = error;
  o.error_size = sizeof error;
  lamina_context *context = nullptr;
  const lamina_status status = lamina_context_create(&o, &context);
  if (status == LAMINA_UNSUPPORTED || status == LAMINA_INVALID_ARGUMENT) throw Unsupported(error);
  if (status) throw std::runtime_error(error);
  return Handle<lamina_context>(context);
}

class LaminaSide : public Side {
public:
  LaminaSide(bool strict, const Case &c, const Data &data, const SideOptions &options)
      : case_(c), data_(data), context_(create_context(options.isa, c.threads, strict)) {
    const double start = now();
    if (c.shape.kind == Kind::Net)
      load_net(options.model_path);
    else
      build();
    make_plan();
    connect();
    if (training_) warm_training();
    LaminaSide::run(1);
    create_ms = (now() - start) * 1e3;
    describe();
  }

  double run(int n) override {
    if (c_step()) return run_step(n);
    if (is_conv_norm(case_.pass)) return run_conv_norm(n);
    if (c_net_training()) return run_training(n);
    if (training_ && !is_norm_forward(case_.pass)) return run_backward(n);
    const double start = now();
    for (int i = 0; i < n; i++) check(lamina_exec_forward(exec_.get()));
    return now() - start;
  }

  Results results() override {
    Results all;
    if (c_step()) return first_step_;
    for (const std::string &name : result_names(case_)) {
      lamina_tensor t;
      if (name == "y" || name == "output")
        check(lamina_exec_output(exec_.get(), last_.c_str(), &t));
      else
        check(lamina_exec_gradient(exec_.get(), name.c_str(), &t));
      all.push_back(copy(t));
    }
    return all;
  }

private:
  const Case case_;
  const Data &data_;
  Handle<lamina_context> context_;
  Handle<lamina_graph> graph_;
  Handle<lamina_plan> plan_;
  Handle<lamina_exec> exec_;
  bool training_ = false;
  std::string last_ = "y"; // the value whose gradient drives a backward pass
  Array images_;
  std::vector<int32_t> labels_;
  Results first_step_;
  std::vector<double> node_ms_, forward_ms_;

  bool c_step() const { return case_.pass == Pass::OptimizerStep; }
  bool c_net_training() const { return case_.pass == Pass::NetTraining; }

  void check(lamina_status status) const {
    if (status == LAMINA_OK) return;
    const std::string message = lamina_error_message(context_.get());
    if (status == LAMINA_UNSUPPORTED) throw Unsupported(message);
    throw std::runtime_error(message.empty() ? lamina_status_name(status) : message);
  }

  static std::vector<float> copy(const lamina_tensor &t) {
    const float *p = static_cast<const float *>(t.data);
    return std::vector<float>(p, p + lamina_tensor_count(&t));
  }

  void add(const char *type, const char *name, const char *inputs, const std::string &attributes = "") {
    check(lamina_graph_add(graph_.get(), type, name, inputs, attributes.empty() ? nullptr : attributes.c_str()));
  }

  void input(const char *name, const std::vector<int64_t> &dim, lamina_dtype dtype = LAMINA_F32) {
    check(lamina_graph_input(graph_.get(), name, dtype, static_cast<int>(dim.size()), dim.data()));
  }

  void fill(const char *name, const Array &values) {
    lamina_parameter p = {};
    p.size = sizeof p;
    check(lamina_graph_parameter_find(graph_.get(), name, &p));
    std::memcpy(p.tensor.data, values.data(), static_cast<size_t>(values.size()) * sizeof(float));
  }

  static std::string two(const char *key, int64_t a, int64_t b) {
    return std::string(" ") + key + "=" + std::to_string(a) + "," + std::to_string(b);
  }

  std::vector<int64_t> output_dim() const { return {case_.shape.oh(), case_.shape.ow(), case_.shape.k}; }

  std::string window() const {
    const Shape &s = case_.shape;
    return two("kernel", s.kh, s.kw) + two("stride", s.sh, s.sw) + two("padding", s.ph, s.pw);
  }

  void build() {
    const Shape &s = case_.shape;
    lamina_graph *graph = nullptr;
    check(lamina_graph_create(context_.get(), nullptr, &graph));
    graph_.reset(graph);
    training_ = case_.pass == Pass::BackwardData || case_.pass == Pass::BackwardWeights ||
                case_.pass == Pass::LinearBackward || case_.pass == Pass::PoolBackward || c_step() || is_conv_norm(case_.pass) ||
                is_norm_forward(case_.pass) || is_norm_backward(case_.pass);
    const bool vector = s.kind == Kind::Linear || s.kind == Kind::Softmax || s.kind == Kind::Optimizer;
    input("x", vector ? std::vector<int64_t>{s.c} : std::vector<int64_t>{s.h, s.w, s.c});
    switch (s.kind) {
    case Kind::Conv: {
      const bool bias = case_.pass == Pass::Forward; // the folded batch norm's; training has none
      const std::string name = is_conv_norm(case_.pass) ? "conv" : "y";
      add("conv2d", name.c_str(), "x", "out_channels=" + std::to_string(s.k) + window() + " groups=" + std::to_string(s.groups) +
                                  (bias ? " bias=true" : " bias=false"));
      fill((name + ".weight").c_str(), data_.weight);
      if (bias) fill("y.bias", data_.bias);
      if (is_conv_norm(case_.pass)) build_norm("conv");
      break;
    }
    case Kind::Linear:
    case Kind::Optimizer:
      add("linear", "y", "x", "out_features=" + std::to_string(s.k) + (c_step() ? " bias=false" : ""));
      fill("y.weight", data_.weight);
      if (!c_step()) fill("y.bias", data_.bias);
      break;
    case Kind::Norm: build_norm("x"); break;
    case Kind::MaxPool: add("max_pool2d", "y", "x", window()); break;
    case Kind::AvgPool: add("avg_pool2d", "y", "x", window()); break;
    case Kind::GlobalPool: add("global_avg_pool", "y", "x"); break;
    case Kind::Softmax: add("softmax", "y", "x"); break;
    case Kind::Net: break;
    }
    lamina_graph_parameters_changed(graph_.get());
  }

  void build_norm(const char *from) {
    const bool alone = !has_relu(case_.pass);
    add("batch_norm", alone ? "y" : "norm", from);
    const std::string name = alone ? "y" : "norm";
    fill((name + ".weight").c_str(), data_.scale);
    fill((name + ".bias").c_str(), data_.shift);
    if (data_.mean.size() > 0) fill((name + ".running_mean").c_str(), data_.mean);
    if (data_.variance.size() > 0) fill((name + ".running_var").c_str(), data_.variance);
    if (has_add(case_.pass)) {
      input("add", output_dim());
      add("add", "sum", "norm, add");
    }
    if (!alone) add("relu", "y", has_add(case_.pass) ? "sum" : "norm");
  }

  void load_net(const std::string &folder) {
    lamina_graph *graph = nullptr;
    const std::string path = folder + "/" + case_.shape.text + ".json";
    check(lamina_graph_load_model(context_.get(), path.c_str(), &graph));
    graph_.reset(graph);
    last_ = lamina_graph_output_name(graph, 0);
    training_ = c_net_training();
    if (!training_) return;
    input("labels", {}, LAMINA_I32);
    add("softmax_cross_entropy", "loss", (last_ + ", labels").c_str());
  }

  void make_plan() {
    lamina_plan_options o = {};
    o.size = sizeof o;
    o.mode = training_ ? LAMINA_TRAIN : LAMINA_INFER;
    o.batch = case_.batch;
    const Pass p = case_.pass;
    o.input_gradients = p == Pass::BackwardData || p == Pass::LinearBackward || p == Pass::PoolBackward ||
                        is_norm_backward(p) || (is_conv_norm(p) && !case_.shape.takes_image());
    if (p == Pass::BackwardData) o.freeze = "*";
    if (c_net_training()) o.outputs = "loss";
    lamina_plan *plan = nullptr;
    check(lamina_plan_create(graph_.get(), &o, &plan));
    plan_.reset(plan);
    lamina_exec *exec = nullptr;
    check(lamina_exec_create(plan, &exec));
    exec_.reset(exec);
  }

  void set(const char *name, const void *values, lamina_dtype dtype, std::vector<int64_t> dim) {
    dim.insert(dim.begin(), case_.batch);
    const lamina_tensor t =
        lamina_tensor_of(const_cast<void *>(values), dtype, static_cast<int>(dim.size()), dim.data());
    check(lamina_exec_set_input(exec_.get(), name, &t));
  }

  void connect() {
    const Shape &s = case_.shape;
    if (s.kind == Kind::Net) return connect_net();
    const bool vector = s.kind == Kind::Linear || s.kind == Kind::Softmax || s.kind == Kind::Optimizer;
    const std::vector<int64_t> dim = vector ? std::vector<int64_t>{s.c} : std::vector<int64_t>{s.h, s.w, s.c};
    set("x", data_.x.data(), LAMINA_F32, dim);
    if (has_add(case_.pass)) set("add", data_.add.data(), LAMINA_F32, output_dim());
    if (!training_ || is_norm_forward(case_.pass)) return;
    lamina_tensor t;
    check(lamina_graph_value(graph_.get(), "y", &t));
    t = lamina_tensor_of(const_cast<float *>(data_.dy.data()), LAMINA_F32, t.rank, t.dim);
    t.dim[0] = case_.batch;
    check(lamina_exec_set_output_gradient(exec_.get(), "y", &t));
  }

  void connect_net() {
    lamina_tensor t;
    const char *name = lamina_graph_input_name(graph_.get(), 0);
    check(lamina_graph_value(graph_.get(), name, &t));
    images_ = make_images(case_.batch * lamina_tensor_count(&t));
    set(name, images_.data(), LAMINA_F32, std::vector<int64_t>(t.dim + 1, t.dim + t.rank));
    if (!training_) return;
    labels_.resize(static_cast<size_t>(case_.batch));
    for (size_t i = 0; i < labels_.size(); i++) labels_[i] = static_cast<int32_t>(i % 10);
    set("labels", labels_.data(), LAMINA_I32, {});
  }

  void warm_training() {
    if (is_norm_forward(case_.pass)) return;
    check(lamina_exec_forward(exec_.get()));
    check(lamina_exec_backward(exec_.get()));
    node_ms_.resize(static_cast<size_t>(plan_info().nodes));
    forward_ms_.resize(node_ms_.size());
    backward_seconds(); // from now on each node's time is taken
    if (!c_step() && !c_net_training()) return;
    const lamina_optimizer o = optimizer();
    check(lamina_exec_step(exec_.get(), &o));
    if (!c_step()) return;
    lamina_parameter p = {};
    p.size = sizeof p;
    check(lamina_graph_parameter_find(graph_.get(), "y.weight", &p));
    first_step_ = {copy(p.tensor)};
  }

  lamina_optimizer optimizer() const {
    const std::string name = c_step() ? case_.shape.text : "sgd";
    const lamina_optimizer_type type = name == "adam" ? LAMINA_ADAM : name == "adamw" ? LAMINA_ADAMW : LAMINA_SGD;
    lamina_optimizer o = lamina_optimizer_defaults(type);
    o.lr = kLearningRate;
    if (type == LAMINA_SGD) o.momentum = kMomentum;
    o.weight_decay = kWeightDecay;
    return o;
  }

  double run_step(int n) {
    const lamina_optimizer o = optimizer();
    check(lamina_exec_forward(exec_.get()));
    check(lamina_exec_backward(exec_.get()));
    const double start = now();
    for (int i = 0; i < n; i++) check(lamina_exec_step(exec_.get(), &o));
    return now() - start;
  }

  double run_training(int n) {
    const lamina_optimizer o = optimizer();
    const double start = now();
    for (int i = 0; i < n; i++) {
      check(lamina_exec_forward(exec_.get()));
      check(lamina_exec_backward(exec_.get()));
      check(lamina_exec_step(exec_.get(), &o));
    }
    return now() - start;
  }

  /* As run_backward(), and the forward before it. */
  double run_conv_norm(int n) {
    double total = 0, norm = 0;
    for (int i = 0; i < n; i++) {
      const double start = now();
      check(lamina_exec_forward(exec_.get()));
      total += now() - start;
      check(lamina_exec_backward(exec_.get()));
      total += backward_seconds();
      for (size_t k = 1; k < node_ms_.size(); k++) norm += (forward_ms_[k] + node_ms_[k]) * 1e-3; // behind the convolution
    }
    norm_seconds = norm / n;
    return total;
  }

  /* The nodes' own times: the copy of the output's gradient, which in a network the next layer writes, is left out. */
  double run_backward(int n) {
    double total = 0;
    for (int i = 0; i < n; i++) {
      check(lamina_exec_forward(exec_.get()));
      check(lamina_exec_backward(exec_.get()));
      total += backward_seconds();
    }
    return total;
  }

  lamina_plan_info plan_info() const {
    lamina_plan_info info = {};
    info.size = sizeof info;
    check(lamina_plan_get_info(plan_.get(), &info));
    return info;
  }

  double backward_seconds() {
    check(lamina_exec_times(exec_.get(), static_cast<int>(node_ms_.size()), forward_ms_.data(), node_ms_.data()));
    double sum = 0;
    for (double ms : node_ms_) sum += ms * 1e-3;
    return sum;
  }

  void describe() {
    const lamina_plan_info info = plan_info();
    scratch = static_cast<double>(info.packed + info.workspace);
    if (case_.shape.kind == Kind::Net) {
      flops = info.flops + (training_ ? info.backward_flops : 0);
      detail = std::to_string(info.nodes) + " nodes";
      return;
    }
    for (int i = 0; i < info.nodes; i++) {
      lamina_node_info node = {};
      node.size = sizeof node;
      check(lamina_plan_node(plan_.get(), i, &node));
      detail += (i ? ", " : "") + std::string(node.isa ? node.isa : "any") + " " +
                (node.algorithm && *node.algorithm ? node.algorithm : node.kernel);
    }
  }
};

} // namespace

std::unique_ptr<Side> make_lamina_side(bool strict, const Case &c, const Data &data, const SideOptions &options) {
  return std::make_unique<LaminaSide>(strict, c, data, options);
}

MachineInfo machine_info(const std::string &isa) {
  const Handle<lamina_context> context = create_context(isa, 1, true);
  lamina_context_info info = {};
  info.size = sizeof info;
  lamina_context_get_info(context.get(), &info);
  MachineInfo m;
  m.cpu = info.cpu;
  m.isa = info.isa;
  m.isas = info.isas;
  m.version = lamina_version();
  m.cores = info.cores;
  m.l1 = static_cast<double>(info.l1);
  m.l2 = static_cast<double>(info.l2);
  m.l3 = static_cast<double>(info.l3);
  return m;
}

} // namespace bench
