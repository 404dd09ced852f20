/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lamina plugin check`, in parts. The parent (plugin_check.c) never runs a layer: each case is a child, which says
 * through shared memory where it is and what it found.
 *   plugin_check_memory.c   buffers between guard pages, and what a fault in one of them means
 *   plugin_check_host.c     the services that a layer is given, watched
 *   plugin_check_case.c     attributes, shapes and values, from the layer's declarations and a seed
 *   plugin_check_run.c      one run of one kernel on one case   plugin_check_result.c   what it wrote
 *   plugin_check_promises.c what a layer promises beyond that: states, epilogues, calls within calls, its failures
 *   plugin_check_forward.c  what must hold for a forward   plugin_check_gradient.c   for a backward
 *   plugin_check_library.c  loading, unloading, and the way through a graph and files
 */
#ifndef TOOL_PLUGIN_CHECK_H
#define TOOL_PLUGIN_CHECK_H

#include "session.h"

#include <stdatomic.h>

enum { CHECK_ISAS = 4, CHECK_LAYERS = 64, CHECK_VALUES = 4 * LAMINA_MAX_PORTS, CHECK_BATCH_CASES = 8 };

/* Written by the child, read by the parent. */
typedef struct check_report {
  int finished; /* the child came to its end: good, a failure, or nothing to check */
  int failed, skipped;
  int checks; /* that held */
  char cause[32], message[640];
  char phase[96];           /* what runs now: "backward" */
  char kernel[64], isa[16]; /* of what runs now */
  char given[640];          /* attributes and shapes of the case */
  int stops_gradient;       /* the layer says so: its gradient is not compared with differences */
  int empty;                /* the case has a tensor without elements */
  int allocation_fails;     /* an allocation is being failed */
  int layers;
  char layer[CHECK_LAYERS][64];
} check_report;

extern check_report *check; /* one for the process: a fault's handler has no other way to it */

/* Ends the child with a failure: `cause` is one word, the message says what is wrong with what. */
_Noreturn void check_fail(const char *cause, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_phase(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_held(void);

/* ---- memory ---------------------------------------------------------------------------------------------------- */

typedef enum guard_access { GUARD_READ_WRITE, GUARD_READ, GUARD_NONE } guard_access;

typedef struct guard {
  char *map, *data; /* map: first page that may be touched */
  size_t bytes, usable;
  char name[40];
  guard_access access;
  int retired;
  const char *none_cause; /* what touching it means when it must not be touched */
} guard;

/* Reserves address space and takes over the signals. */
void guard_start(void);
/* `bytes` that end at a guard page (or begin at one), aligned; addresses are never used again. */
guard *guard_new(const char *name, size_t bytes, size_t align, bool at_start);
guard *guard_find(const void *data);
void guard_protect(guard *g, guard_access access);
/* Checks the bytes around the buffer, and makes every later touch a fault. */
void guard_retire(guard *g);

/* ---- host ------------------------------------------------------------------------------------------------------ */

typedef struct check_host {
  lamina_host *host; /* what the layer is given: in guarded memory */
  const lamina_host *real;
  int threads;
  bool reversed;   /* tasks run last to first */
  int fail_at;     /* the allocation that fails, or -1 */
  uint32_t poison; /* what allocated memory is filled with */
  int allocations, outstanding;
  int failures;      /* calls of fail during this callback */
  void (*nested)(void *arg); /* run in the midst of a call, or NULL */
  void *nested_arg;
  char message[300]; /* of the last one */
} check_host;

/* Services that are the context's own, watched. `extra`: bytes by which the table is longer than this version knows. */
void check_host_open(check_host *h, const lamina_context *context, size_t extra);
void check_host_close(check_host *h);
/* The floating-point environment that a layer must leave as it is. */
uint64_t check_fp_control(void);

/* ---- case ------------------------------------------------------------------------------------------------------ */

typedef struct check_case {
  const lamina_layer *layer;
  uint64_t random;
  int64_t number;
  int n_attrs, n_inputs, n_outputs, n_params;
  lamina_value attrs[64];
  char text[640]; /* attributes as a model would give them */
  lamina_tensor inputs[LAMINA_MAX_PORTS], outputs[LAMINA_MAX_PORTS],
      params[LAMINA_MAX_PORTS]; /* data: the master copy */
  float *dy[LAMINA_MAX_PORTS];  /* gradients of outputs; NULL where not f32 */
  int64_t labels;               /* integer inputs are below this */
} check_case;

uint64_t check_random(uint64_t *state);
double check_uniform(uint64_t *state, double low, double high);
const lamina_port *check_port(const lamina_layer *layer, lamina_port_kind kind, int index);
int64_t check_count(const lamina_tensor *t);
size_t check_bytes(const lamina_tensor *t);
void check_dense(lamina_tensor *t);
/* Finds attributes and shapes that the layer accepts, from case number and seed; false if there are none. */
bool check_case_make(check_case *c, const lamina_layer *layer, uint64_t seed, int64_t number,
                     const lamina_context *context);
/* Fills in outputs' and parameters' shapes for the inputs' through the layer's infer. */
lamina_status check_case_infer(check_case *c, const lamina_context *context);
/* The same with allocation `fail_at` of host->alloc failing (-1: none); the number of allocations that it makes. */
lamina_status check_case_infer_failing(check_case *c, const lamina_context *context, int fail_at, int *allocations);
/* Values for all inputs, parameters and gradients; `positive`: none below 0.5. */
void check_case_values(check_case *c, bool positive);
/* The same case with other numbers in inputs and parameters, which may be run beside it. */
void check_other_values(const check_case *c, check_case *other);
void check_other_release(check_case *other);
void check_case_describe(const check_case *c, char *text, size_t bytes);

/* ---- run ------------------------------------------------------------------------------------------------------- */

typedef struct run_options {
  const lamina_context *context;
  const lamina_kernel *kernel;
  lamina_mode mode;
  bool backward, in_place, backward_in_place, at_start, reversed, newer;
  int fail_at;   /* -1: none */
  bool tolerate; /* a forward that fails is no failure of the check */
  int repeat;    /* forwards more, over which the heap must not grow */
  uint32_t poison_out, poison_work, poison_saved;
  uint64_t leave_inputs, leave_params; /* gradients that are not asked for */
  bool accumulate;
  bool frozen, recompute;          /* lamina_node's frozen_states; a second forward with `recompute` */
  uint32_t epilogue;               /* LAMINA_EPILOGUE_* that the kernel is to apply */
  const struct check_case *nested; /* run in the midst of each call */
} run_options;

/* The parts of an epilogue, element i or channel i. */
#define EPILOGUE_SCALE(i) (0.5f + 0.1f * (float)((i) % 7))
#define EPILOGUE_SHIFT(i) (0.2f * (float)((i) % 5) - 0.4f)
#define EPILOGUE_ADD(i) (0.1f * (float)((i) % 11) - 0.5f)
#define EPILOGUE_LOW (-0.4f)
#define EPILOGUE_HIGH 0.6f
#define EPILOGUE_SLOPE 0.75f
#define EPILOGUE_OFFSET 0.125f

/* What the process holds. */
typedef struct check_usage {
  size_t heap, mapped; /* bytes; mapped: without the heap */
  int files, maps;
} check_usage;
check_usage check_used(void);

/* Copies of what a run wrote. */
typedef struct run_result {
  lamina_status status;
  int allocations, outstanding;
  size_t leaked, mapped; /* bytes of the heap and of other mappings that repeated forwards left */
  int opened;            /* descriptors */
  int count;
  struct {
    char name[48];
    lamina_tensor tensor; /* data: malloc'd */
    bool gradient;
    bool of_state;
    int port;
    lamina_port_kind kind;
  } value[CHECK_VALUES];
  lamina_cost cost;
} run_result;

extern const run_options run_defaults;
/* Runs plan, pack, forward and, if asked, backward in fresh guarded buffers. A failing status is a failure of the check
   unless an allocation was failed. */
void check_run(const check_case *c, const run_options *o, run_result *result);
void run_release(run_result *result);
/* Index of the first element whose bits differ, in any value; -1 if none. `at` gets the value's index. */
int64_t run_difference(const run_result *a, const run_result *b, int *at);
/* The same beyond a tolerance relative to each value's largest element. */
int64_t run_distance(const run_result *a, const run_result *b, double tolerance, int *at);
double run_element(const run_result *r, int at, int64_t i);
/* Whether supports and plan accept the case, as the options say. */
bool kernel_takes(const check_case *c, const run_options *o);
bool kernel_runs(const check_case *c, const lamina_kernel *kernel, const lamina_context *context, lamina_mode mode);

/* ---- checks ---------------------------------------------------------------------------------------------------- */

typedef struct check_target {
  const char *file; /* or NULL: a built-in layer */
  const char *layer;
  uint64_t seed;
  int isas;
  const char *isa[CHECK_ISAS];         /* best first */
  lamina_context *context[CHECK_ISAS]; /* one thread each */
} check_target;

void check_forward(check_case *c, const check_target *t, const lamina_kernel *kernel, lamina_context *context,
                   lamina_mode mode);
void check_backward(check_case *c, const lamina_kernel *kernel, lamina_context *context);
/* The gradients' values. */
void check_gradients(check_case *c, const lamina_kernel *kernel, lamina_context *context);
/* What the layer says of itself beside its kernels: views, epilogue, affine. */
void check_claims(check_case *c, const lamina_kernel *kernel, lamina_context *context);
/* The same result on every ISA and from every kernel. */
void check_kernels_agree(check_case *c, const check_target *t, lamina_mode mode);
void check_threads(check_case *c, const check_target *t, const lamina_kernel *kernel, lamina_mode mode);
void check_leaks(check_case *c, const lamina_kernel *kernel, lamina_context *context);
void check_batch(check_case *c, const lamina_kernel *kernel, lamina_context *context);
void check_states(check_case *c, const lamina_kernel *kernel, lamina_context *context);
void check_epilogues(check_case *c, const lamina_kernel *kernel, lamina_context *context);
void check_nested(check_case *c, const lamina_kernel *kernel, lamina_context *context, lamina_mode mode);
void check_infer_failures(check_case *c, const lamina_context *context);
void check_save_load(check_case *c, const check_target *t);
void check_load_unload(const char *file);

#endif
