/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FOLDERS_MAX = 16, NAMES_MAX = 64 };

typedef struct folders {
  int count;
  char path[FOLDERS_MAX][4096];
} folders;

static void add_folder(folders *f, const char *path, size_t length) {
  if (f->count < FOLDERS_MAX && length && length < sizeof f->path[0])
    snprintf(f->path[f->count++], sizeof f->path[0], "%.*s", (int)length, path);
}

/* LAMINA_MODEL_PATH, the installed folder, the folder of a build tree. Never the working directory. */
static void find_folders(folders *f) {
  char exe[4096], path[4200];
  f->count = 0;
  for (const char *p = getenv("LAMINA_MODEL_PATH"); p;) {
    const size_t length = strcspn(p, ":");
    add_folder(f, p, length);
    p = p[length] ? p + length + 1 : NULL;
  }
  const ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (length < 1) return;
  exe[length] = 0;
  char *slash = strrchr(exe, '/');
  if (!slash) return;
  *slash = 0;
  slash = strrchr(exe, '/'); /* now exe is the executable's folder, and slash its last part */
  const bool build_tree = slash && !strcmp(slash, "/tools");
  snprintf(path, sizeof path, build_tree ? "%s/../../models" : "%s/../share/lamina/models", exe);
  char *real = realpath(path, NULL);
  add_folder(f, real ? real : path, strlen(real ? real : path));
  free(real);
}

static void free_names(char **names, int count) {
  for (int i = 0; i < count; i++) free(names[i]);
}

