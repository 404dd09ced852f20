/* SPDX-License-Identifier: Apache-2.0 */
/* A step in parts, so that the backward pass can step what is final. */
#ifndef LAMINA_OPTIMIZER_H
#define LAMINA_OPTIMIZER_H

#include "../exec.h"

typedef struct lamina_step lamina_step;

/* Whether the gradients of all parameters are there and final; `what` wants them. */
lamina_status lamina_exec_check_gradients(const lamina_exec *exec, const char *what);

/* Checks the optimizer and allocates all that the step will need: nothing later can fail. */
lamina_status lamina_step_begin(lamina_exec *exec, const lamina_optimizer *optimizer, lamina_step **step);
/* Updates the parameters of the nodes from `first` to before `end` by the gradients that are there. */
void lamina_step_nodes(lamina_exec *exec, lamina_step *step, int first, int end);
void lamina_step_end(lamina_exec *exec, lamina_step *step);

#endif
