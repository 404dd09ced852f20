/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_options.h"

#include "gate_results.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <unistd.h>

namespace bench {

const char *const kGateUsage =
    "Usage: lamina-gate BASE.so CANDIDATE.so [options]     is the candidate slower than the base?\n"
    "       lamina-gate BASE.jsonl CANDIDATE.jsonl [options]   the same of results that were measured in turns by\n"
    "                                              'lamina plugin bench --json' or 'lamina-bench --json'\n"
    "       lamina-gate --append FILE.jsonl --plot FILE.html   draw a history, measure nothing\n"
    "       lamina-gate --list [--suite NAME]\n"
    "\n"
    "Both builds of liblamina run in this process, in turns. A case fails when it is slower by more than the threshold,\n"
    "surely by more than the floor and 50 ns a run, and was so again when it was measured anew. Of results, the n-th object of\n"
    "either file is a round; there must be 5 or more, and nothing can be measured anew: --threshold, --floor, --filter, --seed,\n"
    "--json, --append and --plot are what holds for them.\n"
    "\n"
    "  --suite NAME      gate (default): every kind of layer, a quarter of a minute; or a suite of lamina-bench\n"
    "  --pass NAME       only this pass\n"
    "  --filter TEXT     only cases whose name contains TEXT\n"
    "  --batch N         of suites other than gate (default 1)\n"
    "  --threshold P     slower by this much is a regression (default 5%; 0.05 is the same)\n"
    "  --floor P         the interval's lower end must be above this (default 2%, at most 0.4 of the threshold)\n"
    "  --rounds N        of the first look; the second has twice as many (default 12)\n"
    "  --threads N       of both sides (default 1, which stays on one core)\n"
    "  --cpu N           that core (default: the last one allowed)\n"
    "  --isa NAME        generic, avx2, avx512 or neon (default: the best here)\n"
    "  --mode MODE       math mode: default or strict\n"
    "  --models FOLDERS  where network descriptions are (default: LAMINA_MODEL_PATH, or models/ of the source)\n"
    "  --seed N          of orders and memory layouts (default: drawn, and printed)\n"
    "  --json FILE       write the result as JSON\n"
    "  --append FILE     add the result to a history, one JSON object a line\n"
    "  --plot FILE       draw that history (with --append) as one HTML page\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 no regression, 1 regression, 2 wrong usage or not possible here, 3 inconclusive: too noisy to see\n"
    "a change of the threshold's size.\n";

static int64_t integer(const std::string &option, const std::string &text, int64_t least, int64_t most) {
  char *end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end || errno || value < least || value > most)
    throw GateError(option + ": '" + text + "' is not an integer from " + std::to_string(least) + " to " +
                    std::to_string(most));
  return value;
}

/* "5%" or "0.05". */
static double share(const std::string &option, const std::string &text) {
  char *end = nullptr;
  errno = 0;
  double value = std::strtod(text.c_str(), &end);
  const bool percent = *end == '%';
  if (percent) {
    value /= 100;
    end++;
  }
  if (text.empty() || *end || errno || !(value >= 0.001) || !(value <= 1))
    throw GateError(option + ": '" + text + "' is not a share from 0.1% to 100% (5% or 0.05)");
  return value;
}

static bool strict_mode(const std::string &text) {
  if (text != "strict" && text != "default") throw GateError("unknown mode '" + text + "': strict or default");
  return text == "strict";
}

using Setter = std::function<void(GateOptions &, const std::string &, const std::string &)>;

static const std::map<std::string, Setter> &valued() {
  using O = GateOptions &;
  using S = const std::string &;
  static const std::map<std::string, Setter> all = {
      {"--suite", [](O o, S, S t) { o.choice.suite = t; }},
      {"--pass", [](O o, S, S t) { o.choice.pass = t; }},
      {"--filter", [](O o, S, S t) { o.choice.filter = t; }},
      {"--batch", [](O o, S n, S t) { o.choice.batch = integer(n, t, 1, 65536); }},
      {"--threshold", [](O o, S n, S t) { o.limits.threshold = share(n, t); }},
      {"--floor", [](O o, S n, S t) { o.limits.floor = share(n, t); }},
      {"--rounds", [](O o, S n, S t) { o.rounds = static_cast<int>(integer(n, t, 5, 10000)); }},
      {"--threads", [](O o, S n, S t) { o.engine.threads = o.choice.threads = static_cast<int>(integer(n, t, 1, 1024)); }},
      {"--cpu", [](O o, S n, S t) { o.cpu = static_cast<int>(integer(n, t, 0, 65535)); }},
      {"--isa", [](O o, S, S t) { o.engine.isa = t; }},
      {"--mode", [](O o, S, S t) { o.engine.strict_math = strict_mode(t); }},
      {"--models", [](O o, S, S t) { o.engine.models = t; }},
      {"--seed",
       [](O o, S n, S t) {
         o.seed = static_cast<uint64_t>(integer(n, t, 0, INT64_MAX));
         o.seed_given = true;
       }},
      {"--json", [](O o, S, S t) { o.json = t; }},
      {"--append", [](O o, S, S t) { o.append = t; }},
      {"--plot", [](O o, S, S t) { o.plot = t; }},
  };
  return all;
}

