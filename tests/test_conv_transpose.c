/* SPDX-License-Identifier: Apache-2.0 */
/* conv_transpose2d against double: forward, gradients, epilogues, padded rows, accumulation, the same bits for any
 * threads. */
#include "compute_test.h"

#include <math.h>

extern const lamina_layer lamina_layer_conv_transpose2d;

enum { OUT_CHANNELS, KERNEL, STRIDE, PADDING, DILATION, GROUPS, BIAS, OUTPUT_PADDING };

typedef struct transpose_case {
  int64_t n, h, w, c, o, kh, kw, sh, sw, ph, pw, dh, dw, eh, ew, groups;
  int bias;
} transpose_case;

/* What forward and backward ought to give, and the magnitudes that were added up. */
typedef struct reference {
  double *y, *dx, *dw, *db, *y_size, *dx_size, *dw_size, *db_size;
} reference;

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

/* One input pixel and tap: all channels of all groups. */
TEST_UNCHECKED static void add_tap(const compute_case *c, const transpose_case *s, int64_t x_pixel, int64_t y_pixel, int64_t tap,
                    reference *r) {
  const int64_t in = s->c / s->groups, out = s->o / s->groups, taps = s->kh * s->kw;
  const float *weight = c->params[0].data;
  for (int64_t i = 0; i < s->c; i++)
    for (int64_t o = 0; o < out; o++) {
      const int64_t channel = i / in * out + o, w = (i * out + o) * taps + tap;
      const double x = *compute_at(&c->inputs[0], x_pixel * s->c + i), scale = c->scale ? c->scale[channel] : 1;
      compute_add(r->y, r->y_size, y_pixel * s->o + channel, x * weight[w] * scale);
      if (c->mode != LAMINA_TRAIN) continue;
      const double dy = *compute_at(&c->d_outputs[0], y_pixel * s->o + channel);
      compute_add(r->dx, r->dx_size, x_pixel * s->c + i, dy * weight[w]);
      compute_add(r->dw, r->dw_size, w, dy * x);
    }
}

static void finish(const compute_case *c, const transpose_case *s, reference *r) {
  for (int64_t i = 0; i < compute_count(&c->outputs[0]); i++) {
    const int64_t o = i % s->o;
    if (s->bias) compute_add(r->y, r->y_size, i, ((float *)c->params[1].data)[o] * (c->scale ? c->scale[o] : 1.0));
    if (c->shift) compute_add(r->y, r->y_size, i, c->shift[o]);
    if (c->epilogue & LAMINA_EPILOGUE_ADD) compute_add(r->y, r->y_size, i, *compute_at(&c->node.epilogue.add, i));
    r->y[i] = compute_activation(c, fmin(fmax(r->y[i], c->node.epilogue.lo), c->node.epilogue.hi));
    r->y_size[i] += c->epilogue & LAMINA_EPILOGUE_ACTIVATION ? 1 : 0;
    if (c->mode == LAMINA_TRAIN && s->bias) compute_add(r->db, r->db_size, o, *compute_at(&c->d_outputs[0], i));
  }
  if (!c->accumulate || c->mode != LAMINA_TRAIN) return;
  for (int64_t i = 0; i < compute_count(&c->x); i++) compute_add(r->dx, r->dx_size, i, *compute_at(&c->before_dx, i));
  for (int64_t i = 0; i < compute_count(&c->params[0]); i++)
    compute_add(r->dw, r->dw_size, i, *compute_at(&c->before_dp[0], i));
  for (int64_t i = 0; s->bias && i < s->o; i++) compute_add(r->db, r->db_size, i, *compute_at(&c->before_dp[1], i));
}

TEST_UNCHECKED static reference compute_reference(const compute_case *c, const transpose_case *s) {
  const int64_t oh = c->outputs[0].dim[1], ow = c->outputs[0].dim[2];
  const size_t ny = (size_t)compute_count(&c->outputs[0]), nx = (size_t)compute_count(&c->x);
  const size_t nw = (size_t)compute_count(&c->params[0]), no = (size_t)s->o;
  double *memory = calloc(2 * (ny + nx + nw + no), sizeof *memory);
  reference r = {.y = memory, .y_size = memory + ny};
  r.dx = r.y_size + ny;
  r.dx_size = r.dx + nx;
  r.dw = r.dx_size + nx;
  r.dw_size = r.dw + nw;
  r.db = r.dw_size + nw;
  r.db_size = r.db + no;
  for (int64_t p = 0; p < s->n * s->h * s->w; p++)
    for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
      const int64_t at_h = p / s->w % s->h * s->sh - s->ph + tap / s->kw * s->dh;
      const int64_t at_w = p % s->w * s->sw - s->pw + tap % s->kw * s->dw;
      if (at_h >= 0 && at_h < oh && at_w >= 0 && at_w < ow)
        add_tap(c, s, p, (p / (s->h * s->w) * oh + at_h) * ow + at_w, tap, &r);
    }
  finish(c, s, &r);
  return r;
}

