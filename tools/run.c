/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct run_settings {
  common_settings common;
  const char *weights, *input, *output;
  int64_t top;
} run_settings;

static const option options[] = {
    {"weights", "FILE", OPTION_TEXT, offsetof(run_settings, weights), 0, 0, NULL,
     "safetensors file, as 'lamina train --save' or PyTorch writes it (required)"},
    {"input", "X.npy", OPTION_TEXT, offsetof(run_settings, input), 0, 0, NULL,
     "one sample (H, W, C) or many (N, H, W, C), C may be left out if it is 1; f4, or u1, which becomes\n"
     "                       byte / 127.5 - 1; or as --normalise had them in training (required)"},
    {"output", "Y.npy", OPTION_TEXT, offsetof(run_settings, output), 0, 0, NULL, "write the network's output there"},
    {"top", "N", OPTION_INT, offsetof(run_settings, top), 1, 1000, NULL, "how many classes to print (default 5)"},
    {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

typedef struct work {
  session s;
  const run_settings *set;
  model model;
  lamina_tensor array; /* as it was read */
  int64_t samples;
  normalisation normalise;
  bool spread; /* one channel in the file is repeated for the model's */
  predictor predictor;
  float *batch;
  lamina_tensor result; /* all samples; owned */
} work;

/* Whether the array fits when its first `lead` dimensions (0 or 1) count the samples and `grey` says that the channels
   of its images, just one, were left out. */
static bool fits(work *w, int lead, bool grey) {
  const lamina_tensor *a = &w->array, *in = &w->model.in;
  if (a->rank + (grey ? 1 : 0) - lead != in->rank - 1 || (grey && in->rank != 4)) return false;
  w->samples = lead ? a->dim[0] : 1;
  w->spread = false;
  for (int i = 1; i < in->rank; i++) {
    const int64_t dim = grey && i == 3 ? 1 : a->dim[i - 1 + lead];
    const bool repeated = in->rank == 4 && i == 3 && dim == 1 && in->dim[3] > 1;
    w->spread = w->spread || repeated;
    if (dim != in->dim[i] && !repeated) return false;
  }
  return true;
}

/* Finds out whether the file holds one sample or many, and whether it fits. */
static int check_input(work *w) {
  const lamina_tensor *a = &w->array, *in = &w->model.in;
  char have[96], need[96];
  if (!fits(w, 1, false) && !fits(w, 0, false) && !fits(w, 1, true) && !fits(w, 0, true))
    return fail("%s: an array of %s does not fit %s, whose input '%s' is %s for one sample", w->set->input,
                dims_text(a, 0, have, sizeof have), w->model.name, w->model.input, dims_text(in, 1, need, sizeof need));
  if (a->dtype != LAMINA_F32 && a->dtype != LAMINA_U8) {
    fail("%s: integers cannot be fed to a network", w->set->input);
    hint("save floats (f4), which are taken as they are, or bytes (u1), which become byte / 127.5 - 1");
    return EXIT_ERROR;
  }
  return w->samples > 0 ? EXIT_OK : fail("%s: the array is empty", w->set->input);
}

/* Samples first .. first + n - 1 as the model's input. */
static void copy_samples(const work *w, int64_t first, int64_t n) {
  const int64_t sample = lamina_tensor_count(&w->model.in), repeat = w->spread ? w->model.in.dim[3] : 1;
  const int64_t count = n * sample / repeat, from = first * (sample / repeat);
  const uint8_t *bytes = w->array.dtype == LAMINA_U8 ? w->array.data : NULL;
  const float *floats = w->array.data;
  const int64_t channels = w->spread ? 1 : w->model.in.dim[w->model.in.rank - 1];
  for (int64_t i = 0; i < count; i++) {
    float value;
    if (w->normalise.count)
      value = normalised(&w->normalise, i % channels, bytes ? (double)bytes[from + i] / 255 : (double)floats[from + i]);
    else
      value = bytes ? (float)bytes[from + i] / 127.5f - 1.0f : floats[from + i];
    for (int64_t k = 0; k < repeat; k++) w->batch[i * repeat + k] = value;
  }
}

/* A row of the output, dense, whatever strides the plan gave it. */
static void copy_rows(const lamina_tensor *from, float *to) {
  int64_t index[LAMINA_MAX_RANK] = {0};
  const int64_t count = lamina_tensor_count(from);
  for (int64_t i = 0; i < count; i++) {
    int64_t at = 0;
    for (int d = 0; d < from->rank; d++) at += index[d] * from->stride[d];
    to[i] = ((const float *)from->data)[at];
    for (int d = from->rank - 1; d >= 0 && ++index[d] == from->dim[d]; d--) index[d] = 0;
  }
}

static int predict_all(work *w) {
  const int64_t batch = predict_batch(&w->model, w->samples), row = lamina_tensor_count(&w->model.out);
  int64_t dim[LAMINA_MAX_RANK];
  memcpy(dim, w->model.out.dim, sizeof dim);
  dim[0] = w->samples;
  float *values = row > 0 && w->samples <= INT64_MAX / row ? allocate(w->samples * row, sizeof *values) : NULL;
  w->result = lamina_tensor_of(values, LAMINA_F32, w->model.out.rank, dim);
  w->batch = allocate(batch, (size_t)lamina_tensor_count(&w->model.in) * sizeof *w->batch);
  if (!values || !w->batch) return fail("out of memory for %lld samples", (long long)w->samples);
  if (predictor_open(&w->predictor, &w->s, &w->model, batch)) return EXIT_ERROR;
  progress shown;
  progress_start(&shown, stderr);
  const double started = now_seconds();
  for (int64_t at = 0; at < w->samples; at += batch) {
    const int64_t n = w->samples - at < batch ? w->samples - at : batch;
    lamina_tensor out;
    copy_samples(w, at, n);
    if (predictor_run(&w->predictor, w->batch, n, &out)) return EXIT_ERROR;
    copy_rows(&out, values + at * row);
    progress_count(&shown, "running", at + n, w->samples, now_seconds() - started);
  }
  progress_clear(&shown);
  return EXIT_OK;
}

/* Takes the largest value out of `values`, which are a copy; returns its index, or -1 when only NaN is left. */
static int64_t take_top(float *values, int64_t count, float *value) {
  const int64_t best = arg_max(values, count);
  *value = values[best];
  values[best] = NAN;
  return isnan(*value) ? -1 : best;
}

static int print_sample(const work *w, int64_t sample, float *values, int64_t classes, json_t *list) {
  json_t *top = list ? json_array() : NULL;
  if (!list) printf("sample %lld:", (long long)sample);
  for (int64_t k = 0; k < w->set->top && k < classes; k++) {
    float value;
    const int64_t class = take_top(values, classes, &value);
    if (class < 0) break;
    if (list)
      json_array_append_new(top, json_pack("{s:I s:o}", "class", (json_int_t) class, "value", json_number(value)));
    else
      printf("  class %lld %.6g", (long long)class, (double)value);
  }
  if (!list)
    putchar('\n');
  else
    json_array_append_new(list, json_pack("{s:I s:o}", "sample", (json_int_t)sample, "top", top));
  return EXIT_OK;
}

/* For outputs that are no list of classes. */
static void print_summary(const work *w) {
  char shape[96];
  const float *values = w->result.data;
  const int64_t count = lamina_tensor_count(&w->result);
  double sum = 0, least = INFINITY, most = -INFINITY;
  for (int64_t i = 0; i < count; i++) {
    sum += values[i];
    if (values[i] < least) least = values[i];
    if (values[i] > most) most = values[i];
  }
  fprintf(w->s.human, "output %s: mean %g, from %g to %g\n", dims_text(&w->result, 0, shape, sizeof shape),
          sum / (double)count, least, most);
}

static int print_classes(const work *w) {
  const int64_t classes = w->model.out.dim[1];
  float *copy = allocate(classes, sizeof *copy);
  json_t *list = w->s.common->json ? json_array() : NULL;
  if (!copy) return fail("out of memory");
  for (int64_t i = 0; i < w->samples; i++) {
    memcpy(copy, (const float *)w->result.data + i * classes, (size_t)classes * sizeof *copy);
    print_sample(w, i, copy, classes, list);
  }
  free(copy);
  return list ? print_json(json_pack("{s:s s:s s:o}", "model", w->model.name, "isa", w->s.info.isa, "samples", list))
              : EXIT_OK;
}

static int print_result(const work *w) {
  if (w->model.out.rank == 2) return print_classes(w);
  print_summary(w);
  return w->s.common->json ? print_json(json_pack("{s:s s:s s:I}", "model", w->model.name, "isa", w->s.info.isa,
                                                  "samples", (json_int_t)w->samples))
                           : EXIT_OK;
}

static int work_on(work *w, const command *self, const char *model_name) {
  if (session_open(&w->s, self, &w->set->common) || model_open(&w->model, &w->s, model_name) ||
      model_check_single(&w->model))
    return EXIT_ERROR;
  if (w->model.in.dtype != LAMINA_F32 || w->model.out.dtype != LAMINA_F32)
    return fail("%s: this command needs a model from f32 to f32", w->model.path);
  if (w->set->output && check_writable(w->set->output)) return EXIT_ERROR;
  if (model_load_weights(&w->model, &w->s, w->set->weights) ||
      normalisation_of_weights(&w->s, w->set->weights, &w->normalise))
    return EXIT_ERROR;
  if (lamina_array_load(w->s.context, w->set->input, &w->array)) return fail_library(&w->s, "cannot read the input");
  if (check_input(w)) return EXIT_ERROR;
  if (w->normalise.count > 1 && w->normalise.count != (w->spread ? 1 : w->model.in.dim[w->model.in.rank - 1]))
    return fail("%s: the weights normalise %d channels, which the input does not have", w->set->input, w->normalise.count);
  if (predict_all(w)) return EXIT_ERROR;
  if (w->set->output && lamina_array_save(w->s.context, w->set->output, &w->result))
    return fail_library(&w->s, "cannot save the output");
  return print_result(w);
}

static int run_command(const command *self, int argc, char **argv) {
  run_settings set = {.top = 5};
  work w = {.set = &set};
  parsed line;
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  if (!set.weights) return usage_error(self, "--weights FILE is missing: 'lamina train --save FILE' writes one");
  if (!set.input) return usage_error(self, "--input X.npy is missing: numpy.save writes one");
  status = work_on(&w, self, line.argument[0]);
  predictor_close(&w.predictor);
  if (w.array.data) lamina_array_release(w.s.context, &w.array);
  free(w.result.data);
  free(w.batch);
  model_close(&w.model);
  session_close(&w.s);
  return status;
}

const command command_run = {
    .name = "run",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "a trained network's output for samples in a .npy file",
    .text = "Runs MODEL with trained weights on the samples of a .npy file and prints the classes with the largest "
            "values,\n"
            "as the network gives them: they are probabilities only if it ends in a softmax.",
    .examples = "  lamina run lenet5 --weights digits.safetensors --input digit.npy\n"
                "  lamina run mynet --weights w.safetensors --input images.npy --output scores.npy --top 1",
    .options = options,
    .run = run_command};
