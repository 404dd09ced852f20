/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a model by name, and what the commands need to know of it. */
#ifndef TOOL_MODEL_H
#define TOOL_MODEL_H

#include "session.h"

typedef struct model {
  lamina_graph *graph;
  char path[4096];
  char name[128];    /* the file's name without .json */
  const char *input; /* names of its one input and one output; NULL if there are several */
  const char *output;
  lamina_tensor in, out; /* shapes for one sample, dim[0] = 1 */
  int64_t parameters;    /* trainable numbers */
} model;

/* Loads MODEL: a path (with a slash, or ending in .json) or a name in one of the models folders. Prints on failure. */
int model_open(model *m, session *s, const char *argument);
void model_close(model *m);
/* Refuses a model with several inputs or outputs. */
int model_check_single(const model *m);
/* The same, and that it maps images (H, W, C) of f32 to one value for each class. */
int model_check_classifier(const model *m);
/* Adds the node "loss": softmax cross-entropy of the output with the labels. */
int model_add_loss(model *m, const session *s);
enum { FREEZE_MAX = 2048 };

/* What `time` and `explain` are asked for. */
typedef struct plan_settings {
  int64_t batch;
  int train, strict, no_fusion, tune;
  text_list freeze;
  const char *batch_norm, *recompute;
  int in_place, pack_late, early_step;
} plan_settings;

/* Rows of a table of options: what trades time for memory in a plan to train. */
#define MEMORY_OPTIONS(settings, member)                                                                               \
  {"in-place", NULL, OPTION_FLAG, offsetof(settings, member in_place), 0, 0, NULL,                                     \
   "in training: outputs of batch norm and other cheap layers are not kept but computed again; same results"},         \
  {"recompute", "PATTERN", OPTION_TEXT, offsetof(settings, member recompute), 0, 0, NULL,                              \
   "in training: outputs of such nodes are not kept but computed again: 'layer1.*,layer2.*'; same results"},           \
  {"pack-late", NULL, OPTION_FLAG, offsetof(settings, member pack_late), 0, 0, NULL,                                   \
   "in training: packed copies of the weights are not kept but made whenever they are needed; same results"}

/* The patterns of --freeze, separated by commas; "" for none. */
int freeze_patterns(const text_list *given, char *patterns, size_t size);
/* A plan as the commands run it: TRAIN with the loss as its output, or INFER. Prints on failure. */
int model_plan(model *m, const session *s, const plan_settings *set, lamina_plan **plan, lamina_plan_info *info);
/* Loads weights: F or F.train. */
int model_load_weights(model *m, const session *s, const char *path);

#endif
