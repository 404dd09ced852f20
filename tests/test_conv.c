/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d against double: forward, both gradients, epilogues, padded rows, accumulation, and the same bits for any
 * threads. */
#include "compute_test.h"

extern const lamina_layer lamina_layer_conv2d;

enum { OUT_CHANNELS, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS };

typedef struct conv_case {
  int64_t n, h, w, c, o, kh, kw, sh, sw, top, left, bottom, right, dh, dw, groups;
  int bias;
} conv_case;

static void describe(const conv_case *s, char *text, size_t bytes) {
  snprintf(text, bytes,
           "x %lldx%lldx%lldx%lld out_channels=%lld kernel=%lld,%lld stride=%lld,%lld padding=%lld,%lld,%lld,%lld "
           "dilation=%lld,%lld "
           "groups=%lld bias=%d",
           (long long)s->n, (long long)s->h, (long long)s->w, (long long)s->c, (long long)s->o, (long long)s->kh,
           (long long)s->kw, (long long)s->sh, (long long)s->sw, (long long)s->top, (long long)s->left,
           (long long)s->bottom, (long long)s->right, (long long)s->dh, (long long)s->dw, (long long)s->groups,
           s->bias);
}

static void set_attributes(compute_case *c, const conv_case *s) {
  c->layer = &lamina_layer_conv2d;
  c->attrs[OUT_CHANNELS].i = s->o;
  c->attrs[KERNEL] = (lamina_value){.count = 2, .ints = {s->kh, s->kw}};
  c->attrs[STRIDE] = (lamina_value){.count = 2, .ints = {s->sh, s->sw}};
  c->attrs[PADDING] = (lamina_value){.count = 4, .ints = {s->top, s->left, s->bottom, s->right}};
  c->attrs[DILATION] = (lamina_value){.count = 2, .ints = {s->dh, s->dw}};
  c->attrs[GROUPS].i = s->groups;
  c->attrs[BIAS].i = s->bias;
  c->x = (lamina_tensor){.rank = 4, .dim = {s->n, s->h, s->w, s->c}};
}

/* All channels of all groups at one output pixel and tap. */
TEST_UNCHECKED static void add_tap(const compute_case *c, const conv_case *s, int64_t x_pixel, int64_t y_pixel,
                                   int64_t tap, compute_sums *r) {
  const int64_t in = s->c / s->groups, out = s->o / s->groups, taps = s->kh * s->kw;
  for (int64_t o = 0; o < s->o; o++)
    for (int64_t i = 0; i < in; i++)
      compute_product(c, r, y_pixel * s->o + o, x_pixel * s->c + o / out * in + i, (o * in + i) * taps + tap);
}

TEST_UNCHECKED static void products(const compute_case *c, const void *shape, compute_sums *r) {
  const conv_case *s = shape;
  const int64_t oh = c->outputs[0].dim[1], ow = c->outputs[0].dim[2];
  for (int64_t p = 0; p < s->n * oh * ow; p++)
    for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
      const int64_t ih = p / ow % oh * s->sh - s->top + tap / s->kw * s->dh;
      const int64_t iw = p % ow * s->sw - s->left + tap % s->kw * s->dw;
      if (ih >= 0 && ih < s->h && iw >= 0 && iw < s->w)
        add_tap(c, s, (p / (oh * ow) * s->h + ih) * s->w + iw, p, tap, r);
    }
}

static void verify(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c, const conv_case *s) {
  char text[320];
  describe(s, text, sizeof text);
  set_attributes(c, s);
  compute_verify(context, turn, c, text, products, s);
}

