/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_history.h"

#include "gate_library.h"
#include "stats.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <jansson.h>
#include <memory>
#include <sys/stat.h>
#include <unistd.h>

namespace bench {

namespace {

constexpr int kSchema = 1;
constexpr size_t kMostLineBytes = size_t(16) << 20;

struct Unref {
  void operator()(json_t *j) const { json_decref(j); }
};
using Json = std::unique_ptr<json_t, Unref>;

json_t *build_json(const Build &b) {
  return json_pack("{s:s, s:s, s:s}", "path", b.path.c_str(), "version", b.version.c_str(), "build_id", b.id.c_str());
}

json_t *machine_json(const Fingerprint &m) {
  return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "cpu", m.cpu.c_str(), "isa", m.isa.c_str(), "kernel",
                   m.kernel.c_str(), "cores", json_int_t(m.cores), "threads", json_int_t(m.threads), "l1",
                   json_int_t(m.l1), "l2", json_int_t(m.l2), "l3", json_int_t(m.l3));
}

json_t *case_json(const CaseRecord &c) {
  return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I}", "name", c.name.c_str(), "outcome", c.outcome.c_str(),
                   "base_ms", c.base_ms, "candidate_ms", c.candidate_ms, "ratio", c.ratio, "low", c.low, "high", c.high,
                   "rounds", json_int_t(c.rounds));
}

std::string dump(const Record &r, size_t flags) {
  const Json shapes(json_array());
  for (const CaseRecord &c : r.cases) json_array_append_new(shapes.get(), case_json(c));
  const Json object(json_pack("{s:i, s:s, s:s, s:s, s:s, s:f, s:I, s:f, s:o, s:o, s:o, s:O}", "lamina_gate", kSchema,
                              "time", r.time.c_str(), "suite", r.suite.c_str(), "math", r.math.c_str(), "verdict",
                              r.verdict.c_str(), "threshold", r.threshold, "seed", json_int_t(r.seed), "geomean",
                              r.mean_ratio(), "machine", machine_json(r.machine), "base", build_json(r.base),
                              "candidate", build_json(r.candidate), "shapes", shapes.get()));
  char *text = object ? json_dumps(object.get(), flags | JSON_REAL_PRECISION(9)) : nullptr;
  if (!text) throw GateError("the result cannot be written as JSON (a name that is not UTF-8?)");
  std::string copy = text;
  std::free(text);
  return copy + "\n";
}

/* What is wrong with a line; the reader adds where. */
struct Damaged {
  std::string why;
};

json_t *member(json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!value) throw Damaged{std::string("'") + key + "' is missing"};
  return value;
}

std::string text_of(json_t *object, const char *key) {
  json_t *value = member(object, key);
  if (!json_is_string(value)) throw Damaged{std::string("'") + key + "' is not a string"};
  return json_string_value(value);
}

double number_of(json_t *object, const char *key) {
  json_t *value = member(object, key);
  if (!json_is_number(value)) throw Damaged{std::string("'") + key + "' is not a number"};
  return json_number_value(value);
}

double positive_of(json_t *object, const char *key) {
  const double value = number_of(object, key);
  if (!(value > 0) || !std::isfinite(value)) throw Damaged{std::string("'") + key + "' is not above 0"};
  return value;
}

int64_t integer_of(json_t *object, const char *key) {
  json_t *value = member(object, key);
  if (!json_is_integer(value)) throw Damaged{std::string("'") + key + "' is not an integer"};
  return json_integer_value(value);
}

json_t *object_of(json_t *object, const char *key) {
  json_t *value = member(object, key);
  if (!json_is_object(value)) throw Damaged{std::string("'") + key + "' is not an object"};
  return value;
}

Build read_build(json_t *o) { return {text_of(o, "path"), text_of(o, "version"), text_of(o, "build_id")}; }

Fingerprint read_machine(json_t *o) {
  Fingerprint m;
  m.cpu = text_of(o, "cpu");
  m.isa = text_of(o, "isa");
  m.kernel = text_of(o, "kernel");
  m.cores = integer_of(o, "cores");
  m.threads = integer_of(o, "threads");
  m.l1 = integer_of(o, "l1");
  m.l2 = integer_of(o, "l2");
  m.l3 = integer_of(o, "l3");
  return m;
}

