/* SPDX-License-Identifier: Apache-2.0 */
/* `lamina plugin check`: runs the cases in children, and tells what they found. */
#include "plugin_check.h"

#include "plugin.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct check_settings {
  common_settings common;
  const char *layer;
  int built_in;
  int64_t number, cases, timeout;
} check_settings;

static const option options[] = {
    {"layer", "NAME", OPTION_TEXT, offsetof(check_settings, layer), 0, 0, NULL, "check this layer of the plugin alone"},
    {"builtin", NULL, OPTION_FLAG, offsetof(check_settings, built_in), 0, 0, NULL,
     "FILE is the name of a layer of the library instead"},
    {"cases", "N", OPTION_INT, offsetof(check_settings, cases), 1, 100000, NULL, "cases for each layer (default 24)"},
    {"case", "N", OPTION_INT, offsetof(check_settings, number), 0, 100000, NULL, "run this case alone"},
    {"timeout", "S", OPTION_INT, offsetof(check_settings, timeout), 1, 3600, NULL,
     "seconds that one case may take (default 60)"},
    {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

/* A case's number, or what else a child does. */
enum { LIST_LAYERS = -1, LOAD_UNLOAD = -2, NO_CASE = -3 };

typedef struct checker {
  const check_settings *set;
  check_target target;
  const char *argument;
  uint64_t seed;
  json_t *failures, *not_compared; /* not_compared: layers whose gradient deliberately is no derivative */
  int failed, checks, cases;
  int output; /* what children print, which a layer must not */
  bool layer_failed; /* the one that is checked now */
} checker;

/* ---- in the child ------------------------------------------------------------------------------------------------ */

static void load(const check_target *t) {
  check_phase("loading");
  for (int i = 0; i < t->isas; i++)
    if (t->file && lamina_context_load_plugin(t->context[i], t->file))
      check_fail("load", "%s", lamina_error_message(t->context[i]));
}

static void list_layers(const check_target *t, const char *only) {
  load(t);
  for (int i = 0; i < lamina_layer_count(t->context[0]) && check->layers < CHECK_LAYERS; i++) {
    const char *name = lamina_layer_at(t->context[0], i)->name, *provider = "";
    lamina_layer_find(t->context[0], name, &provider);
    if (!strcmp(provider, "built-in") || (only && strcmp(only, name))) continue;
    snprintf(check->layer[check->layers++], sizeof check->layer[0], "%s", name);
  }
}

/* Integer inputs are indices into something: the largest bound that the layer takes. Values for which the outputs are
   numbers: all, or positive ones alone (a logarithm). */
static bool settle_values(check_case *c, const lamina_kernel *kernel, lamina_context *context, lamina_mode mode) {
  static const int64_t bounds[] = {7, 3, 2, 1};
  bool integers = false;
  for (int i = 0; i < c->n_inputs; i++) integers |= c->inputs[i].dtype != LAMINA_F32;
  for (int b = 0; b < 4; b++) {
    c->labels = bounds[b];
    check_case_values(c, false);
    if (!integers) break;
    run_options o = run_defaults;
    run_result r;
    o.context = context;
    o.kernel = kernel;
    o.mode = mode;
    o.tolerate = true;
    check_run(c, &o, &r);
    const bool good = !r.status;
    run_release(&r);
    if (good) break;
    if (b == 3) return false;
  }
  return true;
}

/* In the order in which a later check may believe the earlier ones. */
enum { STAGE_FORWARD, STAGE_AROUND, STAGE_BACKWARD, STAGE_GRADIENTS, STAGES };

static void check_kernel(check_case *c, const check_target *t, const lamina_kernel *kernel, int isa, int stage) {
  lamina_context *context = t->context[isa];
  const lamina_mode mode = stage <= STAGE_AROUND ? LAMINA_INFER : LAMINA_TRAIN;
  if (!kernel_runs(c, kernel, context, mode) || !settle_values(c, kernel, context, mode)) return;
  check->skipped = 0;
  if (stage == STAGE_FORWARD) check_forward(c, t, kernel, context, LAMINA_INFER);
  if (stage == STAGE_AROUND) check_claims(c, kernel, context);
  if (stage == STAGE_AROUND) check_batch(c, kernel, context);
  if (stage == STAGE_AROUND) check_leaks(c, kernel, context);
  if (stage == STAGE_AROUND) check_epilogues(c, kernel, context);
  if (stage == STAGE_AROUND) check_nested(c, kernel, context, LAMINA_INFER);
  if (stage == STAGE_BACKWARD) check_backward(c, kernel, context);
  if (stage == STAGE_BACKWARD) check_nested(c, kernel, context, LAMINA_TRAIN);
  if (stage == STAGE_BACKWARD) check_states(c, kernel, context);
  if (stage == STAGE_GRADIENTS && !check->stops_gradient) check_gradients(c, kernel, context);
  if (isa == 0 && (stage == STAGE_AROUND || stage == STAGE_BACKWARD)) check_threads(c, t, kernel, mode);
}

/* Each kernel where it is at home: on its ISA, or on the best if it has none. */
static int home_of(const check_target *t, const lamina_kernel *kernel) {
  for (int i = 0; kernel->isa && i < t->isas; i++)
    if (!strcmp(kernel->isa, t->isa[i])) return i;
  return kernel->isa ? -1 : 0;
}

static void check_case_run(const check_target *t, int64_t number) {
  load(t);
  const lamina_layer *layer = lamina_layer_find(t->context[0], t->layer, NULL);
  check_case *c = calloc(1, sizeof *c);
  if (!layer || !c) check_fail("load", "there is no layer '%s'", t->layer);
  check->skipped = 1;
  check->stops_gradient = (layer->flags & LAMINA_LAYER_STOPS_GRADIENT) != 0;
  if (!check_case_make(c, layer, t->seed, number, t->context[0])) return;
  check_infer_failures(c, t->context[0]);
  check_case_values(c, false);
  for (int stage = 0; stage < STAGES; stage++) {
    for (const lamina_kernel *const *k = layer->kernels; *k; k++) {
      const int isa = home_of(t, *k);
      if (isa >= 0) check_kernel(c, t, *k, isa, stage);
    }
    if (stage == STAGE_FORWARD && !check->skipped) check_kernels_agree(c, t, LAMINA_INFER);
    if (stage == STAGE_BACKWARD && !check->skipped) check_kernels_agree(c, t, LAMINA_TRAIN);
  }
  if (!check->skipped) check_save_load(c, t);
}

static _Noreturn void child(const checker *k, int64_t number) {
  dup2(k->output, STDOUT_FILENO);
  dup2(k->output, STDERR_FILENO);
  guard_start();
  if (number == LIST_LAYERS)
    list_layers(&k->target, k->set->layer);
  else if (number == LOAD_UNLOAD)
    check_load_unload(k->target.file);
  else
    check_case_run(&k->target, number);
  fflush(NULL);
  check->finished = 1;
  _exit(0);
}

/* ---- in the parent ----------------------------------------------------------------------------------------------- */

static void found(const char *cause, const char *message) {
  check->failed = 1;
  snprintf(check->cause, sizeof check->cause, "%s", cause);
  snprintf(check->message, sizeof check->message, "%s", message);
}

/* Waits within the limit; a child that ends otherwise than by finishing is a failure. */
static void await(pid_t process, double seconds) {
  const double end = now_seconds() + seconds;
  const struct timespec pause = {.tv_nsec = 1000000};
  char text[256];
  int status = 0;
  pid_t got;
  while ((got = waitpid(process, &status, WNOHANG)) == 0 && now_seconds() < end) nanosleep(&pause, NULL);
  if (got == 0) {
    kill(process, SIGKILL);
    waitpid(process, &status, 0);
    snprintf(text, sizeof text, "%s: does not end within %g s", check->phase, seconds);
    found("time-limit", text);
  } else if (!check->finished && WIFEXITED(status)) {
    snprintf(text, sizeof text, "%s: ends the process (exit status %d); a failure is a status", check->phase,
             WEXITSTATUS(status));
    found("exit", text);
  } else if (!check->finished) {
    snprintf(text, sizeof text, "%s: the process is killed by signal %d", check->phase, WTERMSIG(status));
    found("crash", text);
  }
}

/* A layer that prints writes into the program's own output. What a process says as it dies is for people. */
static void look_at_output(const checker *k) {
  char text[400], message[500];
  const ssize_t n = pread(k->output, text, sizeof text - 1, 0);
  if (n <= 0) return;
  text[n] = '\0';
  if (check->failed) {
    fprintf(stderr, "%s\n", text);
    return;
  }
  text[strcspn(text, "\n")] = '\0';
  snprintf(message, sizeof message, "it prints '%s': the program's output is not a layer's; node->host->log is", text);
  found("prints", message);
}

static int run_child(checker *k, int64_t number) {
  memset(check, 0, sizeof *check);
  if (ftruncate(k->output, 0) || lseek(k->output, 0, SEEK_SET)) return fail("a temporary file: %s", strerror(errno));
  fflush(NULL);
  const pid_t process = fork();
  if (process < 0) return fail("cannot start a process: %s", strerror(errno));
  if (process == 0) child(k, number);
  await(process, (double)k->set->timeout);
  look_at_output(k);
  k->checks += check->checks;
  return EXIT_OK;
}

static bool is_known(const checker *k, const char *layer, const char *cause, const char *kernel) {
  size_t i;
  json_t *f;
  json_array_foreach(k->failures, i,
                     f) if (!strcmp(json_string_value(json_object_get(f, "layer")), layer) &&
                            !strcmp(json_string_value(json_object_get(f, "cause")), cause) &&
                            !strcmp(json_string_value(json_object_get(f, "kernel")), kernel)) return true;
  return false;
}

static void tell(checker *k, const char *layer, int64_t number) {
  char repeat[512] = "";
  k->failed++;
  /* One of a kind is enough; and what goes wrong with elements is not told again without them. */
  if (is_known(k, layer, check->cause, check->kernel) || (check->empty && k->layer_failed)) return;
  k->layer_failed = true;
  if (number >= 0)
    snprintf(repeat, sizeof repeat, "lamina plugin check %s%s%s%s --seed %llu --case %lld",
             k->set->built_in ? "--builtin " : "", k->argument, k->set->built_in ? "" : " --layer ",
             k->set->built_in ? "" : layer, (unsigned long long)k->seed, (long long)number);
  if (!k->set->common.json) {
    printf("FAILED %s: %s\n  %s\n", layer, check->cause, check->message);
    if (*check->kernel) printf("  kernel %s%s%s\n", check->kernel, *check->isa ? " on " : "", check->isa);
    if (*check->given) printf("  %s\n", check->given);
    if (*repeat) printf("  again: %s\n", repeat);
  }
  json_array_append_new(k->failures, json_pack("{s:s s:s s:s s:s s:s s:s s:I s:I s:s}", "layer", layer, "cause",
                                               check->cause, "message", check->message, "kernel", check->kernel, "isa",
                                               check->isa, "given", check->given, "seed", (json_int_t)k->seed, "case",
                                               (json_int_t)number, "repeat", repeat));
}

static int check_layer(checker *k, const char *layer) {
  const int64_t first = k->set->number >= 0 ? k->set->number : 0;
  const int64_t end = k->set->number >= 0 ? first + 1 : k->set->cases;
  int64_t skipped = 0;
  int stops = 0, stops_gradient = 0;
  k->target.layer = layer;
  k->layer_failed = false;
  for (int64_t n = first; n < end && stops < 2; n++) {
    if (run_child(k, n)) return EXIT_ERROR;
    k->cases++;
    skipped += check->skipped;
    stops_gradient |= check->stops_gradient;
    if (check->failed) tell(k, layer, n);
    stops += check->failed && !strcmp(check->cause, "time-limit");
  }
  if (stops_gradient) {
    json_array_append_new(k->not_compared, json_string(layer));
    if (!k->set->common.json)
      printf("%s: its gradient is not compared with differences (LAMINA_LAYER_STOPS_GRADIENT)\n", layer);
  }
  if (skipped == end - first && k->set->number < 0 && !k->layer_failed) {
    found("no-case", "no attributes and shapes were found that the layer and one of its kernels accept");
    tell(k, layer, NO_CASE);
  }
  return EXIT_OK;
}

static int check_all(checker *k) {
  if (k->set->built_in) return check_layer(k, k->argument);
  if (run_child(k, LIST_LAYERS)) return EXIT_ERROR;
  if (check->failed) {
    tell(k, "", NO_CASE);
    return EXIT_OK;
  }
  char names[CHECK_LAYERS][64];
  const int layers = check->layers;
  memcpy(names, check->layer, sizeof names);
  if (!layers) return fail("%s has no layer '%s'", k->argument, k->set->layer ? k->set->layer : "");
  for (int i = 0; i < layers; i++)
    if (check_layer(k, names[i])) return EXIT_ERROR;
  if (k->set->number >= 0) return EXIT_OK;
  if (run_child(k, LOAD_UNLOAD)) return EXIT_ERROR;
  if (check->failed) tell(k, "", NO_CASE);
  return EXIT_OK;
}

/* One context of one thread for each ISA, before any child: what a fork copies has no threads. */
static int open_contexts(checker *k, const session *s) {
  char list[128], *rest = list, *name;
  snprintf(list, sizeof list, "%s", s->info.isas);
  while ((name = strtok_r(rest, " ", &rest)) && k->target.isas < CHECK_ISAS) {
    if (s->common->isa && !k->target.isas && strcmp(s->common->isa, name)) continue; /* that one and those below */
    lamina_context_options o = {.size = sizeof o, .isa = name, .threads = 1};
    lamina_context *context;
    if (lamina_context_create(&o, &context)) return fail("no context for %s", name);
    k->target.context[k->target.isas] = context;
    k->target.isa[k->target.isas++] = lamina_context_host(context)->cpu->isa;
  }
  return EXIT_OK;
}

static int report(checker *k) {
  const bool passed = !k->failed;
  if (k->set->common.json) {
    const int status =
        print_json(json_pack("{s:s s:b s:i s:i s:I s:O s:O}", "file", k->argument, "passed", passed, "cases", k->cases,
                             "checks", k->checks, "seed", (json_int_t)k->seed, "failures", k->failures,
                             "gradient_not_compared", k->not_compared));
    return status ? status : passed ? EXIT_OK : EXIT_ERROR;
  }
  if (passed)
    printf("%s: good, %d checks in %d cases (seed %llu)\n", k->argument, k->checks, k->cases,
           (unsigned long long)k->seed);
  return passed ? EXIT_OK : fail("%s: %d of %d cases failed", k->argument, k->failed, k->cases);
}

static int run_command(const command *self, int argc, char **argv) {
  check_settings set = {.number = -1, .cases = 24, .timeout = 60};
  parsed line;
  session s = {0};
  checker k = {.set = &set, .output = memfd_create("output", MFD_CLOEXEC)};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  k.argument = line.argument[0];
  k.seed = k.target.seed = set.common.seed;
  char *path = set.built_in ? NULL : realpath(k.argument, NULL); /* a file, not a name to search for */
  k.target.file = path;
  set.common.threads = 1;
  check = mmap(NULL, sizeof *check, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  k.failures = json_array();
  k.not_compared = json_array();
  if (check == MAP_FAILED || k.output < 0 || !k.failures || !k.not_compared) return fail("out of memory");
  if (!set.built_in && !path) return fail("%s: %s", k.argument, strerror(errno));
  status = session_open(&s, self, &set.common);
  if (!status && set.built_in && !lamina_layer_find(s.context, k.argument, NULL))
    status = fail("there is no built-in layer '%s'", k.argument);
  if (!status) status = open_contexts(&k, &s);
  if (!status) status = check_all(&k);
  if (!status) status = report(&k);
  for (int i = 0; i < k.target.isas; i++) lamina_context_destroy(k.target.context[i]);
  session_close(&s);
  json_decref(k.failures);
  json_decref(k.not_compared);
  free(path);
  munmap(check, sizeof *check);
  close(k.output);
  return status;
}

const command command_plugin_check = {
    .name = "plugin check",
    .arguments = "FILE",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "tries every layer of a plugin against what it promises",
    .text =
        "Makes attributes, shapes and values from what the layers of FILE declare, and runs each case in a process of "
        "its own:\n"
        "kernels against each other, gradients against differences, in-place and accumulating passes, memory between\n"
        "guard pages, poisoned buffers, threads, failing allocations, longer structs, saving and loading. A failure "
        "is\n"
        "told with its cause and the command that repeats it. FILE's code runs: check only what you trust.",
    .examples = "  lamina plugin check ./swish.so\n  lamina plugin check ./swish.so --layer swish --seed 7 --case 3\n"
                "  lamina plugin check --builtin relu",
    .options = options,
    .run = run_command};
