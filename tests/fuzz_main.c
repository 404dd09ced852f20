/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzzer without libFuzzer: valid files, changed a little at random, the same ones in every run.
   Usage: FUZZER [ITERATIONS [SEED]], or FUZZER FILE to repeat one input. */
#include "fuzz.h"
#include "random.h"

#include <ctype.h>
#include <string.h>

enum { LARGEST = 1 << 16, ITERATIONS = 20000 };

typedef struct {
  uint64_t stream, next;
} dice;

static uint32_t roll(dice *d, size_t below) {
  uint32_t words[4];
  lamina_random_block(d->stream, d->next++, words);
  return below ? words[0] % (uint32_t)below : 0;
}

/* Numbers that parsers like least. */
static const char *const numbers[] = {"-1",
                                      "0",
                                      "18446744073709551615",
                                      "9223372036854775807",
                                      "4294967296",
                                      "1e999",
                                      "2147483648",
                                      "0.5",
                                      "null",
                                      "\"\"",
                                      "[]",
                                      "{}"};

static size_t replace_number(dice *d, uint8_t *data, size_t bytes) {
  size_t at = roll(d, bytes), end;
  while (at < bytes && !isdigit(data[at])) at++;
  for (end = at; end < bytes && isdigit(data[end]);) end++;
  const char *number = numbers[roll(d, sizeof numbers / sizeof *numbers)];
  const size_t length = strlen(number);
  if (at == bytes || bytes - (end - at) + length > LARGEST) return bytes;
  memmove(data + at + length, data + end, bytes - end);
  memcpy(data + at, number, length);
  return bytes - (end - at) + length;
}

/* Copies a part of the data to another place, inserted or overwritten. */
static size_t copy_part(dice *d, uint8_t *data, size_t bytes) {
  static uint8_t part[LARGEST];
  const size_t from = roll(d, bytes), length = 1 + roll(d, bytes - from), to = roll(d, bytes);
  memcpy(part, data + from, length);
  if (roll(d, 2) && bytes + length <= LARGEST) {
    memmove(data + to + length, data + to, bytes - to);
    memcpy(data + to, part, length);
    return bytes + length;
  }
  memcpy(data + to, part, length < bytes - to ? length : bytes - to);
  return bytes;
}

/* A gentle change only replaces a number, so that text stays well formed and later checks are reached. */
static size_t mutate(dice *d, uint8_t *data, size_t bytes, bool gentle) {
  static const uint8_t bytes_of_interest[] = {0, 1, 127, 128, 255, '"', '{', '}', '[', ']', ',', '\'', '(', ')'};
  if (bytes == 0) return 0;
  const size_t at = roll(d, bytes);
  switch (gentle ? 7 : roll(d, 8)) {
  case 0:
    data[at] ^= (uint8_t)(1u << roll(d, 8));
    return bytes;
  case 1:
    data[at] = (uint8_t)roll(d, 256);
    return bytes;
  case 2:
    data[at] = bytes_of_interest[roll(d, sizeof bytes_of_interest)];
    return bytes;
  case 3:
    return at; /* cut */
  case 4: {
    const size_t length = 1 + roll(d, bytes - at < 16 ? bytes - at : 16);
    memmove(data + at, data + at + length, bytes - at - length);
    return bytes - length;
  }
  case 5:
    return copy_part(d, data, bytes);
  case 6:
    memset(data + at, roll(d, 2) ? 255 : 0, bytes - at < 8 ? bytes - at : 8);
    return bytes;
  default:
    return replace_number(d, data, bytes);
  }
}

static int repeat_file(const char *path) {
  static uint8_t data[1 << 20];
  FILE *file = fopen(path, "rb");
  if (!file) return EXIT_FAILURE;
  const size_t bytes = fread(data, 1, sizeof data, file);
  fclose(file);
  LLVMFuzzerTestOneInput(data, bytes);
  return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
  if (argc == 2 && access(argv[1], F_OK) == 0) return repeat_file(argv[1]);
  const long iterations = argc > 1 ? atol(argv[1]) : ITERATIONS;
  const unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
  int seeds = 0;
  size_t bytes;
  while (fuzz_seed(seeds, &bytes)) seeds++;
  printf("seed %lu, %ld iterations on %d files\n", seed, iterations, seeds);
  for (int i = 0; i < seeds; i++) {
    const void *valid = fuzz_seed(i, &bytes);
    LLVMFuzzerTestOneInput(valid, bytes);
  }
  for (long i = 0; i < iterations; i++) {
    dice d = {.stream = lamina_random_stream(seed, (uint64_t)i)};
    const void *valid = fuzz_seed((int)roll(&d, (size_t)seeds), &bytes);
    uint8_t *data = malloc(LARGEST);
    if (!data || bytes > LARGEST) return EXIT_FAILURE;
    memcpy(data, valid, bytes);
    const bool gentle = roll(&d, 2) == 0;
    for (uint32_t n = 1 + roll(&d, 4); n > 0; n--) bytes = mutate(&d, data, bytes, gentle);
    uint8_t *exact = malloc(bytes ? bytes : 1); /* so that a sanitizer sees a byte read too far */
    if (!exact) return EXIT_FAILURE;
    memcpy(exact, data, bytes);
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
    free(data);
  }
  return EXIT_SUCCESS;
}
