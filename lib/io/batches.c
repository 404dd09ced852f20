/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training images in batches, loaded one batch ahead by a thread of their own. There are two buffers: the caller holds
 * one while the thread fills the other. Batch number n lies in buffer n % 2, and what it holds is a function of n
 * alone, so that timing decides nothing but who waits.
 */
#include "io/augment.h"
#include "io/dataset.h"
#include "random.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

struct lamina_batches {
  lamina_context *context;
  lamina_dataset *dataset;
  lamina_batches_options options;
  int64_t steps; /* batches in an epoch */
  lamina_tensor images[2], labels[2];
  float *scratch, *black; /* one image before it is augmented */
  lamina_augment augment;
  int64_t *order, epoch; /* the samples of that epoch in their order; epoch -1: none yet */
  pthread_t thread;
  bool started;
  /* Guarded by the lock. The caller holds batch taken - 1, and is done with those before it. */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int64_t filled, taken, done;
  bool stop;
};

static void load(lamina_batches *b, int64_t number) {
  const lamina_batches_options *o = &b->options;
  const int64_t at = o->step + number, epoch = o->epoch + at / b->steps, first = at % b->steps * o->batch;
  const int64_t elements = b->augment.height * b->augment.width * o->channels;
  const bool augmented = o->shift || o->crop || o->flip;
  const uint64_t seed = lamina_random_stream(o->seed, lamina_random_key("augmentation"));
  const uint64_t stream = lamina_random_stream(seed, (uint64_t)epoch);
  float *images = b->images[number % 2].data;
  int32_t *labels = b->labels[number % 2].data;
  if (b->epoch != epoch)
    lamina_shuffle(o->seed, (uint64_t)epoch, b->dataset->split[LAMINA_SPLIT_TRAIN].count, b->order);
  b->epoch = epoch;
  for (int64_t i = 0; i < o->batch; i++) {
    const int64_t index = b->order[first + i];
    lamina_dataset_image(b->dataset, LAMINA_SPLIT_TRAIN, index, o->channels,
                         augmented ? b->scratch : images + i * elements);
    if (augmented) lamina_augment_image(&b->augment, stream, index, b->scratch, images + i * elements);
    labels[i] = b->dataset->split[LAMINA_SPLIT_TRAIN].labels[index];
  }
}

static void *run(void *argument) {
  lamina_batches *b = argument;
  pthread_mutex_lock(&b->lock);
  for (;;) {
    while (!b->stop && b->filled - b->done >= 2) pthread_cond_wait(&b->changed, &b->lock);
    if (b->stop) break;
    const int64_t number = b->filled;
    pthread_mutex_unlock(&b->lock);
    load(b, number);
    pthread_mutex_lock(&b->lock);
    b->filled++;
    pthread_cond_broadcast(&b->changed);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

/* Signals are for the program's own threads. */
static lamina_status start(lamina_batches *b) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&b->thread, NULL, run, b);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  b->started = !error;
  return error ? lamina_fail(b->context, LAMINA_OUT_OF_MEMORY, "the thread that loads images could not be started: %s",
                             strerror(error))
               : LAMINA_OK;
}

static lamina_status check(const lamina_dataset *d, lamina_batches_options *o) {
  const lamina_context *context = d->context;
  const int64_t count = d->split[LAMINA_SPLIT_TRAIN].count, side = d->height < d->width ? d->height : d->width;
  if (o->channels == 0) o->channels = d->channels;
  if (o->batch < 1 || o->batch > count)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "batches: %" PRId64 " images in each, of %" PRId64 " in %s",
                       o->batch, count, d->description);
  if (o->channels != d->channels && (d->channels != 1 || o->channels < 1))
    return lamina_fail(context, LAMINA_SHAPE_MISMATCH, "%s: images of %" PRId64 " channels cannot be given as %" PRId64,
                       d->description, d->channels, o->channels);
  if (o->epoch < 0 || o->step < 0 || o->epoch > INT64_MAX / 2 || o->step > INT64_MAX / 2)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT, "batches: epoch %" PRId64 ", step %" PRId64, o->epoch,
                       o->step);
  if (o->shift < 0 || o->shift >= side || o->crop < 0 || o->crop >= side)
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "augmentation: shift %" PRId64 ", crop %" PRId64 ": images of %" PRId64 "x%" PRId64
                       " take 0 to %" PRId64,
                       o->shift, o->crop, d->height, d->width, side - 1);
  return LAMINA_OK;
}

