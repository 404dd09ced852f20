/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_history.h"

#include "gate_library.h"
#include "stats.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

namespace {

constexpr size_t kNamedLines = 6; // cases that moved most; the others are drawn in grey

/* Records that can be compared: one machine, suite and math mode. */
struct Series {
  std::vector<const Record *> records;
};

std::vector<Series> group(const std::vector<Record> &history) {
  std::vector<Series> all;
  for (const Record &r : history) {
    auto fits = [&](const Series &s) {
      const Record &first = *s.records[0];
      return first.machine.same_as(r.machine) && first.suite == r.suite && first.math == r.math;
    };
    auto found = std::find_if(all.begin(), all.end(), fits);
    if (found == all.end()) found = all.insert(all.end(), Series());
    found->records.push_back(&r);
  }
  return all;
}

std::string format(const char *how, double value) {
  char text[64];
  std::snprintf(text, sizeof text, how, value);
  return text;
}

std::string html(const std::string &text) {
  std::string s;
  for (char c : text) {
    if (c == '&') s += "&amp;";
    else if (c == '<') s += "&lt;";
    else if (c == '>') s += "&gt;";
    else if (c == '"') s += "&quot;";
    else s += c;
  }
  return s;
}

/* For a string of gnuplot in single quotes: nothing in it is special but the quote itself and the line's end. */
std::string quoted(const std::string &text) {
  std::string s = "'";
  for (char c : text) s += c == '\'' ? "''" : static_cast<unsigned char>(c) < ' ' ? " " : std::string(1, c);
  return s + "'";
}

using File = std::unique_ptr<std::FILE, int (*)(std::FILE *)>;

File temporary() {
  File f(std::tmpfile(), std::fclose);
  if (!f) throw GateError(std::string("no temporary file: ") + std::strerror(errno));
  return f;
}

/* What gnuplot writes for a script: an SVG, from its <svg> on. */
std::string draw(const std::string &script) {
  const File in = temporary(), out = temporary();
  if (std::fwrite(script.data(), 1, script.size(), in.get()) != script.size() || std::fflush(in.get()) != 0)
    throw GateError(std::string("a temporary file cannot be written: ") + std::strerror(errno));
  std::rewind(in.get());
  const pid_t child = fork();
  if (child < 0) throw GateError(std::string("gnuplot cannot be started: ") + std::strerror(errno));
  if (child == 0) {
    dup2(fileno(in.get()), STDIN_FILENO);
    dup2(fileno(out.get()), STDOUT_FILENO);
    execlp("gnuplot", "gnuplot", static_cast<char *>(nullptr));
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) throw GateError("gnuplot is needed to draw, and is not installed");
  if (status != 0) throw GateError("gnuplot failed");
  std::string text;
  char buffer[4096];
  std::rewind(out.get());
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, out.get())) > 0;) text.append(buffer, n);
  const size_t start = text.find("<svg");
  if (start == std::string::npos) throw GateError("gnuplot drew nothing");
  return text.substr(start);
}

/* "2026-01-31T12:00:00Z" as "01-31 12:00". */
std::string label(const std::string &time) {
  return time.size() < 16 ? time : time.substr(5, 5) + " " + time.substr(11, 5);
}

/* Labels of at most four records along the x axis: day and time. */
std::string x_axis(const Series &s) {
  const size_t n = s.records.size(), step = (n + 3) / 4;
  std::string tics;
  for (size_t i = 0; i < n; i += step)
    tics += std::string(tics.empty() ? "" : ", ") + quoted(label(s.records[i]->time)) + " " + std::to_string(i);
  return "set xrange [-0.5:" + std::to_string(n - 1) + ".5]\nset xtics (" + tics + ") noenhanced\n";
}

const char *const kStyle = "set terminal svg size 460,300 dynamic background '#ffffff' font 'sans-serif,13'\n"
                           "set grid ytics lc rgb '#dddddd'\nset border 3\nset tics nomirror\nset yrange [*<0.98:1.02<*]\n";

/* Each comparison's geometric mean, with its lowest and highest ratio. */
std::string ratio_plot(const Series &s) {
  std::string data, script = kStyle;
  for (size_t i = 0; i < s.records.size(); i++) {
    double low = 1e9, high = 0;
    for (const CaseRecord &c : s.records[i]->cases) {
      low = std::min(low, c.ratio);
      high = std::max(high, c.ratio);
    }
    if (high > 0)
      data += std::to_string(i) + format(" %.5f", s.records[i]->mean_ratio()) + format(" %.5f", low) +
              format(" %.5f\n", high);
  }
  if (data.empty()) return "";
  const double threshold = 1 + s.records.back()->threshold;
  script += x_axis(s) + "$d << END\n" + data + "END\nset ylabel 'candidate / base'\nset key below left vertical maxcols 1\n";
  script += "plot $d using 1:2:3:4 with yerrorbars pt 7 ps 0.6 lw 1.5 lc rgb '#1f5fa8' title 'mean, lowest, highest', " +
            format("%.4f", threshold) + " with lines dt 2 lc rgb '#c0392b' title 'threshold', " +
            "1 with lines lc rgb '#888888' notitle\n";
  return draw(script);
}

