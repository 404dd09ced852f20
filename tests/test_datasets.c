/* SPDX-License-Identifier: Apache-2.0 */
/* .npy arrays, the data sets that are read from a folder, the embedded digits, shuffling. */
#include "io_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* ---- .npy -------------------------------------------------------------------------------------------------------- */

/* A version 1.0 file with this dictionary and `bytes` bytes of data. */
static void write_npy(const char *name, const char *dictionary, const void *data, size_t bytes) {
  const size_t length = strlen(dictionary);
  char *file = calloc(1, 10 + length + bytes + 1);
  memcpy(file, "\x93NUMPY\x01\x00", 8);
  file[8] = (char)(length & 255);
  file[9] = (char)(length >> 8);
  memcpy(file + 10, dictionary, length);
  if (data) memcpy(file + 10 + length, data, bytes);
  io_write(name, file, 10 + length + bytes);
  free(file);
}

START_TEST(arrays_come_back) {
  float f[6] = {1, 2, 3, 4, 5, -6};
  int64_t i64[2] = {-1, (int64_t)1 << 40};
  unsigned char u8[3] = {0, 128, 255};
  const int64_t d23[] = {2, 3}, d2[] = {2}, d311[] = {3, 1, 1}, d0[] = {0, 5};
  const lamina_tensor tensors[] = {lamina_tensor_of(f, LAMINA_F32, 2, d23), lamina_tensor_of(i64, LAMINA_I64, 1, d2),
                                   lamina_tensor_of(u8, LAMINA_U8, 3, d311), lamina_tensor_of(f, LAMINA_I32, 0, NULL),
                                   lamina_tensor_of(f, LAMINA_F32, 2, d0)};
  const size_t sizes[] = {24, 16, 3, 4, 0};
  for (int i = 0; i < 5; i++) {
    lamina_tensor back;
    io_expect_ok(lamina_array_save(context, io_path("a.npy"), &tensors[i]));
    io_expect_ok(lamina_array_load(context, io_path("a.npy"), &back));
    ck_assert_int_eq(back.dtype, tensors[i].dtype);
    ck_assert_int_eq(back.rank, tensors[i].rank);
    ck_assert_mem_eq(back.dim, tensors[i].dim, (size_t)back.rank * sizeof *back.dim);
    ck_assert_mem_eq(back.data, tensors[i].data, sizes[i]);
    lamina_array_release(context, &back);
    ck_assert_ptr_null(back.data);
  }
  lamina_tensor transposed = tensors[0];
  transposed.stride[0] = 1;
  transposed.stride[1] = 2;
  io_expect_failure(lamina_array_save(context, io_path("b.npy"), &transposed), LAMINA_INVALID_ARGUMENT, "b.npy",
                    "dense");
}
END_TEST

START_TEST(doubles_become_floats) {
  const double d[3] = {0.1, -2, 1e300};
  lamina_tensor back;
  write_npy("a.npy", "{\"shape\":(3,), 'descr' : '<f8','fortran_order':False}", d, sizeof d);
  io_expect_ok(lamina_array_load(context, io_path("a.npy"), &back));
  ck_assert_int_eq(back.dtype, LAMINA_F32);
  ck_assert(((float *)back.data)[0] == 0.1f && ((float *)back.data)[1] == -2);
  lamina_array_release(context, &back);
}
END_TEST

static const struct {
  const char *dictionary;
  size_t bytes;
  lamina_status status;
  const char *message;
} bad_arrays[] = {
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", 4, LAMINA_UNSUPPORTED, "Fortran order"},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", 4, LAMINA_UNSUPPORTED, "big-endian"},
    {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8, LAMINA_UNSUPPORTED, "'<c8' is not read"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4, LAMINA_BAD_FILE, "not a simple type"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 3, LAMINA_BAD_FILE, "truncated"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 5, LAMINA_BAD_FILE, "too long"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, LAMINA_BAD_FILE, "a dimension"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2), }", 8, LAMINA_BAD_FILE, "comma"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': 1, }", 4, LAMINA_BAD_FILE, "not a tuple"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 4, LAMINA_BAD_FILE, "8 dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 4, LAMINA_BAD_FILE, "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4), }", 0, LAMINA_BAD_FILE,
     "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 4, LAMINA_BAD_FILE, "a dimension"},
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", 4, LAMINA_BAD_FILE, "neither True nor False"},
    {"{'descr': '<f4', 'shape': (1,), }", 4, LAMINA_BAD_FILE, "is missing"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 4, LAMINA_BAD_FILE, "repeated key"},
    {"{'descr': '<f4', 'order': False, 'shape': (1,), }", 4, LAMINA_BAD_FILE, "unknown"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x", 4, LAMINA_BAD_FILE, "follows the dictionary"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1", 0, LAMINA_BAD_FILE, "comma"},
    {"", 0, LAMINA_BAD_FILE, "no dictionary"},
};

