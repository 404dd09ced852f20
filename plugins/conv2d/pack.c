/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights between PyTorch's (O, I, KH, KW) and the order of the tiles, panels of nr columns with depth (tap, channel).
 *
 * Forward, a column is an output channel, so a panel is nr rows of weight: a strip of some input channels is copied
 * (long runs, where transposing from rows far apart would wait for memory), transposed to rows (channel, tap), and
 * these are copied to their place (tap, channel). For the gradient of x a column is an input channel and a step in
 * depth is an output channel. Each weight is moved two or three times, in the L1 and L2 caches; weights that are
 * more than twice what fits into L2 are written past the caches.
 */
#include "conv2d.h"

#include <string.h>

enum { SCRATCH_FLOATS = 16384 /* that a strip of a panel aims at: 64 KiB, in L2 */ };

int64_t lamina_conv_packed_floats(const conv_shape *s, int64_t in, int64_t out) {
  return s->h.kernel * s->w.kernel * in * round_up(out, s->kernels->gemm->nr);
}

int64_t lamina_conv_phase_offset(const correlation *c, int64_t phase_h, int64_t phase_w) {
  const conv_shape *s = c->shape;
  int64_t before_h = 0, before_w = 0;
  for (int64_t i = 0; i < phase_h; i++) before_h += lamina_conv_axis(&s->h, c->backward, i).taps;
  for (int64_t i = 0; i < phase_w; i++) before_w += lamina_conv_axis(&s->w, c->backward, i).taps;
  const int64_t taps = before_h * s->w.kernel + lamina_conv_axis(&s->h, c->backward, phase_h).taps * before_w;
  return taps * c->in * round_up(c->out, s->kernels->gemm->nr);
}

static int64_t strip_channels(const conv_shape *s) {
  const int64_t floats = s->h.kernel * s->w.kernel * s->kernels->gemm->nr;
  return layer_max(layer_min(SCRATCH_FLOATS / floats, s->in), 1);
}

int64_t lamina_conv_pack_scratch(const conv_shape *s) {
  return 2 * strip_channels(s) * s->h.kernel * s->w.kernel * s->kernels->gemm->nr;
}

typedef struct pack_job {
  const conv_shape *shape;
  float *scratch, *weights;
  int64_t panels;       /* of a group */
  int64_t panel_floats; /* of scratch: a panel before Winograd's transform of it, or 0 */
  int stream;           /* weights are written past the caches */
} pack_job;

static float *scratch_of(const pack_job *j, int thread) {
  return j->scratch + thread * (lamina_conv_pack_scratch(j->shape) + j->panel_floats);
}

/* Where a panel of a correlation of `depth` channels is packed: in its place, or in scratch, to be transformed. */
static float *open_panel(const pack_job *j, int64_t group, int64_t panel, int64_t depth, int64_t out, int thread) {
  const conv_shape *s = j->shape;
  if (s->form) return scratch_of(j, thread) + lamina_conv_pack_scratch(s);
  const int64_t floats = s->h.kernel * s->w.kernel * depth * s->kernels->gemm->nr;
  return j->weights + group * lamina_conv_packed_floats(s, depth, out) + panel * floats;
}

static void close_panel(const pack_job *j, int64_t group, int64_t panel, int64_t depth, int64_t out,
                        const float *packed) {
  const conv_shape *s = j->shape;
  if (!s->form) return;
  const int64_t floats = depth * s->kernels->gemm->nr, points = s->form->points * s->form->points;
  float *u = j->weights + group * lamina_conv_winograd_packed_floats(s, depth, out) + panel * points * floats;
  s->form->weights(floats, packed, floats, u, floats, j->stream);
}

/* `rows` rows of a panel, of n columns, to where the tiles, or Winograd's transform, read them. */
static void place_rows(const pack_job *j, int64_t rows, int64_t n, const float *from, int64_t ld, const float *scale,
                       float *to) {
  const lamina_gemm_kernels *gemm = j->shape->kernels->gemm;
  if (j->stream && !j->shape->form) gemm->stream_b(rows, n, from, ld, 1, scale, to);
  else gemm->pack_b(rows, n, from, ld, 1, scale, to);
}

