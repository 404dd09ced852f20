/* SPDX-License-Identifier: Apache-2.0 */
/* A layer in a file of its own: softsign, y = x / (1 + |x|). It includes plugin.h and links nothing of Lamina.
   Elements: n in, n out; 3 operations each forward, 5 backward. */
#include <lamina/plugin.h>
#include <math.h>

/* What one pass over the elements works on: forward has no gradients. */
typedef struct pass {
  const lamina_tensor *x, *dy;
  const lamina_tensor *out;
} pass;

/* Tensors are rows of channels; the distance between two rows may be longer than a row. */
static float *row(const lamina_tensor *t, int64_t index) {
  return (float *)t->data + (t->rank > 1 ? index * t->stride[t->rank - 2] : 0);
}

static int64_t channels(const lamina_tensor *t) { return t->rank ? t->dim[t->rank - 1] : 1; }

static int64_t rows(const lamina_tensor *t) {
  int64_t count = 1;
  for (int i = 0; i + 1 < t->rank; i++) count *= t->dim[i];
  return count;
}

/* One task is 64 rows: a number that follows from the shape, so that results never depend on the threads. */
enum { TASK_ROWS = 64 };

static void run_task(void *arg, int64_t index, int thread) {
  const pass *p = arg;
  const int64_t end = (index + 1) * TASK_ROWS < rows(p->x) ? (index + 1) * TASK_ROWS : rows(p->x);
  (void)thread;
  for (int64_t r = index * TASK_ROWS; r < end; r++) {
    const float *x = row(p->x, r), *dy = p->dy ? row(p->dy, r) : NULL;
    float *out = row(p->out, r);
    for (int64_t c = 0; c < channels(p->x); c++) {
      const float d = 1 + fabsf(x[c]);
      out[c] = dy ? dy[c] / (d * d) : x[c] / d;
    }
  }
}

static lamina_status run(const lamina_node *node, pass p) {
  node->host->parallel(node->host, (rows(p.x) + TASK_ROWS - 1) / TASK_ROWS, run_task, &p);
  return LAMINA_OK;
}

static lamina_status forward(const lamina_node *node) {
  return run(node, (pass){.x = &node->inputs[0], .out = &node->outputs[0]});
}

static lamina_status backward(const lamina_node *node) {
  if (!(node->need_inputs & 1)) return LAMINA_OK;
  return run(node, (pass){.x = &node->inputs[0], .dy = &node->d_outputs[0], .out = &node->d_inputs[0]});
}

static lamina_status infer(lamina_node *node) {
  node->outputs[0].rank = node->inputs[0].rank;
  for (int i = 0; i < node->inputs[0].rank; i++) node->outputs[0].dim[i] = node->inputs[0].dim[i];
  return LAMINA_OK;
}

/* Optional: after a convolution or a linear layer nothing of the above runs at inference. Lamina calls this function on
   the pieces of their output instead, while they are in cache. */
static void activate(int64_t n, const float *parameters, const float *in, float *out) {
  (void)parameters; /* up to four numbers, which as_epilogue could set from node->attrs */
  for (int64_t i = 0; i < n; i++) out[i] = in[i] / (1 + fabsf(in[i]));
}

static int as_epilogue(const lamina_node *node, lamina_epilogue *epilogue) {
  (void)node;
  epilogue->parts |= LAMINA_EPILOGUE_ACTIVATION;
  epilogue->activation = activate;
  return 1;
}

static const lamina_port x = {
    .size = sizeof x, .name = "x", .kind = LAMINA_PORT_INPUT, .flags = LAMINA_PORT_BACKWARD_READS, .doc = "any shape"};
static const lamina_port y = {.size = sizeof y, .name = "y", .kind = LAMINA_PORT_OUTPUT, .doc = "the same shape"};
static const lamina_kernel kernel = {.size = sizeof kernel, .name = "plain", .forward = forward, .backward = backward};
static const lamina_layer softsign = {.size = sizeof softsign,
                                      .name = "softsign",
                                      .version = 1,
                                      .doc = "x / (1 + |x|)",
                                      .attrs = (const lamina_attr *const[]){NULL},
                                      .ports = (const lamina_port *const[]){&x, &y, NULL},
                                      .kernels = (const lamina_kernel *const[]){&kernel, NULL},
                                      .infer = infer,
                                      .as_epilogue = as_epilogue};

/* The one symbol that Lamina looks for, and what a host may read before it runs any code of this file. */
LAMINA_PLUGIN("example.softsign", "1.0", "softsign", &softsign);