START_TEST(damaged_arrays_are_refused) {
  lamina_tensor back;
  write_npy("a.npy", bad_arrays[_i].dictionary, NULL, bad_arrays[_i].bytes);
  io_expect_failure(lamina_array_load(context, io_path("a.npy"), &back), bad_arrays[_i].status, "a.npy",
                    bad_arrays[_i].message);
}
END_TEST

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static lamina_status open_folder(lamina_dataset **dataset) {
  const lamina_dataset_options options = {.size = sizeof options, .directory = io_path("")};
  return lamina_dataset_open(context, &options, dataset);
}

static void put_big(unsigned char *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* An IDX file that declares (n, 2, 3) images or n labels and holds `bytes` bytes: i % 10. */
static void write_idx(const char *name, uint32_t magic, uint32_t n, size_t bytes) {
  unsigned char data[512] = {0};
  const size_t header = (magic & 255) == 3 ? 16 : 8;
  put_big(data, magic);
  put_big(data + 4, n);
  if (header == 16) {
    put_big(data + 8, 2);
    put_big(data + 12, 3);
  }
  for (size_t i = 0; i < bytes; i++) data[header + i] = (unsigned char)(i % 10);
  const size_t length = strlen(name);
  if (length > 3 && !strcmp(name + length - 3, ".gz")) {
    gzFile file = gzopen(io_path(name), "wb");
    ck_assert_int_eq(gzwrite(file, data, (unsigned)(header + bytes)), (int)(header + bytes));
    gzclose(file);
  } else {
    io_write(name, data, header + bytes);
  }
}

static void write_idx_folder(const char *ending) {
  static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                                      "t10k-labels-idx1-ubyte"};
  for (int i = 0; i < 4; i++) {
    const uint32_t n = i < 2 ? 5 : 2;
    char name[64];
    snprintf(name, sizeof name, "%s%s", names[i], ending);
    write_idx(name, i % 2 ? 0x801 : 0x803, n, i % 2 ? n : 6 * n);
  }
}

START_TEST(idx_files_are_read_plain_and_compressed) {
  lamina_dataset *dataset;
  lamina_dataset_info info = {.size = sizeof info};
  const int64_t index[] = {4, 0};
  float images[2 * 6 * 3];
  int32_t labels[2];
  write_idx_folder(_i ? ".gz" : "");
  io_expect_ok(open_folder(&dataset));
  io_expect_ok(lamina_dataset_get_info(dataset, &info));
  ck_assert(info.count[0] == 5 && info.count[1] == 2 && info.height == 2 && info.width == 3 && info.channels == 1);
  ck_assert_int_eq(info.classes, 5);
  io_expect_ok(lamina_dataset_batch(dataset, LAMINA_SPLIT_TRAIN, 2, index, 3, images, labels));
  ck_assert(labels[0] == 4 && labels[1] == 0);
  for (int i = 0; i < 36; i++) {
    const float byte = (float)(i < 18 ? (24 + i / 3) % 10 : (i - 18) / 3);
    ck_assert(images[i] == byte / 127.5f - 1);
  }
  io_expect_failure(lamina_dataset_batch(dataset, LAMINA_SPLIT_TEST, 2, index, 3, images, labels),
                    LAMINA_INVALID_ARGUMENT, "sample 4 of 2", "IDX");
  lamina_dataset_destroy(dataset);
}
END_TEST

static const struct {
  const char *name;
  uint32_t magic, n;
  size_t bytes;
  const char *message;
} bad_idx[] = {
    {"train-images-idx3-ubyte", 0x801, 5, 30, "magic number"},
    {"train-images-idx3-ubyte", 0xD03, 5, 30, "magic number"},
    {"train-images-idx3-ubyte", 0x803, 5, 29, "truncated: its header promises 30 bytes of data, it has 29"},
    {"train-images-idx3-ubyte", 0x803, 5, 31, "too long"},
    {"train-images-idx3-ubyte", 0x803, 0, 0, "size of 0"},
    {"train-images-idx3-ubyte", 0x803, 4294967295u, 30, "4 GiB"},
    {"train-images-idx3-ubyte", 0x803, 600000000u, 30, "truncated"},
    {"train-images-idx3-ubyte.gz", 0x803, 5, 29, "truncated: its header promises 30 bytes of data, it has 29"},
    {"train-images-idx3-ubyte.gz", 0x803, 5, 31, "too long"},
    {"train-images-idx3-ubyte.gz", 0x803, 600000000u, 30, "truncated"},
    {"train-labels-idx1-ubyte", 0x801, 4, 4, "4 labels for 5 images"},
    {"train-labels-idx1-ubyte", 0x803, 5, 30, "magic number"},
    {"t10k-labels-idx1-ubyte.gz", 0x801, 3, 3, "3 labels for 2 images"},
};