static void compare(const compute_case *c, const reference *r, const char *text) {
  char what[400];
  snprintf(what, sizeof what, "y of %s", text);
  compute_compare(c, what, &c->outputs[0], r->y, r->y_size);
  if (c->mode != LAMINA_TRAIN) return;
  snprintf(what, sizeof what, "the gradient of x of %s", text);
  if (!c->no_input_gradient) compute_compare(c, what, &c->d_inputs[0], r->dx, r->dx_size);
  snprintf(what, sizeof what, "the gradient of weight of %s", text);
  compute_compare(c, what, &c->d_params[0], r->dw, r->dw_size);
  snprintf(what, sizeof what, "the gradient of bias of %s", text);
  if (c->d_params[1].rank >= 0) compute_compare(c, what, &c->d_params[1], r->db, r->db_size);
}

/* Against double with one thread, then bit by bit with another number of threads; the others have their turn. */
static void verify(lamina_context *const context[COMPUTE_HOSTS], int turn, compute_case *c, const transpose_case *s) {
  char text[320];
  describe(s, text, sizeof text);
  set_attributes(c, s);
  compute_prepare(c, context[0]);
  ck_assert_int_eq(c->outputs[0].dim[1], (s->h - 1) * s->sh - 2 * s->ph + s->dh * (s->kh - 1) + s->eh + 1);
  ck_assert_int_eq(c->outputs[0].dim[2], (s->w - 1) * s->sw - 2 * s->pw + s->dw * (s->kw - 1) + s->ew + 1);
  compute_run(c, context[0]);
  reference r = compute_reference(c, s);
  compare(c, &r, text);
  free(r.y);
  const lamina_tensor *results[] = {&c->outputs[0], &c->d_inputs[0], &c->d_params[0], &c->d_params[1]};
  float *first[4] = {NULL};
  for (int i = 0; i < 4; i++)
    if (results[i]->data && !(i == 1 && c->no_input_gradient)) first[i] = compute_copy(results[i]);
  const int h = 1 + turn % (COMPUTE_HOSTS - 1);
  compute_run(c, context[h]);
  for (int i = 0; i < 4; i++)
    if (first[i]) compute_same_bits(text, results[i], first[i], compute_threads[h]);
  for (int i = 0; i < 4; i++) free(first[i]);
  compute_release(c);
}

static int64_t between(test_random *r, int64_t lo, int64_t hi) { return lo + test_random_below(r, hi - lo + 1); }

/* An axis whose output has at least one pixel. */
static void random_axis(test_random *r, int64_t *in, int64_t *kernel, int64_t *stride, int64_t *pad, int64_t *dilation,
                        int64_t *extra) {
  do {
    *in = between(r, 1, 9);
    *kernel = between(r, 1, 4);
    *stride = between(r, 1, 4);
    *dilation = test_random_below(r, 2) ? 1 : between(r, 1, 3);
    *pad = test_random_below(r, 2) ? between(r, 0, 3) : 0;
    *extra = test_random_below(r, 2) ? test_random_below(r, *stride > *dilation ? *stride : *dilation) : 0;
  } while ((*in - 1) * *stride - 2 * *pad + *dilation * (*kernel - 1) + *extra < 0);
}

static transpose_case random_case(test_random *r) {
  transpose_case s = {.n = between(r, 1, 3)};
  random_axis(r, &s.h, &s.kh, &s.sh, &s.ph, &s.dh, &s.eh);
  random_axis(r, &s.w, &s.kw, &s.sw, &s.pw, &s.dw, &s.ew);
  if (test_random_below(r, 6) == 0) { /* a matrix product */
    s.kh = s.kw = s.sh = s.sw = s.dh = s.dw = 1;
    s.ph = s.pw = s.eh = s.ew = 0;
  }
  s.groups = test_random_below(r, 3) ? 1 : between(r, 1, 4);
  s.c = s.groups * (test_random_below(r, 2) ? between(r, 1, 5) : between(r, 1, 40));
  s.o = s.groups * (test_random_below(r, 2) ? between(r, 1, 9) : between(r, 10, 70));
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
    c.gap = test_random_below(&random, 2) ? 0 : between(&random, 1, 20);
    c.accumulate = (int)test_random_below(&random, 2);
    c.no_input_gradient = test_random_below(&random, 5) == 0;
    if (test_random_below(&random, 2)) c.epilogue |= LAMINA_EPILOGUE_ADD;
    if (test_random_below(&random, 2)) c.epilogue |= LAMINA_EPILOGUE_CLAMP;
    if (test_random_below(&random, 2)) c.epilogue |= LAMINA_EPILOGUE_ACTIVATION;
    if (c.mode == LAMINA_INFER && test_random_below(&random, 2)) c.epilogue |= LAMINA_EPILOGUE_AFFINE;
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
  lamina_context *context;
  const lamina_context_options options = {.size = sizeof options, .threads = 1};
  ck_assert_int_eq(lamina_context_create(&options, &context), LAMINA_OK);
  compute_case c = {.mode = LAMINA_INFER};
  set_attributes(&c, s);
  lamina_node node = {.size = sizeof node,
                      .name = "node",
                      .host = &context->host,
                      .attrs = c.attrs,
                      .inputs = &c.x,
                      .outputs = c.outputs,
                      .params = c.params,
                      .n_inputs = 1,
                      .n_outputs = 1,
                      .n_params = 2};
  ck_assert_int_eq(c.layer->infer(&node), status);
  test_that(strstr(lamina_error_message(context), word) != NULL, "'%s' does not say '%s'",
                lamina_error_message(context), word);
  lamina_context_destroy(context);
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
