/* SPDX-License-Identifier: Apache-2.0 */
/* One self-contained HTML page: what was measured, the roofline, a bar for each ratio, and the numbers. The plots are
   gnuplot's SVG, put into the page; without gnuplot the page says so and has the numbers alone. */
#include "table.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

namespace bench {

namespace {

using Group = std::vector<const CaseResult *>;

std::string format(const char *pattern, double value) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

std::string escape(const std::string &s) {
  std::string out;
  for (char c : s) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

/* Runs a gnuplot script, which writes an SVG to its standard output; "" if gnuplot is not there or fails. */
std::string draw(const std::string &script) {
  char path[] = "/tmp/lamina-bench-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0) return "";
  const bool written = write(file, script.data(), script.size()) == static_cast<ssize_t>(script.size());
  close(file);
  std::string svg;
  if (FILE *pipe = written ? popen(("gnuplot " + std::string(path) + " 2>/dev/null").c_str(), "r") : nullptr) {
    char block[65536];
    for (size_t n; (n = fread(block, 1, sizeof block, pipe)) > 0;) svg.append(block, n);
    if (pclose(pipe) != 0) svg.clear();
  }
  unlink(path);
  const size_t start = svg.find("<svg");
  return start == std::string::npos ? "" : svg.substr(start);
}

/* Narrow, so that its letters stay readable on a phone. */
std::string terminal(int height) {
  return "set terminal svg size 460," + std::to_string(height) +
         " dynamic noenhanced font 'sans-serif,15' background '#ffffff'\n";
}

std::string roofline(const std::vector<CaseResult> &results, const Options &o, const Environment &e) {
  std::ostringstream s;
  const char *const colours[] = {"#0060ad", "#2a9d4e", "#d1651f"}, *const marks[] = {"7", "7", "6"};
  double low = 1, high = 10, least = e.peak_gflops / 10;
  std::ostringstream blocks, plots;
  std::vector<SideKind> modes = lamina_sides(o);
  for (size_t m = 0; m <= modes.size(); m++) {
    const bool lamina = m < modes.size();
    std::ostringstream points;
    for (const CaseResult &r : results) {
      const SideResult *side = lamina ? r.side(modes[m]) : r.best_onednn();
      if (!side || r.flops <= 0 || r.bytes <= 0) continue;
      points << r.flops / r.bytes << " " << 1e-9 * r.flops / side->seconds << "\n";
      low = std::min(low, r.flops / r.bytes);
      least = std::min(least, 1e-9 * r.flops / side->seconds);
      high = std::max(high, r.flops / r.bytes);
    }
    if (points.str().empty()) continue;
    const size_t style = lamina ? (modes[m] == SideKind::LaminaStrict ? 0 : 1) : 2;
    blocks << "$points" << m << " << EOD\n" << points.str() << "EOD\n";
    plots << ", $points" << m << " using 1:2 with points pt " << marks[style] << " ps 0.5 lc rgb '" << colours[style]
          << "' title '" << (lamina ? side_name(modes[m]) : "oneDNN, its best") << "'";
  }
  if (plots.str().empty()) return "";
  s << terminal(420) << blocks.str() << "set logscale xy\nset key top left font ',12' samplen 1.5\nset grid lc rgb '#dddddd'\n"
    << "set xlabel 'FLOP for each byte that must move'\nset ylabel 'GFLOP/s'\nset xrange [" << low / 2 << ":" << high * 2
    << "]\nset yrange [" << least / 2 << ":" << e.peak_gflops * 6 << "]\npeak = " << e.peak_gflops << "\nroof(x, b) = b * x < peak ? b * x : peak\n"
    << "plot roof(x, " << e.memory_gb << ") lw 2 lc rgb '#444444' title 'memory " << format("%.0f", e.memory_gb)
    << " GB/s, peak " << format("%.0f", e.peak_gflops) << "', roof(x, " << e.l2_gb
    << ") lw 1 dt 2 lc rgb '#888888' title 'L2 " << format("%.0f", e.l2_gb) << " GB/s'" << plots.str() << "\n";
  return draw(s.str());
}

/* One horizontal bar a case, its name written over it, with the interval and a line at 1. */
std::string bars(const Group &group, SideKind lamina) {
  std::ostringstream data;
  double most = 1.5;
  int n = 0;
  for (const CaseResult *r : group) {
    const Comparison c = compare(*r, lamina);
    if (std::isnan(c.ratio)) continue;
    const double low = std::isnan(c.interval.low) ? c.ratio : c.interval.low;
    const double high = std::isnan(c.interval.high) ? c.ratio : c.interval.high;
    most = std::max(most, std::min(c.ratio, 20.0) * 1.15);
    data << ++n << " " << c.ratio << " " << low << " " << high << " " << (c.ratio < 1 ? "0xf3c39d" : "0xa9d8b0") << " "
         << r->c.shape.name() << " " << format("%.2f", c.ratio) << (r->noisy ? "?" : "") << "\n";
  }
  if (n == 0) return "";
  std::ostringstream s;
  s << terminal(50 + 24 * n) << "$d << EOD\n" << data.str() << "EOD\nset yrange [" << n + 0.6 << ":0.4]\nset xrange [0:" << most
    << "]\nunset ytics\nunset key\nset border 1\nset xtics nomirror\nset lmargin 1\nset rmargin 2\nset tmargin 0.5\n"
    << "set arrow from 1,graph 0 to 1,graph 1 nohead lw 2 lc rgb '#444444' front\n"
    << "plot $d using (0):1:(0):2:($1-0.42):($1+0.42):5 with boxxyerror fs solid noborder lc rgb variable,"
    << " '' using 2:1:3:4 with xerrorbars pt 0 lw 2 lc rgb '#777777',"
    << " '' using (" << 0.01 * most << "):1:6 with labels left font ',14',"
    << " '' using (" << 0.99 * most << "):1:7 with labels right font ',14'\n";
  return draw(s.str());
}

void summary_row(std::ostream &out, const std::string &name, const Summary &s) {
  if (s.cases == 0) return;
  out << "<tr><td>" << escape(name) << "</td><td>" << (s.lamina == SideKind::LaminaStrict ? "strict" : "default") << "</td><td>"
      << format("%.3f", s.geomean) << "</td><td>" << format("%.3f", s.weighted) << "</td><td title=\"" << escape(s.worst_name)
      << "\">" << format("%.2f", s.worst) << "</td><td>" << s.below_one << " of " << s.cases << "</td></tr>\n";
}

void detail_row(std::ostream &out, const CaseResult &r, SideKind lamina, const Environment &e) {
  const SideResult *s = r.side(lamina), *other = r.best_onednn();
  if (!s) return;
  const Comparison c = compare(r, lamina);
  const double gflops = r.flops > 0 ? 1e-9 * r.flops / s->seconds : NAN;
  out << "<tr><td>" << escape(r.c.name()) << "</td><td>" << r.c.shape.count << "</td><td>" << side_name(lamina) << "</td><td>"
      << format("%.4g", s->seconds * 1e3) << "</td><td>" << (other ? format("%.4g", other->seconds * 1e3) : "–") << "</td><td>"
      << format("%.2f", c.ratio) << "</td><td>" << format("%.2f", c.interval.low) << "–" << format("%.2f", c.interval.high)
      << "</td><td>" << format("%.0f", gflops) << "</td><td>" << format("%.0f", 100 * gflops / r.peak_gflops) << "</td><td>"
      << (r.bytes > 0 ? format("%.0f", 1e-7 * r.bytes / s->seconds / e.memory_gb) : "–") << "</td><td>"
      << format("%.1e", s->numeric_error) << "</td><td>" << escape(s->detail) << "</td></tr>\n";
}

const char *const kStyle =
    "<style>body{font:16px/1.45 sans-serif;max-width:780px;margin:0 auto;padding:12px;color:#222}"
    "h1{font-size:1.4em}h2{font-size:1.15em;margin-top:1.6em}svg{width:100%;max-width:640px;height:auto;display:block}"
    "table{border-collapse:collapse;font-size:14px;white-space:nowrap}td,th{padding:3px 8px;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child,td:last-child{text-align:left}.wide{overflow-x:auto}</style>\n";

} // namespace

void write_report(const std::string &path, const std::vector<CaseResult> &results, const Options &o, const Environment &e) {
  std::ofstream out(path);
  out << "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      << "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Lamina: benchmark</title>\n"
      << kStyle << "</head><body>\n<h1>Lamina " << e.machine.version
      << (e.onednn.empty() || !o.onednn ? "" : " against oneDNN " + e.onednn) << "</h1>\n<p>" << escape(e.machine.cpu) << ", "
      << e.machine.isa << ", " << e.threads << " of " << e.machine.cores << " cores; " << escape(e.kernel) << "; " << e.date
      << ". Measured in this run: peak " << format("%.1f", e.peak_gflops) << " GFLOP/s, reading from L2 "
      << format("%.0f", e.l2_gb) << " GB/s, from memory " << format("%.1f", e.memory_gb) << " GB/s.</p>\n";

  std::map<std::string, Group> groups;
  std::map<std::string, std::vector<CaseResult>> copies;
  for (const CaseResult &r : results) {
    const std::string name = std::string(pass_name(r.c.pass)) + "/" + r.c.suite->name + "/b" + std::to_string(r.c.batch);
    groups[name].push_back(&r);
    copies[name].push_back(r);
  }
  out << "<p>A ratio is oneDNN's best time over Lamina's: above 1, Lamina is faster.</p>\n<div class=\"wide\"><table>"
      << "<tr><th>cases</th><th>mode</th><th>geo. mean</th><th>weighted</th><th>worst</th><th>below 1.0</th></tr>\n";
  for (SideKind lamina : lamina_sides(o)) {
    for (const auto &[name, group] : copies) summary_row(out, name, summarize(group, lamina));
    if (copies.size() > 1) summary_row(out, "all", summarize(results, lamina));
  }
  out << "</table></div>\n";

  const std::string roof = roofline(results, o, e);
  if (!roof.empty()) out << "<h2>Roofline</h2>\n" << roof;
  bool drawn = !roof.empty();
  for (const auto &[name, group] : groups)
    for (SideKind lamina : lamina_sides(o)) {
      const std::string svg = bars(group, lamina);
      if (!svg.empty()) out << "<h2>Ratios: " << escape(name) << ", " << side_name(lamina) << "</h2>\n" << svg;
      drawn |= !svg.empty();
    }
  if (!drawn) out << "<p>No plots: gnuplot is not installed, or there was nothing to compare with.</p>\n";

  out << "<h2>All numbers</h2>\n<div class=\"wide\"><table><tr><th>case</th><th>layers</th><th>side</th><th>ms</th><th>oneDNN ms</th>"
      << "<th>ratio</th><th>95%</th><th>GFLOP/s</th><th>% of peak</th><th>% of bandwidth</th><th>error</th><th>runs as</th></tr>\n";
  for (const CaseResult &r : results)
    for (SideKind lamina : lamina_sides(o)) detail_row(out, r, lamina, e);
  out << "</table></div>\n</body></html>\n";
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

} // namespace bench
