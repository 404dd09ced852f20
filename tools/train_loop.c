/* SPDX-License-Identifier: Apache-2.0 */
#include "train.h"

#include <math.h>
#include <signal.h>
#include <string.h>

/* The one global: a signal handler can reach nothing else. */
static volatile sig_atomic_t caught_signal;

static void on_signal(int number) { caught_signal = number; }

void training_catch_signals(void) {
  /* SA_RESETHAND: a second Ctrl-C ends the process at once. No SA_RESTART is needed: nothing here waits. */
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

static int64_t global_step(const run *r, int64_t steps) { return r->epoch * steps + r->step; }

static bool all_finite(const float *values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(values[i])) return false;
  return true;
}

static int report_not_finite(training *t) {
  const run *r = &t->run;
  progress_clear(&t->progress);
  const char *node = lamina_exec_find_not_finite(t->exec);
  fail("step %lld (epoch %lld): the loss is not finite; the first layer whose output is not finite is %s",
       (long long)global_step(r, t->steps) + 1, (long long)r->epoch + 1, node ? node : "not known");
  if (all_finite(t->images.data, lamina_tensor_count(&t->images)))
    hint("a smaller --lr than %g may help%s", r->lr, *t->save ? "; what was saved before is as it was" : "");
  else
    hint("the images of this step themselves hold values that are not finite");
  return EXIT_ERROR;
}

/* Forward and backward of one batch, and the step after the last of those that it takes. */
static int train_batch(training *t, int64_t k) {
  run *r = &t->run;
  const int64_t step = global_step(r, t->steps);
  lamina_tensor loss, labels;
  const double started = now_seconds();
  if (lamina_batches_next(t->batches, &t->images, &labels) ||
      lamina_exec_set_input(t->exec, t->model.input, &t->images) || lamina_exec_set_input(t->exec, "labels", &labels))
    return fail_library(&t->s, "step %lld: data", (long long)step + 1);
  t->waited += now_seconds() - started;
  lamina_exec_seed(t->exec, r->seed, (uint64_t)(step * r->accumulate + k));
  if (lamina_exec_forward(t->exec) || lamina_exec_output(t->exec, "loss", &loss))
    return fail_library(&t->s, "step %lld: forward", (long long)step + 1);
  const float value = *(const float *)loss.data;
  if (!isfinite(value)) return report_not_finite(t);
  r->loss_sum += value / (double)r->accumulate;
  if (!(r->clip_norm > 0)) {
    if (lamina_exec_backward_step(t->exec, &t->optimizer))
      return fail_library(&t->s, "step %lld: backward", (long long)step + 1);
  } else if (lamina_exec_backward(t->exec) ||
             (k == r->accumulate - 1 && (lamina_exec_clip_gradients(t->exec, r->clip_norm, NULL) ||
                                         lamina_exec_step(t->exec, &t->optimizer)))) {
    return fail_library(&t->s, "step %lld: backward", (long long)step + 1);
  }
  return EXIT_OK;
}

static int train_step(training *t) {
  run *r = &t->run;
  t->optimizer.lr = lamina_schedule_rate(&t->schedule, (double)r->epoch + (double)r->step / (double)t->steps);
  for (int64_t k = 0; k < r->accumulate; k++)
    if (train_batch(t, k)) return EXIT_ERROR;
  r->step++;
  t->saved = false;
  return EXIT_OK;
}

/* Batches that are too few for a step wait, as single images do, for the next epoch's shuffle. */
static int skip_batches(training *t) {
  const run *r = &t->run;
  lamina_tensor labels;
  const int64_t left = t->data.info.count[LAMINA_SPLIT_TRAIN] / r->batch % r->accumulate;
  for (int64_t i = 0; i < left; i++)
    if (lamina_batches_next(t->batches, &t->images, &labels)) return fail_library(&t->s, "data");
  return EXIT_OK;
}

