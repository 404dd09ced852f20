/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of training images: the same bits whoever loads them and wherever one begins; what augmentation does. */
#include "io_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE = 28, PIXELS = SIDE * SIDE, COUNT = 50 };

static lamina_dataset *digits(const double *mean, const double *deviation) {
  const lamina_dataset_options options = {.size = sizeof options,
                                          .train_count = COUNT,
                                          .test_count = 2,
                                          .mean = mean,
                                          .deviation = deviation,
                                          .statistics = mean ? 1 : 0};
  lamina_dataset *dataset;
  io_expect_ok(lamina_dataset_open(context, &options, &dataset));
  return dataset;
}

static lamina_batches *open_batches(lamina_dataset *dataset, lamina_batches_options options) {
  lamina_batches *batches;
  options.size = sizeof options;
  io_expect_ok(lamina_batches_open(dataset, &options, &batches));
  return batches;
}

/* The next batch of both must be the same to the bit. */
static void expect_same(lamina_batches *a, lamina_batches *b) {
  lamina_tensor x[2], y[2];
  io_expect_ok(lamina_batches_next(a, &x[0], &y[0]));
  io_expect_ok(lamina_batches_next(b, &x[1], &y[1]));
  size_t bytes = 0;
  ck_assert(lamina_tensor_bytes(&x[0], &bytes) && lamina_same_shape(&x[0], &x[1]));
  ck_assert_mem_eq(x[0].data, x[1].data, bytes);
  ck_assert_mem_eq(y[0].data, y[1].data, (size_t)y[0].dim[0] * sizeof(int32_t));
}

static const lamina_batches_options all = {.batch = 8, .channels = 3, .seed = 5, .shift = 3, .crop = 5, .flip = 1};

START_TEST(a_thread_loads_the_same_bits_whatever_the_timing) {
  lamina_dataset *dataset = digits(NULL, NULL);
  lamina_batches_options options = all;
  options.synchronous = -1;
  lamina_batches *threaded = open_batches(dataset, options);
  options.synchronous = 1;
  lamina_batches *direct = open_batches(dataset, options);
  lamina_dataset_destroy(dataset); /* the batches keep it */
  for (int i = 0; i < 40; i++) {   /* more than six epochs of six batches */
    if (i % 7 == 3) usleep(2000);
    expect_same(threaded, direct);
  }
  lamina_batches_close(threaded);
  lamina_batches_close(direct);
}
END_TEST

START_TEST(a_run_may_begin_anywhere) {
  lamina_dataset *dataset = digits(NULL, NULL);
  lamina_batches_options options = all;
  options.synchronous = 1;
  lamina_batches *whole = open_batches(dataset, options);
  options.synchronous = -1;
  options.epoch = 1;
  options.step = 4;
  lamina_batches *part = open_batches(dataset, options);
  lamina_tensor images, labels;
  for (int i = 0; i < 6 + 4; i++) io_expect_ok(lamina_batches_next(whole, &images, &labels));
  for (int i = 0; i < 9; i++) expect_same(whole, part);
  lamina_batches_close(part);
  options.step = 6; /* the end of epoch 1: what follows is epoch 2 */
  part = open_batches(dataset, options);
  options.epoch = 2;
  options.step = 0;
  lamina_batches *next = open_batches(dataset, options);
  for (int i = 0; i < 7; i++) expect_same(part, next);
  lamina_batches_close(next);
  lamina_batches_close(part);
  lamina_batches_close(whole);
  lamina_dataset_destroy(dataset);
}
END_TEST

