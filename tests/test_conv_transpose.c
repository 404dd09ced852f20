/* SPDX-License-Identifier: Apache-2.0 */
/* conv_transpose2d against double: forward, gradients, epilogues, padded rows, accumulation, the same bits for any
 * threads. */
#include "compute_test.h"

extern const lamina_layer lamina_layer_conv_transpose2d;

enum { OUT_CHANNELS, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS, OUTPUT_PADDING };

typedef struct transpose_case {
  int64_t n, h, w, c, o, kh, kw, sh, sw, ph, pw, dh, dw, eh, ew, groups;
  int bias;
} transpose_case;

static void describe(const transpose_case *s, char *text, size_t bytes) {
  snprintf(text, bytes,
           "x %lldx%lldx%lldx%lld out_channels=%lld kernel=%lld,%lld stride=%lld,%lld padding=%lld,%lld "
           "dilation=%lld,%lld output_padding=%lld,%lld groups=%lld bias=%d",
           (long long)s->n, (long long)s->h, (long long)s->w, (long long)s->c, (long long)s->o, (long long)s->kh,
           (long long)s->kw, (long long)s->sh, (long long)s->sw, (long long)s->ph, (long long)s->pw, (long long)s->dh,
           (long long)s->dw, (long long)s->eh, (long long)s->ew, (long long)s->groups, s->bias);
}

static void set_attributes(compute_case *c, const transpose_case *s) {
  c->layer = &lamina_layer_conv_transpose2d;
  c->attrs[OUT_CHANNELS].i = s->o;
  c->attrs[KERNEL] = (lamina_value){.count = 2, .ints = {s->kh, s->kw}};
  c->attrs[STRIDE] = (lamina_value){.count = 2, .ints = {s->sh, s->sw}};
  c->attrs[PADDING] = (lamina_value){.count = 2, .ints = {s->ph, s->pw}};
  c->attrs[DILATION] = (lamina_value){.count = 2, .ints = {s->dh, s->dw}};
  c->attrs[OUTPUT_PADDING] = (lamina_value){.count = 2, .ints = {s->eh, s->ew}};
  c->attrs[GROUPS].i = s->groups;
  c->attrs[BIAS].i = s->bias;
  c->x = (lamina_tensor){.rank = 4, .dim = {s->n, s->h, s->w, s->c}};
}

/* All channels of all groups at one input pixel and tap. */
TEST_UNCHECKED static void add_tap(const compute_case *c, const transpose_case *s, int64_t x_pixel, int64_t y_pixel,
                                   int64_t tap, compute_sums *r) {
  const int64_t in = s->c / s->groups, out = s->o / s->groups, taps = s->kh * s->kw;
  for (int64_t i = 0; i < s->c; i++)
    for (int64_t o = 0; o < out; o++)
      compute_product(c, r, y_pixel * s->o + i / in * out + o, x_pixel * s->c + i, (i * out + o) * taps + tap);
}

TEST_UNCHECKED static void products(const compute_case *c, const void *shape, compute_sums *r) {
  const transpose_case *s = shape;
  const int64_t oh = (s->h - 1) * s->sh - 2 * s->ph + s->dh * (s->kh - 1) + s->eh + 1;
  const int64_t ow = (s->w - 1) * s->sw - 2 * s->pw + s->dw * (s->kw - 1) + s->ew + 1;
  ck_assert_int_eq(c->outputs[0].dim[1], oh);
  ck_assert_int_eq(c->outputs[0].dim[2], ow);
  for (int64_t p = 0; p < s->n * s->h * s->w; p++)
    for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
      const int64_t at_h = p / s->w % s->h * s->sh - s->ph + tap / s->kw * s->dh;
      const int64_t at_w = p % s->w * s->sw - s->pw + tap % s->kw * s->dw;
      if (at_h >= 0 && at_h < oh && at_w >= 0 && at_w < ow)
        add_tap(c, s, p, (p / (s->h * s->w) * oh + at_h) * ow + at_w, tap, r);
    }
}

static void verify(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c, const transpose_case *s) {
  char text[320];
  describe(s, text, sizeof text);
  set_attributes(c, s);
  compute_verify(context, turn, c, text, products, s);
}

/* An axis whose output has at least one pixel. */
static void random_axis(test_random *r, int64_t *in, int64_t *kernel, int64_t *stride, int64_t *pad, int64_t *dilation,
                        int64_t *extra) {
  do {
    *in = compute_between(r, 1, 9);
    *kernel = compute_between(r, 1, 4);
    *stride = compute_between(r, 1, 4);
    *dilation = test_random_below(r, 2) ? 1 : compute_between(r, 1, 3);
    *pad = test_random_below(r, 2) ? compute_between(r, 0, 3) : 0;
    *extra = test_random_below(r, 2) ? test_random_below(r, *stride > *dilation ? *stride : *dilation) : 0;
  } while ((*in - 1) * *stride - 2 * *pad + *dilation * (*kernel - 1) + *extra < 0);
}