/* Names of the models in all folders, for the message when one is not found. */
static int list_names(const folders *f, char *names[NAMES_MAX]) {
  int count = 0;
  for (int i = 0; i < f->count; i++) {
    DIR *dir = opendir(f->path[i]);
    if (!dir) continue;
    for (struct dirent *entry; count < NAMES_MAX && (entry = readdir(dir));) {
      const size_t length = strlen(entry->d_name);
      if (length > 5 && !strcmp(entry->d_name + length - 5, ".json") &&
          (names[count] = strndup(entry->d_name, length - 5)))
        count++;
    }
    closedir(dir);
  }
  return count;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int report_missing(const char *name, const folders *f) {
  char *names[NAMES_MAX], list[1024] = "";
  size_t used = 0;
  fail("there is no model '%s'", name);
  for (int i = 0; i < f->count; i++) hint("looked in %s", f->path[i]);
  const int count = list_names(f, names);
  qsort(names, (size_t)count, sizeof *names, compare_names);
  for (int i = 0; i < count && used < sizeof list; i++)
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
  const char *near = nearest_name(name, (const char *const *)names, count);
  if (near) hint("did you mean '%s'?", near);
  if (count)
    hint("the models there are %s", list);
  else
    hint("set LAMINA_MODEL_PATH to a folder with models");
  hint("a path with a slash or ending in .json is taken as it is");
  free_names(names, count);
  return EXIT_ERROR;
}

static bool is_path(const char *argument) {
  const size_t length = strlen(argument);
  return strchr(argument, '/') || (length > 5 && !strcmp(argument + length - 5, ".json"));
}

static int find_path(model *m, const char *argument) {
  if (is_path(argument)) {
    if (snprintf(m->path, sizeof m->path, "%s", argument) >= (int)sizeof m->path)
      return fail("the path of the model is too long");
    if (access(m->path, R_OK)) {
      fail("cannot read the model '%s': %s", m->path, strerror(errno));
      hint("a name without a slash and .json is looked up among the models that ship with lamina");
      return EXIT_ERROR;
    }
    return EXIT_OK;
  }
  folders *f = malloc(sizeof *f);
  if (!f) return fail("out of memory");
  find_folders(f);
  int status = EXIT_ERROR;
  for (int i = 0; i < f->count && status; i++)
    if (snprintf(m->path, sizeof m->path, "%s/%s.json", f->path[i], argument) < (int)sizeof m->path &&
        !access(m->path, R_OK))
      status = EXIT_OK;
  if (status) report_missing(argument, f);
  free(f);
  return status;
}

/* Names go into JSON and into metadata, which hold UTF-8 alone. */
static int check_name(const model *m) {
  json_t *text = json_string(m->name);
  if (!text) return fail("%s: the name of the file is not UTF-8", m->path);
  json_decref(text);
  return EXIT_OK;
}

static void set_name(model *m) {
  const char *slash = strrchr(m->path, '/');
  const char *base = slash ? slash + 1 : m->path;
  size_t length = strlen(base);
  if (length > 5 && !strcmp(base + length - 5, ".json")) length -= 5;
  snprintf(m->name, sizeof m->name, "%.*s", (int)length, base);
}

/* Copies the names, since adding the loss changes what the graph's outputs are. */
static int read_shape(model *m, const session *s) {
  if (lamina_graph_input_count(m->graph) == 1) {
    m->input = strdup(lamina_graph_input_name(m->graph, 0));
    if (!m->input || lamina_graph_value(m->graph, m->input, &m->in)) return fail_library(s, "%s", m->path);
  }
  if (lamina_graph_output_count(m->graph) == 1) {
    m->output = strdup(lamina_graph_output_name(m->graph, 0));
    if (!m->output || lamina_graph_value(m->graph, m->output, &m->out)) return fail_library(s, "%s", m->path);
  }
  const int count = lamina_graph_parameter_count(m->graph);
  for (int i = 0; i < count; i++) {
    lamina_parameter p = {.size = sizeof p};
    if (lamina_graph_parameter_at(m->graph, i, &p)) return fail_library(s, "%s", m->path);
    if (p.trainable) m->parameters += lamina_tensor_count(&p.tensor);
  }
  return EXIT_OK;
}

int model_open(model *m, session *s, const char *argument) {
  memset(m, 0, sizeof *m);
  if (find_path(m, argument)) return EXIT_ERROR;
  set_name(m);
  if (check_name(m)) return EXIT_ERROR;
  if (lamina_graph_load_model(s->context, m->path, &m->graph)) {
    fail("%s", lamina_error_message(s->context));
    return EXIT_ERROR;
  }
  return read_shape(m, s);
}

void model_close(model *m) {
  lamina_graph_destroy(m->graph);
  free((char *)m->input);
  free((char *)m->output);
  memset(m, 0, sizeof *m);
}

int model_check_single(const model *m) {
  if (!m->input)
    return fail("%s: this command needs a model with one input; this one has %d", m->path,
                lamina_graph_input_count(m->graph));
  if (!m->output)
    return fail("%s: this command needs a model with one output; this one has %d", m->path,
                lamina_graph_output_count(m->graph));
  return EXIT_OK;
}

int model_check_classifier(const model *m) {
  char shape[96];
  if (model_check_single(m)) return EXIT_ERROR;
  if (m->in.rank != 4 || m->in.dtype != LAMINA_F32)
    return fail("%s: this command needs a model of images, (H, W, C) of f32; the input '%s' is %s", m->path, m->input,
                dims_text(&m->in, 1, shape, sizeof shape));
  if (m->out.rank != 2 || m->out.dtype != LAMINA_F32)
    return fail("%s: this command needs one value for each class; the output '%s' is %s", m->path, m->output,
                dims_text(&m->out, 1, shape, sizeof shape));
  return EXIT_OK;
}

int model_add_loss(model *m, const session *s) {
  char inputs[512];
  if (snprintf(inputs, sizeof inputs, "%s, labels", m->output) >= (int)sizeof inputs)
    return fail("%s: the name of the output is too long", m->path);
  if (lamina_graph_input(m->graph, "labels", LAMINA_I32, 0, NULL) ||
      lamina_graph_add(m->graph, "softmax_cross_entropy", "loss", inputs, NULL)) {
    fail_library(s, "%s: cannot add the loss for training", m->path);
    hint("training adds an input 'labels' and a node 'loss': the model itself must not use these names");
    return EXIT_ERROR;
  }
  return EXIT_OK;
}

int freeze_patterns(const text_list *given, char *patterns, size_t size) {
  size_t used = 0;
  *patterns = 0;
  for (int i = 0; i < given->count; i++) {
    const int length = snprintf(patterns + used, size - used, "%s%s", i ? "," : "", given->item[i]);
    if (length < 0 || (size_t)length >= size - used) return fail("--freeze: the patterns are too long");
    used += (size_t)length;
  }
  return EXIT_OK;
}

int model_plan(model *m, const session *s, const plan_settings *set, lamina_plan **plan, lamina_plan_info *info) {
  char patterns[FREEZE_MAX];
  if (freeze_patterns(&set->freeze, patterns, sizeof patterns)) return EXIT_ERROR;
  if (*patterns && !set->train) return usage_error(s->of, "--freeze belongs to --train");
  if ((set->in_place || set->recompute || set->pack_late || set->early_step) && !set->train)
    return usage_error(s->of, "--in-place, --recompute, --pack-late and --early-step belong to --train");
  const lamina_plan_options options = {.size = sizeof options,
                                       .freeze = *patterns ? patterns : NULL,
                                       .adapt_states = set->batch_norm && !strcmp(set->batch_norm, "adapt"),
                                       .in_place = set->in_place,
                                       .recompute = set->recompute,
                                       .pack_late = set->pack_late,
                                       .early_step = set->early_step,
                                       .mode = set->train ? LAMINA_TRAIN : LAMINA_INFER,
                                       .batch = set->batch,
                                       .outputs = set->train ? "loss" : NULL,
                                       .strict = set->strict,
                                       .no_fusion = set->no_fusion,
                                       .tune = set->tune};
  char shape[96];
  if (set->train && model_check_single(m)) return EXIT_ERROR;
  if (set->train && m->out.rank != 2)
    return fail("%s: training needs one value for each class; the output '%s' is %s", m->path, m->output,
                dims_text(&m->out, 1, shape, sizeof shape));
  if (set->train && model_add_loss(m, s)) return EXIT_ERROR;
  info->size = sizeof *info;
  if (lamina_plan_create(m->graph, &options, plan) || lamina_plan_get_info(*plan, info))
    return fail_library(s, "cannot plan %s for a batch of %lld", m->name, (long long)set->batch);
  return EXIT_OK;
}

int model_load_weights(model *m, const session *s, const char *path) {
  char name[128];
  if (!lamina_graph_load_weights(m->graph, path, 0)) return EXIT_OK;
  fail_library(s, "cannot use these weights for %s", m->name);
  if (!lamina_weights_metadata(s->context, path, "lamina.model", name, sizeof name) && strcmp(name, m->name))
    hint("they were made with 'lamina train %s'", name);
  else
    hint("'lamina train %s --save FILE' writes weights for this model", m->name);
  return EXIT_ERROR;
}
