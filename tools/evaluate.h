/* SPDX-License-Identifier: Apache-2.0 */
/* Accuracy and loss on a data set's test images. */
#ifndef TOOL_EVALUATE_H
#define TOOL_EVALUATE_H

#include "predict.h"
#include "preprocess.h"
#include "progress.h"

typedef struct data {
  lamina_dataset *dataset;
  lamina_dataset_info info;
} data;

typedef struct evaluation {
  double accuracy, loss; /* loss: mean softmax cross-entropy, in double */
  int64_t samples;
  int64_t not_finite; /* samples whose loss is NaN or infinite */
  int classes;
  int64_t *confusion; /* classes x classes, [label * classes + prediction]; may be NULL: not counted */
} evaluation;

/* Opens the data (NULL: the embedded digits) and checks that it fits the model. */
int data_open(data *d, const session *s, const model *m, const char *directory, const normalisation *n);
void data_close(data *d);
/* Copies n samples with the model's channels; a label that the model has no class for is refused. */
int data_batch(const data *d, const session *s, const model *m, lamina_split split, int64_t n, const int64_t *index,
               float *images, int32_t *labels);
/* Runs all test images, showing the progress. Stops early when *stop becomes nonzero (stop may be NULL); then samples
   is below the data's count. */
int evaluate(predictor *p, const data *d, const volatile int *stop, progress *shown, evaluation *e);
/* Index of the largest value; NaN never wins. */
int64_t arg_max(const float *values, int64_t count);

#endif