CaseRecord read_case(json_t *o) {
  if (!json_is_object(o)) throw Damaged{"a shape is not an object"};
  CaseRecord c;
  c.name = text_of(o, "name");
  c.outcome = text_of(o, "outcome");
  c.base_ms = positive_of(o, "base_ms");
  c.candidate_ms = positive_of(o, "candidate_ms");
  c.ratio = positive_of(o, "ratio");
  c.low = positive_of(o, "low");
  c.high = positive_of(o, "high");
  c.rounds = integer_of(o, "rounds");
  return c;
}

Record read_record(const std::string &line) {
  if (line.size() > kMostLineBytes) throw Damaged{"the line is too long"};
  json_error_t error;
  const Json object(json_loadb(line.data(), line.size(), JSON_REJECT_DUPLICATES, &error));
  if (!object) throw Damaged{std::string("not JSON: ") + error.text + " (column " + std::to_string(error.column) + ")"};
  json_t *o = object.get();
  if (!json_is_object(o)) throw Damaged{"not a JSON object"};
  if (integer_of(o, "lamina_gate") != kSchema) throw Damaged{"written by another version of lamina-gate"};
  Record r;
  r.time = text_of(o, "time");
  r.suite = text_of(o, "suite");
  r.math = text_of(o, "math");
  r.verdict = text_of(o, "verdict");
  r.threshold = positive_of(o, "threshold");
  r.seed = integer_of(o, "seed");
  r.machine = read_machine(object_of(o, "machine"));
  r.base = read_build(object_of(o, "base"));
  r.candidate = read_build(object_of(o, "candidate"));
  json_t *shapes = member(o, "shapes");
  if (!json_is_array(shapes)) throw Damaged{"'shapes' is not an array"};
  for (size_t i = 0; i < json_array_size(shapes); i++) r.cases.push_back(read_case(json_array_get(shapes, i)));
  return r;
}

[[noreturn]] void fail_io(const std::string &path) { throw GateError(path + ": " + std::strerror(errno)); }

void write_all(int file, const std::string &path, const std::string &text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(file, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      close(file);
      errno = error;
      fail_io(path);
    }
    done += static_cast<size_t>(n);
  }
  if (close(file) != 0) fail_io(path);
}

} // namespace

bool Fingerprint::same_as(const Fingerprint &m) const {
  return cpu == m.cpu && isa == m.isa && cores == m.cores && threads == m.threads && l1 == m.l1 && l2 == m.l2 && l3 == m.l3;
}

std::string Fingerprint::text() const {
  return cpu + ", " + isa + ", " + std::to_string(threads) + " of " + std::to_string(cores) + " cores, L2 " +
         std::to_string(l2 >> 10) + " KiB, L3 " + std::to_string(l3 >> 10) + " KiB";
}

double Record::mean_ratio() const {
  std::vector<double> ratios;
  for (const CaseRecord &c : cases) ratios.push_back(c.ratio);
  return ratios.empty() ? 1 : geomean(ratios);
}

std::vector<Record> read_history(const std::string &path) {
  std::vector<Record> history;
  if (access(path.c_str(), F_OK) != 0 && errno == ENOENT) return history;
  std::ifstream in(path, std::ios::binary);
  if (!in) fail_io(path);
  std::string line;
  for (size_t number = 1; std::getline(in, line); number++) {
    try {
      if (in.eof()) throw Damaged{"the line is cut off (no newline at its end)"};
      history.push_back(read_record(line));
    } catch (const Damaged &d) {
      throw GateError(path + ":" + std::to_string(number) + ": " + d.why);
    }
  }
  if (in.bad()) fail_io(path);
  return history;
}

void append_history(const std::string &path, const Record &record) {
  const std::string line = dump(record, JSON_COMPACT);
  const int file = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) fail_io(path);
  write_all(file, path, line);
}

void write_record(const std::string &path, const Record &record) { write_text(path, dump(record, JSON_INDENT(1))); }

void write_text(const std::string &path, const std::string &text) {
  struct stat info;
  const bool special = stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode); // a device or a pipe is not replaced
  const std::string temporary = special ? path : path + ".new";
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) fail_io(temporary);
  try {
    write_all(file, temporary, text);
    if (!special && rename(temporary.c_str(), path.c_str()) != 0) fail_io(path);
  } catch (...) {
    if (!special) unlink(temporary.c_str());
    throw;
  }
}

} // namespace bench
