/* SPDX-License-Identifier: Apache-2.0 */
/* The results as JSON: machine, shapes, summary. Numbers that were not measured are null. */
#include "table.h"

#include <jansson.h>

#include <cmath>
#include <cstdio>
#include <map>

namespace bench {

static json_t *real(double value) { return std::isfinite(value) ? json_real(value) : json_null(); }
static json_t *text(const std::string &s) { return json_string(s.c_str()); }
static json_t *integer(size_t n) { return json_integer(static_cast<json_int_t>(n)); }

static json_t *environment_json(const Environment &e) {
  json_t *o = json_object();
  json_object_set_new(o, "lamina", text(e.machine.version));
  json_object_set_new(o, "onednn", e.onednn.empty() ? json_null() : text(e.onednn));
  json_object_set_new(o, "cpu", text(e.machine.cpu));
  json_object_set_new(o, "isa", text(e.machine.isa));
  json_object_set_new(o, "cores", json_integer(e.machine.cores));
  json_object_set_new(o, "l1_bytes", integer(static_cast<size_t>(e.machine.l1)));
  json_object_set_new(o, "l2_bytes", integer(static_cast<size_t>(e.machine.l2)));
  json_object_set_new(o, "l3_bytes", integer(static_cast<size_t>(e.machine.l3)));
  json_object_set_new(o, "kernel", text(e.kernel));
  json_object_set_new(o, "date", text(e.date));
  json_object_set_new(o, "threads", json_integer(e.threads));
  json_object_set_new(o, "peak_gflops", real(e.peak_gflops));
  json_object_set_new(o, "l2_gb_s", real(e.l2_gb));
  json_object_set_new(o, "memory_gb_s", real(e.memory_gb));
  return o;
}

static json_t *side_json(const SideResult &s) {
  json_t *o = json_object();
  if (!s.error.empty()) {
    json_object_set_new(o, "error", text(s.error));
    return o;
  }
  size_t dropped = 0;
  for (bool bad : s.disturbed) dropped += bad;
  json_object_set_new(o, "seconds", real(s.seconds));
  json_object_set_new(o, "deviation", real(s.deviation));
  json_object_set_new(o, "norm_seconds", s.norm_seconds > 0 ? real(s.norm_seconds) : json_null());
  json_object_set_new(o, "samples", integer(s.samples.size()));
  json_object_set_new(o, "disturbed", integer(dropped));
  json_object_set_new(o, "error_rms", real(s.numeric_error));
  json_object_set_new(o, "create_ms", real(s.create_ms));
  json_object_set_new(o, "scratch_bytes", real(s.scratch));
  json_object_set_new(o, "implementation", text(s.detail));
  return o;
}

/* One row for each of Lamina's modes. */
static json_t *shape_json(const CaseResult &r, SideKind lamina, const Environment &e) {
  json_t *o = json_object(), *sides = json_object();
  json_object_set_new(o, "name", text(r.c.name()));
  json_object_set_new(o, "pass", json_string(pass_name(r.c.pass)));
  json_object_set_new(o, "suite", json_string(r.c.suite->name));
  json_object_set_new(o, "shape", text(r.c.shape.name()));
  json_object_set_new(o, "batch", json_integer(r.c.batch));
  json_object_set_new(o, "threads", json_integer(r.c.threads));
  json_object_set_new(o, "count", json_integer(r.c.shape.count));
  json_object_set_new(o, "mode", json_string(lamina == SideKind::LaminaStrict ? "strict" : "default"));
  const Comparison c = compare(r, lamina);
  json_object_set_new(o, "ratio", real(c.ratio));
  json_object_set_new(o, "ratio_low", real(c.interval.low));
  json_object_set_new(o, "ratio_high", real(c.interval.high));
  const SideResult *s = r.side(lamina), *other = r.best_onednn();
  const double seconds = s ? s->seconds : NAN, flops = r.flops > 0 ? r.flops : NAN, bytes = r.bytes > 0 ? r.bytes : NAN;
  json_object_set_new(o, "lamina_seconds", real(seconds));
  json_object_set_new(o, "onednn_seconds", real(other ? other->seconds : NAN));
  json_object_set_new(o, "onednn_side", other ? json_string(side_name(other->kind)) : json_null());
  json_object_set_new(o, "norm_ratio", real(norm_ratio(r, lamina)));
  json_object_set_new(o, "flops", real(flops));
  json_object_set_new(o, "bytes", real(bytes));
  json_object_set_new(o, "gflops", real(1e-9 * flops / seconds));
  json_object_set_new(o, "percent_of_peak", real(1e-7 * flops / seconds / r.peak_gflops));
  json_object_set_new(o, "peak_gflops", real(r.peak_gflops));
  json_object_set_new(o, "percent_of_bandwidth", real(1e-7 * bytes / seconds / e.memory_gb));
  json_object_set_new(o, "error", real(s ? s->numeric_error : NAN));
  json_object_set_new(o, "noisy", json_boolean(r.noisy));
  for (const SideResult &side : r.sides)
    if (!is_lamina(side.kind) || side.kind == lamina) json_object_set_new(sides, side_name(side.kind), side_json(side));
  json_object_set_new(o, "sides", sides);
  return o;
}

static void fill_summary(json_t *o, const Summary &s, const Environment &e) {
  json_object_set_new(o, "cases", integer(s.cases));
  json_object_set_new(o, "geomean", real(s.geomean));
  json_object_set_new(o, "weighted", real(s.weighted));
  json_object_set_new(o, "norm_geomean", real(s.norm_geomean));
  json_object_set_new(o, "worst", s.cases ? real(s.worst) : json_null());
  json_object_set_new(o, "worst_name", text(s.worst_name));
  json_object_set_new(o, "below_one", integer(s.below_one));
  json_object_set_new(o, "noisy", integer(s.noisy));
  json_object_set_new(o, "lamina_seconds", real(s.lamina_seconds));
  json_object_set_new(o, "onednn_seconds", real(s.onednn_seconds));
  json_object_set_new(o, "lamina_percent_of_peak", real(s.lamina_percent));
  json_object_set_new(o, "onednn_percent_of_peak", real(s.onednn_percent));
  json_object_set_new(o, "peak_gflops", real(e.peak_gflops));
}

static json_t *groups_json(const std::vector<CaseResult> &results, SideKind lamina, const Environment &e) {
  std::map<std::string, std::vector<CaseResult>> groups;
  for (const CaseResult &r : results)
    groups[std::string(pass_name(r.c.pass)) + "/" + r.c.suite->name + "/b" + std::to_string(r.c.batch)].push_back(r);
  json_t *o = json_object();
  for (const auto &[name, group] : groups) {
    json_t *one = json_object();
    fill_summary(one, summarize(group, lamina), e);
    json_object_set_new(o, name.c_str(), one);
  }
  return o;
}

/* The last of the modes (default, if it was run) at the top of `summary`, every mode under its own name too. */
static json_t *summary_json(const std::vector<CaseResult> &results, const Options &options, const Environment &e) {
  json_t *o = json_object();
  for (SideKind lamina : lamina_sides(options)) {
    const Summary s = summarize(results, lamina);
    json_t *mode = json_object();
    fill_summary(o, s, e);
    fill_summary(mode, s, e);
    json_object_set_new(mode, "groups", groups_json(results, lamina, e));
    json_object_set_new(o, lamina == SideKind::LaminaStrict ? "strict" : "default", mode);
  }
  return o;
}

void write_json(const std::string &path, const std::vector<CaseResult> &results, const Options &o, const Environment &e) {
  json_t *root = json_object(), *shapes = json_array();
  json_object_set_new(root, "machine", environment_json(e));
  for (const CaseResult &r : results)
    for (SideKind lamina : lamina_sides(o)) json_array_append_new(shapes, shape_json(r, lamina, e));
  json_object_set_new(root, "shapes", shapes);
  json_object_set_new(root, "summary", summary_json(results, o, e));
  const int failed = json_dump_file(root, path.c_str(), JSON_INDENT(2) | JSON_REAL_PRECISION(6));
  json_decref(root);
  if (failed) throw std::runtime_error("cannot write " + path);
}

} // namespace bench
