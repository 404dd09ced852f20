/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file reference.h
 * What the references in double precision share.
 */
#ifndef LAMINA_BENCH_REFERENCE_H
#define LAMINA_BENCH_REFERENCE_H

#include "data.h"

#include <functional>

namespace bench {

/** The value of a result at a flat canonical index. */
using Point = std::function<double(int64_t)>;

/** Convolution, batch norm, (add,) ReLU, forward and backward: the results' names, and their values. `y` is the output
   of the side that is judged: its gradient passes where that output is positive, since the sign of a sum near zero is
    rounding's to choose. */
std::vector<std::string> conv_norm_results(const Case &c);
std::vector<Point> conv_norm_points(const Case &c, const Data &data, const std::vector<float> &y);

} // namespace bench

#endif
