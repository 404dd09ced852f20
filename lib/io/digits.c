/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded data set: handwriting-like digits, drawn from a seed. Only operations that IEEE 754 defines to the bit
   are used (no sine, no logarithm), so that every machine draws the same bytes. A sample depends on the seed, its split
   and its number alone: more samples never change the earlier ones. */
#include "io/dataset.h"
#include "io/digit_shapes.h"
#include "random.h"

#include <math.h>
#include <string.h>

enum { SIDE = 28, PIXELS = SIDE * SIDE, CURVE_STEPS = 5 };

typedef struct {
  float x, y;
} point;

/* The random numbers of one sample, in the order in which they are asked for. */
typedef struct {
  uint64_t stream, next;
  uint32_t word[4];
} dice;

static uint32_t roll(dice *d) {
  if (d->next % 4 == 0) lamina_random_block(d->stream, d->next / 4, d->word);
  return d->word[d->next++ % 4];
}

static float between(dice *d, float low, float high) { return low + (high - low) * ((float)(roll(d) >> 8) * 0x1p-24f); }

/* One number after the other: the order of a call's arguments is the compiler's choice. */
static point random_point(dice *d, float low, float high) {
  const float x = between(d, low, high), y = between(d, low, high);
  return (point){x, y};
}

static int below(dice *d, int count) { return (int)(((uint64_t)roll(d) * (uint64_t)count) >> 32); }

/* Where a shape lands: x' = centre + a x + b y, y' = centre + c x + d y for x and y within -0.5 .. 0.5. */
typedef struct {
  float a, b, c, d;
  point centre;
} placement;

static placement choose_placement(dice *r) {
  const float height = between(r, 14.5f, 21.5f), width = height * between(r, 0.48f, 0.85f);
  const float slant = between(r, -0.32f, 0.32f), half_tangent = between(r, -0.13f, 0.13f);
  /* The rotation by twice the angle whose tangent this is, up to 15 degrees. */
  const float norm = 1 + half_tangent * half_tangent;
  const float cosine = (1 - half_tangent * half_tangent) / norm, sine = 2 * half_tangent / norm;
  placement p = {.a = cosine * width, .b = cosine * slant * height - sine * height};
  p.c = sine * width;
  p.d = sine * slant * height + cosine * height;
  const point shift = random_point(r, -2.6f, 2.6f);
  p.centre = (point){13.5f + shift.x, 13.5f + shift.y};
  return p;
}

/* Brightens the pixels around a segment: full within half the width, fading over one pixel. */
static void draw_segment(float *canvas, point from, point to, float half_width, float ink) {
  const float reach = half_width + 0.5f;
  const float dx = to.x - from.x, dy = to.y - from.y, length2 = dx * dx + dy * dy;
  int left = (int)((from.x < to.x ? from.x : to.x) - reach), right = (int)((from.x > to.x ? from.x : to.x) + reach) + 1;
  int top = (int)((from.y < to.y ? from.y : to.y) - reach), bottom = (int)((from.y > to.y ? from.y : to.y) + reach) + 1;
  if (left < 0) left = 0;
  if (top < 0) top = 0;
  if (right > SIDE - 1) right = SIDE - 1;
  if (bottom > SIDE - 1) bottom = SIDE - 1;
  for (int y = top; y <= bottom; y++)
    for (int x = left; x <= right; x++) {
      const float px = (float)x - from.x, py = (float)y - from.y;
      float t = length2 > 0 ? (px * dx + py * dy) / length2 : 0;
      t = t < 0 ? 0 : t > 1 ? 1 : t;
      const float ex = px - t * dx, ey = py - t * dy;
      float value = reach - sqrtf(ex * ex + ey * ey);
      value = ink * (value > 1 ? 1 : value);
      if (value > canvas[y * SIDE + x]) canvas[y * SIDE + x] = value;
    }
}

/* One quadratic Bezier piece. */
static void draw_piece(float *canvas, point from, point control, point to, float half_width, float ink) {
  point last = from;
  for (int i = 1; i <= CURVE_STEPS; i++) {
    const float t = (float)i / CURVE_STEPS, u = 1 - t;
    const point at = {u * u * from.x + 2 * u * t * control.x + t * t * to.x,
                      u * u * from.y + 2 * u * t * control.y + t * t * to.y};
    draw_segment(canvas, last, at, half_width, ink);
    last = at;
  }
}

static point middle(point a, point b) { return (point){0.5f * (a.x + b.x), 0.5f * (a.y + b.y)}; }