/* A thread that has just begun, is waiting for room, or has never been asked for anything, ends when it is told to. */
START_TEST(closing_does_not_wait_for_a_reader) {
  lamina_dataset *dataset = digits(NULL, NULL);
  lamina_batches_options options = all;
  options.synchronous = -1;
  for (int i = 0; i < 50; i++) {
    lamina_batches *b = open_batches(dataset, options);
    lamina_tensor images, labels;
    for (int k = 0; k < i % 4; k++) io_expect_ok(lamina_batches_next(b, &images, &labels));
    if (i % 5 == 0) usleep(1000);
    lamina_batches_close(b);
  }
  lamina_batches_close(NULL);
  lamina_dataset_destroy(dataset);
}
END_TEST

START_TEST(an_epoch_shows_every_image_once) {
  lamina_dataset *dataset = digits(NULL, NULL);
  lamina_batches *b = open_batches(dataset, (lamina_batches_options){.batch = COUNT, .seed = 2});
  float *all_images = malloc(COUNT * PIXELS * sizeof *all_images);
  int32_t all_labels[COUNT];
  int64_t index[COUNT];
  bool seen[COUNT] = {false}, moved = false;
  for (int i = 0; i < COUNT; i++) index[i] = i;
  io_expect_ok(lamina_dataset_batch(dataset, LAMINA_SPLIT_TRAIN, COUNT, index, 1, all_images, all_labels));
  lamina_tensor images, labels;
  io_expect_ok(lamina_batches_next(b, &images, &labels));
  for (int i = 0; i < COUNT; i++)
    for (int k = 0; k < COUNT; k++)
      if (!seen[k] && !memcmp((float *)images.data + i * PIXELS, all_images + k * PIXELS, PIXELS * sizeof(float))) {
        ck_assert_int_eq(((int32_t *)labels.data)[i], all_labels[k]);
        moved |= i != k;
        seen[k] = true;
        break;
      }
  for (int k = 0; k < COUNT; k++) ck_assert(seen[k]);
  ck_assert(moved);
  free(all_images);
  lamina_batches_close(b);
  lamina_dataset_destroy(dataset);
}
END_TEST

/* An image of the augmented batch is the plain one mirrored (or not) and moved by (down, right), black where nothing
 * is. */
static bool is_moved(const float *plain, const float *image, int down, int right, int mirrored, float black) {
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++) {
      const int from_y = y - down, at = x - right, from_x = mirrored ? SIDE - 1 - at : at;
      const bool inside = from_y >= 0 && from_y < SIDE && at >= 0 && at < SIDE;
      if (image[y * SIDE + x] != (inside ? plain[from_y * SIDE + from_x] : black)) return false;
    }
  return true;
}

START_TEST(images_are_shifted_and_flipped_whole) {
  const double mean = 0.25, deviation = 0.5;
  lamina_dataset *dataset = digits(&mean, &deviation);
  lamina_batches_options options = {.batch = COUNT, .seed = 4};
  lamina_batches *plain = open_batches(dataset, options);
  options.shift = 2;
  options.flip = 1;
  lamina_batches *changed = open_batches(dataset, options);
  int moves[5][5] = {{0}}, flips = 0, found = 0;
  for (int epoch = 0; epoch < 8; epoch++) {
    lamina_tensor x, y, labels;
    io_expect_ok(lamina_batches_next(plain, &x, &labels));
    io_expect_ok(lamina_batches_next(changed, &y, &labels));
    for (int i = 0; i < COUNT; i++) {
      bool done = false;
      for (int k = 0; k < 50 && !done; k++) {
        const int down = k / 2 % 5 - 2, right = k / 10 - 2;
        done = is_moved((float *)x.data + i * PIXELS, (float *)y.data + i * PIXELS, down, right, k % 2, -0.5f);
        moves[down + 2][right + 2] += done;
        flips += done && k % 2;
      }
      found += done;
    }
  }
  ck_assert_int_eq(found, 8 * COUNT);
  ck_assert_int_gt(flips, 3 * COUNT);
  ck_assert_int_lt(flips, 5 * COUNT);
  for (int k = 0; k < 25; k++) ck_assert_int_gt(moves[k / 5][k % 5], 0);
  lamina_batches_close(changed);
  lamina_batches_close(plain);
  lamina_dataset_destroy(dataset);
}
END_TEST

