/* SPDX-License-Identifier: Apache-2.0 */
#include "gbench.h"

#include <benchmark/benchmark.h>

#include <optional>

namespace bench {

/* Google Benchmark calls a function several times, with growing counts: the side is made once and kept for the next call. */
struct Prepared {
  std::string name;
  std::optional<Data> data;
  std::unique_ptr<Side> side;
};

static void run_one(benchmark::State &state, const Case &c, SideKind kind, const SideOptions &options, Prepared &cache) {
  const std::string name = c.name() + side_name(kind);
  if (cache.name != name) {
    cache.side.reset();
    cache.data = make_data(c);
    cache.name.clear();
    try {
      cache.side = make_side(kind, c, *cache.data, options);
    } catch (const std::exception &e) {
      state.SkipWithError(e.what());
      return;
    }
    cache.name = name;
    cache.side->run(1);
  }
  for (auto _ : state) state.SetIterationTime(cache.side->run(1));
  const double flops = c.flops() > 0 ? c.flops() : cache.side->flops, n = static_cast<double>(state.iterations());
  if (flops > 0) state.counters["FLOP/s"] = benchmark::Counter(flops * n, benchmark::Counter::kIsRate);
  if (c.bytes() > 0) state.counters["B/s"] = benchmark::Counter(c.bytes() * n, benchmark::Counter::kIsRate);
  state.SetLabel(cache.side->detail);
}

int run_google_benchmark(const Options &o, int argc, char **argv) {
  const SideOptions options = {o.isa, o.model_path};
  Prepared cache;
  for (const Case &c : o.cases())
    for (SideKind kind : o.sides())
      benchmark::RegisterBenchmark((c.name() + "/" + side_name(kind)).c_str(),
                                   [c, kind, options, &cache](benchmark::State &state) { run_one(state, c, kind, options, cache); })
          ->UseManualTime();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

} // namespace bench
