/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_results.h"

#include "gate_library.h"
#include "gate_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <jansson.h>
#include <map>
#include <memory>

namespace bench {

namespace {

constexpr size_t kLeastRounds = 5;

struct Unref {
  void operator()(json_t *j) const { json_decref(j); }
};
using Json = std::unique_ptr<json_t, Unref>;

struct Round {
  Fingerprint machine;
  std::string version, file;
  std::map<std::string, double> seconds; ///< of one run, by case
};

/* Reads one object; messages say which. */
class Reader {
public:
  Reader(const std::string &path, size_t number) : where_(path + ": object " + std::to_string(number) + ": ") {}

  Round round(json_t *root) const {
    Round r;
    json_t *machine = member(root, "machine", JSON_OBJECT), *shapes = member(root, "shapes", JSON_ARRAY);
    r.version = text(machine, "lamina");
    r.machine.cpu = text(machine, "cpu");
    r.machine.isa = text(machine, "isa");
    r.machine.kernel = text(machine, "kernel");
    r.machine.cores = integer(machine, "cores");
    r.machine.threads = integer(machine, "threads");
    r.machine.l1 = integer(machine, "l1_bytes");
    r.machine.l2 = integer(machine, "l2_bytes");
    r.machine.l3 = integer(machine, "l3_bytes");
    for (size_t i = 0; i < json_array_size(shapes); i++) add(r, json_array_get(shapes, i));
    return r;
  }

  [[noreturn]] void fail(const std::string &what) const { throw GateError(where_ + what); }

private:
  const std::string where_;

  json_t *member(json_t *object, const char *key, json_type type) const {
    json_t *value = json_object_get(object, key);
    if (!value) fail(std::string("'") + key + "' is missing");
    if (json_typeof(value) != type) fail(std::string("'") + key + "' is of another type");
    return value;
  }
  std::string text(json_t *object, const char *key) const { return json_string_value(member(object, key, JSON_STRING)); }
  int64_t integer(json_t *object, const char *key) const {
    return json_integer_value(member(object, key, JSON_INTEGER));
  }

  /* What was not measured is null, and left out. Layers of a plugin are timed on several instruction sets. */
  void add(Round &r, json_t *shape) const {
    if (!json_is_object(shape)) fail("a shape is no object");
    const std::string isa = json_object_get(shape, "isa") ? "/" + text(shape, "isa") : "";
    const std::string name = text(shape, "name") + isa + "/" + text(shape, "mode");
    json_t *seconds = json_object_get(shape, "lamina_seconds");
    if (json_is_null(seconds)) return;
    const double value = json_number_value(seconds);
    if (!(value > 0) || !std::isfinite(value)) fail("'lamina_seconds' of " + name + " is not above 0");
    if (!r.seconds.emplace(name, value).second) fail("the case " + name + " is there twice");
  }
};

std::vector<Round> read_rounds(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) throw GateError(path + " cannot be read");
  std::vector<Round> rounds;
  for (size_t at = 0; (at = content.find_first_not_of(" \t\r\n", at)) != std::string::npos;) {
    const Reader reader(path, rounds.size() + 1);
    json_error_t error;
    const Json object(
        json_loadb(content.data() + at, content.size() - at, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &error));
    if (!object) reader.fail(std::string("not JSON: ") + error.text);
    if (!json_is_object(object.get())) reader.fail("not a JSON object");
    rounds.push_back(reader.round(object.get()));
    at += static_cast<size_t>(error.position); /* on success: the characters that were read */
  }
  return rounds;
}

void check_rounds(const GateOptions &o, const std::vector<Round> &base, const std::vector<Round> &candidate) {
  if (base.size() != candidate.size())
    throw GateError(o.base + " has " + std::to_string(base.size()) + " rounds and " + o.candidate + " has " +
                    std::to_string(candidate.size()) + ": both builds must take turns");
  if (base.size() < kLeastRounds)
    throw GateError(o.base + " has " + std::to_string(base.size()) + " rounds; " + std::to_string(kLeastRounds) +
                    " are needed to tell a change from noise");
  for (const std::vector<Round> *side : {&base, &candidate})
    for (const Round &r : *side)
      if (!r.machine.same_as(base[0].machine))
        throw GateError("measured on different machines: " + base[0].machine.text() + "; " + r.machine.text());
}

/* Cases of every round of the base; one that the candidate has lost cannot be passed over. */
std::vector<std::string> common_cases(const GateOptions &o, const std::vector<Round> &base,
                                      const std::vector<Round> &candidate) {
  std::vector<std::string> names;
  for (const auto &entry : base[0].seconds) {
    const std::string &name = entry.first;
    if (name.find(o.choice.filter) == std::string::npos) continue;
    if (!std::all_of(base.begin(), base.end(), [&](const Round &r) { return r.seconds.count(name) > 0; }))
      throw GateError(o.base + ": not every round has the case " + name);
    if (!std::all_of(candidate.begin(), candidate.end(), [&](const Round &r) { return r.seconds.count(name) > 0; }))
      throw GateError(o.candidate + ": not every round has the case " + name);
    names.push_back(name);
  }
  if (names.empty()) throw GateError(o.base + " has no such case");
  return names;
}

Timings timings_of(const std::string &name, const std::vector<Round> &base, const std::vector<Round> &candidate) {
  Timings t;
  for (size_t i = 0; i < base.size(); i++) {
    t.base.push_back(base[i].seconds.at(name));
    t.candidate.push_back(candidate[i].seconds.at(name));
    t.logs.push_back(std::log(t.candidate.back() / t.base.back()));
  }
  return t;
}

} // namespace

bool is_results(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  char first = 0;
  return in >> first && first == '{';
}

int compare_results(const GateOptions &o) {
  const std::vector<Record> history = o.append.empty() ? std::vector<Record>() : read_history(o.append);
  const std::vector<Round> base = read_rounds(o.base), candidate = read_rounds(o.candidate);
  check_rounds(o, base, candidate);
  std::vector<Timings> timings;
  std::vector<Judged> judged;
  std::vector<std::string> notes;
  for (const std::string &name : common_cases(o, base, candidate)) {
    judged.emplace_back(name);
    timings.push_back(timings_of(name, base, candidate));
  }
  for (const auto &[name, seconds] : candidate[0].seconds)
    if (!base[0].seconds.count(name)) notes.push_back(name + " was left out, since the base does not have it");
  const std::vector<Verdict> verdicts = judge(timings, o.limits, o.seed);
  for (size_t i = 0; i < judged.size(); i++) {
    judged[i].keep(timings[i], verdicts[i], o.limits);
    if (verdicts[i].suspect) judged[i].outcome = kRegressionOutcome;
  }
  Record record;
  record.time = time_now();
  record.suite = "results";
  record.math = "default";
  record.threshold = o.limits.threshold;
  record.seed = static_cast<int64_t>(o.seed);
  record.machine = base[0].machine;
  record.base = {o.base, base[0].version, ""};
  record.candidate = {o.candidate, candidate[0].version, ""};
  std::printf("%s, kernel %s\nbase      %s\ncandidate %s\n%zu cases, %zu rounds, threshold %g%%, floor %g%%\n",
              record.machine.text().c_str(), record.machine.kernel.c_str(), o.base.c_str(), o.candidate.c_str(),
              judged.size(), base.size(), 100 * o.limits.threshold, 100 * o.limits.floor);
  return conclude(o, record, judged, notes, history);
}

} // namespace bench
