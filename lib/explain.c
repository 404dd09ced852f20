/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan will do, for people. */
#include <stdio.h>
#include <string.h>

#include "plan.h"

lamina_status lamina_plan_node(const lamina_plan *plan, int index, lamina_node_info *info) {
  if (!plan) return LAMINA_INVALID_ARGUMENT;
  if (!info || info->size < sizeof info->size)
    return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "lamina_plan_node: info is NULL or its size is not set");
  if (index < 0 || index >= plan->node_count)
    return lamina_fail(plan->context, LAMINA_NOT_FOUND, "the plan has no node number %d", index);
  const plan_node *node = &plan->nodes[index];
  lamina_node_info full = {.size = info->size,
                           .name = node->source->name,
                           .type = node->source->layer->name,
                           .kernel = node->kernel->name,
                           .isa = node->kernel->isa ? node->kernel->isa : plan->context->cpu.isa,
                           .algorithm = node->cost.algorithm ? node->cost.algorithm : node->kernel->name,
                           .fused = node->fused ? node->fused : "",
                           .rejected = node->rejected ? node->rejected : "",
                           .output = plan->values[node->outputs[0]].shape,
                           .flops = node->cost.flops,
                           .bytes = node->cost.bytes,
                           .backward_flops = node->backward ? node->cost.backward_flops : 0,
                           .backward_bytes = node->backward ? node->cost.backward_bytes : 0,
                           .fused_bytes = node->fused_bytes,
                           .recomputed = node->again};
  memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
  return LAMINA_OK;
}

static void write_node(const lamina_plan *plan, int n, void (*write)(void *user, const char *text), void *user) {
  char line[512], shape[96];
  lamina_node_info i = {.size = sizeof i};
  if (lamina_plan_node(plan, n, &i)) return;
  snprintf(line, sizeof line, "%-28s %-16s %-22s %-8s %-22s %9.3f MFLOP %9.3f MB", i.name, i.type,
           lamina_shape_text(&i.output, shape, sizeof shape), i.isa, i.algorithm, i.flops * 1e-6, i.bytes * 1e-6);
  write(user, line);
  if (plan->options.mode == LAMINA_TRAIN) {
    snprintf(line, sizeof line, " backward %9.3f MFLOP", i.backward_flops * 1e-6);
    write(user, line);
  }
  const char *parts[] = {i.fused, "  <- ", i.rejected, "  not: "};
  for (int p = 0; p < 4; p += 2)
    if (*parts[p]) {
      write(user, parts[p + 1]);
      write(user, parts[p]);
      if (p) continue;
      snprintf(line, sizeof line, " (saves %.3f MB of traffic)", i.fused_bytes * 1e-6);
      write(user, line);
    }
  if (i.recomputed) write(user, "  computed again for the backward pass");
  write(user, "\n");
}

static void write_training_memory(const lamina_plan *plan, const lamina_plan_info *info,
                                  void (*write)(void *user, const char *text), void *user) {
  const double now = (double)info->arena + (double)info->gradients + (double)info->packed, plain = (double)info->plain;
  char line[256];
  snprintf(line, sizeof line, "gradients of parameters: %.2f MB beside them%s\n", (double)info->gradients * 1e-6,
           plan->options.early_step ? "; each is applied as soon as it is final" : "");
  write(user, line);
  if (plan->options.pack_late) write(user, "weights are packed whenever a node runs\n");
  if (info->recomputed) {
    snprintf(line, sizeof line, "%d nodes are computed again in the backward pass instead of being kept\n", info->recomputed);
    write(user, line);
  }
  if (info->recomputed || plan->options.pack_late || lamina_plan_passes_gradients_on(plan)) {
    snprintf(line, sizeof line,
             "with packed weights %.2f MB; without what saves memory in training %.2f MB (%.0f%% saved)\n", now * 1e-6,
             plain * 1e-6, plain > 0 ? 100 * (1 - now / plain) : 0.0);
    write(user, line);
  }
}

lamina_status lamina_plan_explain(const lamina_plan *plan, void (*write)(void *user, const char *text), void *user) {
  if (!plan) return LAMINA_INVALID_ARGUMENT;
  if (!write) return lamina_fail(plan->context, LAMINA_INVALID_ARGUMENT, "lamina_plan_explain: write is NULL");
  char line[256];
  lamina_plan_info info = {.size = sizeof info};
  lamina_status status = lamina_plan_get_info(plan, &info);
  if (status) return status;
  snprintf(line, sizeof line, "%s plan, batch %lld, %s, %d threads\n\n",
           plan->options.mode == LAMINA_TRAIN ? "training" : "inference", (long long)plan->options.batch,
           plan->context->cpu.isa, plan->context->threads);
  write(user, line);
  for (int n = 0; n < plan->node_count; n++) write_node(plan, n, write, user);
  snprintf(line, sizeof line, "\n%d nodes run, %d were merged into others\n", info.nodes, info.fused);
  write(user, line);
  if (plan->options.tune) {
    snprintf(line, sizeof line, "tuned: %d kernels measured, %d choices remembered\n", info.timed, info.remembered);
    write(user, line);
  }
  if (plan->options.mode == LAMINA_TRAIN && info.frozen) {
    snprintf(line, sizeof line, "%d nodes are left out of the backward pass: nothing before them is trained\n", info.frozen);
    write(user, line);
  }
  snprintf(line, sizeof line, "forward %.3f GFLOP, backward %.3f GFLOP\n", info.flops * 1e-9, info.backward_flops * 1e-9);
  write(user, line);
  if (info.fused_bytes > 0) {
    snprintf(line, sizeof line, "fusion saves %.2f MB of memory traffic in a run\n", info.fused_bytes * 1e-6);
    write(user, line);
  }
  snprintf(line, sizeof line,
           "memory: values and gradients %.2f MB; %.2f MB without planning by lifetime (%.0f%% saved); packed weights "
           "%.2f MB, workspace %.2f MB\n",
           (double)info.arena * 1e-6, (double)info.unplanned * 1e-6,
           info.unplanned ? 100.0 * (1.0 - (double)info.arena / (double)info.unplanned) : 0.0, (double)info.packed * 1e-6,
           (double)info.workspace * 1e-6);
  write(user, line);
  if (plan->options.mode == LAMINA_TRAIN) write_training_memory(plan, &info, write, user);
  return LAMINA_OK;
}
