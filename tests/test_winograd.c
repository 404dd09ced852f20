/* SPDX-License-Identifier: Apache-2.0 */
/* The promise of the default math mode: over suite-like shapes and unkind numbers, Winograd's RMS error is within 2.5 times
   the direct sum's. Prints both, so that they can be published. */
#include "compute_test.h"

#include <math.h>

extern const lamina_layer lamina_layer_conv2d;

enum { OUT_CHANNELS, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS };
enum { SAMPLES = 4000 };

typedef enum numbers { UNIFORM, RELU_OUTPUT, LARGE_MEAN, WIDE_RANGE, OUTLIERS, NUMBERS } numbers;
static const char *const number_names[] = {"uniform", "after ReLU", "mean 100, deviation 1", "10^-4 to 10^4", "one in a thousand 10^4"};

typedef struct shape {
  int64_t images, size, in, out, groups; /* channels of a group */
} shape;

static const shape shapes[] = {{1, 56, 64, 64, 1},   {1, 28, 128, 128, 1}, {2, 14, 256, 256, 1}, {4, 7, 512, 512, 1},
                               {1, 35, 96, 96, 1},   {1, 14, 1024, 64, 1}, {1, 13, 17, 31, 1},   {1, 8, 448, 384, 1},
                               {1, 28, 3, 64, 1},    {2, 17, 32, 48, 1},   {1, 6, 2048, 32, 1},  {1, 56, 2, 2, 16},
                               {1, 56, 4, 4, 32},    {1, 28, 8, 8, 32},    {1, 14, 16, 16, 32}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static double draw(test_random *r, numbers kind) {
  double gauss = -6;
  for (int i = 0; i < 12; i++) gauss += (double)test_random_float(r, 0, 1);
  switch (kind) {
  case RELU_OUTPUT: return fmax(gauss, 0);
  case LARGE_MEAN: return 100 + gauss;
  case WIDE_RANGE: return (gauss < 0 ? -1 : 1) * pow(10, (double)test_random_float(r, -4, 4));
  case OUTLIERS: return test_random_below(r, 1000) ? gauss : 1e4 * gauss;
  default: return (double)test_random_float(r, -1, 1);
  }
}

static double reference(const compute_case *c, int64_t at) {
  const lamina_tensor *x = &c->inputs[0], *y = &c->outputs[0];
  const int64_t out = y->dim[3], o = at % out, w = at / out % y->dim[2], h = at / out / y->dim[2] % y->dim[1];
  const int64_t n = at / out / y->dim[2] / y->dim[1];
  const int64_t in = c->params[0].dim[1], group = o / (out / (x->dim[3] / in));
  const float *weight = (const float *)c->params[0].data + o * in * 9;
  double sum = 0;
  for (int64_t tap = 0; tap < 9; tap++) {
    const int64_t row = h + tap / 3 - 1, column = w + tap % 3 - 1;
    if (row < 0 || row >= x->dim[1] || column < 0 || column >= x->dim[2]) continue;
    const float *pixel = compute_at(x, ((n * x->dim[1] + row) * x->dim[2] + column) * x->dim[3] + group * in);
    for (int64_t i = 0; i < in; i++) sum += (double)pixel[i] * (double)weight[i * 9 + tap];
  }
  return sum;
}

/* The root of the mean squared error of y at the samples, over that of its square. */
static double error_of(const compute_case *c, const int64_t *at, const double *want) {
  double errors = 0, squares = 0;
  for (int i = 0; i < SAMPLES; i++) {
    errors += pow((double)*compute_at(&c->outputs[0], at[i]) - want[i], 2);
    squares += want[i] * want[i];
  }
  return sqrt(errors / squares);
}

/* Whether groups share a vector: then it is F(4, 3) along the height alone. */
static int tiled(const lamina_context *context, const shape *s) {
  return s->groups > 1 && s->in <= context->kernels.vector_floats;
}

/* Errors of the direct sum, F(2x2) and F(4x4). */
static void measure(const lamina_context *context, const shape *s, numbers kind, double error[3]) {
  static const char *const names[] = {"direct", "winograd2x2", "winograd4x4"};
  compute_case c = {.layer = &lamina_layer_conv2d, .mode = LAMINA_INFER, .random = test_random_for("winograd accuracy")};
  c.attrs[OUT_CHANNELS].i = s->groups * s->out;
  c.attrs[KERNEL] = (lamina_value){.count = 2, .ints = {3, 3}};
  c.attrs[STRIDE] = c.attrs[DILATION] = c.attrs[PADDING] = (lamina_value){.count = 2, .ints = {1, 1}};
  c.attrs[GROUPS].i = s->groups;
  c.x = (lamina_tensor){.rank = 4, .dim = {s->images, s->size, s->size, s->groups * s->in}};
  compute_prepare(&c, context);
  float *x = c.inputs[0].data, *weight = c.params[0].data;
  const double scale = 1 / sqrt(9 * (double)s->in);
  for (int64_t i = 0; i < compute_count(&c.inputs[0]); i++) x[i] = (float)draw(&c.random, kind);
  for (int64_t i = 0; i < compute_count(&c.params[0]); i++) weight[i] = (float)(scale * draw(&c.random, UNIFORM));
  int64_t at[SAMPLES];
  double want[SAMPLES];
  for (int i = 0; i < SAMPLES; i++) {
    at[i] = test_random_below(&c.random, compute_count(&c.outputs[0]));
    want[i] = reference(&c, at[i]);
  }
  for (int i = 0; i < 3; i++) {
    c.kernel = names[i];
    compute_run(&c, context);
    error[i] = error_of(&c, at, want);
  }
  compute_release(&c);
}

START_TEST(errors_are_within_two_and_a_half_times_the_direct_ones) {
  lamina_context *context;
  const lamina_context_options options = {.size = sizeof options, .threads = 1};
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
  double worst[3] = {0};
  const int64_t least = 32; /* channels of F(4x4) in the default math mode */
  for (int kind = 0; kind < NUMBERS; kind++)
    for (int i = 0; i < SHAPES; i++) {
      double error[3];
      const shape *s = &shapes[i];
      measure(context, s, (numbers)kind, error);
      printf("%-24s %lldx%lldx%lld, %lld to %lld channels, %lld groups: direct %.2e, F(2x2) %.2f times, F(4x4) %.2f times that\n",
             number_names[kind], (long long)s->images, (long long)s->size, (long long)s->size, (long long)s->in,
             (long long)s->out, (long long)s->groups, error[0], error[1] / error[0], error[2] / error[0]);
      for (int f = 1; f < (s->in < least && !tiled(context, s) ? 2 : 3); f++) worst[f] = fmax(worst[f], error[f] / error[0]);
    }
  printf("worst: F(2x2) %.2f, F(4x4) %.2f\n", worst[1], worst[2]);
  test_that(worst[1] <= 2.5 && worst[2] <= 2.5, "F(2x2) %.2f, F(4x4) %.2f times the direct error", worst[1], worst[2]);
  lamina_context_destroy(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("winograd");
  TCase *t = tcase_create("winograd");
  tcase_set_timeout(t, 240);
  tcase_add_test(t, errors_are_within_two_and_a_half_times_the_direct_ones);
  suite_add_tcase(suite, t);
  return compute_main(suite);
}