static conv_case random_case(test_random *r) {
  conv_case s = {.n = compute_between(r, 1, 3),
                 .h = compute_between(r, 1, 13),
                 .w = compute_between(r, 1, 17),
                 .sh = compute_between(r, 1, 3),
                 .sw = compute_between(r, 1, 3)};
  s.kh = compute_between(r, 1, 4);
  s.kw = compute_between(r, 1, 4);
  if (test_random_below(r, 3) == 0) s.kh = s.kw = 1;
  s.dh = compute_between(r, 1, 3);
  s.dw = test_random_below(r, 2) ? 1 : compute_between(r, 1, 3);
  s.groups = test_random_below(r, 3) ? 1 : compute_between(r, 1, 4);
  s.c = s.groups * (test_random_below(r, 2) ? compute_between(r, 1, 5) : compute_between(r, 1, 40));
  s.o = s.groups * (test_random_below(r, 2) ? compute_between(r, 1, 9) : compute_between(r, 10, 70));
  if (test_random_below(r, 6) == 0) s.groups = s.o = s.c; /* depthwise */
  int64_t *pads[] = {&s.top, &s.left, &s.bottom, &s.right};
  for (int i = 0; i < 4; i++) *pads[i] = test_random_below(r, 2) ? compute_between(r, 0, 4) : 0;
  s.bottom = s.bottom > s.dh * (s.kh - 1) + 1 - s.h - s.top ? s.bottom : s.dh * (s.kh - 1) + 1 - s.h - s.top;
  s.right = s.right > s.dw * (s.kw - 1) + 1 - s.w - s.left ? s.right : s.dw * (s.kw - 1) + 1 - s.w - s.left;
  s.bias = (int)test_random_below(r, 2);
  return s;
}

START_TEST(random_shapes_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  char name[40];
  snprintf(name, sizeof name, "random shapes %d", _i);
  test_random random = test_random_for(name);
  for (int i = 0; i < 40; i++) {
    compute_case c = {.mode = i % 3 ? LAMINA_TRAIN : LAMINA_INFER, .random = random, .kernel = "direct"};
    const conv_case s = random_case(&random);
    c.gap = test_random_below(&random, 2) ? 0 : compute_between(&random, 1, 20);
    c.accumulate = (int)test_random_below(&random, 2);
    c.no_input_gradient = test_random_below(&random, 5) == 0;
    c.epilogue = compute_random_epilogue(&random, c.mode);
    verify(context, i, &c, &s);
  }
  compute_end(context);
}
END_TEST

/* One input channel for each group: several tasks, odd channels, strides, dilation, uneven padding, several outputs. */
static const conv_case depthwise[] = {
    {1, 30, 29, 72, 72, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 72, 1},
    {2, 31, 30, 37, 37, 3, 3, 2, 2, 1, 1, 0, 1, 1, 1, 37, 1},
    {1, 57, 40, 33, 33, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 33, 0},
    {3, 28, 28, 40, 40, 5, 5, 2, 2, 2, 2, 2, 2, 1, 1, 40, 1},
    {2, 14, 14, 100, 100, 7, 7, 1, 1, 3, 3, 3, 3, 1, 1, 100, 1},
    {1, 15, 23, 24, 24, 7, 7, 2, 2, 4, 0, 1, 3, 1, 1, 24, 0},
    {1, 20, 20, 20, 20, 3, 3, 1, 1, 3, 2, 1, 4, 2, 3, 20, 1},
    {1, 21, 19, 18, 18, 3, 5, 3, 4, 1, 2, 1, 2, 1, 1, 18, 1},
    {2, 9, 11, 65, 65, 4, 2, 1, 2, 0, 1, 3, 0, 1, 1, 65, 1},
    {1, 3, 3, 16, 16, 3, 3, 1, 1, 6, 5, 4, 7, 1, 1, 16, 1},
    {2, 28, 28, 24, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 24, 1},
    {1, 30, 27, 35, 105, 5, 3, 2, 1, 2, 1, 2, 1, 1, 2, 35, 1},
    {3, 13, 12, 5, 85, 3, 3, 2, 2, 1, 0, 1, 2, 1, 1, 5, 0},
    {2, 7, 6, 3, 6, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 3, 1},
    {1, 40, 40, 2, 200, 2, 2, 3, 1, 0, 4, 0, 0, 2, 1, 2, 1},
    /* groups of several channels: in vectors of several groups, and (7, 12 channels; dilation) not */
    {2, 15, 13, 24, 24, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6, 1},
    {1, 20, 31, 48, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6, 1},
    {2, 17, 16, 128, 128, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 32, 0},
    {1, 28, 28, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1},
    {1, 14, 15, 40, 40, 3, 3, 2, 2, 0, 2, 1, 0, 1, 1, 5, 1},
    {2, 9, 9, 20, 20, 3, 3, 1, 1, 2, 0, 1, 2, 1, 1, 10, 1},
    {1, 9, 11, 28, 28, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1},
    {1, 12, 12, 32, 32, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2, 8, 1},
};

