/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_cases.h"

#include "gate_library.h"

#include <algorithm>

namespace bench {

const char *const kGateSuite = "gate";

namespace {

struct Row {
  Pass pass;
  int64_t batch;
  Shape shape;
};

/* Every kernel family and both directions, each short enough for a run on every commit: a quarter of a minute in all. */
const Row kRows[] = {
    {Pass::Forward, 1, conv(128, 28, 128, 3)},
    {Pass::Forward, 1, conv(256, 14, 512, 1)},
    {Pass::Forward, 1, conv(128, 28, 128, 3, 2)},
    {Pass::Forward, 1, conv(3, 112, 64, 7, 2)},
    {Pass::Forward, 4, depthwise(128, 28, 3)},
    {Pass::BackwardData, 1, conv(128, 28, 128, 3)},
    {Pass::BackwardData, 1, conv(512, 14, 256, 1)},
    {Pass::BackwardWeights, 1, conv(128, 28, 128, 3)},
    {Pass::BackwardWeights, 1, conv(256, 14, 512, 1)},
    {Pass::NormForwardRelu, 4, norm(128, 28)},
    {Pass::NormBackwardRelu, 4, norm(128, 28)},
    {Pass::LinearForward, 1, linear(1024, 1000)},
    {Pass::LinearForward, 64, linear(512, 512)},
    {Pass::LinearBackward, 64, linear(512, 512)},
    {Pass::PoolForward, 2, max_pool(64, 56, 3, 2, 1)},
    {Pass::PoolBackward, 2, max_pool(64, 56, 3, 2, 1)},
    {Pass::SoftmaxForward, 64, softmax(1000)},
    {Pass::OptimizerStep, 1, optimizer("adam", 512, 512)},
    {Pass::NetTraining, 2, net("mynet")},
};

/* Passes of the other suites when none is chosen: those of which the left-out ones are parts or variants. */
const Pass kPasses[] = {Pass::Forward,          Pass::BackwardData,  Pass::BackwardWeights, Pass::NormForwardRelu,
                        Pass::NormBackwardRelu, Pass::LinearForward, Pass::LinearBackward,  Pass::PoolForward,
                        Pass::PoolBackward,     Pass::SoftmaxForward, Pass::OptimizerStep,  Pass::NetInference,
                        Pass::NetTraining};

const Suite &own_suite() {
  static const Suite suite = {kGateSuite, "the gate's own: every kind of layer, both directions", Norms::None, nullptr, 0};
  return suite;
}

std::vector<Pass> chosen_passes(const std::string &name) {
  if (name.empty()) return {std::begin(kPasses), std::end(kPasses)};
  std::string known;
  for (const PassInfo &p : passes()) {
    if (name == p.name) return {p.pass};
    known += std::string(known.empty() ? "" : ", ") + p.name;
  }
  throw GateError("there is no pass '" + name + "'; there are " + known);
}

const Suite &chosen_suite(const std::string &name) {
  if (const Suite *s = find_suite(name)) return *s;
  std::string known = kGateSuite;
  for (const Suite &s : suites()) known += std::string(", ") + s.name;
  throw GateError("there is no suite '" + name + "'; there are " + known);
}

/* The statistics of a batch need more than one value, whatever batch was asked for. */
int64_t least_batch(Pass p, const Shape &s) {
  const bool statistics = is_norm_forward(p) || is_norm_backward(p) || is_conv_norm(p);
  return p == Pass::NetTraining || (statistics && s.oh() * s.ow() == 1) ? 2 : 1;
}

} // namespace

std::vector<Case> choose_cases(const CaseChoice &choice) {
  std::vector<Case> all, kept;
  const std::vector<Pass> wanted = chosen_passes(choice.pass);
  if (choice.suite == kGateSuite) {
    for (const Row &r : kRows)
      if (choice.pass.empty() || r.pass == wanted[0]) all.push_back({&own_suite(), r.pass, r.shape, r.batch, choice.threads});
  } else {
    const Suite &suite = chosen_suite(choice.suite);
    for (Pass p : wanted)
      for (const Shape &s : shapes_of(suite, p))
        all.push_back({&suite, p, s, std::max(choice.batch, least_batch(p, s)), choice.threads});
  }
  for (const Case &c : all)
    if (c.name().find(choice.filter) != std::string::npos) kept.push_back(c);
  if (kept.empty()) throw GateError("the suite '" + choice.suite + "' has no such case");
  return kept;
}

} // namespace bench