static void draw_stroke(float *canvas, lamina_stroke_kind kind, const point *p, int n, float half_width, float ink) {
  if (kind == LAMINA_STROKE_LINES) {
    for (int i = 1; i < n; i++) draw_segment(canvas, p[i - 1], p[i], half_width, ink);
  } else if (kind == LAMINA_STROKE_LOOP) {
    for (int i = 0; i < n; i++)
      draw_piece(canvas, middle(p[(i + n - 1) % n], p[i]), p[i], middle(p[i], p[(i + 1) % n]), half_width, ink);
  } else {
    for (int i = 1; i < n - 1; i++)
      draw_piece(canvas, i == 1 ? p[0] : middle(p[i - 1], p[i]), p[i], i == n - 2 ? p[n - 1] : middle(p[i], p[i + 1]),
                 half_width, ink);
  }
}

/* One of the ways to write a digit, every control point moved a little. */
static void draw_digit(float *canvas, int digit, dice *r) {
  int first = 0, count = 0;
  while (lamina_digit_shapes[first].digit != digit) first++;
  while (first + count < lamina_digit_shape_count && lamina_digit_shapes[first + count].digit == digit) count++;
  const lamina_shape *shape = &lamina_digit_shapes[first + below(r, count)];
  const placement place = choose_placement(r);
  const float half_width = between(r, 0.45f, 1.6f), ink = between(r, 0.55f, 1), jitter = between(r, 2, 8) * 0.01f;
  for (int s = 0; s < shape->strokes; s++) {
    const lamina_stroke *stroke = &shape->stroke[s];
    point points[LAMINA_STROKE_POINTS];
    for (int i = 0; i < stroke->count; i++) {
      const point moved = random_point(r, -jitter, jitter);
      const float x = (float)stroke->point[i].x * 0.01f - 0.5f + moved.x;
      const float y = (float)stroke->point[i].y * 0.01f - 0.5f + moved.y;
      points[i].x = place.centre.x + place.a * x + place.b * y;
      points[i].y = place.centre.y + place.c * x + place.d * y;
    }
    draw_stroke(canvas, stroke->kind, points, stroke->count, half_width, ink);
  }
}

/* Short faint strokes that belong to no digit. */
static void draw_distractors(float *canvas, dice *r) {
  for (int n = below(r, 4); n > 0; n--) {
    const point from = random_point(r, 0, SIDE - 1), step = random_point(r, -6, 6);
    const float half_width = between(r, 0.3f, 0.9f), ink = between(r, 0.2f, 0.55f);
    draw_segment(canvas, from, (point){from.x + step.x, from.y + step.y}, half_width, ink);
  }
}

/* Adds triangular noise and rounds to bytes. */
static void expose(const float *canvas, dice *r, unsigned char *out) {
  const float strength = between(r, 0.02f, 0.22f) * (1.0f / 255);
  for (int i = 0; i < PIXELS; i += 2) {
    const uint32_t word = roll(r);
    for (int k = 0; k < 2; k++) {
      const int noise = (int)(word >> 16 * k & 255) - (int)(word >> (16 * k + 8) & 255);
      const float value = 255 * (canvas[i + k] + strength * (float)noise) + 0.5f;
      out[i + k] = (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
  }
}

static int32_t draw_sample(uint64_t stream, unsigned char *out) {
  float canvas[PIXELS] = {0};
  dice r = {.stream = stream};
  const int digit = below(&r, 10);
  draw_distractors(canvas, &r);
  draw_digit(canvas, digit, &r);
  expose(canvas, &r, out);
  return digit;
}

lamina_status lamina_digits_draw(lamina_dataset *dataset, uint64_t seed, int64_t train_count, int64_t test_count) {
  const lamina_context *context = dataset->context;
  dataset->height = dataset->width = SIDE;
  dataset->channels = 1;
  for (int split = 0; split < 2; split++) {
    lamina_samples *samples = &dataset->split[split];
    const int64_t count = split == LAMINA_SPLIT_TRAIN ? train_count : test_count;
    samples->bytes = lamina_alloc(context, (size_t)count * PIXELS);
    samples->labels = lamina_alloc(context, (size_t)count * sizeof *samples->labels);
    if (!samples->bytes || !samples->labels) return lamina_fail_memory(context, (size_t)count * PIXELS);
    samples->count = count;
    for (int64_t i = 0; i < count; i++)
      samples->labels[i] =
          draw_sample(lamina_random_stream(seed, (uint64_t)i * 2 + (uint64_t)split), samples->bytes + i * PIXELS);
  }
  return LAMINA_OK;
}