static lamina_status allocate(lamina_batches *b) {
  const lamina_dataset *d = b->dataset;
  const lamina_batches_options *o = &b->options;
  const int64_t shape[] = {o->batch, d->height, d->width, o->channels};
  size_t bytes, image = 0, order;
  b->images[0] = b->images[1] = lamina_tensor_of(NULL, LAMINA_F32, 4, shape);
  b->labels[0] = b->labels[1] = lamina_tensor_of(NULL, LAMINA_I32, 1, shape);
  if (!lamina_tensor_bytes(&b->images[0], &bytes) ||
      !lamina_multiply((size_t)d->split[LAMINA_SPLIT_TRAIN].count, sizeof *b->order, &order))
    return lamina_fail(b->context, LAMINA_INVALID_ARGUMENT, "batches: the size of one overflows");
  image = bytes / (size_t)o->batch;
  b->scratch = lamina_alloc(b->context, image);
  b->black = lamina_alloc(b->context, (size_t)o->channels * sizeof *b->black);
  b->augment.columns = lamina_alloc(b->context, (size_t)d->width * sizeof *b->augment.columns);
  b->order = lamina_alloc(b->context, order);
  for (int i = 0; i < 2; i++) {
    b->images[i].data = lamina_alloc(b->context, bytes);
    b->labels[i].data = lamina_alloc(b->context, (size_t)o->batch * sizeof(int32_t));
  }
  if (!b->scratch || !b->black || !b->augment.columns || !b->order || !b->images[0].data || !b->images[1].data ||
      !b->labels[0].data || !b->labels[1].data)
    return lamina_fail_memory(b->context, bytes);
  for (int64_t c = 0; c < o->channels; c++) b->black[c] = lamina_dataset_black(d, d->channels == 1 ? 0 : c);
  return LAMINA_OK;
}

lamina_status lamina_batches_open(lamina_dataset *dataset, const lamina_batches_options *given, lamina_batches **out) {
  if (out) *out = NULL;
  if (!dataset) return LAMINA_INVALID_ARGUMENT;
  const lamina_context *context = dataset->context;
  if (!out || !given || given->size < offsetof(lamina_batches_options, channels))
    return lamina_fail(context, LAMINA_INVALID_ARGUMENT,
                       "lamina_batches_open: batches or options are NULL, or have no size");
  lamina_batches_options options = {0};
  memcpy(&options, given, given->size < sizeof options ? given->size : sizeof options);
  lamina_status status = check(dataset, &options);
  if (status != LAMINA_OK) return status;
  lamina_batches *b = lamina_alloc_zeroed(context, sizeof *b);
  if (!b) return lamina_fail_memory(context, sizeof *b);
  b->context = dataset->context;
  b->dataset = dataset;
  b->options = options;
  b->steps = dataset->split[LAMINA_SPLIT_TRAIN].count / options.batch;
  b->epoch = -1;
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->changed, NULL);
  lamina_dataset_retain(dataset);
  status = allocate(b);
  b->augment = (lamina_augment){.shift = options.shift,
                                .crop = options.crop,
                                .flip = options.flip != 0,
                                .height = dataset->height,
                                .width = dataset->width,
                                .channels = options.channels,
                                .black = b->black,
                                .columns = b->augment.columns};
  const bool alone = options.synchronous > 0 || (options.synchronous == 0 && context->cores < 2);
  if (status == LAMINA_OK && !alone) status = start(b);
  if (status != LAMINA_OK) {
    lamina_batches_close(b);
    return status;
  }
  *out = b;
  return LAMINA_OK;
}

void lamina_batches_close(lamina_batches *b) {
  if (!b) return;
  if (b->started) {
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
  }
  pthread_cond_destroy(&b->changed);
  pthread_mutex_destroy(&b->lock);
  for (int i = 0; i < 2; i++) {
    lamina_free(b->context, b->images[i].data);
    lamina_free(b->context, b->labels[i].data);
  }
  lamina_free(b->context, b->scratch);
  lamina_free(b->context, b->black);
  lamina_free(b->context, b->augment.columns);
  lamina_free(b->context, b->order);
  lamina_dataset *dataset = b->dataset;
  lamina_free(b->context, b);
  lamina_dataset_destroy(dataset);
}

lamina_status lamina_batches_next(lamina_batches *b, lamina_tensor *images, lamina_tensor *labels) {
  if (!b) return LAMINA_INVALID_ARGUMENT;
  if (!images || !labels)
    return lamina_fail(b->context, LAMINA_INVALID_ARGUMENT, "lamina_batches_next: images or labels are NULL");
  pthread_mutex_lock(&b->lock);
  b->done = b->taken;
  pthread_cond_broadcast(&b->changed);
  while (b->started && b->filled == b->taken) pthread_cond_wait(&b->changed, &b->lock);
  const int64_t number = b->taken++;
  pthread_mutex_unlock(&b->lock);
  if (!b->started) load(b, number);
  *images = b->images[number % 2];
  *labels = b->labels[number % 2];
  return LAMINA_OK;
}
