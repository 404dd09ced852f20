/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_subject.h"

#include <ctime>
#include <unistd.h>

namespace bench {

static double read_clock(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double gate_clock() { return read_clock(CLOCK_MONOTONIC); }

Engine::Engine(const LibraryFile &file, bool is_base, const EngineOptions &options, Arena arenas[2])
    : library_(file), memory_(arenas), path_(file.path), is_base_(is_base), options_(options) {
  char error[512] = "";
  lamina_context_options o = {};
  o.size = sizeof o;
  o.isa = options_.isa.empty() ? nullptr : options_.isa.c_str();
  o.threads = options_.threads;
  o.math = options_.strict_math ? LAMINA_MATH_STRICT : LAMINA_MATH_DEFAULT;
  o.alloc = SideMemory::alloc;
  o.release = SideMemory::release;
  o.alloc_user = &memory_;
  o.error = error;
  o.error_size = sizeof error;
  const lamina_status status = api().context_create(&o, &context_);
  if (status) throw GateError(path_ + ": " + (*error ? error : api().status_name(status)));
}

Engine::~Engine() { api().context_destroy(context_); }

lamina_context_info Engine::info() const {
  lamina_context_info info = {};
  info.size = sizeof info;
  check(api().context_get_info(context_, &info), "the machine");
  return info;
}

void Engine::check(lamina_status status, const std::string &what) const {
  if (status == LAMINA_OK) return;
  std::string message = api().error_message(context_);
  if (message.empty()) message = api().status_name(status);
  if (is_base_ && (status == LAMINA_NOT_FOUND || status == LAMINA_UNSUPPORTED)) throw NotInBase(message);
  throw GateError(path_ + ": " + what + ": " + message);
}

static std::string number(int64_t n) { return std::to_string(n); }

static std::string two(const char *key, int64_t a, int64_t b) {
  return std::string(" ") + key + "=" + number(a) + "," + number(b);
}

static std::string window(const Shape &s) {
  return two("kernel", s.kh, s.kw) + two("stride", s.sh, s.sw) + two("padding", s.ph, s.pw);
}

static bool is_flat(const Shape &s) {
  return s.kind == Kind::Linear || s.kind == Kind::Softmax || s.kind == Kind::Optimizer;
}

static bool is_network(const Case &c) { return c.shape.kind == Kind::Net; }

/* Whether one run is forward, then a timed backward; of convolution and batch norm together the forward is timed too. */
static bool times_backward(Pass p) {
  return p == Pass::BackwardData || p == Pass::BackwardWeights || p == Pass::LinearBackward || p == Pass::PoolBackward ||
         is_norm_backward(p) || is_conv_norm(p);
}

static bool is_training(Pass p) {
  return times_backward(p) || is_norm_forward(p) || p == Pass::OptimizerStep || p == Pass::NetTraining;
}

Subject::Subject(Engine &engine, const Case &c, Arena &arena)
    : engine_(engine), api_(engine.api()), case_(c), arena_(arena) {
  engine_.memory().use(&arena_);
  try {
    build();
  } catch (...) {
    release();
    throw;
  }
}

Subject::~Subject() { release(); }

void Subject::build() {
  if (is_network(case_))
    load_network();
  else
    add_layers();
  make_plan();
  set_inputs();
  if (times_backward(case_.pass)) set_output_gradient();
  prepare_step();
  run(1);
}

void Subject::release() {
  api_.exec_destroy(exec_);
  api_.plan_destroy(plan_);
  api_.graph_destroy(graph_);
  for (size_t i = 0; i < inputs_.size(); i++) arena_.release();
  engine_.memory().use(nullptr);
}

void Subject::add(const char *type, const char *name, const std::string &inputs, const std::string &attributes) {
  check(api_.graph_add(graph_, type, name, inputs.c_str(), attributes.empty() ? nullptr : attributes.c_str()));
}

void Subject::add_layers() {
  const Shape &s = case_.shape;
  check(api_.graph_create(engine_.context(), nullptr, &graph_));
  const int64_t image[] = {s.h, s.w, s.c}, flat[] = {s.c};
  check(is_flat(s) ? api_.graph_input(graph_, "x", LAMINA_F32, 1, flat)
                   : api_.graph_input(graph_, "x", LAMINA_F32, 3, image));
  switch (s.kind) {
  case Kind::Conv:
    add("conv2d", is_conv_norm(case_.pass) ? "conv" : "y", "x", "out_channels=" + number(s.k) + window(s) + " groups=" + number(s.groups) +
                                (case_.pass == Pass::Forward ? " bias=true" : " bias=false"));
    if (is_conv_norm(case_.pass)) add_norm("conv");
    break;
  case Kind::Linear: add("linear", "y", "x", "out_features=" + number(s.k)); break;
  case Kind::Optimizer: add("linear", "y", "x", "out_features=" + number(s.k) + " bias=false"); break;
  case Kind::Norm: add_norm("x"); break;
  case Kind::MaxPool: add("max_pool2d", "y", "x", window(s)); break;
  case Kind::AvgPool: add("avg_pool2d", "y", "x", window(s)); break;
  case Kind::GlobalPool: add("global_avg_pool", "y", "x"); break;
  case Kind::Softmax: add("softmax", "y", "x"); break;
  case Kind::Net: break;
  }
}

void Subject::add_norm(const char *from) {
  const Shape &s = case_.shape;
  const int64_t out[] = {s.oh(), s.ow(), s.k};
  if (has_add(case_.pass)) check(api_.graph_input(graph_, "skip", LAMINA_F32, 3, out));
  add("batch_norm", has_relu(case_.pass) ? "norm" : "y", from);
  if (has_add(case_.pass)) add("add", "sum", "norm, skip");
  if (has_relu(case_.pass)) add("relu", "y", has_add(case_.pass) ? "sum" : "norm");
}

/* The first folder that has the model. */
static std::string model_file(const std::string &folders, const std::string &model) {
  for (size_t from = 0; from <= folders.size();) {
    const size_t end = std::min(folders.find(':', from), folders.size());
    const std::string path = folders.substr(from, end - from) + "/" + model + ".json";
    if (end > from && access(path.c_str(), R_OK) == 0) return path;
    from = end + 1;
  }
  throw GateError("there is no model '" + model + "' in " + folders + "; --models or LAMINA_MODEL_PATH name its folder");
}

void Subject::load_network() {
  const std::string path = model_file(engine_.options().models, case_.shape.text);
  check(api_.graph_load_model(engine_.context(), path.c_str(), &graph_));
  if (case_.pass != Pass::NetTraining) return;
  const std::string scores = api_.graph_output_name(graph_, 0);
  check(api_.graph_input(graph_, "labels", LAMINA_I32, 0, nullptr));
  add("softmax_cross_entropy", "loss", scores + ", labels");
  loss_ = "loss";
}

void Subject::make_plan() {
  const Pass p = case_.pass;
  lamina_plan_options o = {};
  o.size = sizeof o;
  o.mode = is_training(p) ? LAMINA_TRAIN : LAMINA_INFER;
  o.batch = case_.batch;
  o.outputs = loss_.empty() ? nullptr : loss_.c_str();
  o.input_gradients = times_backward(p) && p != Pass::BackwardWeights &&
                      !(is_conv_norm(p) && case_.shape.takes_image());
  if (p == Pass::BackwardData) o.freeze = "*";
  check(api_.plan_create(graph_, &o, &plan_));
  check(api_.exec_create(plan_, &exec_));
}

void Subject::set_inputs() {
  if (is_network(case_)) {
    set_input(api_.graph_input_name(graph_, 0));
    if (!loss_.empty()) set_input("labels");
    return;
  }
  set_input("x");
  if (has_add(case_.pass)) set_input("skip");
}

/* Numbers between -1 and 1, or class labels, in this side's arena. */
void *Subject::fill(const lamina_tensor &shape) {
  const int64_t count = api_.tensor_count(&shape);
  void *data = count < 0 ? nullptr : arena_.alloc(static_cast<size_t>(count) * sizeof(float));
  if (!data) throw GateError(case_.name() + ": out of memory");
  inputs_.push_back(data);
  Random random(17);
  constexpr int64_t kPeriod = 4099; // a prime: no two rows of an image are alike
  std::vector<float> some;
  for (int64_t i = 0; i < kPeriod; i++) some.push_back(static_cast<float>(2 * random.uniform() - 1));
  for (int64_t i = 0; i < count; i++)
    if (shape.dtype == LAMINA_F32)
      static_cast<float *>(data)[i] = some[static_cast<size_t>(i % kPeriod)];
    else
      static_cast<int32_t *>(data)[i] = static_cast<int32_t>(i % 10);
  return data;
}

void Subject::set_input(const char *name) {
  lamina_tensor t = {};
  check(api_.graph_value(graph_, name, &t));
  if (t.rank == 0) t.rank = 1; // one number for each sample
  t.dim[0] = case_.batch;
  const lamina_tensor dense = api_.tensor_of(nullptr, t.dtype, t.rank, t.dim);
  t = api_.tensor_of(fill(dense), t.dtype, t.rank, t.dim);
  check(api_.exec_set_input(exec_, name, &t));
}

void Subject::set_output_gradient() {
  lamina_tensor t = {};
  check(api_.graph_value(graph_, "y", &t));
  t.dim[0] = case_.batch;
  const lamina_tensor dense = api_.tensor_of(nullptr, LAMINA_F32, t.rank, t.dim);
  t = api_.tensor_of(fill(dense), LAMINA_F32, t.rank, t.dim);
  check(api_.exec_set_output_gradient(exec_, "y", &t));
  lamina_plan_info info = {};
  info.size = sizeof info;
  check(api_.plan_get_info(plan_, &info));
  node_ms_.resize(static_cast<size_t>(info.nodes));
  forward_ms_.resize(node_ms_.size());
  check(api_.exec_times(exec_, info.nodes, nullptr, nullptr)); // from now on the nodes' times are taken
}

void Subject::prepare_step() {
  const std::string name = case_.shape.text ? case_.shape.text : "";
  const lamina_optimizer_type type = name == "adam" ? LAMINA_ADAM : name == "adamw" ? LAMINA_ADAMW : LAMINA_SGD;
  optimizer_ = api_.optimizer_defaults(type);
  optimizer_.lr = 1e-5; // thousands of steps on the same data must not drive the weights anywhere
  if (type == LAMINA_SGD) optimizer_.momentum = 0.9;
  if (case_.pass != Pass::OptimizerStep) return;
  check(api_.exec_forward(exec_));
  check(api_.exec_backward(exec_));
}

/* The nodes' own times: the copy of the output's gradient, which in a network the next layer writes, is left out. */
double Subject::run_backward(int n) {
  double total = 0;
  for (int i = 0; i < n; i++) {
    check(api_.exec_forward(exec_));
    check(api_.exec_backward(exec_));
    check(api_.exec_times(exec_, static_cast<int>(node_ms_.size()), forward_ms_.data(), node_ms_.data()));
    for (double ms : node_ms_) total += ms * 1e-3;
    if (!is_conv_norm(case_.pass)) continue;
    for (double ms : forward_ms_) total += ms * 1e-3;
  }
  return total;
}

double Subject::run(int n) {
  if (times_backward(case_.pass)) return run_backward(n);
  const bool step_only = case_.pass == Pass::OptimizerStep, whole = case_.pass == Pass::NetTraining;
  /* One thread never waits, and its own time leaves out what others took of the core. */
  const clockid_t clock = engine_.options().threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  const double start = read_clock(clock);
  for (int i = 0; i < n; i++) {
    if (!step_only) check(api_.exec_forward(exec_));
    if (whole) check(api_.exec_backward(exec_));
    if (step_only || whole) check(api_.exec_step(exec_, &optimizer_));
  }
  return read_clock(clock) - start;
}

} // namespace bench
