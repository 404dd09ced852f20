/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <cmath>
#include <cstdio>
#include <map>

namespace bench {

std::vector<SideKind> lamina_sides(const Options &o) {
  std::vector<SideKind> list;
  for (SideKind kind : o.sides())
    if (is_lamina(kind)) list.push_back(kind);
  return list;
}

Summary summarize(const std::vector<CaseResult> &results, SideKind lamina) {
  Summary s = {};
  s.lamina = lamina;
  std::vector<double> ratios, norm_ratios;
  double at_peak = 0; // seconds, if all ran at the peak
  for (const CaseResult &r : results) {
    const double ratio = compare(r, lamina).ratio;
    if (std::isnan(ratio)) continue;
    ratios.push_back(ratio);
    if (const double part = norm_ratio(r, lamina); !std::isnan(part)) norm_ratios.push_back(part);
    s.cases++;
    s.noisy += r.noisy;
    s.below_one += ratio < 1;
    if (s.worst_name.empty() || ratio < s.worst) {
      s.worst = ratio;
      s.worst_name = r.c.name();
    }
    s.lamina_seconds += r.c.shape.count * r.side(lamina)->seconds;
    s.onednn_seconds += r.c.shape.count * r.best_onednn()->seconds;
    at_peak += r.c.shape.count * 1e-9 * r.flops / r.peak_gflops;
  }
  s.geomean = geomean(ratios);
  s.norm_geomean = norm_ratios.empty() ? NAN : geomean(norm_ratios);
  s.weighted = s.onednn_seconds / s.lamina_seconds;
  s.lamina_percent = 100 * at_peak / s.lamina_seconds;
  s.onednn_percent = 100 * at_peak / s.onednn_seconds;
  return s;
}

void print_environment(const Environment &e, const Options &o) {
  std::printf("Lamina %s, %s\n", e.machine.version.c_str(),
              e.onednn.empty() ? "built without oneDNN: no ratios"
                               : !o.onednn ? "oneDNN left out: no ratios" : ("oneDNN " + e.onednn).c_str());
  std::printf("%s, %s, %d thread%s of %d cores\n", e.machine.cpu.c_str(), e.machine.isa.c_str(), e.threads,
              e.threads == 1 ? "" : "s", e.machine.cores);
  if (e.peak_gflops > 0)
    std::printf("measured now: peak %.1f GFLOP/s, reading L2 %.0f GB/s, memory %.1f GB/s\n", e.peak_gflops, e.l2_gb,
                e.memory_gb);
}

/* Seconds with three digits. */
static std::string time_text(double seconds) {
  char text[32];
  const double us = seconds * 1e6;
  if (us < 1000)
    std::snprintf(text, sizeof text, "%.3g us", us);
  else if (us < 1e6)
    std::snprintf(text, sizeof text, "%.3g ms", us / 1e3);
  else
    std::snprintf(text, sizeof text, "%.3g s", seconds);
  return text;
}

static const char *column(SideKind kind) {
  static const char *const names[] = {"strict", "default", "any", "nhwc"};
  return names[static_cast<int>(kind)];
}

void print_header(const Options &o) {
  std::printf("\n%-62s %5s", "pass/network/shape/batch/threads", "count");
  for (SideKind kind : o.sides()) std::printf(" %9s", column(kind));
  for (SideKind kind : lamina_sides(o))
    std::printf(" | %-17s %8s %5s %5s %7s", (std::string("ratio, ") + column(kind)).c_str(), "GFLOP/s", "%peak", "%band", "error");
  std::printf("\n");
}

void print_case(const CaseResult &r, const Options &o, const Environment &e) {
  std::printf("%-62s %5d", r.c.name().c_str(), r.c.shape.count);
  for (SideKind kind : o.sides()) {
    const SideResult *s = r.side(kind);
    std::printf(" %9s", s ? time_text(s->seconds).c_str() : "-");
  }
  for (SideKind kind : lamina_sides(o)) {
    const SideResult *s = r.side(kind);
    if (!s) {
      std::printf(" | %-44s", "-");
      continue;
    }
    const Comparison c = compare(r, kind);
    if (std::isnan(c.ratio))
      std::printf(" | %-17s", "-");
    else if (std::isnan(c.interval.low))
      std::printf(" | %5.2f %-11s", c.ratio, "[unsure]");
    else
      std::printf(" | %5.2f [%4.2f-%4.2f]", c.ratio, c.interval.low, c.interval.high);
    const double gflops = 1e-9 * r.flops / s->seconds, gb = 1e-9 * r.bytes / s->seconds;
    if (r.flops > 0)
      std::printf(" %8.1f %5.1f", gflops, 100 * gflops / r.peak_gflops);
    else
      std::printf(" %8s %5s", "-", "-");
    if (r.bytes > 0)
      std::printf(" %5.0f", 100 * gb / e.memory_gb);
    else
      std::printf(" %5s", "-");
    if (std::isnan(s->numeric_error))
      std::printf(" %7s", "-");
    else
      std::printf(" %7.1e", s->numeric_error);
    if (const double part = norm_ratio(r, kind); !std::isnan(part)) std::printf(" bn %4.2f", part);
  }
  size_t samples = 0;
  for (const SideResult &s : r.sides) samples += s.samples.size();
  if (r.dropped) std::printf("  %zu of %zu disturbed%s", r.dropped, samples, r.noisy ? ", NOISY" : "");
  std::printf("\n");
  for (const SideResult &s : r.sides)
    if (!s.error.empty() && is_lamina(s.kind)) std::printf("  %s: %s\n", side_name(s.kind), s.error.c_str());
  std::fflush(stdout);
}

static void print_one(const Summary &s) {
  std::printf("  %-8s geometric mean %.3f, time-weighted %.3f (%s against %s), worst %.3f (%s), %zu of %zu below 1.0",
              column(s.lamina), s.geomean, s.weighted, time_text(s.lamina_seconds).c_str(), time_text(s.onednn_seconds).c_str(),
              s.worst, s.worst_name.c_str(), s.below_one, s.cases);
  if (s.lamina_percent > 0) std::printf("; %.1f%% of the peak against %.1f%%", s.lamina_percent, s.onednn_percent);
  if (!std::isnan(s.norm_geomean)) std::printf("; batch norm's part: geometric mean %.3f", s.norm_geomean);
  if (s.noisy) std::printf("; %zu too noisy to trust", s.noisy);
  std::printf("\n");
}

void print_summary(const std::vector<CaseResult> &results, const Options &o) {
  std::map<std::string, std::vector<CaseResult>> groups;
  for (const CaseResult &r : results)
    groups[std::string(pass_name(r.c.pass)) + "/" + r.c.suite->name + "/b" + std::to_string(r.c.batch)].push_back(r);
  std::printf("\nRatios are oneDNN's best time over Lamina's: above 1, Lamina is faster.\n");
  if (groups.size() > 1)
    for (const auto &[name, group] : groups) {
      std::printf("%s\n", name.c_str());
      for (SideKind kind : lamina_sides(o))
        if (const Summary s = summarize(group, kind); s.cases > 0) print_one(s);
    }
  std::printf("all\n");
  for (SideKind kind : lamina_sides(o)) {
    const Summary s = summarize(results, kind);
    if (s.cases > 0)
      print_one(s);
    else
      std::printf("  %-8s nothing to compare with\n", column(kind));
  }
}

} // namespace bench
