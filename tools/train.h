/* SPDX-License-Identifier: Apache-2.0 */
/* `lamina train`, in parts: settings (train.c), preparation, the loop, checkpoints. */
#ifndef TOOL_TRAIN_H
#define TOOL_TRAIN_H

#include "evaluate.h"
#include "progress.h"

/* The command line. */
typedef struct train_settings {
  common_settings common;
  const char *data, *optimizer, *schedule, *save, *resume, *init, *batch_norm, *augment, *normalise, *recompute;
  text_list freeze;
  int64_t epochs, batch, accumulate;
  double lr, momentum, weight_decay, gamma, step_epochs, clip_norm;
  int nesterov, partial, in_place, pack_late;
} train_settings;

/* All that decides how a run goes on: a checkpoint holds it beside the parameters. */
typedef struct run {
  char model[128], optimizer[16], schedule[16];
  char data[4096];      /* absolute path; "": the embedded digits */
  char fingerprint[96]; /* of the data */
  char freeze[FREEZE_MAX], batch_norm[8], augment[AUGMENT_MAX], normalise[NORMALISE_MAX];
  uint64_t seed;
  int64_t epochs, batch, accumulate, nesterov; /* a step takes `accumulate` batches */
  double lr, momentum, weight_decay, gamma, step_epochs, clip_norm; /* clip_norm 0: none */
  int64_t epoch, step;           /* epochs done; steps done in the one that runs */
  double loss_sum;               /* of those steps */
  double seconds, train_seconds; /* so far: all, and without the tests after each epoch */
  double *losses, *accuracies;   /* of the epochs done; room for `epochs` */
} run;

typedef struct training {
  session s;
  train_settings set;
  parsed line;
  run run;
  model model;
  data data;
  lamina_plan *plan;
  lamina_exec *exec;
  lamina_plan_info plan_info;
  predictor predictor;
  lamina_optimizer optimizer;
  lamina_schedule schedule;
  progress progress;
  int64_t steps;  /* in an epoch */
  lamina_batches *batches;
  lamina_tensor images; /* of this step */
  augmentation augment;
  normalisation normalise;
  double waited; /* seconds for batches */
  double started;  /* when this process began to train */
  double before;   /* run.seconds at that time */
  char save[4096]; /* "": nothing is saved */
  bool saved;      /* the state as it is now is on disk */
} training;

/* train_prepare.c: settings from the command line or the checkpoint, model, data, plans. */
int training_prepare(training *t, const char *model_name);
void training_release(training *t);

/* train_loop.c: runs the epochs that are left. Returns an exit status; 128 + signal after SIGINT or SIGTERM. */
int training_run(training *t);
/* SIGINT and SIGTERM from here on end the run in good order. */
void training_catch_signals(void);

/* checkpoint.c */
/* Finds and reads the settings and the position of `path` (weights F or checkpoint F.train) into t->run; `file` gets
   the checkpoint's path, and t->save the weights' path. */
int checkpoint_read(training *t, const char *path, char *file, size_t file_size);
/* Writes F.train and then F. Prints on failure; then what was on disk is as it was. */
int checkpoint_write(training *t);
/* Identifies data by its sizes and a sum over its first samples. */
int checkpoint_fingerprint(const training *t, char *text, size_t size);

#endif
