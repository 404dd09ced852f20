/* SPDX-License-Identifier: Apache-2.0 */
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
  r->accumulate = set->accumulate;
  r->lr = sgd ? 0.05 : defaults.lr;
  r->momentum = sgd ? 0.9 : 0;
  r->weight_decay = defaults.weight_decay;
  r->gamma = 0.1;
  snprintf(r->batch_norm, sizeof r->batch_norm, "frozen");
}

/* What the command line says, over defaults or over the checkpoint. */
static void apply_settings(training *t) {
  run *r = &t->run;
  const train_settings *set = &t->set;
  if (option_given(&t->line, "epochs")) r->epochs = set->epochs;
  if (option_given(&t->line, "lr")) r->lr = set->lr;
  if (option_given(&t->line, "momentum")) r->momentum = set->momentum;
  if (option_given(&t->line, "weight-decay")) r->weight_decay = set->weight_decay;
  if (option_given(&t->line, "clip-norm")) r->clip_norm = set->clip_norm;
  if (option_given(&t->line, "gamma")) r->gamma = set->gamma;
  if (option_given(&t->line, "step-epochs")) r->step_epochs = set->step_epochs;
  if (set->nesterov) r->nesterov = 1;
  if (set->batch_norm) snprintf(r->batch_norm, sizeof r->batch_norm, "%s", set->batch_norm);
  if (set->augment) snprintf(r->augment, sizeof r->augment, "%s", set->augment);
  if (set->normalise) snprintf(r->normalise, sizeof r->normalise, "%s", set->normalise);
  if (set->schedule) snprintf(r->schedule, sizeof r->schedule, "%s", set->schedule);
  if (!(r->step_epochs > 0)) r->step_epochs = r->epochs > 3 ? floor((double)r->epochs / 3) : 1;
}

