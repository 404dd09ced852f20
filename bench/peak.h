/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file peak.h
 * What this machine can do at this moment: the peak of multiply-adds, the bandwidth of reading, and canaries, small pieces
 * of the same work beside each sample that tell whether something else slowed the machine.
 */
#ifndef LAMINA_BENCH_PEAK_H
#define LAMINA_BENCH_PEAK_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

class Machine {
public:
  /** The ISA whose vectors the FMA loop uses; throws std::runtime_error for an unknown one. */
  Machine(const std::string &isa, int threads);
  ~Machine();
  Machine(const Machine &) = delete;

  /** GFLOP/s of multiply-adds in registers on all threads at once: the best of a few tries. */
  double peak_gflops();
  /** GB/s of reading a buffer of this many bytes for each thread, on all threads at once. */
  double bandwidth_gb(size_t bytes);

  struct Canary {
    double fma, memory; ///< seconds
  };
  Canary canary();
  /** GFLOP/s of one thread at a canary's pace. */
  double gflops_of(const Canary &canary) const;

private:
  std::ptrdiff_t row_;
  int threads_;
  float *memory_;
};

/** How much the scheduler took from a stretch of work: the time that threads of this process, all of them, could have run
    and were kept waiting for a core. */
class Stolen {
public:
  Stolen();
  /** Whether that was more than 1% of the time since then. */
  bool much() const;

private:
  double wall_, waited_;
};

/** Tells which of the samples are disturbed, from the canaries before and after each: slower than the best ones by more
    than `tolerance`. */
std::vector<bool> disturbed(const std::vector<Machine::Canary> &before, const std::vector<Machine::Canary> &after,
                            double tolerance);

} // namespace bench

#endif
