/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An alternative to the built-in relu under the same name, as an example of an override: y = max(x, 0), any shape. Its
 * backward pass reads y alone, so that x need not be kept; at inference the producer of x clamps instead. Two layers of one
 * name never replace each other silently: LAMINA_LAYER_OVERRIDE says that this is meant.
 * Cost: one operation an element, forward and backward.
 */
#include "../module.h"

enum { TASK_FLOATS = 16384 };

typedef struct pass {
  module_matrix y, from, to; /* backward: from is dy; forward: y and from are x */
  int add;
} pass;

static int64_t rows_of_task(const pass *p) {
  return module_max(TASK_FLOATS / module_max(p->y.channels, 1), 1); /* a tensor may have no channels */
}

MODULE_INLINE void pass_body(void *arg, int64_t index, int thread) {
  const pass *p = arg;
  const int64_t n = p->y.channels, end = module_min((index + 1) * rows_of_task(p), p->y.rows);
  (void)thread;
  for (int64_t r = index * rows_of_task(p); r < end; r++) {
    const float *y = p->y.data + r * p->y.ld, *from = p->from.data + r * p->from.ld;
    float *to = p->to.data + r * p->to.ld;
    for (int64_t i = 0; i < n; i++) {
      const float kept = y[i] <= 0 ? 0 : from[i]; /* NaN passes */
      to[i] = p->add ? to[i] + kept : kept;
    }
  }
}
MODULE_TASK(pass)

static lamina_status run(const lamina_node *node, pass p) {
  MODULE_RUN(node->host, module_ceil_div(p.y.rows, rows_of_task(&p)), pass, &p);
  return LAMINA_OK;
}

static lamina_status forward(const lamina_node *node) {
  const module_matrix x = module_rows(&node->inputs[0]);
  return run(node, (pass){.y = x, .from = x, .to = module_rows(&node->outputs[0])});
}

static lamina_status backward(const lamina_node *node) {
  if (!module_needs_input(node, 0)) return LAMINA_OK;
  return run(node, (pass){.y = module_rows(&node->outputs[0]),
                          .from = module_rows(&node->d_outputs[0]),
                          .to = module_rows(&node->d_inputs[0]),
                          .add = module_adds_input(node, 0)});
}

static int as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  (void)node;
  epilogue->parts |= LAMINA_EPILOGUE_CLAMP;
  epilogue->lo = 0;
  epilogue->hi = INFINITY;
  return 1;
}

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  const module_matrix x = module_rows(&node->inputs[0]);
  cost->flops = cost->backward_flops = (double)x.rows * (double)x.channels;
  cost->bytes = 8 * cost->flops;
  cost->backward_bytes = 12 * cost->flops;
  cost->algorithm = "elementwise";
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  module_copy_shape(&node->outputs[0], &node->inputs[0]);
  return LAMINA_OK;
}

MODULE_INPUT(x_port, "x", 0, "any shape");
MODULE_OUTPUT(y_port, "y", LAMINA_PORT_BACKWARD_READS, "the shape of x");
MODULE_KERNEL(kernel, plan, forward, backward);

static const lamina_layer relu = {.size = sizeof(lamina_layer),
                                  .name = "relu",
                                  .version = 1,
                                  .doc = "max(x, 0), in place of the built-in layer",
                                  .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES |
                                           LAMINA_LAYER_OVERRIDE,
                                  .attrs = (const lamina_attr *const[]){NULL},
                                  .ports = MODULE_PORTS(&x_port, &y_port),
                                  .kernels = MODULE_KERNELS(&kernel),
                                  .infer = infer,
                                  .as_epilogue = as_epilogue};

LAMINA_PLUGIN("lamina.relu_override", "1.0", "relu", &relu);
