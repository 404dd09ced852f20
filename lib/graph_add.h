/* SPDX-License-Identifier: Apache-2.0 */
/* Between graph.c and graph_add.c. */
#ifndef LAMINA_GRAPH_ADD_H
#define LAMINA_GRAPH_ADD_H

#include "graph.h"

void lamina_graph_node_free(const lamina_context *context, graph_node *node);
lamina_status lamina_graph_check_name(const lamina_graph *graph, const char *what, const char *name);
lamina_status lamina_graph_add_value(lamina_graph *graph, const char *name, int producer, int port,
                                     const lamina_tensor *shape);
/* Forgets the values added last, so that `kept` remain. */
void lamina_graph_drop_values(lamina_graph *graph, size_t kept);

#endif
