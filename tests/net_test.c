/* SPDX-License-Identifier: Apache-2.0 */
#include "net_test.h"

void net_check(const lamina_context *context, lamina_status status, const char *call, const char *file, int line) {
  if (status == LAMINA_OK) return;
  ck_abort_msg("%s:%d: %s: %s: %s", file, line, call, lamina_status_name(status),
               context ? lamina_error_message(context) : "");
}

void net_expect(const lamina_context *context, lamina_status got, lamina_status wanted, const char *words, int line) {
  char list[256], *save = NULL;
  const char *message = lamina_error_message(context);
  test_that(got == wanted, "line %d: %s (%s), expected %s", line, lamina_status_name(got), message,
                lamina_status_name(wanted));
  snprintf(list, sizeof list, "%s", words);
  for (char *word = strtok_r(list, "|", &save); word; word = strtok_r(NULL, "|", &save))
    test_that(strstr(message, word), "line %d: \"%s\" does not name %s", line, message, word);
}

const net_case net_small = {"small",
                            2,
                            {{"image", 3, {8, 8, 3}, 0, NET_UNIFORM}, {"labels", 0, {0}, 5, NET_UNIFORM}},
                            {{"conv2d", "conv1", "image", "out_channels=4 kernel=3 padding=1"},
                             {"relu", "relu1", "conv1", NULL},
                             {"flatten", "flatten", "relu1", NULL},
                             {"linear", "fc", "flatten", "out_features=5"},
                             {"softmax_cross_entropy", "loss", "fc,labels", NULL}},
                            NULL,
                            0};

bool net_isa_is_absent(void) {
  lamina_context *context = NULL;
  char message[512] = "";
  const lamina_context_options options = {.size = sizeof options, .error = message, .error_size = sizeof message};
  const lamina_status status = lamina_context_create(&options, &context);
  lamina_context_destroy(context);
  if (status != LAMINA_UNSUPPORTED) return false;
  printf("skipped: %s\n", message);
  return true;
}

lamina_context *net_context(int threads) {
  lamina_context *context = NULL;
  char message[512] = "";
  const lamina_context_options options = {
      .size = sizeof options, .threads = threads, .error = message, .error_size = sizeof message};
  lamina_context_info info = {.size = sizeof info};
  const char *wanted = getenv("LAMINA_ISA");
  test_that(lamina_context_create(&options, &context) == LAMINA_OK, "%s", message);
  NET_OK(context, lamina_context_get_info(context, &info));
  if (wanted && *wanted) ck_assert_str_eq(info.isa, wanted);
  return context;
}

lamina_tensor net_random_tensor(const net_input *input, int64_t batch, test_random *random) {
  int64_t dim[LAMINA_MAX_RANK] = {batch};
  for (int i = 0; i < input->rank; i++) dim[i + 1] = input->dim[i];
  lamina_tensor tensor = lamina_tensor_of(NULL, input->classes ? LAMINA_I32 : LAMINA_F32, input->rank + 1, dim);
  const int64_t count = lamina_tensor_count(&tensor);
  float *x = malloc((size_t)count * sizeof *x);
  ck_assert_ptr_nonnull(x);
  tensor.data = x;
  for (int64_t i = 0; i < count; i++) {
    if (input->classes)
      ((int32_t *)tensor.data)[i] = (int32_t)test_random_below(random, input->classes);
    else if (input->values == NET_UNIFORM)
      x[i] = test_random_float(random, -1, 1);
    else if (input->values == NET_OFF_ZERO)
      x[i] = test_random_float(random, 0.25f, 1) * (test_random_bits(random) & 1 ? 1.0f : -1.0f);
    else
      x[i] = (float)(2 * i) / (float)count - 1;
  }
  if (!input->classes && input->values == NET_DISTINCT)
    for (int64_t i = count - 1; i > 0; i--) {
      const int64_t j = test_random_below(random, i + 1);
      const float t = x[i];
      x[i] = x[j];
      x[j] = t;
    }
  return tensor;
}

void net_build(lamina_context *context, const net_case *spec, lamina_graph *share, lamina_graph **graph) {
  NET_OK(context, lamina_graph_create(context, share, graph));
  for (const net_input *input = spec->inputs; input < spec->inputs + NET_MAX_INPUTS && input->name; input++)
    NET_OK(context,
           lamina_graph_input(*graph, input->name, input->classes ? LAMINA_I32 : LAMINA_F32, input->rank, input->dim));
  for (const net_layer *layer = spec->layers; layer < spec->layers + NET_MAX_LAYERS && layer->type; layer++)
    NET_OK(context, lamina_graph_add(*graph, layer->type, layer->name, layer->inputs, layer->attributes));
}