/* Milliseconds of the candidate for each case, relative to the first record that has the case. */
std::map<std::string, std::vector<std::pair<size_t, double>>> relative_times(const Series &s) {
  std::map<std::string, double> first;
  std::map<std::string, std::vector<std::pair<size_t, double>>> lines;
  for (size_t i = 0; i < s.records.size(); i++)
    for (const CaseRecord &c : s.records[i]->cases) {
      const double start = first.emplace(c.name, c.candidate_ms).first->second;
      lines[c.name].emplace_back(i, c.candidate_ms / start);
    }
  return lines;
}

std::string time_plot(const Series &s) {
  const auto lines = relative_times(s);
  std::vector<std::pair<double, std::string>> moved;
  for (const auto &line : lines) moved.emplace_back(-std::fabs(std::log(line.second.back().second)), line.first);
  std::sort(moved.begin(), moved.end());
  std::string blocks, plots;
  const char *const colours[kNamedLines] = {"#1f5fa8", "#c0392b", "#1e8449", "#b9770e", "#7d3c98", "#117a65"};
  for (size_t k = moved.size(); k-- > 0;) { // the named ones last, on top
    blocks += "$l" + std::to_string(k) + " << END\n";
    for (const auto &point : lines.at(moved[k].second))
      blocks += std::to_string(point.first) + format(" %.5f\n", point.second);
    blocks += "END\n";
    plots += std::string(plots.empty() ? "plot " : ", ") + "$l" + std::to_string(k) + " with linespoints pt 7 ps 0.4 ";
    plots += k < kNamedLines ? "lw 2 lc rgb '" + std::string(colours[k]) + "' title " + quoted(moved[k].second)
                             : "lw 1 lc rgb '#bbbbbb' notitle";
  }
  if (plots.empty()) return "";
  return draw(std::string(kStyle) + "set terminal svg size 460,440\n" + x_axis(s) +
              "set ylabel \"candidate's time / first record's\"\nset key below left vertical maxcols 1 noenhanced font ',10'\n" +
              blocks + plots + "\n");
}

std::string table(const Series &s) {
  const Record &last = *s.records.back();
  const auto lines = relative_times(s);
  std::string rows;
  for (const CaseRecord &c : last.cases) {
    const bool bad = c.outcome == "REGRESSION";
    rows += std::string(bad ? "<tr class=\"bad\">" : "<tr>") + "<td>" + html(c.name) + "</td><td>" +
            format("%.4f", c.base_ms) + "</td><td>" + format("%.4f", c.candidate_ms) + "</td><td>" +
            format("%.3f", c.ratio) + "</td><td>" + format("%.3f", c.low) + format("&ndash;%.3f", c.high) + "</td><td>" +
            format("%.3f", lines.at(c.name).back().second) + "</td><td>" + html(c.outcome) + "</td></tr>\n";
  }
  return "<div class=\"wide\"><table><thead><tr><th>case</th><th>base, ms</th><th>candidate, ms</th><th>ratio</th>"
         "<th>95% interval</th><th>to the first</th><th></th></tr></thead><tbody>\n" +
         rows + "</tbody></table></div>\n";
}

std::string section(const Series &s) {
  const Record &last = *s.records.back();
  return "<section><h2>" + html(last.machine.text()) + "</h2>\n<p>Suite " + html(last.suite) + ", math mode " +
         html(last.math) + ", " + std::to_string(s.records.size()) + " comparisons; the last one " + html(last.time) + ": <b>" +
         html(last.verdict) + "</b>, geometric mean " + format("%.4f", last.mean_ratio()) + ".</p>\n<p>Base " +
         html(last.base.version) + " (build " + html(last.base.id.substr(0, 16)) + "), candidate " +
         html(last.candidate.version) + " (build " + html(last.candidate.id.substr(0, 16)) + "), kernel " +
         html(last.machine.kernel) + ".</p>\n<figure>" + ratio_plot(s) +
         "<figcaption>Each comparison of a candidate with its base, over all cases.</figcaption></figure>\n<figure>" +
         time_plot(s) +
         "<figcaption>Each case's time since the first record; the cases that moved most are named.</figcaption></figure>\n" +
         table(s) + "</section>\n";
}

const char *const kHead =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Lamina: history of the gate</title>\n"
    "<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:auto;padding:0 1rem;color:#222;background:#fff}"
    "h2{font-size:1.1rem}figure{margin:1rem 0}svg{width:100%;max-width:46rem;height:auto}figcaption{color:#555;font-size:.9rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}td,th{padding:.2rem .6rem;text-align:right;"
    "border-bottom:1px solid #ddd;white-space:nowrap}td:first-child,th:first-child{text-align:left}"
    ".bad{background:#fdecea}</style></head><body>\n<h1>Lamina: history of the gate</h1>\n";

} // namespace

std::string history_page(const std::vector<Record> &history) {
  std::string page = kHead;
  for (const Series &s : group(history)) page += section(s);
  return page + "</body></html>\n";
}

} // namespace bench
