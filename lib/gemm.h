/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked, parallel matrix product behind the host's GEMM services (see lamina_gemm in plugin.h). */
#ifndef LAMINA_GEMM_H
#define LAMINA_GEMM_H

#include "core.h"

/* Bytes of gemm->workspace; SIZE_MAX if that overflows. Depends on m, n, k and whether b_packed is given, never on
   strides, so that it can be asked for before these are known. */
size_t lamina_gemm_workspace(const lamina_context *context, const lamina_gemm *gemm);
/* The same bits for any number of threads: the tasks are tiles of C, and the depth of a tile is never split among them.
 */
void lamina_gemm_run(const lamina_context *context, const lamina_gemm *gemm);
/* The same on the calling thread alone, and with one thread's workspace. */
size_t lamina_gemm_serial_workspace(const lamina_context *context, const lamina_gemm *gemm);
void lamina_gemm_run_serial(const lamina_context *context, const lamina_gemm *gemm);
/* "gemm 14x32 kc 512": the tile and the depth of a chunk. Reads no data. */
void lamina_gemm_describe(const lamina_context *context, const lamina_gemm *gemm, char *text, size_t bytes);
/* SIZE_MAX if that overflows. */
size_t lamina_gemm_packed_bytes(const lamina_context *context, int64_t k, int64_t n);
void lamina_gemm_pack_b(const lamina_context *context, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                        const float *scale, float *packed);

#endif