static int check_settings(training *t) {
  const run *r = &t->run;
  const bool sgd = !strcmp(r->optimizer, "sgd");
  if (!sgd && (option_given(&t->line, "momentum") || t->set.nesterov))
    return usage_error(t->s.of, "--momentum and --nesterov belong to --optimizer sgd, not %s", r->optimizer);
  if (t->set.batch_norm && !*r->freeze)
    return usage_error(t->s.of, "--batch-norm is for frozen layers: it needs --freeze");
  const char *wrong = augmentation_parse(r->augment, &t->augment);
  if (wrong) return usage_error(t->s.of, "--augment %s: %s", r->augment, wrong);
  wrong = normalisation_parse(r->normalise, &t->normalise);
  if (wrong) return usage_error(t->s.of, "--normalise %s: %s", r->normalise, wrong);
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
  if (option_given(&t->line, "accumulate") && set->accumulate != r->accumulate)
    return fail("%s was made with --accumulate %lld: a run cannot go on with --accumulate %lld; leave it out", file,
                (long long)r->accumulate, (long long)set->accumulate);
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

/* A setting of the run that decides what its parameters mean. */
static int check_kept(const char *file, const char *name, const char *given, const char *kept) {
  if (!given || !strcmp(given, kept)) return EXIT_OK;
  if (!*kept) return fail("%s was made without --%s: a run cannot go on with it; leave it out", file, name);
  return fail("%s was made with --%s %s: a run cannot go on with --%s %s; leave it out", file, name, kept, name, given);
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
  if (data_open(&t->data, &t->s, &t->model, *r->data ? r->data : NULL, &t->normalise)) return EXIT_ERROR;
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
  t->steps = count[LAMINA_SPLIT_TRAIN] / r->batch / r->accumulate; /* the images left over wait for the next epoch's shuffle */
  if (!t->steps)
    return fail("--accumulate %lld times --batch %lld is larger than the data, which has %lld training images",
                (long long)r->accumulate, (long long)r->batch, (long long)count[LAMINA_SPLIT_TRAIN]);
  if (r->step > t->steps) return fail("%s: step %lld of %lld steps", file, (long long)r->step, (long long)t->steps);
  snprintf(r->fingerprint, sizeof r->fingerprint, "%s", fingerprint);
  return EXIT_OK;
}

static void tell_skipped(void *user, const char *name, const char *reason) {
  const training *t = user;
  lamina_parameter p = {.size = sizeof p};
  const bool known = !lamina_graph_parameter_find(t->model.graph, name, &p);
  fprintf(t->s.human, "init    %s %s: %s\n", name, known ? "starts afresh" : "is not used", reason);
}

/* From --init where it is given: what --partial leaves out keeps its initial values. */
static int initialize(training *t) {
  const char *file = t->set.init;
  if (lamina_graph_initialize(t->model.graph, t->run.seed))
    return fail_library(&t->s, "cannot initialise %s", t->model.name);
  if (!file) return EXIT_OK;
  if (!(t->set.partial ? lamina_graph_load_partial(t->model.graph, file, tell_skipped, t)
                       : lamina_graph_load_weights(t->model.graph, file, 0)))
    return EXIT_OK;
  fail_library(&t->s, "cannot begin with these weights");
  if (!t->set.partial && !access(file, R_OK))
    hint("--partial takes the parameters that fit, and lets the others start afresh");
  return EXIT_ERROR;
}

static int prepare_parameters(training *t, const char *file) {
  if (!t->set.resume) return initialize(t);
  if (lamina_graph_load_weights(t->model.graph, file, LAMINA_WEIGHTS_TRAINING)) {
    fail_library(&t->s, "cannot resume %s", t->model.name);
    hint("a checkpoint fits only the model that it was made with");
    return EXIT_ERROR;
  }
  return EXIT_OK;
}

static int prepare_plans(training *t) {
  const run *r = &t->run;
  const lamina_plan_options options = {.size = sizeof options,
                                       .mode = LAMINA_TRAIN,
                                       .batch = r->batch,
                                       .outputs = "loss",
                                       .in_place = t->set.in_place,
                                       .recompute = t->set.recompute,
                                       .pack_late = t->set.pack_late,
                                       .early_step = !(r->clip_norm > 0), /* the norm is known when all gradients are */
                                       .accumulate = r->accumulate,
                                       .freeze = *r->freeze ? r->freeze : NULL,
                                       .adapt_states = !strcmp(r->batch_norm, "adapt")};
  t->plan_info.size = sizeof t->plan_info;
  if (lamina_plan_create(t->model.graph, &options, &t->plan) || lamina_exec_create(t->plan, &t->exec) ||
      lamina_plan_get_info(t->plan, &t->plan_info))
    return fail_library(&t->s, "cannot prepare %s for training", t->model.name);
  if (!t->plan_info.trained) return fail("--freeze %s leaves nothing to train", r->freeze);
  const lamina_batches_options batches = {.size = sizeof batches,
                                          .batch = r->batch,
                                          .channels = t->model.in.dim[3],
                                          .seed = r->seed,
                                          .epoch = r->epoch,
                                          .step = r->step * r->accumulate,
                                          .shift = t->augment.shift,
                                          .crop = t->augment.crop,
                                          .flip = t->augment.flip};
  if (lamina_batches_open(t->data.dataset, &batches, &t->batches)) return fail_library(&t->s, "cannot load the data");
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

/* Weights that --init begins with want their images as they were trained with. */
static int take_normalisation(training *t) {
  run *r = &t->run;
  if (!t->set.init) return EXIT_OK;
  const lamina_status status =
      lamina_weights_metadata(t->s.context, t->set.init, NORMALISE_KEY, r->normalise, sizeof r->normalise);
  return status && status != LAMINA_NOT_FOUND ? fail_library(&t->s, "cannot begin with these weights") : EXIT_OK;
}

/* Fills the run's settings and, when it is resumed, its position; `file` gets the checkpoint's path. */
static int prepare_run(training *t, char *file, size_t file_size) {
  run *r = &t->run;
  char freeze[FREEZE_MAX];
  if (freeze_patterns(&t->set.freeze, freeze, sizeof freeze)) return EXIT_ERROR;
  if (t->set.resume) {
    if (checkpoint_read(t, t->set.resume, file, file_size) || check_resumed(t, file)) return EXIT_ERROR;
    if (check_kept(file, "freeze", *freeze ? freeze : NULL, r->freeze) ||
        check_kept(file, "batch-norm", t->set.batch_norm, r->batch_norm) ||
        check_kept(file, "augment", t->set.augment, r->augment) ||
        check_kept(file, "normalise", t->set.normalise, r->normalise))
      return EXIT_ERROR;
    apply_settings(t);
    return check_settings(t);
  }
  default_settings(t);
  snprintf(r->freeze, sizeof r->freeze, "%s", freeze);
  if (take_normalisation(t)) return EXIT_ERROR;
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
  lamina_batches_close(t->batches);
  lamina_plan_destroy(t->plan);
  data_close(&t->data);
  model_close(&t->model);
  free(t->run.losses);
  free(t->run.accuracies);
}