START_TEST(damaged_idx_files_are_refused) {
  lamina_dataset *dataset;
  const char *name = bad_idx[_i].name;
  write_idx_folder(strstr(name, ".gz") ? ".gz" : "");
  write_idx(name, bad_idx[_i].magic, bad_idx[_i].n, bad_idx[_i].bytes);
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, name, bad_idx[_i].message);
  ck_assert_ptr_null(dataset);
}
END_TEST

START_TEST(a_cut_or_changed_gzip_file_is_refused) {
  lamina_dataset *dataset;
  size_t bytes;
  write_idx_folder(".gz");
  char *data = io_read("train-images-idx3-ubyte.gz", &bytes);
  io_write("train-images-idx3-ubyte.gz", data, bytes - 6);
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "train-images-idx3-ubyte.gz", "truncated or damaged");
  data[bytes - 7] ^= 1; /* the checksum */
  io_write("train-images-idx3-ubyte.gz", data, bytes);
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "train-images-idx3-ubyte.gz", "truncated or damaged");
  free(data);
  unlink(io_path("train-labels-idx1-ubyte.gz"));
  write_idx("train-images-idx3-ubyte.gz", 0x803, 5, 30);
  io_expect_failure(open_folder(&dataset), LAMINA_NOT_FOUND, "no train-labels-idx1-ubyte", "");
}
END_TEST

/* Longer than zlib's own buffers, and cut within the eight bytes of checksum and length that follow the data. */
START_TEST(a_gzip_file_without_its_whole_checksum_is_refused) {
  enum { IMAGES = 8000, BYTES = 16 + 6 * IMAGES };
  static unsigned char content[BYTES];
  lamina_dataset *dataset;
  size_t bytes;
  write_idx_folder(".gz");
  put_big(content, 0x803);
  put_big(content + 4, IMAGES);
  put_big(content + 8, 2);
  put_big(content + 12, 3);
  uint32_t noise = 1; /* what does not compress, so that the end of the data and of the file are far from each other */
  for (int i = 16; i < BYTES; i++) content[i] = (unsigned char)((noise = noise * 1664525u + 1013904223u) >> 24);
  gzFile file = gzopen(io_path("train-images-idx3-ubyte.gz"), "wb");
  ck_assert_int_eq(gzwrite(file, content, BYTES), BYTES);
  gzclose(file);
  char *data = io_read("train-images-idx3-ubyte.gz", &bytes);
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "5 labels for 8000 images", "");
  for (size_t cut = 1; cut <= 9; cut++) {
    io_write("train-images-idx3-ubyte.gz", data, bytes - cut);
    io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "train-images-idx3-ubyte.gz", "truncated or damaged");
    ck_assert_ptr_null(strstr(lamina_error_message(context), "fd:"));
  }
  free(data);
}
END_TEST

START_TEST(cifar_records_become_pixels) {
  enum { RECORD = 3073 };
  static unsigned char records[2 * RECORD];
  lamina_dataset *dataset;
  lamina_dataset_info info = {.size = sizeof info};
  const int64_t index[] = {9};
  static float images[3072];
  int32_t labels[1];
  for (int i = 0; i < 2 * RECORD; i++) records[i] = (unsigned char)(i % RECORD / 1024); /* planes of 0, 1 and 2 */
  records[0] = 3;
  records[RECORD] = 9;
  for (int i = 1; i <= 3072; i++) records[RECORD + i] = (unsigned char)((i - 1) / 1024 * 10);
  for (int i = 1; i <= 5; i++) {
    char name[32];
    snprintf(name, sizeof name, "data_batch_%d.bin", i);
    io_write(name, records, sizeof records);
  }
  io_expect_failure(open_folder(&dataset), LAMINA_NOT_FOUND, "test_batch.bin", "No such file");
  io_write("test_batch.bin", records, RECORD);
  io_expect_ok(open_folder(&dataset));
  io_expect_ok(lamina_dataset_get_info(dataset, &info));
  ck_assert(info.count[0] == 10 && info.count[1] == 1 && info.height == 32 && info.channels == 3 && info.classes == 10);
  io_expect_ok(lamina_dataset_batch(dataset, LAMINA_SPLIT_TRAIN, 1, index, 3, images, labels));
  ck_assert_int_eq(labels[0], 9);
  for (int i = 0; i < 3072; i++) ck_assert(images[i] == (float)(i % 3 * 10) / 127.5f - 1);
  io_expect_failure(lamina_dataset_batch(dataset, LAMINA_SPLIT_TRAIN, 1, index, 1, images, labels),
                    LAMINA_SHAPE_MISMATCH, "3 channels", "as 1");
  lamina_dataset_destroy(dataset);
  records[RECORD] = 10;
  io_write("data_batch_3.bin", records, sizeof records);
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "data_batch_3.bin: sample 1", "label 10");
  io_write("data_batch_3.bin", records, sizeof records - 1);
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "data_batch_3.bin", "truncated or too long");
}
END_TEST

