/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing of B into panels and transposition, by VF_LEN x VF_LEN blocks that are transposed in registers. Both are bound
 * by memory: each float is read once and written once. Past the caches only where a vector is a whole line: halves of
 * lines that are written one after the other's neighbours reach memory as two writes each.
 *
 * The includer defines GEMM_VECTORS, includes its vec.h, and gives vectors_transpose(vf r[VF_LEN]).
 */

#define PANEL (GEMM_VECTORS * VF_LEN)
#define PACK_DEPTH 16 /* rows of B that are copied side by side: as many streams as a prefetcher follows */

#define PACK_LINE 64 /* bytes */
#define PACK_INLINE static inline __attribute__((always_inline))

PACK_INLINE void pack_store(int stream, float *p, vf v) {
  if (stream) vf_stream(p, v);
  else vf_store(p, v);
}

/* dst[c * dst_ld + r] = src[r * src_ld + c] for a whole block. */
PACK_INLINE void transpose_block(int stream, const float *src, int64_t src_ld, float *dst, int64_t dst_ld, vf scale) {
  vf r[VF_LEN];
#pragma GCC unroll 16
  for (int i = 0; i < VF_LEN; i++) r[i] = vf_load(src + i * src_ld);
  vectors_transpose(r);
#pragma GCC unroll 16
  for (int i = 0; i < VF_LEN; i++) pack_store(stream, dst + i * dst_ld, vf_mul(r[i], scale));
}

/* The same for rows x cols of a block; the lanes of dst beyond `rows` become zero up to `width`. */
static void transpose_edge(int rows, int cols, const float *src, int64_t src_ld, int width, float *dst, int64_t dst_ld,
                           vf scale) {
  vf r[VF_LEN];
#pragma GCC unroll 16
  for (int i = 0; i < VF_LEN; i++) r[i] = i < rows ? vf_load_n(src + i * src_ld, cols) : vf_zero();
  vectors_transpose(r);
#pragma GCC unroll 16
  for (int i = 0; i < VF_LEN; i++)
    if (i < cols) vf_store_n(dst + i * dst_ld, vf_mul(r[i], scale), width);
}

static inline int block_part(int64_t left) { return left < 0 ? 0 : left < VF_LEN ? (int)left : VF_LEN; }

/* b_n == 1: rows of B are contiguous and each panel takes PANEL floats of a row. */
PACK_INLINE void pack_rows(int stream, int64_t k, int64_t n, const float *b, int64_t b_k, const float *scale,
                           float *dst) {
  for (int64_t p0 = 0; p0 < k; p0 += PACK_DEPTH) {
    const int64_t depth = k - p0 < PACK_DEPTH ? k - p0 : PACK_DEPTH;
    for (int64_t j = 0; j < n || j % PANEL; j += VF_LEN) {
      const int cols = block_part(n - j);
      const vf s = scale ? vf_load_n(scale + j, cols) : vf_set1(1.0f);
      const float *from = b + p0 * b_k + j;
      float *to = dst + (j / PANEL * k + p0) * PANEL + j % PANEL;
      if (cols == VF_LEN)
        for (int64_t p = 0; p < depth; p++) pack_store(stream, to + p * PANEL, vf_mul(vf_load(from + p * b_k), s));
      else
        for (int64_t p = 0; p < depth; p++) vf_store(to + p * PANEL, vf_mul(vf_load_n(from + p * b_k, cols), s));
    }
  }
}

/* b_k == 1: columns of B are contiguous (PyTorch's weights of shape (out, in)), and blocks are transposed. */
PACK_INLINE void pack_columns(int stream, int64_t k, int64_t n, const float *b, int64_t b_n, const float *scale,
                              float *dst) {
  for (int64_t j0 = 0; j0 < n; j0 += PANEL, dst += k * PANEL) {
    for (int64_t p = 0; p < k; p += VF_LEN) {
      const int depth = block_part(k - p);
#pragma GCC unroll 16
      for (int v = 0; v < GEMM_VECTORS; v++) {
        const int64_t j = j0 + v * VF_LEN;
        const int cols = block_part(n - j);
        const vf s = scale ? vf_load_n(scale + j, cols) : vf_set1(1.0f);
        float *to = dst + p * PANEL + v * VF_LEN;
        if (depth == VF_LEN && cols == VF_LEN) transpose_block(stream, b + j * b_n + p, b_n, to, PANEL, s);
        else transpose_edge(cols, depth, b + j * b_n + p, b_n, VF_LEN, to, PANEL, s);
      }
    }
  }
}

/* Neither stride is one (a tap of PyTorch's convolution weights): element by element, a few lines of each column at once. */
static void pack_strided(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst) {
  for (int64_t j0 = 0; j0 < n; j0 += PANEL, dst += k * PANEL) {
    const int64_t cols = n - j0 < PANEL ? n - j0 : PANEL;
    for (int64_t p0 = 0; p0 < k; p0 += PACK_DEPTH) {
      const int64_t p1 = k - p0 < PACK_DEPTH ? k : p0 + PACK_DEPTH;
      for (int64_t j = 0; j < PANEL; j++) {
        const float *from = b + (j0 + j) * b_n;
        const float s = scale && j < cols ? scale[j0 + j] : 1.0f;
        for (int64_t p = p0; p < p1; p++) dst[p * PANEL + j] = j < cols ? from[p * b_k] * s : 0.0f;
      }
    }
  }
}

static void pack_b(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst) {
  if (b_n == 1) pack_rows(0, k, n, b, b_k, scale, dst);
  else if (b_k == 1) pack_columns(0, k, n, b, b_n, scale, dst);
  else pack_strided(k, n, b, b_k, b_n, scale, dst);
}

static void stream_b(int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n, const float *scale, float *dst) {
  const int whole_lines = VF_LEN * sizeof(float) == PACK_LINE && (uintptr_t)dst % PACK_LINE == 0;
  if (!whole_lines || (b_n != 1 && b_k != 1)) {
    pack_b(k, n, b, b_k, b_n, scale, dst);
    return;
  }
  if (b_n == 1) pack_rows(1, k, n, b, b_k, scale, dst);
  else pack_columns(1, k, n, b, b_n, scale, dst);
  vf_stream_end();
}

/* Down a strip of columns first, so that each line of dst is finished while it is in the cache. */
static void transpose(int64_t rows, int64_t cols, const float *src, int64_t src_ld, float *dst, int64_t dst_ld) {
  const vf one = vf_set1(1.0f);
  for (int64_t c = 0; c < cols; c += VF_LEN) {
    const int width = block_part(cols - c);
    for (int64_t r = 0; r < rows; r += VF_LEN) {
      const int height = block_part(rows - r);
      const float *from = src + r * src_ld + c;
      float *to = dst + c * dst_ld + r;
      if (width == VF_LEN && height == VF_LEN) transpose_block(0, from, src_ld, to, dst_ld, one);
      else transpose_edge(height, width, from, src_ld, height, to, dst_ld, one);
    }
  }
}
