/* SPDX-License-Identifier: Apache-2.0 */
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static lamina_optimizer_type optimizer_type(const char *name) {
  if (!strcmp(name, "adam")) return LAMINA_ADAM;
  return !strcmp(name, "adamw") ? LAMINA_ADAMW : LAMINA_SGD;
}

static lamina_schedule_type schedule_type(const char *name) {
  if (!strcmp(name, "step")) return LAMINA_SCHEDULE_STEP;
  return !strcmp(name, "cosine") ? LAMINA_SCHEDULE_COSINE : LAMINA_SCHEDULE_CONSTANT;
}

static void default_settings(training *t) {
  run *r = &t->run;
  const train_settings *set = &t->set;
  snprintf(r->optimizer, sizeof r->optimizer, "%s", set->optimizer ? set->optimizer : "sgd");
  const bool sgd = !strcmp(r->optimizer, "sgd");
  const lamina_optimizer defaults = lamina_optimizer_defaults(optimizer_type(r->optimizer));
  snprintf(r->model, sizeof r->model, "%s", t->model.name);
  snprintf(r->schedule, sizeof r->schedule, "constant");
  r->seed = set->common.seed;
  r->epochs = 3;
  r->batch = set->batch;
  r->lr = sgd ? 0.05 : defaults.lr;
  r->momentum = sgd ? 0.9 : 0;
  r->weight_decay = defaults.weight_decay;
  r->gamma = 0.1;
}

/* What the command line says, over defaults or over the checkpoint. */
static void apply_settings(training *t) {
  run *r = &t->run;
  const train_settings *set = &t->set;
  if (option_given(&t->line, "epochs")) r->epochs = set->epochs;
  if (option_given(&t->line, "lr")) r->lr = set->lr;
  if (option_given(&t->line, "momentum")) r->momentum = set->momentum;
  if (option_given(&t->line, "weight-decay")) r->weight_decay = set->weight_decay;
  if (option_given(&t->line, "gamma")) r->gamma = set->gamma;
  if (option_given(&t->line, "step-epochs")) r->step_epochs = set->step_epochs;
  if (set->nesterov) r->nesterov = 1;
  if (set->schedule) snprintf(r->schedule, sizeof r->schedule, "%s", set->schedule);
  if (!(r->step_epochs > 0)) r->step_epochs = r->epochs > 3 ? floor((double)r->epochs / 3) : 1;
}

static int check_settings(const training *t) {
  const run *r = &t->run;
  const bool sgd = !strcmp(r->optimizer, "sgd");
  if (!sgd && (option_given(&t->line, "momentum") || t->set.nesterov))
    return usage_error(t->s.of, "--momentum and --nesterov belong to --optimizer sgd, not %s", r->optimizer);
  if (r->nesterov && !(r->momentum > 0)) return usage_error(t->s.of, "--nesterov needs a --momentum above 0");
  return EXIT_OK;
}

/* Settings that cannot change in the middle of a run. */
static int check_resumed(const training *t, const char *file) {
  const run *r = &t->run;
  const train_settings *set = &t->set;
  if (strcmp(r->model, t->model.name))
    return fail("%s is a checkpoint of the model '%s', not of '%s'", file, r->model, t->model.name);
  if (option_given(&t->line, "batch") && set->batch != r->batch)
    return fail("%s was made with --batch %lld: a run cannot go on with --batch %lld; leave --batch out", file,
                (long long)r->batch, (long long)set->batch);
  if (option_given(&t->line, "seed") && set->common.seed != r->seed)
    return fail("%s was made with --seed %llu: a run cannot go on with --seed %llu; leave --seed out", file,
                (unsigned long long)r->seed, (unsigned long long)set->common.seed);
  if (set->optimizer && strcmp(set->optimizer, r->optimizer))
    return fail("%s holds the state of --optimizer %s: a run cannot go on with %s; leave --optimizer out", file,
                r->optimizer, set->optimizer);
  if (option_given(&t->line, "epochs") && set->epochs < r->epoch + (r->step > 0))
    return fail("%s is in epoch %lld already: --epochs %lld is too few", file, (long long)r->epoch + (r->step > 0),
                (long long)set->epochs);
  return EXIT_OK;
}

static int prepare_save(training *t) {
  char file[sizeof t->save + 8];
  if (t->set.save && snprintf(t->save, sizeof t->save, "%s", t->set.save) >= (int)sizeof t->save)
    return fail("--save: the path is too long");
  if (!*t->save) return EXIT_OK;
  snprintf(file, sizeof file, "%s.train", t->save);
  return check_writable(t->save) || check_writable(file) ? EXIT_ERROR : EXIT_OK;
}

