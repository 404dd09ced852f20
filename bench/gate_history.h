/* SPDX-License-Identifier: Apache-2.0 */
/** @file gate_history.h One comparison as JSON: a line of a history, or a file of its own. */
#ifndef LAMINA_BENCH_GATE_HISTORY_H
#define LAMINA_BENCH_GATE_HISTORY_H

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

/** What a median in milliseconds depends on beside the library: only records with equal machines can be compared. */
struct Fingerprint {
  std::string cpu, isa, kernel;
  int64_t cores = 0, threads = 0, l1 = 0, l2 = 0, l3 = 0; ///< threads used; bytes of cache

  bool same_as(const Fingerprint &m) const;
  /** "AMD EPYC, avx512, 1 of 2 cores, L2 1024 KiB, L3 32768 KiB". */
  std::string text() const;
};

struct Build {
  std::string path, version, id;
};

struct CaseRecord {
  std::string name, outcome;
  double base_ms = 0, candidate_ms = 0, ratio = 1, low = 1, high = 1;
  int64_t rounds = 0;
};

struct Record {
  std::string time, suite, math, verdict; ///< time in UTC, "2026-01-31T12:00:00Z"
  double threshold = 0;
  int64_t seed = 0;
  Fingerprint machine;
  Build base, candidate;
  std::vector<CaseRecord> cases;

  /** Geometric mean of the ratios; 1 without any. */
  double mean_ratio() const;
};

/** All records of a file of one JSON object a line; none when there is no such file. A damaged line throws GateError
    with the file's name, the line's number and what is wrong with it. */
std::vector<Record> read_history(const std::string &path);
/** Adds a line in one write; throws GateError. */
void append_history(const std::string &path, const Record &record);
/** Replaces a file by one JSON object, or by any text, through a temporary file beside it; throws GateError. */
void write_record(const std::string &path, const Record &record);
void write_text(const std::string &path, const std::string &text);

/** One self-contained page: how the candidate's times moved over the history, for each machine, drawn by gnuplot. */
std::string history_page(const std::vector<Record> &history);

} // namespace bench

#endif