static bool ends_with(const char *text, const char *end) {
  const size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static void randomize_parameters(lamina_context *context, lamina_graph *graph, test_random *random) {
  for (int i = 0; i < lamina_graph_parameter_count(graph); i++) {
    lamina_parameter parameter = {.size = sizeof parameter};
    NET_OK(context, lamina_graph_parameter_at(graph, i, &parameter));
    float *w = parameter.tensor.data;
    const int64_t count = lamina_tensor_count(&parameter.tensor);
    if (parameter.tensor.dtype != LAMINA_F32) continue;
    if (ends_with(parameter.name, "running_var") || ends_with(parameter.name, "running_std") ||
        (parameter.tensor.rank == 1 && ends_with(parameter.name, "weight")))
      test_random_fill(random, w, count, 0.5f, 1.5f);
    else if (parameter.tensor.rank == 1)
      test_random_fill(random, w, count, -0.5f, 0.5f);
  }
  lamina_graph_parameters_changed(graph);
}

static const char *last_layer(const net_case *spec) {
  const char *name = NULL;
  for (int i = 0; i < NET_MAX_LAYERS && spec->layers[i].type; i++) name = spec->layers[i].name;
  return name;
}

static void open_plan(net *n, lamina_plan_options options) {
  options.size = sizeof options;
  options.batch = n->spec->batch;
  options.outputs = n->output;
  NET_OK(n->context, lamina_plan_create(n->graph, &options, &n->plan));
  NET_OK(n->context, lamina_exec_create(n->plan, &n->exec));
  for (int i = 0; i < n->inputs; i++) {
    /* An input that the output does not need may have been left out of the plan; the tests have none such. */
    NET_OK(n->context, lamina_exec_set_input(n->exec, n->spec->inputs[i].name, &n->data[i]));
  }
}

void net_open(net *n, lamina_context *context, const net_case *spec, lamina_plan_options options, test_random *random) {
  memset(n, 0, sizeof *n);
  n->context = context;
  n->spec = spec;
  n->output = spec->output ? spec->output : last_layer(spec);
  net_build(context, spec, NULL, &n->graph);
  NET_OK(context, lamina_graph_initialize(n->graph, test_random_bits(random)));
  randomize_parameters(context, n->graph, random);
  for (; n->inputs < NET_MAX_INPUTS && spec->inputs[n->inputs].name; n->inputs++)
    n->data[n->inputs] = net_random_tensor(&spec->inputs[n->inputs], spec->batch, random);
  open_plan(n, options);
}

void net_open_shared(net *n, const net *from, lamina_plan_options options) {
  *n = *from;
  n->plan = NULL;
  n->exec = NULL;
  open_plan(n, options);
}

void net_close_shared(net *n) {
  lamina_exec_destroy(n->exec);
  lamina_plan_destroy(n->plan);
}

void net_close(net *n) {
  net_close_shared(n);
  lamina_graph_destroy(n->graph);
  for (int i = 0; i < n->inputs; i++) free(n->data[i].data);
}

lamina_tensor net_output(net *n) {
  lamina_tensor tensor;
  NET_OK(n->context, lamina_exec_output(n->exec, n->output, &tensor));
  return tensor;
}

lamina_tensor net_gradient(net *n, const char *name) {
  lamina_tensor tensor;
  NET_OK(n->context, lamina_exec_gradient(n->exec, name, &tensor));
  return tensor;
}

/* The offset of element `index` in row-major order, by the tensor's strides. */
static int64_t offset_of(const lamina_tensor *tensor, int64_t index) {
  int64_t offset = 0;
  for (int i = tensor->rank - 1; i >= 0; i--) {
    offset += index % tensor->dim[i] * tensor->stride[i];
    index /= tensor->dim[i];
  }
  return offset;
}

float *net_copy(const lamina_tensor *tensor) {
  const int64_t count = lamina_tensor_count(tensor);
  float *copy = malloc((size_t)count * sizeof *copy + 1);
  ck_assert_ptr_nonnull(copy);
  ck_assert_int_eq(tensor->dtype, LAMINA_F32);
  for (int64_t i = 0; i < count; i++) copy[i] = ((const float *)tensor->data)[offset_of(tensor, i)];
  return copy;
}

double net_error(const float *a, const float *b, int64_t count) {
  double largest = 0, difference = 0;
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
    difference = fmax(difference, fabs((double)a[i] - b[i]));
    largest = fmax(largest, fabs((double)b[i]));
  }
  return difference == 0 ? 0 : largest > 0 ? difference / largest : INFINITY;
}