START_TEST(pairs_of_arrays_are_a_data_set) {
  lamina_dataset *dataset;
  float images[12], out[6];
  int64_t labels[2] = {0, 6};
  int32_t got[1];
  const int64_t d[] = {2, 3, 2}, n[] = {2}, other[] = {2, 2, 3}, one[] = {1};
  for (int i = 0; i < 12; i++) images[i] = (float)i * 0.25f;
  lamina_tensor x = lamina_tensor_of(images, LAMINA_F32, 3, d), y = lamina_tensor_of(labels, LAMINA_I64, 1, n);
  lamina_tensor turned = lamina_tensor_of(images, LAMINA_F32, 3, other);
  io_expect_ok(lamina_array_save(context, io_path("train_images.npy"), &x));
  io_expect_ok(lamina_array_save(context, io_path("test_images.npy"), &x));
  io_expect_ok(lamina_array_save(context, io_path("train_labels.npy"), &y));
  io_expect_ok(lamina_array_save(context, io_path("test_labels.npy"), &y));
  io_expect_ok(open_folder(&dataset));
  io_expect_ok(lamina_dataset_batch(dataset, LAMINA_SPLIT_TEST, 1, one, 1, out, got));
  ck_assert_mem_eq(out, images + 6, sizeof out); /* floats stay as they are */
  ck_assert_int_eq(got[0], 6);
  lamina_dataset_destroy(dataset);
  labels[1] = -1;
  io_expect_ok(lamina_array_save(context, io_path("test_labels.npy"), &y));
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "test_labels.npy: sample 1", "label -1");
  labels[1] = (int64_t)1 << 33;
  io_expect_ok(lamina_array_save(context, io_path("test_labels.npy"), &y));
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "test_labels.npy: sample 1", "label 8589934592");
  y.dim[0] = 1;
  io_expect_ok(lamina_array_save(context, io_path("test_labels.npy"), &y));
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "test_labels.npy", "1 labels for 2 images");
  io_expect_ok(lamina_array_save(context, io_path("test_images.npy"), &turned));
  io_expect_failure(open_folder(&dataset), LAMINA_SHAPE_MISMATCH, "test_images.npy", "3x2x1");
  io_expect_ok(lamina_array_save(context, io_path("train_images.npy"), &y));
  io_expect_failure(open_folder(&dataset), LAMINA_BAD_FILE, "train_images.npy", "(N, H, W)");
}
END_TEST

START_TEST(real_mnist_files_are_read) {
  char folder[400];
  lamina_dataset *dataset;
  lamina_dataset_info info = {.size = sizeof info};
  const char *slash = strrchr(__FILE__, '/');
  snprintf(folder, sizeof folder, "%.*s/../../shared/data/mnist10k", slash ? (int)(slash - __FILE__) : 1,
           slash ? __FILE__ : ".");
  if (access(folder, R_OK) != 0) {
    printf("skipped: %s is not here\n", folder);
    return;
  }
  lamina_dataset_options options = {.size = sizeof options, .directory = folder};
  io_expect_ok(lamina_dataset_open(context, &options, &dataset));
  io_expect_ok(lamina_dataset_get_info(dataset, &info));
  ck_assert(info.count[0] == 8000 && info.count[1] == 2000 && info.height == 28 && info.width == 28);
  ck_assert_int_eq(info.classes, 10);
  lamina_dataset_destroy(dataset);
}
END_TEST