/* Stretching interpolates: an image that is a plane stays one inside, flatter by kept / side, and no value leaves its
 * range. */
START_TEST(a_crop_is_stretched_over_the_image) {
  float *images = malloc(2 * SIDE * SIDE * sizeof *images);
  const unsigned char labels[2] = {0, 1};
  char text[128];
  for (int i = 0; i < 2 * PIXELS; i++) images[i] = (float)(i % SIDE) + 100.0f * (float)(i / SIDE % SIDE);
  for (int part = 0; part < 2; part++) {
    for (int what = 0; what < 2; what++) {
      const size_t bytes = what ? 2 : 2 * PIXELS * sizeof *images;
      char *file = calloc(1, 128 + bytes);
      memcpy(file, "\x93NUMPY\x01\x00v\x00", 10);
      snprintf(text, sizeof text, "%-118s",
               what ? "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }"
                    : "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 28, 28), }");
      memcpy(file + 10, text, 118);
      memcpy(file + 128, what ? (const void *)labels : images, bytes);
      snprintf(text, sizeof text, "%s_%s.npy", part ? "test" : "train", what ? "labels" : "images");
      io_write(text, file, 128 + bytes);
      free(file);
    }
  }
  const lamina_dataset_options folder = {.size = sizeof folder, .directory = io_path("")};
  lamina_dataset *dataset;
  io_expect_ok(lamina_dataset_open(context, &folder, &dataset));
  lamina_batches *b = open_batches(dataset, (lamina_batches_options){.batch = 2, .crop = 8});
  int stretched = 0;
  for (int run = 0; run < 30; run++) {
    lamina_tensor x, y;
    io_expect_ok(lamina_batches_next(b, &x, &y));
    for (int i = 0; i < 2; i++) {
      const float *image = (float *)x.data + i * PIXELS, across = image[14 * SIDE + 15] - image[14 * SIDE + 14];
      const float down = image[15 * SIDE + 14] - image[14 * SIDE + 14];
      const double kept = round(across * SIDE);
      ck_assert(kept >= SIDE - 8 && kept <= SIDE);
      stretched += kept < SIDE;
      ck_assert_double_eq_tol(across, kept / SIDE, 1e-3);
      ck_assert_double_eq_tol(down, 100 * kept / SIDE, 1e-1);
      bool within = true;
      for (int k = 0; k < PIXELS; k++) within &= image[k] >= 0 && image[k] <= 2727;
      ck_assert(within);
    }
  }
  ck_assert_int_gt(stretched, 30);
  free(images);
  lamina_batches_close(b);
  lamina_dataset_destroy(dataset);
}
END_TEST

START_TEST(data_is_normalised_as_pytorch_does_it) {
  const double mean = 0.1307, deviation = 0.3081, zero = 0, infinite = INFINITY, two[2] = {1, 1};
  lamina_dataset *plain = digits(NULL, NULL), *scaled = digits(&mean, &deviation), *none = NULL;
  const int64_t index[2] = {7, 3};
  float x[2 * PIXELS], y[2 * PIXELS];
  double furthest = 0;
  int32_t labels[2];
  io_expect_ok(lamina_dataset_batch(plain, LAMINA_SPLIT_TRAIN, 2, index, 1, x, labels));
  io_expect_ok(lamina_dataset_batch(scaled, LAMINA_SPLIT_TRAIN, 2, index, 1, y, labels));
  for (int i = 0; i < 2 * PIXELS; i++) {
    const double byte = round((x[i] + 1) * 127.5);
    furthest = fmax(furthest, fabs(y[i] - (byte / 255 - mean) / deviation));
  }
  ck_assert_double_lt(furthest, 1e-6);
  lamina_dataset_options bad = {
      .size = sizeof bad, .train_count = 2, .test_count = 2, .mean = &mean, .deviation = &zero, .statistics = 1};
  io_expect_failure(lamina_dataset_open(context, &bad, &none), LAMINA_INVALID_ARGUMENT, "deviation 0", "above 0");
  bad.deviation = &infinite;
  io_expect_failure(lamina_dataset_open(context, &bad, &none), LAMINA_INVALID_ARGUMENT, "normalise", "finite");
  bad.deviation = NULL;
  io_expect_failure(lamina_dataset_open(context, &bad, &none), LAMINA_INVALID_ARGUMENT, "belong together", "");
  bad.mean = bad.deviation = two;
  bad.statistics = 2;
  io_expect_failure(lamina_dataset_open(context, &bad, &none), LAMINA_INVALID_ARGUMENT, "2 means", "1 channel");
  lamina_dataset_destroy(plain);
  lamina_dataset_destroy(scaled);
}
END_TEST

