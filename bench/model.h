/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model.h
 * A network of models/ with its parameters, for a side that is not Lamina.
 */
#ifndef LAMINA_BENCH_MODEL_H
#define LAMINA_BENCH_MODEL_H

#include "data.h"

#include <map>

namespace bench {

struct Layer {
  std::string type, name;
  std::vector<std::string> inputs;
  int64_t outputs = 0; ///< channels or features of convolutions and linear layers
  int64_t kh = 1, kw = 1, sh = 1, sw = 1, top = 0, left = 0, bottom = 0, right = 0, groups = 1;
};

struct Model {
  std::string input, output;
  int64_t height, width, channels;
  std::vector<Layer> layers; ///< in an order in which they can run
  std::map<std::string, std::vector<float>> parameters; ///< as Lamina initialises them with seed 0
};

/** Throws Unsupported for what the description has beyond this, std::runtime_error when it cannot be read. */
Model load_model(const std::string &path);

/** Images for a network, the same for every side: (N, H, W, C). */
Array make_images(int64_t count);
Array model_images(const Model &model, int64_t batch);

} // namespace bench

#endif