START_TEST(a_folder_without_data_is_named) {
  lamina_dataset *dataset;
  lamina_dataset_options options = {.size = sizeof options, .directory = "/none/such"};
  io_expect_failure(open_folder(&dataset), LAMINA_NOT_FOUND, "holds no data set", "train-images");
  io_expect_failure(lamina_dataset_open(context, &options, &dataset), LAMINA_NOT_FOUND, "/none/such", "No such file");
  io_write_text("file", "x");
  options.directory = io_path("file");
  io_expect_failure(lamina_dataset_open(context, &options, &dataset), LAMINA_INVALID_ARGUMENT, "file", "a folder");
}
END_TEST

/* ---- digits and shuffling ---------------------------------------------------------------------------------------- */

START_TEST(digits_are_the_same_on_every_machine) {
  enum { N = 200 };
  lamina_dataset *dataset, *longer;
  lamina_dataset_info info = {.size = sizeof info};
  lamina_dataset_options options = {.size = sizeof options, .seed = 1, .train_count = N, .test_count = 1};
  static float a[N * 784], b[N * 784];
  int32_t la[N], lb[N];
  int64_t index[N];
  int seen[10] = {0};
  io_expect_ok(lamina_dataset_open(context, &options, &dataset));
  options.train_count = 2 * N;
  io_expect_ok(lamina_dataset_open(context, &options, &longer));
  io_expect_ok(lamina_dataset_get_info(dataset, &info));
  ck_assert(info.count[0] == N && info.height == 28 && info.width == 28 && info.channels == 1 && info.classes == 10);
  for (int i = 0; i < N; i++) index[i] = i;
  io_expect_ok(lamina_dataset_batch(dataset, LAMINA_SPLIT_TRAIN, N, index, 1, a, la));
  io_expect_ok(lamina_dataset_batch(longer, LAMINA_SPLIT_TRAIN, N, index, 1, b, lb));
  ck_assert_mem_eq(a, b, sizeof a); /* more samples do not change the first ones */
  ck_assert_mem_eq(la, lb, sizeof la);
  for (int i = 0; i < N; i++) seen[la[i]]++;
  for (int i = 0; i < 10; i++) ck_assert_int_gt(seen[i], 0);
  uint32_t sum = 0; /* of all bytes, in order */
  for (int i = 0; i < N * 784; i++) sum = sum * 31 + (uint32_t)((a[i] + 1) * 127.5f + 0.5f);
  ck_assert_uint_eq(sum, 1733151441u);
  lamina_dataset_destroy(dataset);
  lamina_dataset_destroy(longer);
  options.train_count = -1;
  io_expect_failure(lamina_dataset_open(context, &options, &dataset), LAMINA_INVALID_ARGUMENT, "-1 and 1", "");
}
END_TEST

START_TEST(a_shuffle_is_a_permutation_of_its_seed_and_epoch) {
  enum { N = 1000 };
  int64_t a[N], b[N];
  char seen[N] = {0};
  static const int64_t known[] = {337, 418, 944, 510};
  lamina_shuffle(1, 2, N, a);
  for (int i = 0; i < N; i++) seen[a[i]] = 1;
  for (int i = 0; i < N; i++) ck_assert(seen[i]);
  ck_assert_mem_eq(a, known, sizeof known);
  lamina_shuffle(1, 2, N, b);
  ck_assert_mem_eq(a, b, sizeof a);
  lamina_shuffle(1, 3, N, b);
  ck_assert_mem_ne(a, b, sizeof a);
  lamina_shuffle(1, 2, 0, NULL);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("data sets");
  TCase *test = tcase_create("data");
  tcase_add_checked_fixture(test, io_setup, io_teardown);
  tcase_add_test(test, arrays_come_back);
  tcase_add_test(test, doubles_become_floats);
  tcase_add_loop_test(test, damaged_arrays_are_refused, 0, sizeof bad_arrays / sizeof *bad_arrays);
  tcase_add_loop_test(test, idx_files_are_read_plain_and_compressed, 0, 2);
  tcase_add_loop_test(test, damaged_idx_files_are_refused, 0, sizeof bad_idx / sizeof *bad_idx);
  tcase_add_test(test, a_cut_or_changed_gzip_file_is_refused);
  tcase_add_test(test, a_gzip_file_without_its_whole_checksum_is_refused);
  tcase_add_test(test, cifar_records_become_pixels);
  tcase_add_test(test, pairs_of_arrays_are_a_data_set);
  tcase_add_test(test, real_mnist_files_are_read);
  tcase_add_test(test, a_folder_without_data_is_named);
  tcase_add_test(test, digits_are_the_same_on_every_machine);
  tcase_add_test(test, a_shuffle_is_a_permutation_of_its_seed_and_epoch);
  suite_add_tcase(suite, test);
  return io_run(suite);
}
