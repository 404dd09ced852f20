/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file data.h
 * What a case computes on: the same numbers for every side, and the result in double precision at sampled points.
 * Canonical layouts: activations (N, H, W, C), weights (O, I / groups, KH, KW), linear weights (O, I).
 */
#ifndef LAMINA_BENCH_DATA_H
#define LAMINA_BENCH_DATA_H

#include "shape.h"

#include <cstdlib>
#include <memory>

namespace bench {

/** Floats at the start of a cache line. */
class Array {
public:
  Array() = default;
  explicit Array(int64_t count);
  float *data() { return data_.get(); }
  const float *data() const { return data_.get(); }
  int64_t size() const { return size_; }
  float &operator[](int64_t i) { return data_.get()[i]; }
  float operator[](int64_t i) const { return data_.get()[i]; }

private:
  struct Free {
    void operator()(float *p) const { std::free(p); }
  };
  std::unique_ptr<float[], Free> data_;
  int64_t size_ = 0;
};

struct Data {
  Array x, weight, bias, dy; ///< dy: gradient of the output
  Array add;                 ///< the other summand of passes with an add
  Array scale, shift, mean, variance;
  mutable std::vector<double> conv; ///< the exact output of a convolution, kept by error_of() where it needs all of it
};

/** Random inputs of a case, the same for the same case. */
Data make_data(const Case &c);

/** The result arrays of a case, in canonical layout and in this order; empty: nothing to compare (networks). */
using Results = std::vector<std::vector<float>>;
std::vector<std::string> result_names(const Case &c);

/** Root of the mean squared error over that of the mean square, at sampled points of every result, the largest of them;
    infinite if a result is missing or not finite. */
double error_of(const Case &c, const Data &data, const Results &results);

/** What error_of may be at most on a correct implementation, direct or (strict false) through Winograd. */
double error_bound(const Case &c, bool strict);

/** The settings of optimizer shapes. */
constexpr double kLearningRate = 0.01, kMomentum = 0.9, kWeightDecay = 0.01, kNormEps = 1e-5;

} // namespace bench

#endif
