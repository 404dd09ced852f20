#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The loadable lstm, gru and attention against the built-in linear layer on the same sizes of GEMM, by `lamina plugin bench`.

  bench/module_rates.py BUILD_FOLDER [--isa avx2] [--time 0.05] [--rounds 3] [--filter TEXT]

For each pass it prints GFLOP/s of the layer, of linear over the same products (weighted as the layer runs them), and their
ratio. Both are timed alternately on one thread; the best run of all rounds counts.
Attention's backward computes five products where linear's two backward passes are four: rates are compared, not times.
"""
import argparse
import json
import os
import subprocess

# layer, batch, length, channels, hidden size
RECURRENT = [("lstm", 8, 128, 512, 512), ("lstm", 64, 32, 256, 256), ("lstm", 32, 64, 128, 128), ("lstm", 1, 64, 256, 256),
             ("lstm", 16, 50, 100, 300), ("gru", 8, 128, 512, 512), ("gru", 64, 32, 256, 256), ("gru", 1, 64, 256, 256)]
# batch, length, channels, heads, causal
ATTENTION = [(8, 128, 512, 8, 0), (2, 512, 512, 8, 0), (1, 1024, 768, 12, 0), (1, 1024, 768, 12, 1), (4, 197, 768, 12, 0),
             (8, 64, 256, 4, 0), (4, 256, 512, 4, 0)]


class Bench:
    def __init__(self, options):
        self.options = options
        self.command = os.path.join(options.build, "tools", "lamina")
        self.modules = os.path.join(options.build, "plugins", "modules")

    def run(self, *arguments):
        line = [self.command, "plugin", "bench", *arguments, "--threads", "1", "--isa", self.options.isa,
                "--time", str(self.options.time), "--json"]
        output = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        return {r["pass"]: r for r in json.loads(output.splitlines()[-1])["shapes"]}

    def linear(self, rows, k, n):
        return self.run("--builtin", "linear", "--shape", f"{rows},{k}", "--attributes", f"out_features={n}")

    def layer(self, module, name, shape, attributes):
        return self.run(os.path.join(self.modules, module + ".so"), "--layer", name, "--shape",
                        ",".join(map(str, shape)), "--attributes", attributes)

    def compare(self, title, layer, products):
        """products: (times, rows, k, n) of linear that are the layer's."""
        if self.options.filter not in title:
            return
        best = {}
        for _ in range(self.options.rounds):
            measured = [("linear", [(t, self.linear(*p)) for t, *p in products]), ("layer", [(1, self.layer(*layer))])]
            for who, results in measured:
                for part in ("forward", "backward"):
                    for i, (times, r) in enumerate(results):
                        key = (who, part, i)
                        one = (times * 1e3 * r[part]["best_seconds"], times * r[part]["flops"])
                        best[key] = min(best.get(key, (1e30, 0)), one)
        for part in ("forward", "backward"):
            rate = {}
            for who in ("linear", "layer"):
                sums = [v for k, v in best.items() if k[:2] == (who, part)]
                rate[who] = sum(f for _, f in sums) / sum(ms for ms, _ in sums) * 1e-6
            print(f"{title:40} {part:9} {best[('layer', part, 0)][0]:9.3f} ms {rate['layer']:7.1f} GFLOP/s, linear "
                  f"{rate['linear']:7.1f}: {rate['layer'] / rate['linear']:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--isa", default="avx512")
    parser.add_argument("--time", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--filter", default="", help="only cases whose line contains this")
    bench = Bench(parser.parse_args())
    for name, n, length, c, h in RECURRENT:
        gates = (4 if name == "lstm" else 3) * h
        bench.compare(f"{name} N {n} L {length} C {c} H {h}", ("recurrent", name, (n, length, c), f"hidden_size={h}"),
                      [(1, n * length, c, gates), (length, n, h, gates)])
    for n, length, c, heads, causal in ATTENTION:
        depth = c // heads
        bench.compare(f"attention N {n} L {length} E {c} heads {heads}" + (" causal" if causal else ""),
                      ("attention", "scaled_dot_product_attention", (n, length, c),
                       f"num_heads={heads} is_causal={'true' if causal else 'false'}"),
                      [(n * heads, length, depth, length), (n * heads, length, length, depth)])


if __name__ == "__main__":
    main()
