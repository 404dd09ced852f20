/* SPDX-License-Identifier: Apache-2.0 */
/* How the digits of the embedded generator are written, as data. */
#ifndef LAMINA_IO_DIGIT_SHAPES_H
#define LAMINA_IO_DIGIT_SHAPES_H

enum { LAMINA_STROKE_POINTS = 10, LAMINA_SHAPE_STROKES = 3 };

typedef enum lamina_stroke_kind {
  LAMINA_STROKE_LINES, /* straight from point to point */
  LAMINA_STROKE_CURVE, /* quadratic B-spline from the first point to the last */
  LAMINA_STROKE_LOOP   /* closed quadratic B-spline */
} lamina_stroke_kind;

/* Control points in a box of 100 x 100, y downwards; a spline's may lie outside of it. */
typedef struct lamina_stroke {
  lamina_stroke_kind kind;
  int count;
  struct {
    signed char x, y;
  } point[LAMINA_STROKE_POINTS];
} lamina_stroke;

typedef struct lamina_shape {
  int digit, strokes;
  lamina_stroke stroke[LAMINA_SHAPE_STROKES];
} lamina_shape;

/* Sorted by digit; every digit has at least one. */
extern const lamina_shape lamina_digit_shapes[];
extern const int lamina_digit_shape_count;

#endif
