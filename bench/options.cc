/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>

namespace bench {

const char *const kUsage =
    "Usage: lamina-bench --compare [options]   Lamina against oneDNN, interleaved in this process\n"
    "       lamina-bench --quick [options]     run all once, check errors against double, time nothing\n"
    "       lamina-bench --list                suites, passes and their cases\n"
    "       lamina-bench [options] [--benchmark_filter=REGEX and Google Benchmark's other flags]\n"
    "\n"
    "  --suite NAMES     suites, separated by commas, or all (default resnet50; of --quick, quick)\n"
    "  --pass NAMES      passes, separated by commas, or all (default forward; of --quick, all)\n"
    "  --batch NUMBERS   batch sizes, separated by commas (default 1; linear 1,16,64,256; net_training and conv_bn 8)\n"
    "  --filter TEXT     only cases whose name contains TEXT\n"
    "  --threads N       threads of both sides (default 1)\n"
    "  --mode MODE       Lamina's math mode: strict, default (the default) or both\n"
    "  --isa NAME        hold both sides to an ISA: generic, avx2, avx512 or neon (default: the best here)\n"
    "  --no-onednn       leave oneDNN out\n"
    "  --time SECONDS    for each side of a case (default 0.5)\n"
    "  --seed N          of the random order (default 1)\n"
    "  --models FOLDER   where network descriptions are (default: LAMINA_MODEL_PATH, or models/ of the source)\n"
    "  --json FILE       write the results as JSON\n"
    "  --report FILE     write one HTML page with a roofline and the ratios\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done, 1 something failed or an error was out of bounds, 2 wrong usage or not possible here.\n";

static std::vector<std::string> split(const std::string &text) {
  std::vector<std::string> words;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

static double number(const std::string &option, const std::string &text, double least, double most) {
  char *end = nullptr;
  errno = 0;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || errno || !(value >= least && value <= most))
    throw std::invalid_argument(option + ": '" + text + "' is not a number from " + std::to_string(least) + " to " +
                                std::to_string(most));
  return value;
}

static int64_t integer(const std::string &option, const std::string &text, int64_t least, int64_t most) {
  char *end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end || errno || value < least || value > most)
    throw std::invalid_argument(option + ": '" + text + "' is not an integer from " + std::to_string(least) + " to " +
                                std::to_string(most));
  return value;
}

static void set_suites(Options &o, const std::string &text) {
  o.suites.clear();
  for (const std::string &name : split(text)) {
    if (name == "all") {
      for (const Suite &s : suites())
        if (std::string(s.name) != "quick") o.suites.push_back(&s);
      continue;
    }
    const Suite *s = find_suite(name);
    if (!s) throw std::invalid_argument("unknown suite '" + name + "' (--list shows them)");
    o.suites.push_back(s);
  }
}

static void set_passes(Options &o, const std::string &text) {
  o.passes.clear();
  for (const std::string &name : split(text)) {
    bool found = false;
    for (const PassInfo &p : passes())
      if (name == "all" || name == p.name) {
        o.passes.push_back(p.pass);
        found = true;
      }
    if (!found) throw std::invalid_argument("unknown pass '" + name + "' (--list shows them)");
  }
}

static void set_mode(Options &o, const std::string &text) {
  if (text != "strict" && text != "default" && text != "both")
    throw std::invalid_argument("unknown mode '" + text + "': strict, default or both");
  o.strict = text != "default";
  o.by_default = text != "strict";
}

using Setter = std::function<void(Options &, const std::string &)>;

static const std::map<std::string, Setter> &valued() {
  static const std::map<std::string, Setter> all = {
      {"--suite", set_suites},
      {"--pass", set_passes},
      {"--mode", set_mode},
      {"--batch",
       [](Options &o, const std::string &t) {
         for (const std::string &n : split(t)) o.batches.push_back(integer("--batch", n, 1, 65536));
       }},
      {"--filter", [](Options &o, const std::string &t) { o.filter = t; }},
      {"--threads", [](Options &o, const std::string &t) { o.threads = static_cast<int>(integer("--threads", t, 1, 4096)); }},
      {"--isa", [](Options &o, const std::string &t) { o.isa = t; }},
      {"--time", [](Options &o, const std::string &t) { o.seconds = number("--time", t, 0.001, 3600); }},
      {"--seed", [](Options &o, const std::string &t) { o.seed = static_cast<uint64_t>(integer("--seed", t, 0, INT64_MAX)); }},
      {"--models", [](Options &o, const std::string &t) { o.model_path = t; }},
      {"--json", [](Options &o, const std::string &t) { o.json = t; }},
      {"--report", [](Options &o, const std::string &t) { o.report = t; }},
  };
  return all;
}

