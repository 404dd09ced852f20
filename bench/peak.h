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
    int64_t switches;   ///< times that the process was put off its cores so far
  };
  Canary canary();
  static int64_t switches();

private:
  std::ptrdiff_t row_;
  int threads_;
  float *memory_;
};

/** Tells which of the samples are disturbed, from the canaries before and after each: slower than the best ones by more
    than `tolerance`, or put off the core meanwhile. */
std::vector<bool> disturbed(const std::vector<Machine::Canary> &before, const std::vector<Machine::Canary> &after,
                            double tolerance);

} // namespace bench

#endif
