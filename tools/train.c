/* SPDX-License-Identifier: Apache-2.0 */
#include "train.h"

#include "commands.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const option options[] = {
    {"data", "DIR", OPTION_TEXT, offsetof(train_settings, data), 0, 0, NULL,
     "folder with IDX files (MNIST), CIFAR-10 binary files or .npy pairs (default: drawn digits)"},
    {"epochs", "N", OPTION_INT, offsetof(train_settings, epochs), 1, 1000000, NULL,
     "passes over the training images (default 3)"},
    {"batch", "N", OPTION_INT, offsetof(train_settings, batch), 1, 1 << 24, NULL, "images in a step (default 64)"},
    {"accumulate", "N", OPTION_INT, offsetof(train_settings, accumulate), 1, 1 << 20, NULL,
     "a step takes the mean gradient of N batches, in the memory of one (default 1)"},
    {"clip-norm", "F", OPTION_REAL, offsetof(train_settings, clip_norm), DBL_MIN, 1e30, NULL,
     "scale the gradients of a step so that their norm is at most F"},
    MEMORY_OPTIONS(train_settings, ),
    {"lr", "F", OPTION_REAL, offsetof(train_settings, lr), DBL_MIN, 1e6, NULL,
     "learning rate (default 0.05 for sgd, 0.001 for adam and adamw)"},
    {"optimizer", "NAME", OPTION_CHOICE, offsetof(train_settings, optimizer), 0, 0, "sgd|adam|adamw",
     "sgd, adam or adamw (default sgd)"},
    {"momentum", "F", OPTION_REAL, offsetof(train_settings, momentum), 0, 1, NULL, "of sgd (default 0.9)"},
    {"weight-decay", "F", OPTION_REAL, offsetof(train_settings, weight_decay), 0, 1e6, NULL,
     "(default 0; 0.01 for adamw)"},
    {"nesterov", NULL, OPTION_FLAG, offsetof(train_settings, nesterov), 0, 0, NULL, "Nesterov's momentum, for sgd"},
    {"schedule", "NAME", OPTION_CHOICE, offsetof(train_settings, schedule), 0, 0, "constant|step|cosine",
     "how the rate changes: constant, step or cosine (default constant)"},
    {"gamma", "F", OPTION_REAL, offsetof(train_settings, gamma), DBL_MIN, 1, NULL,
     "step: the rate is multiplied by this (default 0.1) ..."},
    {"step-epochs", "F", OPTION_REAL, offsetof(train_settings, step_epochs), DBL_MIN, 1e6, NULL,
     "... after each so many epochs (default: a third of all)"},
    {"save", "FILE", OPTION_TEXT, offsetof(train_settings, save), 0, 0, NULL,
     "write weights to FILE and the training state to FILE.train, after each epoch and on Ctrl-C"},
    {"resume", "FILE", OPTION_TEXT, offsetof(train_settings, resume), 0, 0, NULL,
     "go on from FILE.train, with its settings; options given again override rates and epochs"},
    {"init", "FILE", OPTION_TEXT, offsetof(train_settings, init), 0, 0, NULL,
     "begin with the weights of a safetensors file, as 'lamina train --save' or PyTorch writes it"},
    {"partial", NULL, OPTION_FLAG, offsetof(train_settings, partial), 0, 0, NULL,
     "parameters that --init's file lacks, or has in another shape, start afresh and are named"},
    {"freeze", "PATTERN", OPTION_LIST, offsetof(train_settings, freeze), 0, 0, NULL,
     "do not train parameters of such names; '*' stands for any characters: 'conv*,bn*'. May be repeated"},
    {"batch-norm", "HOW", OPTION_CHOICE, offsetof(train_settings, batch_norm), 0, 0, "frozen|adapt",
     "statistics of frozen batch norms: frozen (the running ones, default), or adapt to the new data"},
    {"augment", "LIST", OPTION_TEXT, offsetof(train_settings, augment), 0, 0, NULL,
     "change training images by chance: any of shift=N (pixels each way), crop=N (rows and columns that are\n"
     "                       cut off before it is stretched back) and flip (left to right), separated by commas"},
    {"normalise", "M/S", OPTION_TEXT, offsetof(train_settings, normalise), 0, 0, NULL,
     "(value - M) / S, bytes counted from 0 to 1; one number each, or one for each channel:\n"
     "                       0.49,0.48,0.45/0.25,0.24,0.26; kept in the weights' file for 'eval' and 'run'\n"
     "                       (default for bytes: 0.5/0.5)"},
    {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

/* What is frozen, and what comes of it. */
static void print_freeze(const training *t) {
  const lamina_plan_info *i = &t->plan_info;
  if (!*t->run.freeze) return;
  fprintf(t->s.human,
          "freeze  %s: %lld of %lld parameters are trained, %d of %d nodes need no backward pass; batch norm %s\n",
          t->run.freeze, (long long)i->trained, (long long)t->model.parameters, i->frozen, i->nodes,
          !strcmp(t->run.batch_norm, "adapt") ? "adapts its statistics" : "keeps its statistics");
}

static void print_start(const training *t) {
  const run *r = &t->run;
  const lamina_plan_info *i = &t->plan_info;
  FILE *out = t->s.human;
  char flops[32], arena[32], unplanned[32], extra[96] = "";
  if (!strcmp(r->optimizer, "sgd"))
    snprintf(extra, sizeof extra, " momentum %g%s", r->momentum, r->nesterov ? " (Nesterov)" : "");
  fprintf(out, "model   %s: %lld parameters, %s to train on one image\n", t->model.name, (long long)t->model.parameters,
          flops_text((i->flops + i->backward_flops) / (double)r->batch, flops, sizeof flops));
  fprintf(out, "data    %s: %lld training and %lld test images\n", t->data.info.description,
          (long long)t->data.info.count[LAMINA_SPLIT_TRAIN], (long long)t->data.info.count[LAMINA_SPLIT_TEST]);
  if (*r->augment || *r->normalise)
    fprintf(out, "images  %s%s%s%s\n", *r->augment ? "augmented by " : "", r->augment,
            *r->augment && *r->normalise ? "; " : "", *r->normalise ? "normalised" : "");
  print_freeze(t);
  fprintf(out, "run     %s, lr %g%s, weight decay %g, %s schedule; batch %lld, seed %llu; %s, %d thread%s\n",
          r->optimizer, r->lr, extra, r->weight_decay, r->schedule, (long long)r->batch, (unsigned long long)r->seed,
          t->s.info.isa, t->s.info.threads, t->s.info.threads == 1 ? "" : "s");
  if (r->accumulate > 1 || r->clip_norm > 0) {
    fprintf(out, "step    %lld batches of %lld", (long long)r->accumulate, (long long)r->batch);
    if (r->clip_norm > 0) fprintf(out, "; the gradients' norm is clipped to %g", r->clip_norm);
    fprintf(out, "\n");
  }
  fprintf(out, "memory  %s for activations and gradients; without planning %s (%.0f %% saved)\n",
          bytes_text((double)i->arena, arena, sizeof arena),
          bytes_text((double)i->unplanned, unplanned, sizeof unplanned),
          i->unplanned ? 100.0 * (1.0 - (double)i->arena / (double)i->unplanned) : 0.0);
  if (t->set.resume)
    fprintf(out, "resume  after epoch %lld/%lld, step %lld/%lld\n", (long long)r->epoch, (long long)r->epochs,
            (long long)r->step, (long long)t->steps);
  fflush(out);
}

static json_t *number_list(const double *values, int64_t count) {
  json_t *list = json_array();
  for (int64_t i = 0; i < count; i++) json_array_append_new(list, json_number(values[i]));
  return list;
}

static int print_result(const training *t, bool interrupted) {
  const run *r = &t->run;
  const double images = (double)((r->epoch * t->steps + r->step) * r->accumulate * r->batch);
  const double last_loss = r->epoch ? r->losses[r->epoch - 1] : NAN;
  const double last_accuracy = r->epoch ? r->accuracies[r->epoch - 1] : NAN;
  json_t *o =
      json_pack("{s:s s:s s:I s:o s:o s:I s:f s:f s:f s:s s:i s:I s:I s:s s:f s:f s:f s:s s:o s:o s:I s:I s:b}",
                "model", t->model.name, "data", t->data.info.description, "parameters", (json_int_t)t->model.parameters,
                "train_loss", json_number(last_loss), "test_accuracy", json_number(last_accuracy), "epochs",
                (json_int_t)r->epoch, "seconds", r->seconds, "train_seconds", r->train_seconds, "images_per_second",
                r->train_seconds > 0 ? images / r->train_seconds : 0.0, "isa", t->s.info.isa, "threads",
                t->s.info.threads, "batch", (json_int_t)r->batch, "seed", (json_int_t)r->seed, "optimizer",
                r->optimizer, "lr", r->lr, "momentum", r->momentum, "weight_decay", r->weight_decay, "schedule",
                r->schedule, "epoch_losses", number_list(r->losses, r->epoch), "epoch_accuracies",
                number_list(r->accuracies, r->epoch), "arena_bytes", (json_int_t)t->plan_info.arena, "unplanned_bytes",
                (json_int_t)t->plan_info.unplanned, "interrupted", (int)interrupted);
  if (o) {
    json_object_set_new(o, "trained_parameters", json_integer((json_int_t)t->plan_info.trained));
    json_object_set_new(o, "data_wait_seconds", json_real(t->waited));
  }
  return print_json(o);
}

static int train(training *t) {
  if (session_open(&t->s, t->line.of, &t->set.common)) return EXIT_ERROR;
  int status = training_prepare(t, t->line.argument[0]);
  if (status) return status;
  print_start(t);
  training_catch_signals();
  status = training_run(t);
  const bool interrupted = status > 128;
  if (t->set.common.json && (!status || interrupted) && print_result(t, interrupted)) status = EXIT_ERROR;
  return status;
}

static bool ends_in_train(const char *path) {
  const size_t length = strlen(path);
  return length > 6 && !strcmp(path + length - 6, ".train");
}

static int run_command(const command *self, int argc, char **argv) {
  training *t = calloc(1, sizeof *t);
  if (!t) return fail("out of memory");
  t->set.batch = 64;
  t->set.accumulate = 1;
  int status = options_parse(self, argc, argv, &t->set, &t->line);
  if (status == OPTIONS_RUN && t->set.save && ends_in_train(t->set.save))
    status = usage_error(self, "--save names the weights' file; the training state is written beside it as FILE.train");
  if (status == OPTIONS_RUN && t->set.resume && t->set.init)
    status = usage_error(self, "--init begins a run and --resume goes on with one: give one of them");
  if (status == OPTIONS_RUN && t->set.partial && !t->set.init) status = usage_error(self, "--partial needs --init FILE");
  if (status == OPTIONS_RUN) {
    status = train(t);
    training_release(t);
    session_close(&t->s);
  }
  free(t);
  return status;
}

const command command_train = {
    .name = "train",
    .arguments = "MODEL",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "train a network on labelled images and test it after each epoch",
    .text =
        "Trains MODEL by softmax cross-entropy: a network of images with one value for each class. MODEL is a .json\n"
        "file, or the name of one of the models that ship with lamina ('lamina train x' lists them). Results are the\n"
        "same to the last bit for any number of threads. Ctrl-C stops in good order: with --save the run can go on.",
    .examples = "  lamina train lenet5                                    three epochs on drawn digits\n"
                "  lamina train mynet --data mnist --epochs 5 --save w.safetensors\n"
                "  lamina train mynet --resume w.safetensors --epochs 8   go on where that ended\n"
                "  lamina eval mynet --weights w.safetensors --data mnist\n"
                "  lamina train resnet18 --data cifar --optimizer adamw --schedule cosine --augment shift=4,flip\n"
                "  lamina train ./five.json --init w.safetensors --partial --freeze 'conv*,bn*,fc1.*'\n"
                "                                                         fine-tuning: a new last layer on a trained network",
    .options = options,
    .run = run_command};
