/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers, atomic files, the safetensors format. */
#include "io/atomic_file.h"
#include "io/safetensors.h"
#include "io_test.h"
#include "random.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

START_TEST(philox_gives_the_published_answers) {
  static const uint32_t cases[3][10] = {{0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0,
                                         0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (int i = 0; i < 3; i++) {
    uint32_t out[4];
    lamina_random_philox(cases[i], cases[i] + 4, out);
    for (int k = 0; k < 4; k++) ck_assert_uint_eq(out[k], cases[i][6 + k]);
  }
}
END_TEST

START_TEST(a_random_number_depends_on_seed_and_position_only) {
  enum { N = 1000 };
  float whole[N], piece[N], normal[N];
  lamina_random_uniform(7, 0, N, whole);
  for (int start = 0; start < 9; start++) {
    lamina_random_uniform(7, (uint64_t)start, N - start, piece);
    ck_assert_mem_eq(piece, whole + start, (size_t)(N - start) * sizeof *piece);
  }
  lamina_random_normal(7, 0, N, normal);
  for (int start = 0; start < 9; start++) {
    lamina_random_normal(7, (uint64_t)start, N - start, piece);
    ck_assert_mem_eq(piece, normal + start, (size_t)(N - start) * sizeof *piece);
  }
  ck_assert_uint_ne(lamina_random_stream(1, 2), lamina_random_stream(2, 1));
  ck_assert_uint_ne(lamina_random_key("conv1.weight"), lamina_random_key("conv2.weight"));
}
END_TEST

START_TEST(random_numbers_have_their_distribution) {
  enum { N = 1 << 18 };
  float *x = malloc(N * sizeof *x);
  double sum = 0, square = 0, fourth = 0;
  lamina_random_uniform(3, 5, N, x);
  for (int i = 0; i < N; i++) {
    ck_assert(x[i] >= 0 && x[i] < 1);
    sum += x[i];
  }
  ck_assert_double_eq_tol(sum / N, 0.5, 5 * sqrt(1.0 / 12 / N));
  sum = 0;
  lamina_random_normal(3, 5, N, x);
  for (int i = 0; i < N; i++) {
    double v = x[i];
    ck_assert(isfinite(v));
    sum += v;
    square += v * v;
    fourth += v * v * v * v;
  }
  ck_assert_double_eq_tol(sum / N, 0, 5 / sqrt(N));
  ck_assert_double_eq_tol(square / N, 1, 5 * sqrt(2.0 / N));
  ck_assert_double_eq_tol(fourth / N, 3, 5 * sqrt(96.0 / N));
  free(x);
}
END_TEST

/* ---- atomic files ------------------------------------------------------------------------------------------------ */

static lamina_status save(const char *name, const void *data, size_t bytes) {
  lamina_atomic_file *file;
  lamina_status status = lamina_atomic_open(context, io_path(name), &file);
  if (status != LAMINA_OK) return status;
  status = lamina_atomic_write(file, data, bytes);
  if (status == LAMINA_OK) return lamina_atomic_commit(file);
  lamina_atomic_abandon(file);
  return status;
}

START_TEST(a_file_is_written_whole_or_not_at_all) {
  enum { BYTES = 300000 };
  size_t bytes;
  char *data = malloc(BYTES);
  memset(data, 'x', BYTES);
  io_write_text("a", "old");
  io_expect_ok(save("a", data, BYTES));
  char *back = io_read("a", &bytes);
  ck_assert_uint_eq(bytes, BYTES);
  ck_assert_mem_eq(back, data, BYTES);
  ck_assert_int_eq(io_file_count(), 1);
  free(back);
  free(data);
  lamina_atomic_file *file;
  io_expect_ok(lamina_atomic_open(context, io_path("a"), &file));
  io_expect_ok(lamina_atomic_write(file, "new", 3));
  lamina_atomic_abandon(file);
  back = io_read("a", &bytes);
  ck_assert_uint_eq(bytes, BYTES);
  ck_assert_int_eq(io_file_count(), 1);
  free(back);
}
END_TEST

START_TEST(a_full_disk_leaves_the_old_file) {
  enum { BYTES = 1 << 20 };
  size_t bytes;
  char *data = calloc(1, BYTES);
  io_write_text("a", "old");
  signal(SIGXFSZ, SIG_IGN); /* then a write beyond the limit fails as it does on a full disk */
  struct rlimit limit = {1 << 17, RLIM_INFINITY}, before;
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
  limit.rlim_max = before.rlim_max;
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  lamina_status status = save("a", data, BYTES);
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
  io_expect_failure(status, LAMINA_IO_ERROR, io_path("a"), "File too large");
  char *back = io_read("a", &bytes);
  ck_assert_str_eq(back, "old");
  ck_assert_int_eq(io_file_count(), 1);
  free(back);
  free(data);
}
END_TEST

START_TEST(permissions_and_links_are_kept) {
  struct stat info;
  mode_t mask = umask(022);
  io_expect_ok(save("new", "1", 1));
  ck_assert_int_eq(stat(io_path("new"), &info), 0);
  ck_assert_int_eq(info.st_mode & 0777, 0644);
  io_write_text("a", "old");
  ck_assert_int_eq(chmod(io_path("a"), 0600), 0);
  ck_assert_int_eq(symlink("a", io_path("link")), 0);
  io_expect_ok(save("link", "12", 2));
  umask(mask);
  ck_assert_int_eq(stat(io_path("a"), &info), 0);
  ck_assert_int_eq(info.st_mode & 0777, 0600);
  ck_assert_int_eq((int)info.st_size, 2);
  ck_assert_int_eq(lstat(io_path("link"), &info), 0);
  ck_assert(S_ISLNK(info.st_mode));
}
END_TEST

START_TEST(what_is_no_file_is_never_replaced) {
  lamina_atomic_file *file;
  io_expect_failure(lamina_atomic_open(context, io_path("none/a"), &file), LAMINA_IO_ERROR, "none/a", "No such file");
  io_expect_failure(lamina_atomic_open(context, "/dev/null", &file), LAMINA_IO_ERROR, "/dev/null",
                    "not a regular file");
  io_expect_failure(lamina_atomic_open(context, io_path(""), &file), LAMINA_IO_ERROR, io_path(""),
                    "not a regular file");
  ck_assert_int_eq(io_file_count(), 0);
}
END_TEST

/* ---- safetensors ------------------------------------------------------------------------------------------------- */

START_TEST(tensors_and_metadata_come_back) {
  float f[6] = {1, -2, 3.5f, 0, 1e-40f, INFINITY};
  int64_t n = 1234567890123;
  int32_t i32[3] = {-1, 0, 7};
  unsigned char u8[5] = {0, 1, 2, 254, 255};
  const int64_t d23[] = {2, 3}, d3[] = {3}, d5[] = {5}, d0[] = {4, 0};
  const lamina_named_tensor tensors[] = {{"a.weight", lamina_tensor_of(f, LAMINA_F32, 2, d23)},
                                         {"bytes", lamina_tensor_of(u8, LAMINA_U8, 1, d5)},
                                         {"\"quoted\" \xC3\xA9", lamina_tensor_of(i32, LAMINA_I32, 1, d3)},
                                         {"n", lamina_tensor_of(&n, LAMINA_I64, 0, NULL)},
                                         {"empty", lamina_tensor_of(NULL, LAMINA_F32, 2, d0)}};
  const lamina_metadata metadata[] = {{"epoch", "3"}, {"note", "line\nline"}, {NULL, NULL}};
  lamina_safetensors *file;
  size_t bytes, again;
  io_expect_ok(lamina_safetensors_write(context, io_path("a"), tensors, 5, metadata));
  io_expect_ok(lamina_safetensors_write(context, io_path("b"), tensors, 5, metadata));
  char *a = io_read("a", &bytes), *b = io_read("b", &again);
  ck_assert_uint_eq(bytes, again);
  ck_assert_mem_eq(a, b, bytes);
  ck_assert_int_eq(a[0] % 8, 0); /* the data is aligned */
  free(a);
  free(b);
  io_expect_ok(lamina_safetensors_open(context, io_path("a"), 0, &file));
  ck_assert_uint_eq(lamina_safetensors_count(file), 5);
  for (int i = 0; i < 5; i++) {
    const lamina_stored_tensor *t = lamina_safetensors_find(file, tensors[i].name);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(t->rank, tensors[i].tensor.rank);
    ck_assert_mem_eq(t->dim, tensors[i].tensor.dim, (size_t)t->rank * sizeof *t->dim);
    if (t->bytes) ck_assert_mem_eq(t->data, tensors[i].tensor.data, t->bytes);
  }
  ck_assert_ptr_eq(lamina_safetensors_find(file, "none"), NULL);
  ck_assert_str_eq(lamina_safetensors_metadata(file, "note"), "line\nline");
  ck_assert_ptr_eq(lamina_safetensors_metadata(file, "none"), NULL);
  lamina_safetensors_close(file);
}
END_TEST

START_TEST(element_types_are_converted_exactly) {
  const char *header = "{\"h\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[0,12]},"
                       "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[12,16]},"
                       "\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[16,24]}}";
  const uint16_t half[] = {0x3C00, 0xC000, 0x0001, 0x7C00, 0x8000, 0x03FF}, brain[] = {0x3F80, 0xC040};
  const double wide = 0.1;
  const float expected[] = {1, -2, 0x1p-24f, INFINITY, -0.0f, 0x3FFp-24f};
  float out[6];
  int64_t whole;
  size_t bytes;
  lamina_safetensors *file;
  io_write_safetensors("a", header, 24);
  char *data = io_read("a", &bytes);
  memcpy(data + bytes - 24, half, 12);
  memcpy(data + bytes - 12, brain, 4);
  memcpy(data + bytes - 8, &wide, 8);
  io_expect_ok(lamina_safetensors_parse(context, "memory", data, bytes, &file));
  ck_assert(lamina_stored_to_f32(lamina_safetensors_find(file, "h"), out));
  ck_assert_mem_eq(out, expected, sizeof expected);
  ck_assert(lamina_stored_to_f32(lamina_safetensors_find(file, "b"), out));
  ck_assert(out[0] == 1 && out[1] == -3);
  ck_assert(lamina_stored_to_f32(lamina_safetensors_find(file, "d"), out));
  ck_assert(out[0] == 0.1f);
  ck_assert(!lamina_stored_to_i64(lamina_safetensors_find(file, "d"), &whole));
  lamina_safetensors_close(file);
  free(data);
}
END_TEST

/* Header, bytes of data, what the message says. */
static const struct {
  const char *header;
  size_t bytes;
  const char *message;
} damaged[] = {
    {"", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"{\"a\":", 0, "header is damaged"},
    {"{} x", 0, "header is damaged"},
    {"{\"a\":1}", 0, "'a': its description is not an object"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "exactly dtype, shape and data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "exactly dtype, shape"},
    {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'a': unknown dtype 'F31'"},
    {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "'a': has no dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "'a': has no shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "'a': a dimension is not"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "'a': a dimension is not"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "9 dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, "shape overflows"},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,4]}}", 4, "shape overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,4],\"data_offsets\":[0,0]}}", 0, "shape overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4, "header is damaged"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "not a pair"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside of the file's 4 data bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "outside of the file's"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "outside of the file's 3 data bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "span 4 bytes, but its shape needs 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, "1 bytes after the last tensor"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "'a': there is a gap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "'a' and 'b' overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "duplicate"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ is not a string"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
};

START_TEST(damaged_safetensors_are_refused) {
  lamina_safetensors *file = (lamina_safetensors *)&file;
  io_write_safetensors("bad.safetensors", damaged[_i].header, damaged[_i].bytes);
  io_expect_failure(lamina_safetensors_open(context, io_path("bad.safetensors"), 0, &file), LAMINA_BAD_FILE,
                    "bad.safetensors", damaged[_i].message);
  ck_assert_ptr_null(file);
}
END_TEST

START_TEST(a_header_longer_than_its_file_is_refused) {
  lamina_safetensors *file;
  unsigned char start[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{'};
  io_write("a", start, 16);
  io_expect_failure(lamina_safetensors_open(context, io_path("a"), 0, &file), LAMINA_BAD_FILE, "/a", "truncated");
  memset(start, 255, 8);
  io_write("a", start, 16);
  io_expect_failure(lamina_safetensors_open(context, io_path("a"), 0, &file), LAMINA_BAD_FILE, "/a",
                    "at most 100000000");
  io_write("a", start, 7);
  io_expect_failure(lamina_safetensors_open(context, io_path("a"), 0, &file), LAMINA_BAD_FILE, "/a", "fewer than 8");
  io_expect_failure(lamina_safetensors_open(context, io_path("b"), 0, &file), LAMINA_NOT_FOUND, "/b", "No such file");
  io_expect_failure(lamina_safetensors_open(context, io_path(""), 0, &file), LAMINA_IO_ERROR, io_path(""), "folder");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("io");
  TCase *test = tcase_create("files");
  tcase_add_checked_fixture(test, io_setup, io_teardown);
  tcase_add_test(test, philox_gives_the_published_answers);
  tcase_add_test(test, a_random_number_depends_on_seed_and_position_only);
  tcase_add_test(test, random_numbers_have_their_distribution);
  tcase_add_test(test, a_file_is_written_whole_or_not_at_all);
  tcase_add_test(test, a_full_disk_leaves_the_old_file);
  tcase_add_test(test, permissions_and_links_are_kept);
  tcase_add_test(test, what_is_no_file_is_never_replaced);
  tcase_add_test(test, tensors_and_metadata_come_back);
  tcase_add_test(test, element_types_are_converted_exactly);
  tcase_add_loop_test(test, damaged_safetensors_are_refused, 0, sizeof damaged / sizeof *damaged);
  tcase_add_test(test, a_header_longer_than_its_file_is_refused);
  suite_add_tcase(suite, test);
  return io_run(suite);
}
