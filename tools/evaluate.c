/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>

/* " (training image 7)": the first sample with the largest label; "" if it cannot be read. */
static void find_label(const data *d, char *text, size_t size) {
  const lamina_dataset_info *i = &d->info;
  float *image = allocate(i->height * i->width, (size_t)i->channels * sizeof *image);
  bool found = false;
  *text = 0;
  for (int split = 0; split < 2 && image; split++)
    for (int64_t k = 0; k < i->count[split] && !found; k++) {
      int32_t label;
      if (lamina_dataset_batch(d->dataset, (lamina_split)split, 1, &k, i->channels, image, &label)) break;
      found = label == i->classes - 1;
      if (found)
        snprintf(text, size, " (%s image %lld)", split == LAMINA_SPLIT_TEST ? "test" : "training", (long long)k);
    }
  free(image);
}

static int check_fit(const data *d, const model *m, const char *where) {
  const int64_t *dim = m->in.dim;
  const lamina_dataset_info *i = &d->info;
  if (i->height != dim[1] || i->width != dim[2] || (i->channels != dim[3] && i->channels != 1))
    return fail("%s: images of %lldx%lldx%lld do not fit %s, whose input '%s' is %lldx%lldx%lld (height, width, "
                "channels)",
                where, (long long)i->height, (long long)i->width, (long long)i->channels, m->name, m->input,
                (long long)dim[1], (long long)dim[2], (long long)dim[3]);
  if (i->classes > m->out.dim[1]) {
    char sample[64];
    find_label(d, sample, sizeof sample);
    return fail("%s: the largest label is %d%s, but %s has %lld classes (0 to %lld)", where, i->classes - 1, sample,
                m->name, (long long)m->out.dim[1], (long long)m->out.dim[1] - 1);
  }
  return EXIT_OK;
}

int data_open(data *d, const session *s, const model *m, const char *directory, const normalisation *n) {
  *d = (data){.info.size = sizeof d->info};
  /* The digits are the same whatever --seed says: runs with different seeds are compared on the same data. */
  const lamina_dataset_options options = {.size = sizeof options,
                                          .directory = directory,
                                          .mean = n->count ? n->mean : NULL,
                                          .deviation = n->count ? n->deviation : NULL,
                                          .statistics = n->count};
  const char *where = directory ? directory : "embedded digits";
  const lamina_status status = lamina_dataset_open(s->context, &options, &d->dataset);
  if (status) {
    fail_library(s, "cannot open the data");
    if (status == LAMINA_NOT_FOUND || status == LAMINA_INVALID_ARGUMENT) /* a damaged file needs no such advice */
      hint("--data is a folder of IDX files as MNIST names them, of CIFAR-10's binary files, or of train_images.npy, "
           "train_labels.npy, test_images.npy, test_labels.npy; without --data digits are drawn");
    return EXIT_ERROR;
  }
  if (lamina_dataset_get_info(d->dataset, &d->info)) return fail_library(s, "cannot read the data");
  return check_fit(d, m, where);
}

void data_close(data *d) {
  lamina_dataset_destroy(d->dataset);
  d->dataset = NULL;
}

int data_batch(const data *d, const session *s, const model *m, lamina_split split, int64_t n, const int64_t *index,
               float *images, int32_t *labels) {
  if (lamina_dataset_batch(d->dataset, split, n, index, m->in.dim[3], images, labels))
    return fail_library(s, "cannot read the data");
  for (int64_t i = 0; i < n; i++)
    if (labels[i] < 0 || labels[i] >= m->out.dim[1])
      return fail("label %d of %s image %lld: %s has the classes 0 to %lld", (int)labels[i],
                  split == LAMINA_SPLIT_TEST ? "test" : "training", (long long)index[i], m->name,
                  (long long)m->out.dim[1] - 1);
  return EXIT_OK;
}

int64_t arg_max(const float *values, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; i++)
    if (values[i] > values[best] || isnan(values[best])) best = i;
  return best;
}

/* -log softmax(values)[label], with the largest value taken out of the exponents. */
static double cross_entropy(const float *values, int64_t count, int64_t label) {
  const double top = values[arg_max(values, count)];
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += exp(values[i] - top);
  return log(sum) + top - values[label];
}

static void count_batch(const lamina_tensor *out, const int32_t *labels, int64_t n, evaluation *e, int64_t *right) {
  const int64_t classes = out->dim[1], row = out->stride[0];
  for (int64_t i = 0; i < n; i++) {
    const float *values = (const float *)out->data + i * row;
    const int64_t best = arg_max(values, classes);
    const double loss = cross_entropy(values, classes, labels[i]);
    *right += best == labels[i] && !isnan(values[best]);
    e->not_finite += !isfinite(loss);
    e->loss += loss;
    if (e->confusion && !isnan(values[best])) e->confusion[labels[i] * e->classes + best]++;
  }
}

int evaluate(predictor *p, const data *d, const volatile int *stop, progress *shown, evaluation *e) {
  const int64_t count = d->info.count[LAMINA_SPLIT_TEST], batch = p->batch;
  float *images = allocate(batch, (size_t)lamina_tensor_count(&p->m->in) * sizeof *images);
  int32_t *labels = allocate(batch, sizeof *labels);
  int64_t *index = allocate(batch, sizeof *index), right = 0;
  int status = EXIT_OK;
  const double started = now_seconds();
  e->samples = 0;
  e->not_finite = 0;
  e->loss = 0;
  if (!images || !labels || !index) status = fail("out of memory for a batch of %lld test images", (long long)batch);
  for (int64_t at = 0; at < count && !status && !(stop && *stop); at += batch) {
    const int64_t n = count - at < batch ? count - at : batch;
    lamina_tensor out;
    for (int64_t i = 0; i < n; i++) index[i] = at + i;
    status = data_batch(d, p->s, p->m, LAMINA_SPLIT_TEST, n, index, images, labels);
    if (!status) status = predictor_run(p, images, n, &out);
    if (status) break;
    count_batch(&out, labels, n, e, &right);
    e->samples += n;
    progress_count(shown, "testing", e->samples, count, now_seconds() - started);
  }
  progress_clear(shown);
  e->accuracy = e->samples ? (double)right / (double)e->samples : NAN;
  e->loss = e->samples ? e->loss / (double)e->samples : NAN;
  free(images);
  free(labels);
  free(index);
  return status;
}
