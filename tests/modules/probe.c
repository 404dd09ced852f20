/* SPDX-License-Identifier: Apache-2.0 */
/* One small layer, y = 2 x, built in many ways: as plugins of other versions, and as those that must be refused. */
#include <lamina/plugin.h>

#ifdef PROBE_MAJOR
#undef LAMINA_PLUGIN_ABI_MAJOR
#define LAMINA_PLUGIN_ABI_MAJOR 2
#endif
#ifdef PROBE_NEWER
#undef LAMINA_PLUGIN_ABI_MINOR
#define LAMINA_PLUGIN_ABI_MINOR 99
#endif
#ifndef PROBE_NAME
#define PROBE_NAME "probe"
#endif
#ifndef PROBE_MANIFEST_NAME
#define PROBE_MANIFEST_NAME PROBE_NAME
#endif
#ifndef PROBE_ID
#define PROBE_ID "test." PROBE_NAME
#endif
#ifndef PROBE_ISA
#define PROBE_ISA ""
#endif
#ifndef PROBE_FACTOR
#define PROBE_FACTOR 2
#endif

#if defined(PROBE_CONSTRUCTOR) || defined(PROBE_ROUNDING)
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>

/* Leaves a file behind, and the thread that loads it with another rounding mode. */
__attribute__((constructor)) static void run_at_load(void) {
  const char *mark = getenv("LAMINA_TEST_MARK");
  FILE *file = mark ? fopen(mark, "w") : NULL;
  if (file) fclose(file);
#ifdef PROBE_ROUNDING
  fesetround(FE_UPWARD);
#endif
}
#endif

#ifdef PROBE_UNDEFINED
void lamina_test_is_nowhere(void);
#endif
#ifdef PROBE_EXPORTS
__attribute__((visibility("default"))) int probe_exported = 1;
#endif

static lamina_status forward(const lamina_node *node) {
  const float *x = node->inputs[0].data;
  float *y = node->outputs[0].data;
  int64_t count = 1;
  for (int i = 0; i < node->inputs[0].rank; i++) count *= node->inputs[0].dim[i];
  for (int64_t i = 0; i < count; i++) y[i] = PROBE_FACTOR * x[i];
#ifdef PROBE_UNDEFINED
  lamina_test_is_nowhere();
#endif
  return LAMINA_OK;
}

static lamina_status infer(lamina_node *node) {
  node->outputs[0] = node->inputs[0];
  return LAMINA_OK;
}

#ifdef PROBE_OVERRIDE
static int supports(const lamina_node *node) { return node->inputs[0].dim[node->inputs[0].rank - 1] == 3; }
#define PROBE_FLAGS LAMINA_LAYER_OVERRIDE
#else
#define supports NULL
#define PROBE_FLAGS 0
#endif

/* A later version's structs are longer, an earlier one's shorter; what is behind their ends is no business of the host. */
typedef struct tail {
  char bytes[64];
} tail;
#define JUNK {"UUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUUU"}
#if defined(PROBE_NEWER)
#define SIZE(type, last) (sizeof(type) + sizeof(tail))
#elif defined(PROBE_OLDER)
#define SIZE(type, last) (offsetof(type, last) + sizeof(((type *)0)->last))
#else
#define SIZE(type, last) sizeof(type)
#endif
#ifdef PROBE_OLDER /* fields behind the end, which nobody may read */
#define BAD ((const char *)0x10)
#define BAD_CALL (void (*)(void))0x10
#define VIEW (int (*)(const lamina_node *))BAD_CALL
#define OFFER (int (*)(const lamina_node *, lamina_epilogue *))BAD_CALL
#define AFFINE (lamina_status(*)(const lamina_node *, float *, float *))BAD_CALL
#else
#define BAD NULL
#define VIEW NULL
#define OFFER NULL
#define AFFINE NULL
#endif

static const struct {
  lamina_port port;
  tail tail;
} x = {{SIZE(lamina_port, initializer), "x", LAMINA_PORT_INPUT, 0, LAMINA_F32, NULL, BAD}, JUNK},
  y = {{SIZE(lamina_port, initializer), "y", LAMINA_PORT_OUTPUT, 0, LAMINA_F32, NULL, BAD}, JUNK};
#ifndef PROBE_OVERRIDE
static const struct {
  lamina_attr attr;
  tail tail;
} level = {{SIZE(lamina_attr, count), "level", LAMINA_ATTR_INT, "1", 0, 9, 0, BAD, 0, BAD}, JUNK};
#endif
static const struct {
  lamina_kernel kernel;
  tail tail;
} kernel = {{SIZE(lamina_kernel, backward), "probe", NULL, supports, NULL, NULL, forward, NULL, 0, VIEW}, JUNK};
static const lamina_attr *const attrs[] = {
#ifndef PROBE_OVERRIDE
    &level.attr,
#endif
    NULL};
static const lamina_port *const ports[] = {&x.port, &y.port, NULL};
static const lamina_kernel *const kernels[] = {&kernel.kernel, NULL};
static const struct {
  lamina_layer layer;
  tail tail;
} layer = {{SIZE(lamina_layer, infer), PROBE_NAME, 7, "y = 2 x", PROBE_FLAGS, 0, attrs, ports, kernels, infer, VIEW, OFFER, AFFINE},
           JUNK};

#ifndef PROBE_ENTRY
LAMINA_PLUGIN_FOR(PROBE_ISA, PROBE_ID, "1.0", PROBE_MANIFEST_NAME, &layer.layer);
#endif
