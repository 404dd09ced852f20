/* SPDX-License-Identifier: Apache-2.0 */
/* Builds a small convolutional network, trains it on digits that the library draws, and tests it. */
#include <lamina/lamina.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 100, EPOCHS = 2, CLASSES = 10, SIDE = 28, TRAINING = 12000, TEST = 2000 };

static lamina_context *context;
static float images[BATCH * SIDE * SIDE];
static int32_t labels[BATCH];

static void check(lamina_status status) {
  if (status == LAMINA_OK) return;
  fprintf(stderr, "%s: %s\n", lamina_status_name(status), context ? lamina_error_message(context) : "no context");
  exit(1);
}

/* Compiles the graph for one mode; its inputs become the two arrays above, which every run reads anew. */
static lamina_exec *prepare(lamina_graph *graph, lamina_mode mode, const char *output) {
  lamina_plan_options options = {.size = sizeof options, .mode = mode, .batch = BATCH, .outputs = output};
  lamina_tensor image = lamina_tensor_of(images, LAMINA_F32, 4, (int64_t[]){BATCH, SIDE, SIDE, 1});
  lamina_tensor label = lamina_tensor_of(labels, LAMINA_I32, 1, (int64_t[]){BATCH});
  lamina_plan *plan;
  lamina_exec *exec;
  check(lamina_plan_create(graph, &options, &plan));
  check(lamina_exec_create(plan, &exec));
  lamina_plan_destroy(plan); /* the exec keeps it */
  check(lamina_exec_set_input(exec, "image", &image));
  if (mode == LAMINA_TRAIN) check(lamina_exec_set_input(exec, "label", &label));
  return exec;
}

int main(void) {
  lamina_dataset *data;
  lamina_graph *graph;
  check(lamina_context_create(NULL, &context));
  check(lamina_dataset_open(context, NULL, &data)); /* no folder: 12000 and 2000 drawn digits */
  check(lamina_graph_create(context, NULL, &graph));
  check(lamina_graph_input(graph, "image", LAMINA_F32, 3, (int64_t[]){SIDE, SIDE, 1}));
  check(lamina_graph_input(graph, "label", LAMINA_I32, 0, NULL));
  check(lamina_graph_add(graph, "conv2d", "conv", "image", "out_channels=16 kernel=5 stride=2 padding=2 bias=false"));
  check(lamina_graph_add(graph, "batch_norm", "norm", "conv", NULL));
  check(lamina_graph_add(graph, "relu", "relu", "norm", NULL));
  check(lamina_graph_add(graph, "flatten", "flat", "relu", NULL));
  check(lamina_graph_add(graph, "linear", "logits", "flat", "out_features=10"));
  check(lamina_graph_add(graph, "softmax_cross_entropy", "loss", "logits, label", NULL));
  check(lamina_graph_initialize(graph, 1));
  lamina_exec *train = prepare(graph, LAMINA_TRAIN, "loss"), *test = prepare(graph, LAMINA_INFER, "logits");
  lamina_optimizer adam = lamina_optimizer_defaults(LAMINA_ADAM);
  lamina_tensor value;
  static int64_t order[TRAINING];
  for (uint64_t epoch = 0; epoch < EPOCHS; ++epoch) {
    lamina_shuffle(1, epoch, TRAINING, order);
    for (int i = 0; i < TRAINING; i += BATCH) {
      check(lamina_dataset_batch(data, LAMINA_SPLIT_TRAIN, BATCH, order + i, 1, images, labels));
      check(lamina_exec_forward(train));
      check(lamina_exec_backward(train));
      check(lamina_exec_step(train, &adam));
    }
    check(lamina_exec_output(train, "loss", &value));
    printf("epoch %d: loss of its last batch %.4f\n", (int)epoch + 1, (double)*(const float *)value.data);
  }
  int correct = 0;
  for (int i = 0; i < TEST; i += BATCH) {
    for (int j = 0; j < BATCH; ++j) order[j] = i + j;
    check(lamina_dataset_batch(data, LAMINA_SPLIT_TEST, BATCH, order, 1, images, labels));
    check(lamina_exec_forward(test));
    check(lamina_exec_output(test, "logits", &value));
    for (int j = 0, best = 0; j < BATCH; ++j, best = 0) {
      const float *row = (const float *)value.data + j * value.stride[0];
      for (int c = 1; c < CLASSES; ++c) best = row[c] > row[best] ? c : best;
      correct += best == labels[j];
    }
  }
  printf("accuracy on %d digits never seen: %.4f\n", TEST, (double)correct / TEST);
  lamina_exec_destroy(train), lamina_exec_destroy(test);
  lamina_graph_destroy(graph), lamina_dataset_destroy(data), lamina_context_destroy(context);
}