enum { DEPTHWISE_COUNT = sizeof depthwise / sizeof *depthwise };

START_TEST(depthwise_shapes_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  for (int i = 0; i < 3 * DEPTHWISE_COUNT; i++) {
    compute_case c = {.mode = i % 3 ? LAMINA_TRAIN : LAMINA_INFER,
                      .random = test_random_for("depthwise shapes"),
                      .accumulate = i % 3 == 2,
                      .gap = i % 2 ? 5 : 0};
    if (i % 3 != 1) c.epilogue = LAMINA_EPILOGUE_CLAMP | LAMINA_EPILOGUE_ADD;
    if (i % 3 == 0) c.epilogue |= LAMINA_EPILOGUE_AFFINE;
    verify(context, i, &c, &depthwise[i / 3]);
  }
  compute_end(context);
}
END_TEST

/* Shapes that take each way through the blocking: several chunks of depth, blocks of rows, channels, images and panels;
   strides of 4 KiB; a first layer; grids of a single pixel; a kernel that lies in the padding; taps that leave out
   pixels at the left and the right of tiles, many of them, or on a grid wider than x; 1x1 with stride in place and
   gathered. */
static const conv_case blocked[] = {
    /* 1x1 in a row of pixels: partial gradients of several units, blocks of both channels, one unit */
    {5, 23, 29, 70, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},  {2, 13, 11, 200, 320, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0},
    {1, 6, 5, 33, 96, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},
    {2, 5, 5, 512, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},   {1, 9, 8, 1500, 20, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 0},
    {2, 40, 33, 32, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},  {9, 7, 7, 24, 200, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0},
    {1, 6, 6, 1024, 33, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},  {2, 8, 6, 1024, 48, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, 0},
    {1, 8, 7, 512, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 0},   {2, 57, 61, 3, 64, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1, 0},
    {4, 28, 28, 3, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},   {5, 1, 1, 300, 100, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},
    {3, 1, 1, 20, 10, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},    {2, 3, 3, 8, 9, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1},
    {2, 3, 3, 8, 9, 1, 1, 3, 2, 2, 1, 1, 2, 1, 1, 1, 1},      {1, 2, 2, 6, 8, 3, 3, 2, 2, 6, 6, 6, 6, 2, 2, 2, 1},
    {2, 12, 12, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 64, 1}, {2, 14, 14, 40, 40, 5, 5, 2, 2, 2, 2, 2, 2, 1, 1, 40, 0},
    {3, 5, 1, 35, 26, 1, 1, 1, 3, 0, 0, 2, 4, 1, 1, 1, 1},    {1, 1, 10, 9, 57, 1, 1, 3, 1, 1, 4, 0, 2, 1, 1, 3, 1},
    {1, 32, 32, 3, 24, 8, 8, 8, 8, 0, 0, 0, 0, 1, 1, 1, 1},   {3, 14, 14, 96, 100, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 4, 1},
    {40, 2, 2, 16, 16, 2, 2, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1},   {1, 70, 90, 5, 7, 3, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},
    {1, 17, 17, 40, 72, 1, 7, 1, 1, 0, 3, 0, 3, 1, 1, 1, 1},  {1, 17, 17, 40, 72, 7, 1, 1, 1, 3, 0, 3, 0, 1, 1, 1, 1},
    {1, 9, 28, 24, 33, 3, 3, 1, 1, 6, 6, 6, 6, 6, 6, 1, 1},   {2, 4, 23, 12, 70, 3, 9, 1, 1, 1, 11, 1, 13, 1, 2, 1, 0},
    {1, 3, 2, 16, 40, 3, 5, 1, 1, 4, 9, 4, 9, 1, 1, 1, 1},    {1, 7, 7, 512, 96, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {1, 28, 28, 512, 40, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1}, {1, 14, 14, 64, 300, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1},
    {1, 30, 31, 2, 16, 3, 3, 2, 2, 1, 0, 0, 1, 1, 1, 1, 1},   {2, 56, 60, 1, 70, 5, 5, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1},
    {1, 4, 6, 9, 130, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},    {1, 20, 21, 33, 48, 4, 6, 3, 2, 2, 3, 1, 0, 1, 1, 1, 0},
    /* pixels gathered: padding and groups; several blocks, the last one smaller */
    {2, 13, 11, 36, 600, 1, 1, 2, 3, 1, 2, 0, 1, 1, 1, 2, 1}, {4, 26, 25, 512, 260, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, 0},
};

/* Few input channels, whose gradient is added up from overlapping products: several blocks of rows, strides past the
   kernel, dilation, padding that nothing reaches, taps that reach nothing, odd channels and widths. */
static const conv_case few_channels[] = {
    {2, 130, 61, 3, 64, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1, 0},    {1, 101, 70, 1, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {3, 33, 97, 4, 20, 3, 3, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1},     {2, 29, 31, 3, 32, 4, 4, 4, 4, 0, 0, 0, 0, 1, 1, 1, 1},
    {1, 40, 41, 2, 33, 2, 3, 5, 7, 0, 1, 0, 0, 1, 1, 1, 0},     {1, 9, 12, 5, 64, 3, 5, 2, 1, 7, 8, 9, 6, 1, 1, 1, 1},
    {2, 17, 300, 7, 48, 3, 3, 1, 2, 1, 1, 1, 1, 3, 1, 1, 1},    {1, 60, 20, 3, 100, 11, 11, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1},
    {1, 7, 15, 6, 17, 1, 7, 1, 1, 0, 3, 0, 3, 1, 1, 1, 1},      {1, 2, 2, 3, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
};

enum { FEW_COUNT = sizeof few_channels / sizeof *few_channels };

START_TEST(few_channels_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  for (int i = 0; i < 2 * FEW_COUNT; i++) {
    compute_case c = {.mode = LAMINA_TRAIN,
                      .random = test_random_for("few channels"),
                      .accumulate = i % 2,
                      .gap = i % 3 == 2 ? 3 : 0,
                      .kernel = "direct"};
    verify(context, i, &c, &few_channels[i / 2]);
  }
  compute_end(context);
}
END_TEST

enum { BLOCKED_COUNT = sizeof blocked / sizeof *blocked, BLOCKED_STEP = 5 /* that share contexts */ };

START_TEST(blocked_shapes_equal_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  for (int i = _i * BLOCKED_STEP; i < (_i + 1) * BLOCKED_STEP && i < BLOCKED_COUNT; i++) {
    compute_case c = {.mode = LAMINA_TRAIN,
                      .random = test_random_for("blocked shapes"),
                      .accumulate = i % 2,
                      .kernel = "direct"};
    if (i % 3 == 0) c.epilogue = LAMINA_EPILOGUE_CLAMP | LAMINA_EPILOGUE_ADD;
    if (i % 2) c.epilogue |= LAMINA_EPILOGUE_ACTIVATION;
    verify(context, i, &c, &blocked[i]);
  }
  compute_end(context);
}
END_TEST

/* Winograd's algorithms at shapes that whole tiles do not divide: narrow tiles, tiles that hang over, images smaller than a
   tile, many blocks, no padding and too much of it, odd channels, groups, so few tiles that tasks share their input. */
static const conv_case winograd[] = {
    {1, 14, 14, 40, 70, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {2, 7, 7, 33, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0},
    {3, 8, 12, 16, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},  {1, 5, 9, 20, 20, 3, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1},
    {2, 1, 1, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},     {1, 2, 3, 5, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0},
    {1, 3, 6, 17, 31, 3, 3, 1, 1, 2, 0, 1, 3, 1, 1, 1, 1},   {1, 30, 41, 64, 34, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {9, 6, 10, 24, 16, 3, 3, 1, 1, 3, 3, 4, 4, 1, 1, 2, 1},  {2, 13, 11, 30, 30, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1},
    /* groups that share a vector */
    {2, 15, 17, 48, 48, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 12, 1}, {1, 9, 5, 80, 80, 3, 3, 1, 1, 2, 0, 1, 3, 1, 1, 10, 1},
    {1, 33, 14, 10, 10, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 5, 0},  {2, 6, 23, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1},
    {1, 14, 13, 96, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1}, {1, 14, 14, 64, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {1, 9, 17, 300, 260, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {33, 4, 4, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
};

enum { WINOGRAD_COUNT = sizeof winograd / sizeof *winograd };

START_TEST(winograd_equals_double) {
  lamina_context *context[COMPUTE_HOSTS];
  compute_begin(context);
  for (int i = 0; i < WINOGRAD_COUNT; i++) {
    compute_case c = {.mode = i % 4 ? LAMINA_TRAIN : LAMINA_INFER,
                      .random = test_random_for("winograd"),
                      .accumulate = i % 2,
                      .gap = i % 3 ? 0 : 7,
                      .kernel = _i ? "winograd4x4" : "winograd2x2",
                      .tolerance = 3e-5};
    if (i % 3 != 1) c.epilogue |= LAMINA_EPILOGUE_ADD;
    if (i % 3 != 2) c.epilogue |= LAMINA_EPILOGUE_CLAMP;
    if (i % 2) c.epilogue |= LAMINA_EPILOGUE_ACTIVATION;
    if (c.mode == LAMINA_INFER) c.epilogue |= LAMINA_EPILOGUE_AFFINE;
    verify(context, i, &c, &winograd[i]);
  }
  compute_end(context);
}
END_TEST

static void refused(const conv_case *s, lamina_status status, const char *word) {
  compute_case c = {.mode = LAMINA_INFER};
  set_attributes(&c, s);
  compute_refused(&c, status, word);
}

START_TEST(impossible_shapes_are_refused) {
  refused(&(conv_case){1, 4, 4, 3, 8, 5, 5, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1}, LAMINA_SHAPE_MISMATCH, "1x4x4x3");
  refused(&(conv_case){1, 4, 4, 3, 8, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 2, 1}, LAMINA_SHAPE_MISMATCH, "2 groups");
  refused(&(conv_case){1, 4, 4, 4, 9, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 2, 1}, LAMINA_SHAPE_MISMATCH, "9 output");
  refused(&(conv_case){1ll << 31, 1 << 20, 1, 1, 1 << 24, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1}, LAMINA_SHAPE_MISMATCH,
          "memory");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("conv2d");
  TCase *t = tcase_create("conv2d");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, random_shapes_equal_double, 0, 6);
  tcase_add_loop_test(t, blocked_shapes_equal_double, 0, (BLOCKED_COUNT + BLOCKED_STEP - 1) / BLOCKED_STEP);
  tcase_add_test(t, few_channels_equal_double);
  tcase_add_test(t, depthwise_shapes_equal_double);
  tcase_add_loop_test(t, winograd_equals_double, 0, 2);
  tcase_add_test(t, impossible_shapes_are_refused);
  suite_add_tcase(suite, t);
  return compute_main(suite);
}