static bool is_flag(GateOptions &o, const std::string &word) {
  static const std::map<std::string, GateOptions::Action> flags = {{"--list", GateOptions::List},
                                                                   {"--help", GateOptions::Help},
                                                                   {"-h", GateOptions::Help},
                                                                   {"--version", GateOptions::Version}};
  const auto flag = flags.find(word);
  if (flag == flags.end()) return false;
  o.action = flag->second;
  return true;
}

/* The value of an option that wants one: after '=', or the next word. */
static std::string value_of(int argc, char **argv, int *i) {
  const std::string word = argv[*i];
  const size_t equals = word.find('=');
  if (equals != std::string::npos) return word.substr(equals + 1);
  if (*i + 1 >= argc) throw GateError(word + " needs a value");
  return argv[++*i];
}

static std::string default_models() {
  const char *path = std::getenv("LAMINA_MODEL_PATH");
  if (path && *path) return path;
#ifdef BENCH_MODELS
  return BENCH_MODELS;
#else
  return "models";
#endif
}

static void check_files(const GateOptions &o) {
  for (const std::string &file : {o.append, o.plot, o.json}) {
    if (file.empty()) continue;
    const size_t slash = file.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : file.substr(0, slash + 1);
    if (access(folder.c_str(), W_OK) != 0) throw GateError("'" + file + "' cannot be written: no such folder, or no permission");
  }
}

static void complete(GateOptions &o, const std::vector<std::string> &files, bool floor_given) {
  if (o.action != GateOptions::Compare) return;
  if (!o.plot.empty() && o.append.empty()) throw GateError("--plot draws a history: --append names it");
  if (files.empty() && !o.append.empty() && !o.plot.empty()) {
    o.action = GateOptions::Draw;
  } else if (files.size() != 2) {
    throw GateError("two builds of liblamina are wanted, BASE.so and CANDIDATE.so, not " + std::to_string(files.size()) +
                    " (--help tells more)");
  } else {
    o.base = files[0];
    o.candidate = files[1];
    if (is_results(o.base) != is_results(o.candidate))
      throw GateError("both must be builds of liblamina, or both results: " + o.base + ", " + o.candidate);
    if (is_results(o.base)) o.action = GateOptions::CompareResults;
  }
  if (!floor_given) o.limits.floor = std::min(o.limits.floor, 0.4 * o.limits.threshold);
  if (o.limits.floor >= o.limits.threshold) throw GateError("--floor must be below --threshold");
  if (o.choice.suite == kGateSuite && o.choice.batch != 1) throw GateError("--batch: the suite 'gate' has batches of its own");
  if (o.cpu >= 0 && o.engine.threads > 1) throw GateError("--cpu is for one thread");
  check_files(o);
}

GateOptions parse_gate_options(int argc, char **argv) {
  GateOptions o;
  std::vector<std::string> files;
  bool floor_given = false;
  for (int i = 1; i < argc; i++) {
    const std::string word = argv[i], name = word.substr(0, word.find('='));
    if (is_flag(o, word)) continue;
    const auto option = valued().find(name);
    if (option != valued().end()) {
      floor_given |= name == "--floor";
      option->second(o, name, value_of(argc, argv, &i));
    } else if (word.size() > 1 && word[0] == '-') {
      throw GateError("unknown option '" + word + "' (--help lists them)");
    } else {
      files.push_back(word);
    }
  }
  if (o.engine.models.empty()) o.engine.models = default_models();
  complete(o, files, floor_given);
  return o;
}

} // namespace bench
