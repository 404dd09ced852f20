/* SPDX-License-Identifier: Apache-2.0 */
#include "data.h"
#include "stats.h"

#include <cmath>
#include <cstring>
#include <new>

namespace bench {

Array::Array(int64_t count) : size_(count) {
  const size_t bytes = (static_cast<size_t>(count) * sizeof(float) + 127) / 64 * 64;
  data_.reset(static_cast<float *>(std::aligned_alloc(64, bytes)));
  if (!data_) throw std::bad_alloc();
  std::memset(data_.get(), 0, bytes);
}

/* Uniform in [low, high): cheap, since some arrays have a hundred million numbers. */
static Array uniform(int64_t count, uint64_t seed, float low, float high) {
  Array a(count);
  Random random(seed);
  const float step = (high - low) * 0x1p-32f;
  for (int64_t i = 0; i + 1 < count; i += 2) {
    const uint64_t r = random.next();
    a[i] = low + step * static_cast<float>(static_cast<uint32_t>(r));
    a[i + 1] = low + step * static_cast<float>(r >> 32);
  }
  if (count % 2) a[count - 1] = low + step * static_cast<float>(random.next() >> 32);
  return a;
}

Data make_data(const Case &c) {
  const Shape &s = c.shape;
  Data d;
  if (s.kind == Kind::Net) return d;
  const int64_t x = c.batch * s.c * s.h * s.w, y = c.batch * s.k * s.oh() * s.ow();
  d.x = uniform(x, 1, -1, 1);
  d.dy = uniform(y, 2, -1, 1);
  if (s.kind == Kind::Conv || s.kind == Kind::Linear || s.kind == Kind::Optimizer) {
    const int64_t terms = s.c / s.groups * s.kh * s.kw;
    const float bound = 1 / std::sqrt(static_cast<float>(terms));
    d.weight = uniform(s.k * terms, 3, -bound, bound);
    d.bias = uniform(s.k, 4, -0.5f, 0.5f);
  }
  if (s.kind == Kind::Norm) {
    d.scale = uniform(s.c, 5, 0.5f, 1.5f);
    d.shift = uniform(s.c, 6, -0.5f, 0.5f);
    d.mean = uniform(s.c, 7, -0.1f, 0.1f);
    d.variance = uniform(s.c, 8, 0.2f, 0.5f);
    if (has_add(c.pass)) d.add = uniform(x, 9, -1, 1);
  }
  if (is_conv_norm(c.pass)) {
    d.scale = uniform(s.k, 5, 0.5f, 1.5f);
    d.shift = uniform(s.k, 6, -0.5f, 0.5f);
    if (has_add(c.pass)) d.add = uniform(y, 9, -1, 1);
  }
  return d;
}

} // namespace bench
