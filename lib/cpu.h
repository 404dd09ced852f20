/* SPDX-License-Identifier: Apache-2.0 */
/* What the processor can execute. This is the only code that asks it. */
#ifndef LAMINA_CPU_H
#define LAMINA_CPU_H

#include <stdbool.h>

bool lamina_cpu_has_avx2(void);   /* AVX2 and FMA, and the system saves ymm */
bool lamina_cpu_has_avx512(void); /* AVX-512 F, BW, DQ, VL, and the system saves zmm */
bool lamina_cpu_has_neon(void);

#endif