static void show_progress(training *t, double started, int64_t first) {
  const run *r = &t->run;
  char eta[32];
  if (!progress_due(&t->progress)) return;
  const double elapsed = now_seconds() - started;
  const double per_step = elapsed / (double)(r->step - first);
  const double left = per_step * (double)(t->steps * (r->epochs - r->epoch) - r->step);
  progress_update(&t->progress, "epoch %lld/%lld  step %lld/%lld  loss %.4f  %.0f images/s  %s left",
                  (long long)r->epoch + 1, (long long)r->epochs, (long long)r->step, (long long)t->steps,
                  r->loss_sum / (double)r->step, (double)(r->batch * r->accumulate) / per_step, duration_text(left, eta, sizeof eta));
}

/* Tests, records and prints the epoch that has just ended. */
static int end_epoch(training *t, double train_seconds, int64_t steps_here) {
  run *r = &t->run;
  evaluation e = {0};
  const int status = evaluate(&t->predictor, &t->data, &caught_signal, &t->progress, &e);
  if (status) return status;
  if (e.samples < t->data.info.count[LAMINA_SPLIT_TEST]) return EXIT_OK; /* a signal: tested again when resumed */
  r->losses[r->epoch] = r->loss_sum / (double)t->steps;
  r->accuracies[r->epoch] = e.accuracy;
  r->epoch++;
  r->step = 0;
  r->loss_sum = 0;
  t->saved = false;
  fprintf(t->s.human, "epoch %lld/%lld  loss %.6g  test accuracy %.4f  %.0f images/s  %.*f s\n", (long long)r->epoch,
          (long long)r->epochs, r->losses[r->epoch - 1], e.accuracy,
          train_seconds > 0 ? (double)(steps_here * r->accumulate * r->batch) / train_seconds : 0, train_seconds < 10 ? 2 : 1,
          train_seconds);
  fflush(t->s.human);
  return EXIT_OK;
}

/* On return without an error either the epoch is recorded or a signal was caught. */
static int run_epoch(training *t) {
  run *r = &t->run;
  const double started = now_seconds();
  const int64_t first = r->step;
  while (r->step < t->steps && !caught_signal) {
    if (train_step(t)) return EXIT_ERROR;
    show_progress(t, started, first);
  }
  const double seconds = now_seconds() - started;
  r->train_seconds += seconds;
  if (caught_signal) return EXIT_OK;
  if (skip_batches(t)) return EXIT_ERROR;
  return end_epoch(t, seconds, r->step - first);
}

static int save(training *t) {
  t->run.seconds = t->before + now_seconds() - t->started;
  return *t->save ? checkpoint_write(t) : EXIT_OK;
}

static int interrupted(training *t) {
  const run *r = &t->run;
  progress_clear(&t->progress);
  const int number = caught_signal, status = save(t);
  fprintf(t->s.human, "stopped by %s in epoch %lld/%lld after step %lld/%lld\n",
          number == SIGINT ? "Ctrl-C" : "a signal", (long long)r->epoch + 1, (long long)r->epochs, (long long)r->step,
          (long long)t->steps);
  if (status) return status;
  if (!*t->save)
    fprintf(t->s.human, "nothing was saved: there was no --save\n");
  else
    fprintf(t->s.human, "saved; go on with: lamina train %s --resume %s\n", t->line.argument[0], t->save);
  return 128 + number;
}

int training_run(training *t) {
  run *r = &t->run;
  t->started = now_seconds();
  t->before = r->seconds;
  progress_start(&t->progress, t->s.human);
  if (r->epoch == r->epochs)
    fprintf(t->s.human, "nothing is left to train: that run has all its epochs; more --epochs go on from there\n");
  while (r->epoch < r->epochs && !caught_signal) {
    if (run_epoch(t)) {
      progress_clear(&t->progress);
      return EXIT_ERROR;
    }
    if (caught_signal || r->epoch == r->epochs) break;
    if (save(t)) hint("training goes on; saving is tried again after the next epoch");
  }
  r->seconds = t->before + now_seconds() - t->started;
  if (r->epoch < r->epochs) return interrupted(t);
  if (!t->saved && save(t)) return EXIT_ERROR;
  if (*t->save) fprintf(t->s.human, "saved the weights to %s and the training state to %s.train\n", t->save, t->save);
  return EXIT_OK;
}
