/* SPDX-License-Identifier: Apache-2.0 */
/* Loops in the compilers' vector types, one pair for each ISA by target attribute: this file needs no flags of an ISA,
   and no loop runs where the library has not found its ISA. Compiled with -ffp-contract=fast, so that they are FMAs. */
#include "peak.h"
#include "side.h"
#include "stats.h"

#include <dirent.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <stdexcept>
#include <thread>

namespace bench {

namespace {

/* Chains enough to cover the latency of cores with two units of 4 or 5 cycles, few enough for 16 registers. */
constexpr int kChains = 12;

/* The compiler must believe that the result is looked at. */
inline void keep(void *p) { asm volatile("" : : "r"(p) : "memory"); }

typedef float Vector128 __attribute__((vector_size(16)));
struct Loop128 {
#define VECTOR Vector128
#define TARGET
#include "peak_loop.h"
};

#if defined(__x86_64__)
typedef float Vector256 __attribute__((vector_size(32)));
struct LoopAvx2 {
#define VECTOR Vector256
#define TARGET __attribute__((target("avx2,fma")))
#include "peak_loop.h"
};

#if defined(__clang__) // which otherwise splits them
#define WIDE __attribute__((min_vector_width(512)))
#else
#define WIDE
#endif
typedef float Vector512 __attribute__((vector_size(64)));
struct LoopAvx512 {
#define VECTOR Vector512
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))) WIDE
#include "peak_loop.h"
};
#endif

struct Row {
  const char *isa;
  double (*multiply_add)(int64_t);
  double (*read)(const float *, int64_t);
  int64_t lanes;
};

template <typename Loop> constexpr Row row(const char *isa) { return {isa, Loop::multiply_add, Loop::read, Loop::kLanes}; }

const Row rows[] = {
    row<Loop128>("generic"),
    row<Loop128>("neon"),
#if defined(__x86_64__)
    row<LoopAvx2>("avx2"),
    row<LoopAvx512>("avx512"),
#endif
};

const Row &find(const std::string &isa) {
  for (const Row &r : rows)
    if (isa == r.isa) return r;
  throw std::runtime_error("no peak loop for the ISA '" + isa + "'");
}

/* Runs work(thread) on all threads at once; the longest of the seconds it returns. */
template <typename Work> double on_threads(int threads, Work work) {
  std::vector<double> seconds(static_cast<size_t>(threads));
  std::vector<std::thread> others;
  for (int t = 1; t < threads; t++) others.emplace_back([&, t] { seconds[static_cast<size_t>(t)] = work(t); });
  seconds[0] = work(0);
  for (std::thread &t : others) t.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

float *aligned(size_t bytes) {
  void *p = std::aligned_alloc(64, bytes);
  if (!p) throw std::bad_alloc();
  std::memset(p, 0, bytes);
  return static_cast<float *>(p);
}

constexpr int64_t kCanarySteps = 8000;
constexpr size_t kCanaryBytes = size_t(2) << 20;

} // namespace

Machine::Machine(const std::string &isa, int threads)
    : row_(&find(isa) - rows), threads_(threads), memory_(aligned(kCanaryBytes)) {}

Machine::~Machine() { std::free(memory_); }

double Machine::peak_gflops() {
  const Row &r = rows[row_];
  const int64_t steps = 400000;
  double best = HUGE_VAL;
  for (int i = 0; i < 9; i++) best = std::min(best, on_threads(threads_, [&](int) { return r.multiply_add(steps); }));
  return 2e-9 * static_cast<double>(steps * kChains * r.lanes * threads_) / best;
}

double Machine::bandwidth_gb(size_t bytes) {
  const Row &r = rows[row_];
  bytes = (bytes + 511) / 512 * 512;
  std::vector<float *> memory;
  for (int t = 0; t < threads_; t++) memory.push_back(aligned(bytes));
  const int64_t count = static_cast<int64_t>(bytes / sizeof(float));
  const int repeats = static_cast<int>(std::max<size_t>(1, (size_t(64) << 20) / bytes));
  double best = HUGE_VAL;
  for (int i = 0; i < 7; i++)
    best = std::min(best, on_threads(threads_, [&](int t) {
                      double seconds = 0;
                      for (int k = 0; k < repeats; k++) seconds += r.read(memory[static_cast<size_t>(t)], count);
                      return seconds;
                    }));
  for (float *p : memory) std::free(p);
  return 1e-9 * static_cast<double>(bytes) * repeats * threads_ / best;
}

Machine::Canary Machine::canary() {
  const Row &r = rows[row_];
  Canary c;
  c.fma = r.multiply_add(kCanarySteps);
  c.memory = r.read(memory_, static_cast<int64_t>(kCanaryBytes / sizeof(float)));
  return c;
}

double Machine::gflops_of(const Canary &canary) const {
  return 2e-9 * static_cast<double>(kCanarySteps * kChains * rows[row_].lanes) / canary.fma;
}

/* Seconds that threads of the process waited on a run queue, by the kernel's count (schedstat's second number); where it
   keeps none, the seconds that this thread was off its core. */
static double waited_seconds() {
  double total = 0;
  bool known = false;
  if (DIR *tasks = opendir("/proc/self/task")) {
    while (const dirent *entry = readdir(tasks)) {
      char path[64], text[96];
      if (entry->d_name[0] == '.' || snprintf(path, sizeof path, "/proc/self/task/%.20s/schedstat", entry->d_name) < 0) continue;
      FILE *file = fopen(path, "r");
      if (!file) continue; // a thread that has just ended
      unsigned long long ran, waited;
      if (fgets(text, sizeof text, file) && sscanf(text, "%llu %llu", &ran, &waited) == 2) {
        total += 1e-9 * static_cast<double>(waited);
        known = true;
      }
      fclose(file);
    }
    closedir(tasks);
  }
  if (known) return total;
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return now() - (static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec));
}

Stolen::Stolen() : waited_(waited_seconds()) { wall_ = now(); }

bool Stolen::much() const {
  const double wall = now() - wall_;
  return waited_seconds() - waited_ > 0.01 * wall;
}

std::vector<bool> disturbed(const std::vector<Machine::Canary> &before, const std::vector<Machine::Canary> &after,
                            double tolerance) {
  std::vector<double> fma, memory;
  for (size_t i = 0; i < before.size(); i++) {
    fma.push_back(std::max(before[i].fma, after[i].fma));
    memory.push_back(std::max(before[i].memory, after[i].memory));
  }
  // The memory canary has a wider spread by itself: what the samples leave in the caches decides where it reads.
  const double fma_limit = quantile(fma, 0.1) * (1 + tolerance), memory_limit = quantile(memory, 0.25) * (1 + 4 * tolerance);
  std::vector<bool> result;
  for (size_t i = 0; i < before.size(); i++)
    result.push_back(fma[i] > fma_limit || memory[i] > memory_limit);
  return result;
}

} // namespace bench
