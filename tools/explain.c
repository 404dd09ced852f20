/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "model.h"

#include <string.h>

typedef struct explain_settings {
  common_settings common;
  plan_settings plan;
} explain_settings;

static const option options[] = {{"batch", "N", OPTION_INT, offsetof(explain_settings, plan.batch), 1, 1 << 24, NULL,
                                  "samples in a run (default 1; 8 with --train)"},
                                 {"train", NULL, OPTION_FLAG, offsetof(explain_settings, plan.train), 0, 0, NULL,
                                  "plan for training with softmax cross-entropy"},
                                 {"freeze", "PATTERN", OPTION_LIST, offsetof(explain_settings, plan.freeze), 0, 0, NULL,
                                  "with --train: leave out gradients of such parameters, as 'lamina train --freeze' does"},
                                 {"batch-norm", "HOW", OPTION_CHOICE, offsetof(explain_settings, plan.batch_norm), 0, 0,
                                  "frozen|adapt", "statistics of frozen batch norms, as 'lamina train --batch-norm' has them"},
                                 {"strict", NULL, OPTION_FLAG, offsetof(explain_settings, plan.strict), 0, 0, NULL,
                                  "generic code where the ISA is better is an error"},
                                 {"no-fusion", NULL, OPTION_FLAG, offsetof(explain_settings, plan.no_fusion), 0, 0,
                                  NULL, "keep every node as it is written"},
                                 {"tune", NULL, OPTION_FLAG, offsetof(explain_settings, plan.tune), 0, 0, NULL,
                                  "measure the kernels that a node could have, take the fastest and remember it"},
                                 MEMORY_OPTIONS(explain_settings, plan.),
                                 {"early-step", NULL, OPTION_FLAG, offsetof(explain_settings, plan.early_step), 0, 0, NULL,
                                  "in training: a parameter is stepped as soon as its gradient is final, which is not kept"},
                                 {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

static void write_text(void *user, const char *text) {
  (void)user;
  fputs(text, stdout);
}

static json_t *shape_json(const lamina_tensor *tensor) {
  json_t *list = json_array();
  for (int i = 0; i < tensor->rank; i++) json_array_append_new(list, json_integer((json_int_t)tensor->dim[i]));
  return list;
}

static json_t *node_json(const lamina_node_info *n) {
  return json_pack("{s:s s:s s:s s:s s:s s:s s:s s:o s:f s:f s:f s:f s:f s:b}", "name", n->name, "type", n->type, "kernel",
                   n->kernel ? n->kernel : "", "isa", n->isa ? n->isa : "", "algorithm",
                   n->algorithm ? n->algorithm : "", "fused", n->fused ? n->fused : "", "rejected",
                   n->rejected ? n->rejected : "", "shape", shape_json(&n->output), "flops", n->flops, "bytes",
                   n->bytes, "backward_flops", n->backward_flops, "backward_bytes", n->backward_bytes, "fused_bytes", n->fused_bytes, "recomputed", n->recomputed);
}

static int explain_json(const session *s, const model *m, const plan_settings *set, const lamina_plan *plan,
                        const lamina_plan_info *i) {
  json_t *nodes = json_array();
  for (int k = 0; k < i->nodes; k++) {
    lamina_node_info n = {.size = sizeof n};
    if (lamina_plan_node(plan, k, &n)) {
      json_decref(nodes);
      return fail_library(s, "cannot read node %d", k);
    }
    json_array_append_new(nodes, node_json(&n));
  }
  return print_json(json_pack("{s:s s:s s:I s:s s:i s:o s:i s:I s:I s:I s:I s:I s:I s:I s:f s:i s:f s:f}", "model", m->name, "mode",
                              set->train ? "train" : "infer", "batch", (json_int_t)set->batch, "isa", s->info.isa,
                              "threads", s->info.threads, "nodes", nodes, "fused", i->fused, "arena_bytes",
                              (json_int_t)i->arena, "unplanned_bytes", (json_int_t)i->unplanned, "saved_bytes",
                              (json_int_t)i->saved, "packed_bytes", (json_int_t)i->packed, "workspace_bytes",
                              (json_int_t)i->workspace, "gradient_bytes", (json_int_t)i->gradients, "plain_bytes",
                              (json_int_t)i->plain, "fused_bytes", i->fused_bytes, "recomputed", i->recomputed, "flops", i->flops, "backward_flops", i->backward_flops));
}

static int run_command(const command *self, int argc, char **argv) {
  explain_settings set = {0};
  parsed line;
  session s = {0};
  model m = {0};
  lamina_plan *plan = NULL;
  lamina_plan_info info;
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  if (!set.plan.batch) set.plan.batch = set.plan.train ? 8 : 1; /* batch norm cannot train on one sample */
  memset(&info, 0, sizeof info);
  status = session_open(&s, self, &set.common);
  if (!status) status = model_open(&m, &s, line.argument[0]);
  if (!status) status = model_plan(&m, &s, &set.plan, &plan, &info);
  if (!status && set.common.json)
    status = explain_json(&s, &m, &set.plan, plan, &info);
  else if (!status && lamina_plan_explain(plan, write_text, NULL))
    status = fail_library(&s, "cannot explain %s", m.name);
  lamina_plan_destroy(plan);
  model_close(&m);
  session_close(&s);
  return status;
}

const command command_explain = {.name = "explain",
                                 .arguments = "MODEL",
                                 .min_arguments = 1,
                                 .max_arguments = 1,
                                 .summary = "which kernel runs each node, why no other, what it costs, what was fused",
                                 .text = "Prints the plan of MODEL: node by node its kernel, why others were rejected, "
                                         "FLOPs and bytes, fusions; then memory.",
                                 .examples =
                                     "  lamina explain mynet\n  lamina explain resnet50 --batch 8 --train --isa avx2\n"
                                     "  lamina explain resnet50 --strict          fails if a node runs generic code",
                                 .options = options,
                                 .run = run_command};
