/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file side.h
 * A side: one implementation of a case, ready to run. Creating it does all that a user does once: memory, weights in
 * the layout that it likes best, kernels chosen.
 */
#ifndef LAMINA_BENCH_SIDE_H
#define LAMINA_BENCH_SIDE_H

#include "data.h"

#include <stdexcept>

namespace bench {

class Side {
public:
  virtual ~Side() = default;
  /** Runs the pass `n` times and returns the seconds that the passes alone took: a backward pass is preceded by its
      forward, on all sides alike, which is not counted. */
  virtual double run(int n) = 0;
  /** What the last run computed, as result_names() has it. */
  virtual Results results() = 0;

  std::string detail;     ///< the algorithm or implementation that runs
  double create_ms = 0;   ///< from nothing to ready
  double scratch = 0;     ///< bytes beside activations and plain weights: workspace and packed copies
  double flops = 0;       ///< networks: of one run
  double norm_seconds = 0; ///< passes with convolution and batch norm: the batch norm's part of one of the last runs
};

/** A case that a side cannot run; the text says why. */
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class SideKind { LaminaStrict, LaminaDefault, OneDnnAny, OneDnnNhwc };
const char *side_name(SideKind kind);
inline bool is_lamina(SideKind kind) { return kind == SideKind::LaminaStrict || kind == SideKind::LaminaDefault; }

struct SideOptions {
  std::string isa;        ///< "" for the best here
  std::string model_path; ///< where networks are found
};

/** Creates a side; throws Unsupported, or std::runtime_error when something is wrong. The data outlives the side. */
std::unique_ptr<Side> make_side(SideKind kind, const Case &c, const Data &data, const SideOptions &options);
std::unique_ptr<Side> make_lamina_side(bool strict, const Case &c, const Data &data, const SideOptions &options);
std::unique_ptr<Side> make_onednn_side(bool nhwc, const Case &c, const Data &data, const SideOptions &options);

/** "2.6.3", or "" when built without oneDNN. */
std::string onednn_version();
/** Holds oneDNN to an ISA of Lamina's; must come before its first use. Throws Unsupported. */
void onednn_limit_isa(const std::string &isa);

/** What Lamina says about this machine: cpu, isa in force, isas (best first), cores. Throws when the ISA is not there. */
struct MachineInfo {
  std::string cpu, isa, isas, version;
  int cores = 1;
  double l1 = 0, l2 = 0, l3 = 0;
};
MachineInfo machine_info(const std::string &isa);

/** Seconds since some moment. */
double now();

} // namespace bench

#endif
