/* SPDX-License-Identifier: Apache-2.0 */
/* `lamina time`, in parts: the runs (timing.c) and what is printed of them (time.c). */
#ifndef TOOL_TIMING_H
#define TOOL_TIMING_H

#include "model.h"

typedef struct node_time {
  lamina_node_info node;
  double forward_ms, backward_ms; /* medians */
} node_time;

typedef struct timing {
  int64_t runs;
  double median_ms, min_ms;
  double forward_ms, backward_ms, step_ms; /* medians; of training the parts of a run */
  int nodes;
  node_time *node;
} timing;

/* Random inputs, warm-up, then `runs` runs (0: about two seconds of them), then some with timed nodes. */
int timing_measure(timing *t, session *s, model *m, lamina_plan *plan, const plan_settings *set, int64_t runs);
void timing_release(timing *t);

#endif
