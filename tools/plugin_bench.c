/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `lamina plugin bench`: the time of each layer on each ISA, and how much of it the roofline explains: the larger of
 * FLOPs over the rate of the GEMM service and bytes over the rate of a copy, both measured here on the same threads.
 */
#include "plugin.h"
#include "session.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

typedef struct bench_settings {
  common_settings common;
  const char *layer, *shape, *attributes;
  int built_in;
  double seconds;
} bench_settings;

static const option options[] = {
    {"layer", "NAME", OPTION_TEXT, offsetof(bench_settings, layer), 0, 0, NULL, "time this layer of the plugin alone"},
    {"builtin", NULL, OPTION_FLAG, offsetof(bench_settings, built_in), 0, 0, NULL,
     "FILE is the name of a layer of the library instead"},
    {"shape", "N,...", OPTION_TEXT, offsetof(bench_settings, shape), 0, 0, NULL,
     "of every input, batch first (default: the first of 8,56,56,64  64,1024  8,128,512 that the layer takes)"},
    {"attributes", "TEXT", OPTION_TEXT, offsetof(bench_settings, attributes), 0, 0, NULL,
     "\"key=value ...\" of the layer"},
    {"time", "S", OPTION_REAL, offsetof(bench_settings, seconds), 0.001, 60, NULL, "seconds for each (default 0.3)"},
    {NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

typedef struct bench {
  const bench_settings *set;
  const char *file, *argument;
  lamina_context *context;
  const char *isa;
  int threads;
  double flops, bytes; /* a second: the roof */
  json_t *shapes;
} bench;

typedef struct shape {
  int rank;
  int64_t dim[LAMINA_MAX_RANK];
} shape;

/* ---- the roof ---------------------------------------------------------------------------------------------------- */

enum { SIDE = 384, COPY_FLOATS = 1 << 23, COPY_TASKS = 64 };

static double gemm_rate(const lamina_host *host) {
  const size_t n = (size_t)SIDE * SIDE;
  float *a = host->alloc(host, 3 * n * sizeof *a);
  float *packed = host->alloc(host, host->gemm_packed_bytes(host, SIDE, SIDE));
  double best = INFINITY;
  lamina_gemm g = {.size = sizeof g,
                   .m = SIDE,
                   .n = SIDE,
                   .k = SIDE,
                   .a = a,
                   .a_row = SIDE,
                   .a_k = 1,
                   .b_packed = packed,
                   .c_row = SIDE,
                   .lo = -INFINITY,
                   .hi = INFINITY};
  if (a && packed) {
    for (size_t i = 0; i < 3 * n; i++) a[i] = (float)(i % 17) * 0.1f;
    host->gemm_pack_b(host, SIDE, SIDE, a + n, SIDE, 1, NULL, packed);
    g.c = a + 2 * n;
    g.workspace = host->alloc(host, host->gemm_workspace(host, &g) + 64);
    for (int i = 0; i < 30 && g.workspace; i++) {
      const double start = now_seconds();
      host->gemm(host, &g);
      best = fmin(best, now_seconds() - start);
    }
    host->release(host, g.workspace);
  }
  host->release(host, packed);
  host->release(host, a);
  return 2.0 * SIDE * SIDE * SIDE / best;
}

static void copy_task(void *arg, int64_t index, int thread) {
  float *block = arg;
  const size_t part = COPY_FLOATS / COPY_TASKS;
  (void)thread;
  memcpy(block + COPY_FLOATS + (size_t)index * part, block + (size_t)index * part, part * sizeof *block);
}

static double copy_rate(const lamina_host *host) {
  float *block = host->alloc(host, 2 * (size_t)COPY_FLOATS * sizeof *block);
  double best = INFINITY;
  if (!block) return 0;
  memset(block, 0, 2 * (size_t)COPY_FLOATS * sizeof *block);
  for (int i = 0; i < 20; i++) {
    const double start = now_seconds();
    host->parallel(host, COPY_TASKS, copy_task, block);
    best = fmin(best, now_seconds() - start);
  }
  host->release(host, block);
  return 2.0 * COPY_FLOATS * sizeof(float) / best; /* read and written */
}

/* ---- one layer --------------------------------------------------------------------------------------------------- */

static bool read_shape(const char *text, shape *s) {
  char *end;
  for (s->rank = 0; s->rank < LAMINA_MAX_RANK; text = end + 1) {
    errno = 0;
    s->dim[s->rank++] = strtoll(text, &end, 10);
    if (end == text || errno || s->dim[s->rank - 1] < 1) return false;
    if (!*end) return true;
    if (*end != ',') return false;
  }
  return false;
}

/* The attributes given, and for those that are required and not given a middling value. */
static void attributes_text(const lamina_layer *layer, const char *given, char *text, size_t bytes) {
  char key[96];
  size_t used = (size_t)snprintf(text, bytes, "%s", given ? given : "");
  for (const lamina_attr *const *a = layer->attrs; a && *a && used + 120 < bytes; a++) {
    snprintf(key, sizeof key, "%s=", (*a)->name);
    if ((*a)->def || (given && strstr(given, key))) continue;
    used += (size_t)snprintf(text + used, bytes - used, " %s", key);
    if ((*a)->type == LAMINA_ATTR_STRING)
      used += (size_t)snprintf(text + used, bytes - used, "%.*s", (int)strcspn((*a)->choices ? (*a)->choices : "", "|"),
                               (*a)->choices ? (*a)->choices : "");
    else
      used += (size_t)snprintf(text + used, bytes - used, "%d",
                               (*a)->type == LAMINA_ATTR_INT    ? 64
                               : (*a)->type == LAMINA_ATTR_INTS ? 3
                                                                : 1);
  }
}

static lamina_status build(bench *b, const lamina_layer *layer, const shape *s, lamina_graph **graph) {
  char name[16], names[256] = "", attributes[1024];
  int count = 0;
  attributes_text(layer, b->set->attributes, attributes, sizeof attributes);
  lamina_status status = lamina_graph_create(b->context, NULL, graph);
  for (const lamina_port *const *p = layer->ports; p && *p && !status; p++) {
    if ((*p)->kind != LAMINA_PORT_INPUT || count > 15) continue;
    snprintf(name, sizeof name, "in%d", count);
    strcat(strcat(names, count++ ? "," : ""), name);
    const bool whole = (*p)->dtype == LAMINA_I32; /* labels: one for each row */
    status = lamina_graph_input(*graph, name, whole ? LAMINA_I32 : LAMINA_F32, s->rank - 1 - whole, s->dim + 1);
  }
  return status ? status : lamina_graph_add(*graph, layer->name, "timed", names, attributes);
}

/* Zeroed or random inputs, which live until the exec goes. */
static lamina_status set_inputs(lamina_exec *exec, lamina_graph *graph, int64_t batch, void **memory) {
  const int count = lamina_graph_input_count(graph);
  lamina_status status = LAMINA_OK;
  for (int i = 0; i < count && i < 16 && !status; i++) {
    lamina_tensor t;
    const char *name = lamina_graph_input_name(graph, i);
    status = lamina_graph_value(graph, name, &t);
    if (status) break;
    t.dim[0] = batch;
    const int64_t n = lamina_tensor_count(&t);
    float *data = memory[i] = calloc((size_t)n, sizeof *data);
    if (!data) return LAMINA_OUT_OF_MEMORY;
    for (int64_t k = 0; k < n && t.dtype == LAMINA_F32; k++)
      data[k] = (float)((k * 2654435761u >> 7) % 1000) * 0.002f - 1;
    t = lamina_tensor_of(data, t.dtype, t.rank, t.dim);
    status = lamina_exec_set_input(exec, name, &t);
  }
  return status;
}

/* Milliseconds of a pass: the median of its runs, and the least. */
typedef struct timed {
  double median, best;
} timed;

static timed timed_of(double *ms, int64_t runs) {
  const double middle = median(ms, runs); /* which sorts them */
  return (timed){middle, runs > 0 ? ms[0] : 0};
}

static lamina_status measure(bench *b, lamina_exec *exec, bool train, timed *forward, timed *backward) {
  enum { MOST = 2000 };
  double *f = malloc(2 * MOST * sizeof *f), one[2];
  int64_t runs = 0;
  lamina_status status = f ? lamina_exec_times(exec, 1, &one[0], &one[1]) : LAMINA_OUT_OF_MEMORY;
  const double end = now_seconds() + b->set->seconds;
  for (int64_t i = -2; !status && i < MOST && (i < 3 || now_seconds() < end); i++) {
    status = lamina_exec_forward(exec);
    if (!status && train) status = lamina_exec_backward(exec);
    if (!status) status = lamina_exec_times(exec, 1, &one[0], &one[1]);
    if (status || i < 0) continue; /* two to warm up */
    f[i] = one[0];
    f[MOST + i] = one[1];
    runs = i + 1;
  }
  if (!status) *forward = timed_of(f, runs);
  if (!status) *backward = timed_of(f + MOST, runs);
  free(f);
  return status;
}

/* "swish_56x56x64": the layer and its input without the batch, and what tells it from others of that shape. */
static void shape_text(const bench *b, const char *layer, const shape *s, char *text, size_t bytes) {
  size_t used = (size_t)snprintf(text, bytes, "%.60s", layer);
  for (int i = 1; i < s->rank; i++)
    used += (size_t)snprintf(text + used, bytes - used, "%c%lld", i > 1 ? 'x' : '_', (long long)s->dim[i]);
  if (b->set->attributes && used < bytes) snprintf(text + used, bytes - used, "_%.40s", b->set->attributes);
}

static void tell(bench *b, const char *layer, const shape *s, const char *pass, const lamina_node_info *n, double flops,
                 double bytes, timed t) {
  const double ms = t.median;
  const double roof = fmax(flops / b->flops, bytes / b->bytes) * 1e3;
  const double percent = ms > 0 ? 100 * roof / ms : 0;
  if (!b->set->common.json && !(flops > 0) && !(bytes > 0))
    printf("%-16s %-9s %-8s %-24s %10.4f  its plan declares no FLOPs and bytes (lamina_cost)\n", layer, pass, b->isa,
           n->algorithm, ms);
  else if (!b->set->common.json)
    printf("%-16s %-9s %-8s %-24s %10.4f %9.1f %9.1f %8.1f%% (%s)\n", layer, pass, b->isa, n->algorithm, ms,
           flops / ms * 1e-6, bytes / ms * 1e-6, percent,
           flops / b->flops > bytes / b->bytes ? "arithmetic" : "memory");
  char text[160], name[256];
  shape_text(b, layer, s, text, sizeof text);
  snprintf(name, sizeof name, "%s/plugin/%s/b%lld/t%d", pass, text, (long long)s->dim[0], b->threads);
  json_array_append_new(
      b->shapes,
      json_pack("{s:s s:s s:s s:s s:s s:s s:s s:I s:i s:s s:s s:s s:f s:f s:f s:f s:f s:f s:f s:f s:f}", "name", name, "pass",
                pass, "isa", b->isa, "suite", "plugin", "layer", layer, "shape", text, "mode", "default", "batch",
                (json_int_t)s->dim[0], "threads", b->threads, "kernel", n->kernel, "algorithm", n->algorithm, "attributes",
                b->set->attributes ? b->set->attributes : "", "lamina_seconds", ms * 1e-3,
                "best_seconds", t.best * 1e-3, "flops", flops, "bytes", bytes,
                "gflops", ms > 0 ? flops / ms * 1e-6 : 0, "percent_of_peak", ms > 0 ? flops / ms * 1e5 / b->flops : 0,
                "peak_gflops", b->flops * 1e-9, "percent_of_bandwidth", ms > 0 ? bytes / ms * 1e5 / b->bytes : 0,
                "percent_of_roofline", percent));
}

static lamina_status time_shape(bench *b, const lamina_layer *layer, const shape *s, bool train) {
  lamina_graph *graph = NULL;
  lamina_plan *plan = NULL;
  lamina_exec *exec = NULL;
  lamina_node_info info = {.size = sizeof info};
  void *memory[16] = {NULL};
  timed forward = {0, 0}, backward = {0, 0};
  const lamina_plan_options set = {
      .size = sizeof set, .mode = train ? LAMINA_TRAIN : LAMINA_INFER, .batch = s->dim[0], .input_gradients = train};
  lamina_status status = build(b, layer, s, &graph);
  if (!status) status = lamina_plan_create(graph, &set, &plan);
  if (!status) status = lamina_exec_create(plan, &exec);
  if (!status) status = set_inputs(exec, graph, s->dim[0], memory);
  if (!status) status = lamina_plan_node(plan, 0, &info);
  if (!status) status = measure(b, exec, train, &forward, &backward);
  if (!status && !train) tell(b, layer->name, s, "forward", &info, info.flops, info.bytes, forward);
  if (!status && train) tell(b, layer->name, s, "backward", &info, info.backward_flops, info.backward_bytes, backward);
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  lamina_graph_destroy(graph);
  for (int i = 0; i < 16; i++) free(memory[i]);
  return status;
}

static int time_layer(bench *b, const char *name) {
  static const char *const shapes[] = {"8,56,56,64", "64,1024", "8,128,512"};
  const lamina_layer *layer = lamina_layer_find(b->context, name, NULL);
  lamina_status status = LAMINA_SHAPE_MISMATCH;
  shape s;
  if (!layer) return fail("there is no layer '%s'", name);
  if (b->set->shape && !read_shape(b->set->shape, &s))
    return fail("--shape: '%s' is not of the form 8,56,56,64", b->set->shape);
  for (int i = 0; i < 3 && status && (i == 0 || !b->set->shape); i++) {
    if (!b->set->shape) read_shape(shapes[i], &s);
    status = time_shape(b, layer, &s, false);
  }
  if (status) return fail("%s: %s", name, lamina_error_message(b->context));
  bool trains = false;
  for (const lamina_kernel *const *k = layer->kernels; *k; k++) trains |= (*k)->backward != NULL;
  if (trains && time_shape(b, layer, &s, true)) return fail("%s, backward: %s", name, lamina_error_message(b->context));
  return EXIT_OK;
}

static int time_isa(bench *b) {
  const lamina_host *host = lamina_context_host(b->context);
  int status = EXIT_OK, layers = 0;
  b->flops = gemm_rate(host);
  b->bytes = copy_rate(host);
  if (!(b->flops > 0) || !(b->bytes > 0)) return fail("out of memory");
  if (b->file && lamina_context_load_plugin(b->context, b->file)) return fail("%s", lamina_error_message(b->context));
  if (!b->file) return time_layer(b, b->argument);
  for (int i = 0; i < lamina_layer_count(b->context) && !status; i++) {
    const char *name = lamina_layer_at(b->context, i)->name, *provider = "";
    lamina_layer_find(b->context, name, &provider);
    if (!strcmp(provider, "built-in") || (b->set->layer && strcmp(name, b->set->layer))) continue;
    status = time_layer(b, name);
    layers++;
  }
  return status   ? status
         : layers ? EXIT_OK
                  : fail("%s has no layer '%s'", b->argument, b->set->layer ? b->set->layer : "");
}

static int time_all(bench *b, const session *s) {
  char list[128], *rest = list, *isa;
  int status = EXIT_OK;
  snprintf(list, sizeof list, "%s", s->info.isas);
  if (!s->common->json)
    printf("%-16s %-9s %-8s %-24s %10s %9s %9s %9s\n", "layer", "pass", "isa", "algorithm", "ms", "GFLOP/s", "GB/s",
           "roofline");
  while (!status && (isa = strtok_r(rest, " ", &rest))) {
    if (s->common->isa && strcmp(s->common->isa, isa)) continue;
    const lamina_context_options o = {.size = sizeof o, .isa = isa, .threads = s->info.threads};
    if (lamina_context_create(&o, &b->context)) return fail("no context for %s", isa);
    b->isa = isa;
    b->threads = s->info.threads;
    status = time_isa(b);
    lamina_context_destroy(b->context);
  }
  return status;
}

/* As in the results of lamina-bench: lamina-gate reads both. */
static json_t *machine_json(const session *s) {
  const lamina_context_info *i = &s->info;
  struct utsname system = {0};
  const time_t now = time(NULL);
  struct tm utc = {0};
  char date[32];
  uname(&system);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  return json_pack("{s:s s:s s:s s:i s:i s:I s:I s:I s:s s:s}", "lamina", lamina_version(), "cpu", i->cpu, "isa", i->isa,
                   "cores", i->cores, "threads", i->threads, "l1_bytes", (json_int_t)i->l1, "l2_bytes", (json_int_t)i->l2,
                   "l3_bytes", (json_int_t)i->l3, "kernel", system.release, "date", date);
}

static int run_command(const command *self, int argc, char **argv) {
  bench_settings set = {.seconds = 0.3};
  parsed line;
  session s = {0};
  bench b = {.set = &set, .shapes = json_array()};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) {
    json_decref(b.shapes);
    return status;
  }
  b.argument = line.argument[0];
  char *path = set.built_in ? NULL : realpath(b.argument, NULL); /* a file, not a name to search for */
  b.file = path;
  status = set.built_in || path ? session_open(&s, self, &set.common) : fail("%s: %s", b.argument, strerror(errno));
  if (!status) status = time_all(&b, &s);
  if (!status && set.common.json)
    status = print_json(json_pack("{s:s s:o s:O}", "file", b.argument, "machine", machine_json(&s), "shapes", b.shapes));
  session_close(&s);
  json_decref(b.shapes);
  free(path);
  return status;
}

const command command_plugin_bench = {
    .name = "plugin bench",
    .arguments = "FILE",
    .min_arguments = 1,
    .max_arguments = 1,
    .summary = "how fast a plugin's layers are, against what the machine can do",
    .text =
        "Times forward and backward of every layer of FILE on every instruction set. The roofline is the larger of the "
        "FLOPs\n"
        "that the layer declares over the GEMM service's rate and its bytes over that of a copy through memory, both\n"
        "measured here; data that stays in cache can be above 100%. Objects of --json are what lamina-gate compares.",
    .examples =
        "  lamina plugin bench ./swish.so --threads 1\n  lamina plugin bench ./swish.so --shape 8,56,56,64 --json\n"
        "  lamina plugin bench --builtin linear --attributes out_features=512 --shape 64,1024",
    .options = options,
    .run = run_command};
