/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gate_subject.h
 * A case built on one of the two libraries, ready to run: layers through graph, plan and exec, all in that side's memory.
 */
#ifndef LAMINA_BENCH_GATE_SUBJECT_H
#define LAMINA_BENCH_GATE_SUBJECT_H

#include "gate_arena.h"
#include "gate_library.h"
#include "shape.h"

#include <memory>

namespace bench {

/** The base lacks what the case needs (a layer that is newer than it), so there is nothing to compare. */
struct NotInBase : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct EngineOptions {
  std::string isa; ///< "" for the best here
  int threads = 1;
  bool strict_math = false;
  std::string models; ///< folders with models of networks, separated by colons
};

/** A library loaded, with a context whose memory is the gate's. */
class Engine {
public:
  Engine(const LibraryFile &file, bool is_base, const EngineOptions &options, Arena arenas[2]);
  ~Engine();
  Engine(const Engine &) = delete;
  Engine &operator=(const Engine &) = delete;

  const Api &api() const { return library_.api(); }
  lamina_context *context() const { return context_; }
  SideMemory &memory() { return memory_; }
  const EngineOptions &options() const { return options_; }
  lamina_context_info info() const;
  /** Throws for a status that is not LAMINA_OK. */
  void check(lamina_status status, const std::string &what) const;

private:
  Library library_;
  SideMemory memory_;
  const std::string path_;
  const bool is_base_;
  const EngineOptions options_;
  lamina_context *context_ = nullptr;
};

class Subject {
public:
  /** Built in the arena, where all of it stays until it is destroyed. */
  Subject(Engine &engine, const Case &c, Arena &arena);
  ~Subject();
  Subject(const Subject &) = delete;
  Subject &operator=(const Subject &) = delete;

  /** Runs the pass n times; the seconds that the passes alone took (a backward pass's forward is left out). */
  double run(int n);

private:
  Engine &engine_;
  const Api &api_;
  const Case &case_;
  Arena &arena_;
  lamina_graph *graph_ = nullptr;
  lamina_plan *plan_ = nullptr;
  lamina_exec *exec_ = nullptr;
  std::vector<void *> inputs_;
  std::vector<double> node_ms_, forward_ms_;
  std::string loss_;
  lamina_optimizer optimizer_ = {};

  void check(lamina_status status) const { engine_.check(status, case_.name()); }
  void build();
  void release();
  void add_layers();
  void add_norm(const char *from);
  void add(const char *type, const char *name, const std::string &inputs, const std::string &attributes = "");
  void load_network();
  void make_plan();
  void set_inputs();
  void set_input(const char *name);
  void *fill(const lamina_tensor &shape);
  void set_output_gradient();
  void prepare_step();
  double run_backward(int n);
};

/** Seconds since some moment. */
double gate_clock();

} // namespace bench

#endif
