/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "evaluate.h"

#include <stdlib.h>
#include <string.h>

typedef struct eval_settings {
  common_settings common;
  const char *data, *weights;
  int64_t batch;
} eval_settings;

static const option options[] = {
    {"weights", "FILE", OPTION_TEXT, offsetof(eval_settings, weights), 0, 0, NULL,
     "safetensors file, as 'lamina train --save' or PyTorch writes it (required)"},
    {"data", "DIR", OPTION_TEXT, offsetof(eval_settings, data), 0, 0, NULL,
     "folder with IDX files (MNIST), CIFAR-10 binary files or .npy pairs (default: drawn digits)"},
    {"batch", "N", OPTION_INT, offsetof(eval_settings, batch), 1, 1 << 24, NULL,
     "images run at once (default: up to 256, by their size)"},
    {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

static json_t *confusion_json(const evaluation *e) {
  json_t *rows = json_array();
  for (int label = 0; label < e->classes; label++) {
    json_t *row = json_array();
    for (int k = 0; k < e->classes; k++) json_array_append_new(row, json_integer(e->confusion[label * e->classes + k]));
    json_array_append_new(rows, row);
  }
  return rows;
}

static void print_confusion(const evaluation *e, FILE *out) {
  if (e->classes > 20) {
    fprintf(out, "confusion matrix: %d classes are too many to print; --json holds it\n", e->classes);
    return;
  }
  fprintf(out, "\nconfusion matrix (a row is a true class, a column a predicted one)\n       ");
  for (int k = 0; k < e->classes; k++) fprintf(out, "%7d", k);
  fprintf(out, "   recall\n");
  for (int label = 0; label < e->classes; label++) {
    int64_t total = 0;
    fprintf(out, "%7d", label);
    for (int k = 0; k < e->classes; k++) {
      const int64_t n = e->confusion[label * e->classes + k];
      total += n;
      fprintf(out, "%7lld", (long long)n);
    }
    if (total)
      fprintf(out, "   %.4f\n", (double)e->confusion[label * e->classes + label] / (double)total);
    else
      fprintf(out, "        -\n");
  }
}

static int print_result(const session *s, const model *m, const data *d, const evaluation *e, double seconds) {
  const double rate = seconds > 0 ? (double)e->samples / seconds : 0;
  fprintf(s->human, "%s on %s: accuracy %.4f  loss %.6g  %lld images  %.0f images/s\n", m->name, d->info.description,
          e->accuracy, e->loss, (long long)e->samples, rate);
  if (e->not_finite)
    hint("the outputs for %lld of these images are not finite: the weights or the images hold such values",
         (long long)e->not_finite);
  if (!s->common->json) {
    print_confusion(e, s->human);
    return EXIT_OK;
  }
  return print_json(json_pack(
      "{s:s s:s s:o s:o s:I s:f s:f s:s s:i s:o}", "model", m->name, "data", d->info.description, "test_accuracy",
      json_number(e->accuracy), "test_loss", json_number(e->loss), "images", (json_int_t)e->samples, "seconds", seconds,
      "images_per_second", rate, "isa", s->info.isa, "threads", s->info.threads, "confusion", confusion_json(e)));
}

static int eval_model(session *s, const eval_settings *set, model *m, data *d, predictor *p) {
  const int classes = (int)m->out.dim[1];
  const int64_t count = d->info.count[LAMINA_SPLIT_TEST];
  if (count < 1) return fail("%s: there are no test images", d->info.description);
  if (set->batch > count)
    return fail("--batch %lld is larger than the data, which has %lld test images", (long long)set->batch,
                (long long)count);
  if (predictor_open(p, s, m, set->batch ? set->batch : predict_batch(m, count))) return EXIT_ERROR;
  evaluation e = {.classes = classes, .confusion = calloc((size_t)classes * (size_t)classes, sizeof *e.confusion)};
  if (!e.confusion) return fail("out of memory");
  progress shown;
  progress_start(&shown, stderr);
  const double started = now_seconds();
  int status = evaluate(p, d, NULL, &shown, &e);
  if (!status) status = print_result(s, m, d, &e, now_seconds() - started);
  free(e.confusion);
  return status;
}

static int run_command(const command *self, int argc, char **argv) {
  eval_settings set = {0};
  parsed line;
  session s = {0};
  model m = {0};
  data d = {0};
  predictor p = {0};
  normalisation n = {0};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  if (!set.weights) return usage_error(self, "--weights FILE is missing: 'lamina train --save FILE' writes one");
  status = session_open(&s, self, &set.common);
  if (!status) status = model_open(&m, &s, line.argument[0]);
  if (!status) status = model_check_classifier(&m);
  if (!status) status = model_load_weights(&m, &s, set.weights);
  if (!status) status = normalisation_of_weights(&s, set.weights, &n);
  if (!status) status = data_open(&d, &s, &m, set.data, &n);
  if (!status) status = eval_model(&s, &set, &m, &d, &p);
  predictor_close(&p);
  data_close(&d);
  model_close(&m);
  session_close(&s);
  return status;
}

const command command_eval = {.name = "eval",
                              .arguments = "MODEL",
                              .min_arguments = 1,
                              .max_arguments = 1,
                              .summary = "accuracy, loss and confusion matrix of a trained network on test images",
                              .text = "Runs MODEL with trained weights on all test images, which are normalised as\n"
                                      "in training (--normalise is kept in the weights' file).",
                              .examples = "  lamina train lenet5 --save digits.safetensors\n"
                                          "  lamina eval lenet5 --weights digits.safetensors\n"
                                          "  lamina eval mynet --weights w.safetensors --data mnist --json",
                              .options = options,
                              .run = run_command};