static const std::map<std::string, std::function<void(Options &)>> &flags() {
  static const std::map<std::string, std::function<void(Options &)>> all = {
      {"--compare", [](Options &o) { o.action = Options::Compare; }},
      {"--quick",
       [](Options &o) {
         o.action = Options::Compare;
         o.check_only = true;
       }},
      {"--list", [](Options &o) { o.action = Options::List; }},
      {"--help", [](Options &o) { o.action = Options::Help; }},
      {"-h", [](Options &o) { o.action = Options::Help; }},
      {"--version", [](Options &o) { o.action = Options::Version; }},
      {"--no-onednn", [](Options &o) { o.onednn = false; }},
  };
  return all;
}

/* Applies argv[*i] and its value, if it is an option of ours. */
static bool apply(Options &o, int argc, char **argv, int *i) {
  const std::string word = argv[*i];
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  if (const auto flag = flags().find(word); flag != flags().end()) {
    flag->second(o);
    return true;
  }
  const auto option = valued().find(name);
  if (option == valued().end()) return false;
  if (equals != std::string::npos)
    option->second(o, word.substr(equals + 1));
  else if (*i + 1 < argc)
    option->second(o, argv[++*i]);
  else
    throw std::invalid_argument(name + " needs a value");
  return true;
}

Options parse_options(int *argc, char **argv) {
  Options o;
  int kept = 1;
  for (int i = 1; i < *argc; i++) {
    if (apply(o, *argc, argv, &i)) continue;
    if (std::string(argv[i]).rfind("--benchmark_", 0) != 0 && std::string(argv[i]).rfind("--v=", 0) != 0)
      throw std::invalid_argument("unknown option '" + std::string(argv[i]) + "' (--help lists them)");
    argv[kept++] = argv[i];
  }
  *argc = kept;
  const bool all = o.check_only || o.action == Options::List;
  if (o.suites.empty()) set_suites(o, o.check_only ? "quick" : o.action == Options::List ? "all,quick" : "resnet50");
  if (o.passes.empty()) set_passes(o, all ? "all" : "forward");
  if ((!o.json.empty() || !o.report.empty()) && o.action != Options::Compare)
    throw std::invalid_argument("--json and --report belong to --compare");
  return o;
}

std::vector<SideKind> Options::sides() const {
  std::vector<SideKind> list;
  if (strict) list.push_back(SideKind::LaminaStrict);
  if (by_default) list.push_back(SideKind::LaminaDefault);
  if (onednn && !onednn_version().empty()) {
    list.push_back(SideKind::OneDnnAny);
    list.push_back(SideKind::OneDnnNhwc);
  }
  return list;
}

/* Batch sizes when none are asked for. */
static std::vector<int64_t> usual_batches(Pass pass, bool check_only) {
  if (check_only) return {2};
  if (pass == Pass::LinearForward || pass == Pass::LinearBackward) return {1, 16, 64, 256};
  if (pass == Pass::NetTraining || is_conv_norm(pass)) return {8};
  return {1};
}

/* One value has no variance. */
static bool possible(const Case &c) {
  const bool statistics = is_norm_forward(c.pass) || is_norm_backward(c.pass) || is_conv_norm(c.pass);
  return !statistics || c.batch * c.shape.oh() * c.shape.ow() > 1;
}

std::vector<Case> Options::cases() const {
  std::vector<Case> list;
  for (Pass pass : passes)
    for (const Suite *suite : suites)
      for (const Shape &shape : shapes_of(*suite, pass))
        for (int64_t batch : batches.empty() ? usual_batches(pass, check_only) : batches) {
          const Case c = {suite, pass, shape, batch, threads};
          if (possible(c) && c.name().find(filter) != std::string::npos) list.push_back(c);
        }
  return list;
}

} // namespace bench
