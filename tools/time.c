/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "timing.h"

#include <string.h>

typedef struct time_settings {
  common_settings common;
  plan_settings plan;
  int64_t runs;
} time_settings;

static const option options[] = {{"batch", "N", OPTION_INT, offsetof(time_settings, plan.batch), 1, 1 << 24, NULL,
                                  "samples in a run (default 1; 8 with --train)"},
                                 {"train", NULL, OPTION_FLAG, offsetof(time_settings, plan.train), 0, 0, NULL,
                                  "time training steps: forward, backward and the optimizer (sgd with momentum)"},
                                 {"runs", "N", OPTION_INT, offsetof(time_settings, runs), 1, 100000, NULL,
                                  "runs to time (default: about 2 s of them)"},
                                 {"freeze", "PATTERN", OPTION_LIST, offsetof(time_settings, plan.freeze), 0, 0, NULL,
                                  "with --train: leave out gradients of such parameters, as 'lamina train --freeze' does"},
                                 {"batch-norm", "HOW", OPTION_CHOICE, offsetof(time_settings, plan.batch_norm), 0, 0,
                                  "frozen|adapt", "statistics of frozen batch norms, as 'lamina train --batch-norm' has them"},
                                 {"strict", NULL, OPTION_FLAG, offsetof(time_settings, plan.strict), 0, 0, NULL,
                                  "generic code where the ISA is better is an error"},
                                 {"no-fusion", NULL, OPTION_FLAG, offsetof(time_settings, plan.no_fusion), 0, 0, NULL,
                                  "keep every node as it is written"},
                                 {"tune", NULL, OPTION_FLAG, offsetof(time_settings, plan.tune), 0, 0, NULL,
                                  "measure the kernels that a node could have, take the fastest and remember it"},
                                 MEMORY_OPTIONS(time_settings, plan.),
                                 {"early-step", NULL, OPTION_FLAG, offsetof(time_settings, plan.early_step), 0, 0, NULL,
                                  "in training: a parameter is stepped as soon as its gradient is final, which is not kept"},
                                 {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

static double gflops(double flops, double ms) { return ms > 0 ? flops / ms * 1e-6 : 0; }

/* Everything that one command works with; read-only once measured. */
typedef struct report {
  const session *s;
  const model *m;
  const plan_settings *set;
  const lamina_plan_info *info;
  const timing *t;
} report;

static double total_node_ms(const timing *t) {
  double sum = 0;
  for (int k = 0; k < t->nodes; k++) sum += t->node[k].forward_ms + t->node[k].backward_ms;
  return sum > 0 ? sum : 1;
}

enum { KERNEL_WIDTH = 40 };

/* "gemm 14x32": the kernel, and the algorithm where it says more. */
static void kernel_text(const lamina_node_info *n, char text[KERNEL_WIDTH + 1]) {
  const char *kernel = n->kernel ? n->kernel : n->type, *algorithm = n->algorithm ? n->algorithm : "";
  const bool more = *algorithm && strcmp(kernel, algorithm);
  snprintf(text, KERNEL_WIDTH + 1, "%s%s%s", kernel, more ? " " : "", more ? algorithm : "");
}

/* Widths of the first two columns. */
static void measure_columns(const timing *t, int *name, int *kernel) {
  *name = 11; /* "(optimizer)" */
  *kernel = 6;
  for (int k = 0; k < t->nodes; k++) {
    char text[KERNEL_WIDTH + 1];
    kernel_text(&t->node[k].node, text);
    if ((int)strlen(t->node[k].node.name) > *name) *name = (int)strlen(t->node[k].node.name);
    if ((int)strlen(text) > *kernel) *kernel = (int)strlen(text);
  }
}

static void print_nodes(const report *r) {
  const timing *t = r->t;
  const int train = r->set->train;
  const double total = total_node_ms(t) + (train ? t->step_ms : 0);
  int name, kernel;
  measure_columns(t, &name, &kernel);
  printf("\n%-*s  %-*s %10s %9s", name, "node", kernel, "kernel", train ? "forward ms" : "ms", "GFLOP/s");
  if (train) printf(" %11s %9s %9s", "backward ms", "GFLOP/s", "step ms");
  printf(" %7s\n", "share");
  for (int k = 0; k < t->nodes; k++) {
    const node_time *n = &t->node[k];
    char text[KERNEL_WIDTH + 1];
    kernel_text(&n->node, text);
    printf("%-*s  %-*s %10.4f %9.1f", name, n->node.name, kernel, text, n->forward_ms,
           gflops(n->node.flops, n->forward_ms));
    if (train) printf(" %11.4f %9.1f %9s", n->backward_ms, gflops(n->node.backward_flops, n->backward_ms), "");
    printf(" %6.1f%%\n", 100.0 * (n->forward_ms + n->backward_ms) / total);
  }
  if (train)
    printf("%-*s  %-*s %10s %9s %11s %9s %9.4f %6.1f%%\n", name, "(optimizer)", kernel, "sgd", "", "", "", "",
           t->step_ms, 100.0 * t->step_ms / total);
}

static void print_report(const report *r) {
  const timing *t = r->t;
  const double flops = r->info->flops + (r->set->train ? r->info->backward_flops : 0);
  printf("%s %s, batch %lld, %s, %d thread%s, %lld runs\n", r->m->name, r->set->train ? "training" : "inference",
         (long long)r->set->batch, r->s->info.isa, r->s->info.threads, r->s->info.threads == 1 ? "" : "s",
         (long long)t->runs);
  printf("median %.4g ms  min %.4g ms  %.1f images/s  %.1f GFLOP/s\n", t->median_ms, t->min_ms,
         1e3 * (double)r->set->batch / t->median_ms, gflops(flops, t->median_ms));
  if (r->set->train)
    printf("forward %.4g ms  backward %.4g ms  step %.4g ms\n", t->forward_ms, t->backward_ms, t->step_ms);
  if (r->info->timed || r->info->remembered)
    printf("tuned: %d kernels measured, %d choices remembered\n", r->info->timed, r->info->remembered);
  print_nodes(r);
}

static json_t *nodes_json(const report *r) {
  const double total = total_node_ms(r->t) + r->t->step_ms;
  json_t *list = json_array();
  for (int k = 0; k < r->t->nodes; k++) {
    const node_time *n = &r->t->node[k];
    json_t *o = json_pack("{s:s s:s s:s s:s s:s s:s s:f s:f s:f}", "name", n->node.name, "type", n->node.type, "kernel",
                          n->node.kernel ? n->node.kernel : "", "isa", n->node.isa ? n->node.isa : "", "algorithm",
                          n->node.algorithm ? n->node.algorithm : "", "fused", n->node.fused ? n->node.fused : "", "ms",
                          n->forward_ms, "gflops", gflops(n->node.flops, n->forward_ms), "share",
                          (n->forward_ms + n->backward_ms) / total);
    if (o && r->set->train) {
      json_object_set_new(o, "backward_ms", json_real(n->backward_ms));
      json_object_set_new(o, "backward_gflops", json_real(gflops(n->node.backward_flops, n->backward_ms)));
    }
    json_array_append_new(list, o);
  }
  return list;
}

static int print_report_json(const report *r) {
  const timing *t = r->t;
  const double flops = r->info->flops + (r->set->train ? r->info->backward_flops : 0);
  json_t *o = json_pack(
      "{s:s s:s s:I s:s s:i s:I s:f s:f s:f s:f s:f s:I s:I s:i s:i s:o}", "model", r->m->name, "mode",
      r->set->train ? "train" : "infer", "batch", (json_int_t)r->set->batch, "isa", r->s->info.isa, "threads",
      r->s->info.threads, "runs", (json_int_t)t->runs, "median_ms", t->median_ms, "min_ms", t->min_ms,
      "images_per_second", 1e3 * (double)r->set->batch / t->median_ms, "gflops", gflops(flops, t->median_ms), "flops",
      flops, "arena_bytes", (json_int_t)r->info->arena, "unplanned_bytes", (json_int_t)r->info->unplanned, "timed",
      r->info->timed, "remembered", r->info->remembered, "nodes", nodes_json(r));
  if (o && r->set->train) {
    json_object_set_new(o, "forward_ms", json_real(t->forward_ms));
    json_object_set_new(o, "backward_ms", json_real(t->backward_ms));
    json_object_set_new(o, "step_ms", json_real(t->step_ms));
  }
  return print_json(o);
}

static int run_command(const command *self, int argc, char **argv) {
  time_settings set = {0};
  parsed line;
  session s = {0};
  model m = {0};
  lamina_plan *plan = NULL;
  lamina_plan_info info;
  timing t = {0};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  if (!set.plan.batch) set.plan.batch = set.plan.train ? 8 : 1; /* batch norm cannot train on one sample */
  memset(&info, 0, sizeof info);
  status = session_open(&s, self, &set.common);
  if (!status) status = model_open(&m, &s, line.argument[0]);
  if (!status) status = model_plan(&m, &s, &set.plan, &plan, &info);
  if (!status) status = timing_measure(&t, &s, &m, plan, &set.plan, set.runs);
  if (!status) {
    const report r = {&s, &m, &set.plan, &info, &t};
    if (set.common.json)
      status = print_report_json(&r);
    else
      print_report(&r);
  }
  timing_release(&t);
  lamina_plan_destroy(plan);
  model_close(&m);
  session_close(&s);
  return status;
}

const command command_time = {
    .name = "time",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "how long a run takes, and which node takes how much of it",
    .text = "Runs MODEL on random inputs with random weights: warm-up, about two seconds of runs, then runs with timed "
            "nodes.\n"
            "GFLOP/s counts a multiply and an add as two. Compare figures of one machine and one moment only.",
    .examples = "  lamina time resnet50 --batch 1 --threads 1\n  lamina time resnet50 --train --batch 8\n"
                "  lamina time mynet --batch 64 --isa avx2 --json\n  lamina time resnet50 --tune",
    .options = options,
    .run = run_command};
