/* SPDX-License-Identifier: Apache-2.0 */
#include "../core.h"

#include <math.h>
#include <string.h>

double lamina_schedule_rate(const lamina_schedule *given, double epoch) {
  lamina_schedule schedule = {0};
  const lamina_schedule *s = &schedule;
  if (!given) return 0;
  memcpy(&schedule, given, given->size < sizeof schedule ? given->size : sizeof schedule);
  if (s->type == LAMINA_SCHEDULE_STEP && s->step_epochs > 0) return s->lr * pow(s->gamma, floor(epoch / s->step_epochs));
  if (s->type == LAMINA_SCHEDULE_COSINE && s->epochs > 0) {
    const double part = epoch < 0 ? 0 : epoch > s->epochs ? 1 : epoch / s->epochs;
    return s->min_lr + (s->lr - s->min_lr) * 0.5 * (1 + cos(3.14159265358979323846 * part));
  }
  return s->lr;
}
