/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gate_library.h
 * A build of liblamina as a file, and loaded beside another one in the same process.
 *
 * Each is loaded from a private copy in memory: the loader takes two files with the same content for two libraries, a
 * build that is replaced during a run does not matter, and a copy loaded anew has other addresses and other pages. Symbols
 * stay local to each (RTLD_LOCAL, and the gate itself links no Lamina); libc and hwloc are shared, so that both sides
 * run the same memcpy. With dlmopen each side would have its own copies of those, placed differently.
 */
#ifndef LAMINA_BENCH_GATE_LIBRARY_H
#define LAMINA_BENCH_GATE_LIBRARY_H

#include "lamina/lamina.h"

#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

/** Something that the caller must put right: an argument, a file, the machine. Exit status 2. */
struct GateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** What a file says about itself; none of its code has run. */
struct LibraryFile {
  std::string path, soname, build_id;
  std::vector<char> content;
};

/** Reads a library and checks that it is a liblamina of this ABI for this CPU; throws GateError. */
LibraryFile read_library(const std::string &path);

/** The functions that the gate calls, by their names without `lamina_`. */
struct Api {
  decltype(&lamina_version) version;
  decltype(&lamina_status_name) status_name;
  decltype(&lamina_context_create) context_create;
  decltype(&lamina_context_destroy) context_destroy;
  decltype(&lamina_context_get_info) context_get_info;
  decltype(&lamina_error_message) error_message;
  decltype(&lamina_graph_create) graph_create;
  decltype(&lamina_graph_destroy) graph_destroy;
  decltype(&lamina_graph_input) graph_input;
  decltype(&lamina_graph_add) graph_add;
  decltype(&lamina_graph_output) graph_output;
  decltype(&lamina_graph_value) graph_value;
  decltype(&lamina_graph_input_name) graph_input_name;
  decltype(&lamina_graph_output_name) graph_output_name;
  decltype(&lamina_graph_load_model) graph_load_model;
  decltype(&lamina_plan_create) plan_create;
  decltype(&lamina_plan_destroy) plan_destroy;
  decltype(&lamina_plan_get_info) plan_get_info;
  decltype(&lamina_exec_create) exec_create;
  decltype(&lamina_exec_destroy) exec_destroy;
  decltype(&lamina_exec_set_input) exec_set_input;
  decltype(&lamina_exec_set_output_gradient) exec_set_output_gradient;
  decltype(&lamina_exec_forward) exec_forward;
  decltype(&lamina_exec_backward) exec_backward;
  decltype(&lamina_exec_step) exec_step;
  decltype(&lamina_exec_times) exec_times;
  decltype(&lamina_optimizer_defaults) optimizer_defaults;
  decltype(&lamina_tensor_of) tensor_of;
  decltype(&lamina_tensor_count) tensor_count;
};

/** A loaded copy; unloaded with the object, after everything that was made from it. */
class Library {
public:
  explicit Library(const LibraryFile &file);
  ~Library();
  Library(const Library &) = delete;
  Library &operator=(const Library &) = delete;
  const Api &api() const { return api_; }

private:
  int memory_ = -1;
  void *handle_ = nullptr;
  Api api_ = {};
};

} // namespace bench

#endif