static transpose_case random_case(test_random *r) {
  transpose_case s = {.n = compute_between(r, 1, 3)};
  random_axis(r, &s.h, &s.kh, &s.sh, &s.ph, &s.dh, &s.eh);
  random_axis(r, &s.w, &s.kw, &s.sw, &s.pw, &s.dw, &s.ew);
  if (test_random_below(r, 6) == 0) { /* a matrix product */
    s.kh = s.kw = s.sh = s.sw = s.dh = s.dw = 1;
    s.ph = s.pw = s.eh = s.ew = 0;
  }
  s.groups = test_random_below(r, 3) ? 1 : compute_between(r, 1, 4);
  s.c = s.groups * (test_random_below(r, 2) ? compute_between(r, 1, 5) : compute_between(r, 1, 40));
  s.o = s.groups * (test_random_below(r, 2) ? compute_between(r, 1, 9) : compute_between(r, 10, 70));
  if (test_random_below(r, 6) == 0) s.groups = s.o = s.c; /* depthwise */
  s.bias = (int)test_random_below(r, 2);
  return s;
}

START_TEST(random_shapes_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  char name[40];
  snprintf(name, sizeof name, "random transposed shapes %d", _i);
  test_random random = test_random_for(name);
  for (int i = 0; i < 40; i++) {
    compute_case c = {.mode = i % 3 ? LAMINA_TRAIN : LAMINA_INFER, .random = random};
    const transpose_case s = random_case(&random);
    c.gap = test_random_below(&random, 2) ? 0 : compute_between(&random, 1, 20);
    c.accumulate = (int)test_random_below(&random, 2);
    c.no_input_gradient = test_random_below(&random, 5) == 0;
    c.epilogue = compute_random_epilogue(&random, c.mode);
    verify(context, i, &c, &s);
  }
  compute_end(context);
}
END_TEST

/* DCGAN's and U-Net's layers in small, several chunks of depth and blocks, strides of 4 KiB, a stride past the kernel.
 */
static const transpose_case blocked[] = {
    {2, 8, 8, 256, 130, 4, 4, 2, 2, 1, 1, 1, 1, 0, 0, 1, 0}, {1, 1, 1, 100, 64, 4, 4, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1},
    {2, 14, 15, 64, 32, 2, 2, 2, 2, 0, 0, 1, 1, 0, 0, 1, 1}, {1, 30, 33, 64, 3, 4, 4, 2, 2, 1, 1, 1, 1, 0, 0, 1, 1},
    {1, 7, 6, 1024, 40, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1}, {2, 5, 5, 20, 30, 2, 2, 3, 3, 0, 0, 1, 1, 2, 1, 1, 1},
    {2, 10, 9, 512, 64, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1}, {9, 6, 6, 40, 200, 3, 3, 1, 1, 1, 1, 1, 1, 0, 0, 2, 0},
    {2, 9, 9, 24, 24, 4, 4, 2, 2, 1, 1, 1, 1, 0, 0, 24, 1},  {1, 5, 6, 12, 18, 3, 3, 2, 1, 2, 2, 2, 3, 1, 2, 3, 1},
};
enum { BLOCKED_COUNT = sizeof blocked / sizeof *blocked, BLOCKED_STEP = 5 /* that share contexts */ };

START_TEST(blocked_shapes_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  for (int i = _i * BLOCKED_STEP; i < (_i + 1) * BLOCKED_STEP && i < BLOCKED_COUNT; i++) {
    compute_case c = {.mode = LAMINA_TRAIN, .random = test_random_for("blocked transposed"), .accumulate = i % 2};
    if (i % 3 == 0) c.epilogue = LAMINA_EPILOGUE_CLAMP | LAMINA_EPILOGUE_ADD;
    if (i % 2 == 0) c.epilogue |= LAMINA_EPILOGUE_ACTIVATION;
    verify(context, i, &c, &blocked[i]);
  }
  compute_end(context);
}
END_TEST

static void refused(const transpose_case *s, lamina_status status, const char *word) {
  compute_case c = {.mode = LAMINA_INFER};
  set_attributes(&c, s);
  compute_refused(&c, status, word);
}

START_TEST(impossible_shapes_are_refused) {
  refused(&(transpose_case){1, 1, 1, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1}, LAMINA_SHAPE_MISMATCH, "1x1x1x4");
  refused(&(transpose_case){1, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 1, 1, 2, 0, 1, 1}, LAMINA_INVALID_ARGUMENT,
          "output_padding");
  refused(&(transpose_case){1, 4, 4, 4, 4, 2, 2, 2, 2, -1, 0, 1, 1, 0, 0, 1, 1}, LAMINA_INVALID_ARGUMENT, "padding");
  refused(&(transpose_case){1, 4, 4, 3, 8, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 2, 1}, LAMINA_SHAPE_MISMATCH, "2 groups");
  refused(&(transpose_case){1, 1ll << 48, 2, 1, 1, 2, 2, 1 << 16, 1, 0, 0, 1, 1, 0, 0, 1, 1}, LAMINA_SHAPE_MISMATCH,
          "x2x1");
  refused(&(transpose_case){1ll << 20, 1 << 20, 1, 1, 1 << 24, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1},
          LAMINA_SHAPE_MISMATCH, "memory");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("conv_transpose2d");
  TCase *t = tcase_create("conv_transpose2d");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, random_shapes_equal_double, 0, 6);
  tcase_add_loop_test(t, blocked_shapes_equal_double, 0, (BLOCKED_COUNT + BLOCKED_STEP - 1) / BLOCKED_STEP);
  tcase_add_test(t, impossible_shapes_are_refused);
  suite_add_tcase(suite, t);
  return compute_main(suite);
}
