/* SPDX-License-Identifier: Apache-2.0 */
/* dropout: in training y = x / (1 - p) where the element's random number is at least p, else 0; at inference y = x. The
   mask is not kept: the backward pass draws the same numbers again (Srivastava et al. 2014, inverted form). */
#include "builtin.h"
#include "layer.h"

enum { ATTR_P };
enum { DRAW = 1024 };

typedef struct mask {
  uint64_t seed;
  float p, scale;
} mask;

static void body(const layer_pass *pass, int64_t n, float *const *at, int64_t first) {
  const mask *m = pass->argument;
  float random[DRAW];
  for (int64_t i = 0; i < n; i += DRAW) {
    int64_t count = layer_min(DRAW, n - i);
    pass->host->random(pass->host, m->seed, (uint64_t)(first + i), count, random);
    const float *x = at[0] + i;
    float *y = at[1] + i;
    for (int64_t j = 0; j < count; j++) {
      float value = random[j] >= m->p ? x[j] * m->scale : 0.0f;
      y[j] = pass->accumulate ? y[j] + value : value;
    }
  }
}

static lamina_status run(const lamina_node *node, const lamina_tensor *from, const lamina_tensor *to, int accumulate) {
  lamina_status status;
  double p = node->attrs[ATTR_P].f;
  mask m = {.seed = node->seed, .p = (float)p, .scale = p < 1 ? (float)(1 / (1 - p)) : 0};
  layer_pass pass = {.host = node->host, .kernels = layer_kernels(node, &status), .operands = 2, .argument = &m};
  if (status != LAMINA_OK) return status;
  pass.operand[0] = layer_rows(from);
  pass.operand[1] = layer_rows(to);
  pass.accumulate = accumulate;
  pass.body = node->mode == LAMINA_TRAIN && p > 0 ? body : layer_copy_body;
  layer_pass_run(&pass);
  return LAMINA_OK;
}

static lamina_status forward(const lamina_node *node) { return run(node, &node->inputs[0], &node->outputs[0], 0); }

static lamina_status backward(const lamina_node *node) {
  if (!layer_needs_input(node, 0)) return LAMINA_OK;
  return run(node, &node->d_outputs[0], &node->d_inputs[0], layer_accumulates(node, 0));
}

static lamina_status infer(lamina_node *node) {
  lamina_status status = layer_check_input(node, 0, 0, LAMINA_MAX_RANK, "any shape");
  if (status == LAMINA_OK) layer_copy_shape(&node->outputs[0], &node->inputs[0]);
  return status;
}

static int is_view(const lamina_node *node) { return node->mode == LAMINA_INFER; }

static lamina_status plan(const lamina_node *node, lamina_cost *cost) {
  layer_pass_cost(node, cost, 2, 2, "elementwise");
  return LAMINA_OK;
}

static const lamina_attr attr_p = {.size = sizeof(lamina_attr),
                                   .name = "p",
                                   .type = LAMINA_ATTR_FLOAT,
                                   .def = "0.5",
                                   .min = 0,
                                   .max = 1,
                                   .doc = "probability of an element to become 0"};
static const lamina_attr *const attrs[] = {&attr_p, NULL};
static const lamina_port port_x = {
    .size = sizeof(lamina_port), .name = "x", .kind = LAMINA_PORT_INPUT, .doc = "any shape"};
static const lamina_port port_y = {
    .size = sizeof(lamina_port), .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "the shape of x"};
static const lamina_port *const ports[] = {&port_x, &port_y, NULL};
static const lamina_kernel kernel = {
    .size = sizeof(lamina_kernel), .name = "generic", .plan = plan, .forward = forward, .backward = backward};
static const lamina_kernel *const kernels[] = {&kernel, NULL};

const lamina_layer lamina_layer_dropout = {
    .size = sizeof(lamina_layer),
    .name = "dropout",
    .version = 1,
    .doc = "in training sets random elements to 0 and scales the others by 1/(1-p)",
    .flags = LAMINA_LAYER_IN_PLACE | LAMINA_LAYER_BACKWARD_IN_PLACE | LAMINA_LAYER_ACCUMULATES |
             LAMINA_LAYER_TRAINS_DIFFERENTLY | LAMINA_LAYER_CHEAP,
    .attrs = attrs,
    .ports = ports,
    .kernels = kernels,
    .infer = infer,
    .is_view = is_view};