START_TEST(impossible_batches_are_refused) {
  static const struct {
    lamina_batches_options options;
    lamina_status status;
    const char *words;
  } bad[] = {
      {{.batch = 0}, LAMINA_INVALID_ARGUMENT, "0 images"},
      {{.batch = COUNT + 1}, LAMINA_INVALID_ARGUMENT, "51 images in each, of 50"},
      {{.batch = -1}, LAMINA_INVALID_ARGUMENT, "-1 images"},
      {{.batch = 2, .channels = -1}, LAMINA_SHAPE_MISMATCH, "-1"},
      {{.batch = 2, .channels = INT64_MAX / 4}, LAMINA_INVALID_ARGUMENT, "overflows"},
      {{.batch = 2, .epoch = -1}, LAMINA_INVALID_ARGUMENT, "epoch -1"},
      {{.batch = 2, .step = INT64_MAX}, LAMINA_INVALID_ARGUMENT, "step"},
      {{.batch = 2, .shift = 28}, LAMINA_INVALID_ARGUMENT, "shift 28"},
      {{.batch = 2, .crop = -1}, LAMINA_INVALID_ARGUMENT, "crop -1"},
  };
  lamina_dataset *dataset = digits(NULL, NULL);
  lamina_batches *batches = NULL;
  lamina_tensor t;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    lamina_batches_options options = bad[i].options;
    options.size = sizeof options;
    io_expect_failure(lamina_batches_open(dataset, &options, &batches), bad[i].status, bad[i].words, "");
    ck_assert_ptr_null(batches);
  }
  io_expect_failure(lamina_batches_open(dataset, NULL, &batches), LAMINA_INVALID_ARGUMENT, "options", "");
  ck_assert_int_eq(lamina_batches_open(NULL, NULL, &batches), LAMINA_INVALID_ARGUMENT);
  batches = open_batches(dataset, (lamina_batches_options){.batch = 2});
  io_expect_failure(lamina_batches_next(batches, &t, NULL), LAMINA_INVALID_ARGUMENT, "labels", "");
  ck_assert_int_eq(lamina_batches_next(NULL, &t, &t), LAMINA_INVALID_ARGUMENT);
  lamina_batches_close(batches);
  lamina_dataset_destroy(dataset);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("batches");
  TCase *cases = tcase_create("batches");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, io_setup, io_teardown);
  tcase_add_test(cases, a_thread_loads_the_same_bits_whatever_the_timing);
  tcase_add_test(cases, a_run_may_begin_anywhere);
  tcase_add_test(cases, closing_does_not_wait_for_a_reader);
  tcase_add_test(cases, an_epoch_shows_every_image_once);
  tcase_add_test(cases, images_are_shifted_and_flipped_whole);
  tcase_add_test(cases, a_crop_is_stretched_over_the_image);
  tcase_add_test(cases, data_is_normalised_as_pytorch_does_it);
  tcase_add_test(cases, impossible_batches_are_refused);
  suite_add_tcase(suite, cases);
  return io_run(suite);
}