static void pack_forward_panel(void *arg, int64_t index, int thread) {
  const pack_job *j = arg;
  const conv_shape *s = j->shape;
  const lamina_epilogue *e = &s->node->epilogue;
  const int64_t nr = s->kernels->gemm->nr, taps = s->h.kernel * s->w.kernel, group = index / j->panels;
  const int64_t o0 = index % j->panels * nr, n = layer_min(nr, s->out - o0), first = group * s->out + o0;
  const float *weight = (const float *)s->node->params[0].data + first * s->in * taps;
  const float *scale = e->parts & LAMINA_EPILOGUE_AFFINE ? e->scale + first : NULL;
  float *to = open_panel(j, group, index % j->panels, s->in, s->out, thread);
  const int64_t width = strip_channels(s);
  float *strip = scratch_of(j, thread), *other = strip + width * taps * nr;
  for (int64_t c0 = 0; c0 < s->in; c0 += width) {
    const int64_t rows = layer_min(width, s->in - c0) * taps;
    for (int64_t o = 0; o < n; o++)
      memcpy(other + o * rows, weight + o * s->in * taps + c0 * taps, (size_t)rows * sizeof(float));
    s->kernels->gemm->transpose(n, rows, other, rows, strip, nr);
    for (int64_t t = 0; t < taps; t++)
      place_rows(j, rows / taps, n, strip + t * nr, taps * nr, scale, to + (t * s->in + c0) * nr);
  }
  close_panel(j, group, index % j->panels, s->in, s->out, to);
}

/* place[tap]: where the rows of a tap of the kernel begin in a panel that starts at input channel c0. */
static void find_places(const conv_shape *s, int64_t c0, int64_t *place) {
  const correlation pass = lamina_conv_backward_data_pass(s);
  for (int64_t tap = 0; tap < s->h.kernel * s->w.kernel; tap++) place[tap] = -1; /* no pixel of x has it */
  for (int64_t i = 0; i < pass.phases_h; i++)
    for (int64_t j = 0; j < pass.phases_w; j++) {
      const conv_axis h = lamina_conv_axis(&s->h, 1, i), w = lamina_conv_axis(&s->w, 1, j);
      const int64_t panel = lamina_conv_phase_offset(&pass, i, j) + c0 * h.taps * w.taps * s->out;
      for (int64_t t = 0; t < h.taps * w.taps; t++) {
        const int64_t kh = h.k_first + t / w.taps * h.k_step, kw = w.k_first + t % w.taps * w.k_step;
        place[kh * s->w.kernel + kw] = panel + t * s->out * s->kernels->gemm->nr;
      }
    }
}

/* A panel of input channels, for all phases. */
static void pack_backward_panel(void *arg, int64_t index, int thread) {
  const pack_job *j = arg;
  const conv_shape *s = j->shape;
  const int64_t nr = s->kernels->gemm->nr, taps = s->h.kernel * s->w.kernel, group = index / j->panels;
  const int64_t c0 = index % j->panels * nr, n = layer_min(nr, s->in - c0);
  const float *weight = (const float *)s->node->params[0].data + (group * s->out * s->in + c0) * taps;
  float *to = open_panel(j, group, 0, s->out, s->in, thread);
  const int64_t strip_rows = strip_channels(s); /* output channels of a strip */
  float *strip = scratch_of(j, thread);
  int64_t *place = (int64_t *)(void *)(strip + strip_rows * taps * nr); /* the second half of the scratch */
  find_places(s, s->form ? 0 : c0, place);
  for (int64_t o0 = 0; o0 < s->out; o0 += strip_rows) {
    const int64_t rows = layer_min(strip_rows, s->out - o0);
    for (int64_t o = 0; o < rows; o++)
      s->kernels->gemm->transpose(n, taps, weight + (o0 + o) * s->in * taps, taps, strip + o * taps * nr, nr);
    for (int64_t tap = 0; tap < taps; tap++)
      if (place[tap] >= 0) place_rows(j, rows, n, strip + tap * nr, taps * nr, NULL, to + place[tap] + o0 * nr);
  }
  close_panel(j, group, index % j->panels, s->out, s->in, to);
}

static void pack_pointwise(const conv_shape *s, float *forward, float *backward) {
  const lamina_epilogue *e = &s->node->epilogue;
  for (int64_t g = 0; g < s->groups; g++) {
    const float *weight = (const float *)s->node->params[0].data + g * s->out * s->in;
    const float *scale = e->parts & LAMINA_EPILOGUE_AFFINE ? e->scale + g * s->out : NULL;
    if (forward)
      s->host->gemm_pack_b(s->host, s->in, s->out, weight, 1, s->in, scale,
                           forward + g * lamina_conv_packed_floats(s, s->in, s->out));
    if (backward)
      s->host->gemm_pack_b(s->host, s->out, s->in, weight, s->in, 1, NULL,
                           backward + g * lamina_conv_packed_floats(s, s->out, s->in));
  }
}