static int prepare_data(training *t, const char *file) {
  run *r = &t->run;
  char fingerprint[sizeof r->fingerprint];
  if (t->set.data) {
    char *real = realpath(t->set.data, NULL);
    json_t *text = json_string(real ? real : t->set.data);
    const bool utf8 = text != NULL;
    json_decref(text);
    const bool fits = snprintf(r->data, sizeof r->data, "%s", real ? real : t->set.data) < (int)sizeof r->data;
    free(real);
    if (!fits) return fail("--data: the path is too long");
    if (!utf8) return fail("--data: the path is not UTF-8, so no checkpoint can hold it");
  }
  if (data_open(&t->data, &t->s, &t->model, *r->data ? r->data : NULL)) return EXIT_ERROR;
  if (checkpoint_fingerprint(t, fingerprint, sizeof fingerprint)) return EXIT_ERROR;
  if (t->set.resume && strcmp(fingerprint, r->fingerprint)) {
    fail("%s was made with other data than %s", file, t->data.info.description);
    hint("give --data the folder with the same files as before");
    return EXIT_ERROR;
  }
  const int64_t *count = t->data.info.count;
  if (r->batch > count[LAMINA_SPLIT_TRAIN])
    return fail("--batch %lld is larger than the data, which has %lld training images", (long long)r->batch,
                (long long)count[LAMINA_SPLIT_TRAIN]);
  if (count[LAMINA_SPLIT_TEST] < 1) return fail("%s: there are no test images", *r->data ? r->data : "embedded digits");
  t->steps = count[LAMINA_SPLIT_TRAIN] / r->batch; /* the images left over wait for the next epoch's shuffle */
  if (r->step > t->steps) return fail("%s: step %lld of %lld steps", file, (long long)r->step, (long long)t->steps);
  snprintf(r->fingerprint, sizeof r->fingerprint, "%s", fingerprint);
  return EXIT_OK;
}

static int prepare_parameters(training *t, const char *file) {
  if (!t->set.resume) {
    if (lamina_graph_initialize(t->model.graph, t->run.seed))
      return fail_library(&t->s, "cannot initialise %s", t->model.name);
    return EXIT_OK;
  }
  if (lamina_graph_load_weights(t->model.graph, file, LAMINA_WEIGHTS_TRAINING)) {
    fail_library(&t->s, "cannot resume %s", t->model.name);
    hint("a checkpoint fits only the model that it was made with");
    return EXIT_ERROR;
  }
  return EXIT_OK;
}

static int prepare_plans(training *t) {
  const run *r = &t->run;
  const lamina_plan_options options = {
      .size = sizeof options, .mode = LAMINA_TRAIN, .batch = r->batch, .outputs = "loss"};
  t->plan_info.size = sizeof t->plan_info;
  if (lamina_plan_create(t->model.graph, &options, &t->plan) || lamina_exec_create(t->plan, &t->exec) ||
      lamina_plan_get_info(t->plan, &t->plan_info))
    return fail_library(&t->s, "cannot prepare %s for training", t->model.name);
  t->images = allocate(r->batch, (size_t)lamina_tensor_count(&t->model.in) * sizeof *t->images);
  t->labels = allocate(r->batch, sizeof *t->labels);
  t->order = allocate(t->data.info.count[LAMINA_SPLIT_TRAIN], sizeof *t->order);
  if (!t->images || !t->labels || !t->order) return fail("out of memory for a batch of %lld", (long long)r->batch);
  int64_t dim[LAMINA_MAX_RANK];
  memcpy(dim, t->model.in.dim, sizeof dim);
  dim[0] = r->batch;
  const lamina_tensor images = lamina_tensor_of(t->images, LAMINA_F32, t->model.in.rank, dim);
  const lamina_tensor labels = lamina_tensor_of(t->labels, LAMINA_I32, 1, &r->batch);
  if (lamina_exec_set_input(t->exec, t->model.input, &images) || lamina_exec_set_input(t->exec, "labels", &labels))
    return fail_library(&t->s, "cannot prepare %s for training", t->model.name);
  const int64_t batch = predict_batch(&t->model, t->data.info.count[LAMINA_SPLIT_TEST]);
  return predictor_open(&t->predictor, &t->s, &t->model, batch);
}

static void prepare_optimizer(training *t) {
  const run *r = &t->run;
  t->optimizer = lamina_optimizer_defaults(optimizer_type(r->optimizer));
  t->optimizer.weight_decay = r->weight_decay;
  t->optimizer.momentum = r->momentum;
  t->optimizer.nesterov = (int)r->nesterov;
  t->schedule = (lamina_schedule){.size = sizeof t->schedule,
                                  .type = schedule_type(r->schedule),
                                  .lr = r->lr,
                                  .gamma = r->gamma,
                                  .epochs = (double)r->epochs,
                                  .step_epochs = r->step_epochs};
}

/* Fills the run's settings and, when it is resumed, its position; `file` gets the checkpoint's path. */
static int prepare_run(training *t, char *file, size_t file_size) {
  run *r = &t->run;
  if (t->set.resume) {
    if (checkpoint_read(t, t->set.resume, file, file_size) || check_resumed(t, file)) return EXIT_ERROR;
    apply_settings(t);
    return check_settings(t);
  }
  default_settings(t);
  apply_settings(t);
  r->losses = allocate(r->epochs, sizeof *r->losses);
  r->accuracies = allocate(r->epochs, sizeof *r->accuracies);
  if (!r->losses || !r->accuracies) return fail("out of memory");
  return check_settings(t);
}

int training_prepare(training *t, const char *model_name) {
  char file[sizeof t->save + 8] = "";
  if (model_open(&t->model, &t->s, model_name) || model_check_classifier(&t->model)) return EXIT_ERROR;
  int status = prepare_run(t, file, sizeof file);
  if (!status) status = prepare_save(t);
  if (!status) status = prepare_data(t, file);
  if (!status) status = model_add_loss(&t->model, &t->s);
  if (!status) status = prepare_parameters(t, file);
  if (!status) status = prepare_plans(t);
  if (!status) prepare_optimizer(t);
  return status;
}

void training_release(training *t) {
  predictor_close(&t->predictor);
  lamina_exec_destroy(t->exec);
  lamina_plan_destroy(t->plan);
  data_close(&t->data);
  model_close(&t->model);
  free(t->images);
  free(t->labels);
  free(t->order);
  free(t->run.losses);
  free(t->run.accuracies);
}