lamina_status lamina_conv_pack_weights(const conv_shape *s, float *forward, float *backward) {
  const int64_t nr = s->kernels->gemm->nr;
  if (s->h.kernel * s->w.kernel == 1) {
    pack_pointwise(s, forward, backward);
    return LAMINA_OK;
  }
  if (backward && lamina_conv_col2im_pays(s)) {
    const lamina_status status = lamina_conv_col2im_pack(s, backward);
    if (status || !forward) return status;
    backward = NULL;
  }
  const int64_t depth = backward ? layer_max(s->in, s->out) : s->in;
  pack_job j = {.shape = s, .panel_floats = s->form ? s->h.kernel * s->w.kernel * depth * nr : 0};
  const size_t thread_floats = (size_t)(lamina_conv_pack_scratch(s) + j.panel_floats);
  const size_t bytes = thread_floats * (size_t)s->host->threads(s->host) * sizeof(float);
  j.scratch = s->host->alloc(s->host, bytes);
  if (!j.scratch)
    return s->host->fail(s->host, LAMINA_OUT_OF_MEMORY, "out of memory: %zu bytes to pack weights with", bytes);
  const int64_t floats = s->groups * s->out * s->in * s->h.kernel * s->w.kernel;
  const int64_t written = s->form ? floats / 9 * s->form->points * s->form->points : floats;
  j.stream = written > 2 * (int64_t)(s->host->cpu->l2 / sizeof(float));
  if (forward) {
    j.weights = forward;
    j.panels = layer_ceil_div(s->out, nr);
    layer_parallel(s->host, s->groups * j.panels, floats, pack_forward_panel, &j);
  }
  if (backward) {
    j.weights = backward;
    j.panels = layer_ceil_div(s->in, nr);
    layer_parallel(s->host, s->groups * j.panels, floats, pack_backward_panel, &j);
  }
  s->host->release(s->host, j.scratch);
  return LAMINA_OK;
}

lamina_status lamina_conv_pack(const conv_shape *s) {
  const lamina_epilogue *e = &s->node->epilogue;
  const int64_t channels = s->groups * s->out;
  float *packed = s->node->packed, *backward = s->backward ? packed + s->backward : NULL;
  const float *bias = s->node->params[1].rank >= 0 ? s->node->params[1].data : NULL;
  for (int64_t o = 0; o < channels; o++) {
    packed[s->bias + (size_t)o] = bias ? bias[o] : 0;
    if (e->parts & LAMINA_EPILOGUE_AFFINE)
      packed[s->bias + (size_t)o] = packed[s->bias + (size_t)o] * e->scale[o] + e->shift[o];
  }
  if (!s->depthwise) return lamina_conv_pack_weights(s, packed, backward);
  lamina_conv_depthwise_pack(s);
  return backward && !lamina_conv_depthwise_gradients(s) ? lamina_conv_pack_weights(s, NULL, backward) : LAMINA_OK;
}

/* Channels c0 .. c0 + count of a panel, all partials added up: strip[(c * taps + t) * nr + o]. */
static void add_partials(const conv_shape *s, const conv_partial *p, int64_t c0, int64_t count, int64_t n,
                         float *strip) {
  const int64_t nr = s->kernels->gemm->nr, taps = s->h.kernel * s->w.kernel;
  for (int64_t t = 0; t < taps; t++)
    for (int64_t c = 0; c < count; c++) {
      const float *from = p->data + (t * p->channels + c0 + c) * p->ld;
      float *to = strip + (c * taps + t) * nr;
      memcpy(to, from, (size_t)n * sizeof(float));
      for (int64_t i = 1; i < p->partials; i++) s->kernels->eltwise->add_scaled(n, 1.0f, from + i * p->stride, to);
    }
}

void lamina_conv_unpack_panel(const conv_shape *s, const conv_partial *p, int64_t first, int64_t panel, int accumulate,
                              float *gradient, float *scratch) {
  const int64_t nr = s->kernels->gemm->nr, taps = s->h.kernel * s->w.kernel, o0 = panel * nr;
  const int64_t n = layer_min(nr, s->out - o0), width = strip_channels(s);
  float *strip = scratch, *other = strip + width * taps * nr;
  for (int64_t c0 = 0; c0 < p->channels; c0 += width) {
    const int64_t count = layer_min(width, p->channels - c0), rows = count * taps;
    const float *from = strip;
    int64_t ld = nr;
    if (taps == 1 && p->partials == 1) { /* in its order as it is */
      from = p->data + c0 * p->ld;
      ld = p->ld;
    } else {
      add_partials(s, p, c0, count, n, strip);
    }
    float *to = gradient + (o0 * s->in + first + c0) * taps;
    if (!accumulate) {
      s->kernels->gemm->transpose(rows, n, from, ld, to, s->in * taps);
      continue;
    }
    s->kernels->gemm->transpose(rows, n, from, ld, other, rows);
    for (int64_t o = 0; o < n; o++)
      s->kernels->eltwise->add_scaled(rows, 1.0f, other + o * rows, to + o * s->in * taps);
  }
}
