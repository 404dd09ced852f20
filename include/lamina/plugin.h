/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file plugin.h
 * The layer ABI: everything that an author of a layer needs, and all that Lamina's own layers use.
 *
 * A layer is data: a const `lamina_layer` that declares attributes, ports and kernels. A loadable plugin
 * exports one const symbol of type `lamina_plugin`, named `lamina_plugin_entry`; nothing of Lamina is linked, since
 * the host hands a table of services (`lamina_host`) to every callback. LAMINA_PLUGIN, at the end of this file, writes it.
 *
 * Structs begin with their size; the host copies the part that both sides know, so a struct may grow at its end. A callback
 * that uses a field which came after version 1.0 of this ABI first looks whether the `size` of what it was given covers it.
 * lamina_tensor and lamina_value have no size: they never change, nor does the value of any constant.
 * Tensors are channels last: (N, H, W, C), (N, L, C), (N, C). Parameters have PyTorch's shapes and names.
 */
#ifndef LAMINA_PLUGIN_H
#define LAMINA_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LAMINA_PLUGIN_ABI_MAJOR 1 /* another one is another ABI, and refused */
#define LAMINA_PLUGIN_ABI_MINOR 0 /* grows with what is added; plugins and hosts of different minors work together */

#define LAMINA_MAX_RANK 8
#define LAMINA_MAX_PORTS 64 /* inputs, outputs and parameters of one node, each */

/** What every call returns. The message that goes with a failure is kept by the context. */
typedef enum lamina_status {
  LAMINA_OK = 0,
  LAMINA_INVALID_ARGUMENT, /**< an argument, attribute or name that cannot be used */
  LAMINA_SHAPE_MISMATCH,   /**< shapes that do not fit each other or the layer */
  LAMINA_NOT_FOUND,        /**< no such file, layer, value or parameter */
  LAMINA_UNSUPPORTED,      /**< valid, but not possible here: an ISA, a dtype, a combination */
  LAMINA_OUT_OF_MEMORY,
  LAMINA_IO_ERROR,     /**< the operating system refused to read or write */
  LAMINA_BAD_FILE,     /**< a file's content is damaged or not of the expected form */
  LAMINA_NOT_FINITE,   /**< a value became infinite or not a number */
  LAMINA_BUSY,         /**< something still uses the object */
  LAMINA_PLUGIN_ERROR  /**< a plugin broke its contract */
} lamina_status;

typedef enum lamina_dtype { LAMINA_F32 = 1, LAMINA_I32 = 2, LAMINA_I64 = 3, LAMINA_U8 = 4 } lamina_dtype;

/** A view of memory that somebody else owns. Strides count elements. What a layer is given is dense in this ABI: rows
    that lie further apart would be asked for by a flag. */
typedef struct lamina_tensor {
  void *data; /**< NULL while only the shape is known */
  lamina_dtype dtype;
  int rank;
  int64_t dim[LAMINA_MAX_RANK];
  int64_t stride[LAMINA_MAX_RANK];
} lamina_tensor;

/** How freely a kernel may choose its algorithm. */
typedef enum lamina_math_mode {
  LAMINA_MATH_DEFAULT = 0, /**< fast algorithms whose RMS error is within 2.5 times the direct ones' (Winograd) */
  LAMINA_MATH_STRICT,      /**< direct algorithms only */
  LAMINA_MATH_FAST         /**< any algorithm whose error is bounded */
} lamina_math_mode;

typedef enum lamina_mode { LAMINA_INFER = 0, LAMINA_TRAIN = 1 } lamina_mode;

/* ---- attributes ------------------------------------------------------------------------------------------------ */

typedef enum lamina_attr_type {
  LAMINA_ATTR_INT,
  LAMINA_ATTR_INTS, /**< one or more integers; a single one in a model stands for all `count` */
  LAMINA_ATTR_FLOAT,
  LAMINA_ATTR_BOOL,
  LAMINA_ATTR_STRING
} lamina_attr_type;

#define LAMINA_ATTR_MAX_INTS 8

/** One attribute's value, of the declared type. */
typedef struct lamina_value {
  int64_t i;                       /**< INT, BOOL */
  double f;                        /**< FLOAT; NaN for `none` where the attribute allows it */
  const char *s;                   /**< STRING */
  int count;                       /**< INTS: how many */
  int64_t ints[LAMINA_ATTR_MAX_INTS]; /**< INTS */
} lamina_value;

/** Declares an attribute. Bounds are checked by the host before any callback of the layer runs. */
typedef struct lamina_attr {
  size_t size;
  const char *name;
  lamina_attr_type type;
  const char *def;     /**< default as text ("1", "0,0", "true"); NULL: the attribute must be given */
  double min, max;     /**< range of each number, both inclusive; min == max == 0: any */
  int count;           /**< INTS: how many integers the layer sees (a single given one is repeated); 0: as given */
  const char *choices; /**< STRING: the allowed words, separated by '|'; NULL: any */
  int allow_none;      /**< FLOAT: the word `none` is allowed and becomes NaN */
  const char *doc;
} lamina_attr;

/* ---- ports ----------------------------------------------------------------------------------------------------- */

typedef enum lamina_port_kind {
  LAMINA_PORT_INPUT,
  LAMINA_PORT_OUTPUT,
  LAMINA_PORT_PARAMETER, /**< learned */
  LAMINA_PORT_STATE      /**< kept with the parameters and saved, but never given a gradient (running statistics) */
} lamina_port_kind;

enum {
  LAMINA_PORT_VARIADIC = 1 << 0,       /**< the last input port takes one or more values */
  LAMINA_PORT_BACKWARD_READS = 1 << 1, /**< the backward pass reads this input or output as the forward pass left it */
  LAMINA_PORT_NO_GRADIENT = 1 << 2,    /**< an input that is not differentiated (labels) */
  LAMINA_PORT_NO_DECAY = 1 << 3        /**< a hint: weight decay is often left off this parameter */
};

/** Declares a port. The inputs, outputs and parameters (with states) of a node are numbered in declared order. */
typedef struct lamina_port {
  size_t size;
  const char *name; /**< "x", "y", "weight": a parameter is stored as NODE.NAME */
  lamina_port_kind kind;
  uint32_t flags;
  lamina_dtype dtype;      /**< 0 means LAMINA_F32 */
  const char *initializer; /**< parameters and states: "zeros", "ones", "constant:V", "kaiming_uniform[:a]",
                                "kaiming_normal", "xavier_uniform", "xavier_normal", "normal:STD", "uniform:BOUND",
                                "fan_in_uniform" (PyTorch's bias: uniform within 1/sqrt(fan-in of `weight`)) */
  const char *doc;
} lamina_port;

/* ---- what a callback sees -------------------------------------------------------------------------------------- */

typedef struct lamina_host lamina_host;
typedef struct lamina_kernel lamina_kernel;

#define LAMINA_ACTIVATION_PARAMETERS 4

/** y = f(x) for n neighbouring elements; y may be x. Called from several threads at once, for pieces of any size. */
typedef void lamina_activate(int64_t n, const float *parameters, const float *x, float *y);

/**
 * What the producer applies to its output while it is still in cache, in this order:
 * y = activation(clamp(value * scale[c] + shift[c] + add, lo, hi)). NaN passes the clamp.
 */
typedef struct lamina_epilogue {
  size_t size;
  uint32_t parts;     /**< LAMINA_EPILOGUE_* that are present */
  const float *scale; /**< AFFINE: per channel; given to `pack`, which folds it into the packed weights */
  const float *shift; /**< AFFINE: per channel; given to `pack` */
  lamina_tensor add;  /**< ADD: same shape as the output */
  float lo, hi;       /**< CLAMP; -inf and +inf when absent, so that it may be applied always */
  lamina_activate *activation; /**< ACTIVATION: a layer's function; NULL when absent */
  float parameters[LAMINA_ACTIVATION_PARAMETERS]; /**< ACTIVATION: given to it */
} lamina_epilogue;

/** In the order in which they are applied. */
enum {
  LAMINA_EPILOGUE_AFFINE = 1 << 0,
  LAMINA_EPILOGUE_ADD = 1 << 1,
  LAMINA_EPILOGUE_CLAMP = 1 << 2,
  LAMINA_EPILOGUE_ACTIVATION = 1 << 3
};

/** One node of a graph, as its layer's callbacks see it. Nothing in it may be kept after the callback returns. */
typedef struct lamina_node {
  size_t size;
  const char *name;
  const lamina_host *host;
  lamina_mode mode;
  const lamina_value *attrs; /**< one per declared attribute, in declared order */

  int n_inputs, n_outputs, n_params;
  lamina_tensor *inputs, *outputs; /**< data is NULL until forward */
  lamina_tensor *params;           /**< parameters and states in declared order; rank -1: the port is absent (no bias);
                                        infer, supports, possible and plan must not read their data, which may be NULL */

  lamina_tensor *d_outputs; /**< backward: incoming gradients; data is NULL for outputs that are not f32 */
  lamina_tensor *d_inputs;  /**< backward: to be written where `need_inputs` has the bit */
  lamina_tensor *d_params;  /**< backward: to be written where `need_params` has the bit */
  uint64_t need_inputs, need_params;
  uint64_t accumulate_inputs, accumulate_params; /**< add to what is there instead of overwriting it */

  lamina_epilogue epilogue;
  void *packed;    /**< what `pack` wrote (64-byte aligned); the same for every run until a parameter changes */
  void *saved;     /**< from this node's forward to its backward */
  void *workspace; /**< scratch of one call */
  uint64_t seed;   /**< this run's random stream for this node; forward and its backward see the same */
  const lamina_kernel *kernel; /**< the kernel that is asked or run, for callbacks that several kernels share */
  int frozen_states; /**< TRAIN: use the states as at inference (running statistics), and do not change them */
  int recompute;     /**< forward, a second time between this run's forward and backward, with the same inputs: the same
                          output is wanted once more; states must not change, and `saved` is as the first time left it */
} lamina_node;

/** What a kernel asks for and what it costs, filled by `plan`. Bytes are for the given shapes and thread count. */
typedef struct lamina_cost {
  size_t size;
  size_t packed, saved, workspace;            /**< bytes of each buffer of lamina_node */
  double flops, bytes;                        /**< of forward: multiply and add count as two */
  double backward_flops, backward_bytes;
  const char *algorithm;                      /**< what `explain` prints: "direct 14x32"; a string that lives on */
} lamina_cost;

/* ---- the layer ------------------------------------------------------------------------------------------------- */

/** One implementation of a layer. The first of a layer's kernels that says it supports a node runs it; when a plan is tuned,
    the fastest of those that can. */
struct lamina_kernel {
  size_t size;
  const char *name; /**< "generic" says that it is plain C on any ISA, which a plan in strict mode refuses elsewhere */
  const char *isa; /**< the ISA that it needs ("avx2", "avx512", "neon"), or NULL: any */
  /** Nonzero if it can run this node (shapes are known) and is worthwhile: better than the kernels after it. NULL: always. */
  int (*supports)(const lamina_node *node);
  /** Fills in `cost`. NULL: no buffers. */
  lamina_status (*plan)(const lamina_node *node, lamina_cost *cost);
  /** Writes node->packed from node->params; run when a parameter has changed. For TRAIN it also packs for backward. */
  lamina_status (*pack)(const lamina_node *node);
  lamina_status (*forward)(const lamina_node *node);
  lamina_status (*backward)(const lamina_node *node); /**< NULL: cannot be trained through */
  int variant; /**< for the layer's own use: what tells kernels apart whose callbacks are the same functions */
  /** Optional, for kernels whose `supports` weighs costs: nonzero if it can run this node, worthwhile or not, in the
      context's math mode. Tuning measures it then. Must hold wherever `supports` does. NULL: as `supports` says. */
  int (*possible)(const lamina_node *node);
};

enum {
  LAMINA_LAYER_IN_PLACE = 1 << 0,          /**< output 0 may share memory with input 0 (same shape), not with another */
  LAMINA_LAYER_BACKWARD_IN_PLACE = 1 << 1, /**< the gradient of input 0 may share memory with that of output 0 */
  LAMINA_LAYER_ACCUMULATES = 1 << 2,       /**< honours accumulate_inputs; without it the host adds for the layer */
  LAMINA_LAYER_EPILOGUE_BACKWARD = 1 << 4, /**< its backward goes through the epilogue too, so that TRAIN plans fuse as well:
                                                the addend is then the node's last input, with a gradient, and output 0 is
                                                as forward left it */
  LAMINA_LAYER_TRAINS_DIFFERENTLY = 1 << 5, /**< without states its forward in TRAIN still is another than at INFER
                                                (dropout); else, where no gradient is needed, it is run as at INFER */
  LAMINA_LAYER_CHEAP = 1 << 6,             /**< a pass over memory: a plan that saves memory does not keep output 0 for the
                                                backward pass but runs forward again. With states, it honours `recompute` */
  LAMINA_LAYER_LOSS = 1 << 3,              /**< output 0 is a scalar that is minimised: its gradient starts as 1 */
  LAMINA_LAYER_OVERRIDE = 1 << 7,          /**< a plugin's: it stands before the layer of that name which is there already, with
                                                the same attributes and ports; what none of its kernels supports, the other's
                                                run */
  LAMINA_LAYER_STOPS_GRADIENT = 1 << 8     /**< its gradient deliberately is not its forward's derivative: part is held
                                                constant. `plugin check` then compares no gradient with differences */
};

typedef struct lamina_layer {
  size_t size;
  const char *name; /**< "conv2d": the type that a model names */
  uint32_t version; /**< of what a saved model says of it: a model names vendor.layer@version. Grows when attributes or
                         parameters do; models of earlier versions must go on working */
  const char *doc; /**< one line */
  uint32_t flags;
  uint32_t epilogues; /**< LAMINA_EPILOGUE_* that its kernels apply */
  const lamina_attr *const *attrs;     /**< NULL-ended */
  const lamina_port *const *ports;     /**< NULL-ended */
  const lamina_kernel *const *kernels; /**< NULL-ended */
  /**
   * Given attributes and input shapes, sets the shape (rank and dim) of every output, parameter and state; a parameter
   * that this node does not have (no bias) is left at rank -1. A shape that does not fit is refused through host->fail.
   */
  lamina_status (*infer)(lamina_node *node);
  /** Optional: nonzero if output 0 is input 0's memory, element for element (flatten of 1x1, dropout at inference). */
  int (*is_view)(const lamina_node *node);
  /** Optional: nonzero if the producer of input 0 could do this node's work as its epilogue: sets one part and what belongs
      to it. ADD means output = input 0 + input 1; CLAMP sets lo and hi; ACTIVATION, for any elementwise layer, sets the
      function and its parameters. Which part, which function and whether at all must follow from attributes and shapes. A
      layer that has parameters is asked again before each run, with their data, and gives lo, hi
      and `parameters` as they are then: a learned slope fuses too. Such a layer fuses at inference alone. */
  int (*as_epilogue)(const lamina_node *node, lamina_epilogue *epilogue);
  /** Optional, INFER only: this node is y = scale[c] * x + shift[c]; computes both (channels floats) from its params. Called
      with NULL for both it only tells whether that holds: LAMINA_OK or, without a message, LAMINA_UNSUPPORTED. */
  lamina_status (*affine)(const lamina_node *node, float *scale, float *shift);
} lamina_layer;

/** The descriptor that a loadable plugin exports as the const symbol `lamina_plugin_entry`. */
typedef struct lamina_plugin {
  size_t size;
  uint32_t abi_major, abi_minor; /**< LAMINA_PLUGIN_ABI_MAJOR and _MINOR that it was compiled with */
  const char *id;                /**< "vendor.name" */
  const char *version;
  const lamina_layer *const *layers; /**< NULL-ended */
  const char *manifest;              /**< the text in the section LAMINA_PLUGIN_SECTION, which says the same */
} lamina_plugin;

#define LAMINA_PLUGIN_ENTRY "lamina_plugin_entry"

/**
 * The manifest: what a host reads from the file itself before it runs any code of it. Text in an ELF section, lines of
 * key=value after a first line: abi=MAJOR.MINOR, id, version, layers (names separated by blanks), isa (what the whole file
 * was compiled for; empty: any processor of the machine's kind). Keys that a host does not know are for later hosts.
 */
#define LAMINA_PLUGIN_SECTION "lamina_manifest"
#define LAMINA_PLUGIN_MAGIC "lamina plugin"
#define LAMINA_PLUGIN_TEXT_OF(x) #x
#define LAMINA_PLUGIN_TEXT(x) LAMINA_PLUGIN_TEXT_OF(x)

/** Writes manifest and descriptor of a plugin whose file was compiled with instructions of `isa` ("avx2"): such a file is
    never mapped where they are not. The other arguments are those of LAMINA_PLUGIN. */
#define LAMINA_PLUGIN_FOR(isa, id, version, names, ...)                                                                \
  static const char lamina_plugin_manifest[] __attribute__((used, section(LAMINA_PLUGIN_SECTION))) =                   \
      LAMINA_PLUGIN_MAGIC "\nabi=" LAMINA_PLUGIN_TEXT(LAMINA_PLUGIN_ABI_MAJOR) "." LAMINA_PLUGIN_TEXT(                 \
          LAMINA_PLUGIN_ABI_MINOR) "\nid=" id "\nversion=" version "\nlayers=" names "\nisa=" isa "\n";                \
  static const lamina_layer *const lamina_plugin_layers[] = {__VA_ARGS__, NULL};                                       \
  extern const lamina_plugin lamina_plugin_entry __attribute__((visibility("default")));                               \
  const lamina_plugin lamina_plugin_entry = {sizeof(lamina_plugin),  LAMINA_PLUGIN_ABI_MAJOR, LAMINA_PLUGIN_ABI_MINOR, \
                                             id,                     version,                 lamina_plugin_layers,    \
                                             lamina_plugin_manifest}

/** The last line of a plugin: LAMINA_PLUGIN("vendor.name", "1.0", "swish mish", &swish, &mish); the names of its layers
    separated by blanks, then the layers in that order. All arguments but the layers are string literals. */
#define LAMINA_PLUGIN(id, version, names, ...) LAMINA_PLUGIN_FOR("", id, version, names, __VA_ARGS__)

/* ---- host services --------------------------------------------------------------------------------------------- */

/** C(m,n) = epilogue(sum over k of A(m,k) * B(k,n)) for row-major C. Strides count floats. */
typedef struct lamina_gemm {
  size_t size;
  int64_t m, n, k;
  const float *a;
  int64_t a_row, a_k; /**< A(m,k) is a[m * a_row + k * a_k] */
  const float *b;
  int64_t b_k, b_n;      /**< B(k,n) is b[k * b_k + n * b_n]; ignored when b_packed is given */
  const float *b_packed; /**< B as gemm_pack_b wrote it, or NULL */
  float *c;
  int64_t c_row;
  int accumulate;    /**< C += instead of C = */
  const float *bias; /**< per column n, or NULL */
  const float *add;  /**< added elementwise (row stride add_row), or NULL */
  int64_t add_row;
  float lo, hi;    /**< the result is clamped to [lo, hi]; set -INFINITY, INFINITY for none */
  void *workspace; /**< gemm_workspace bytes, 64-byte aligned */
  lamina_activate *activation; /**< applied last, or NULL */
  const float *parameters;     /**< given to it */
  int64_t packed_k; /**< the depth that b_packed was packed with, if it is more than k: its first k are read; 0: k */
} lamina_gemm;

/** The processor, as the kernels are chosen and blocked for it. */
typedef struct lamina_cpu {
  size_t size;
  const char *isa;      /**< the ISA in force: "generic", "avx2", "avx512", "neon" */
  int vector_floats;    /**< floats in a vector of that ISA */
  size_t l1, l2, l3;    /**< bytes of data cache: L1 and L2 of one core, L3 shared */
} lamina_cpu;

/** Functions of n neighbouring floats by the vectors of the ISA in force. Serial; may be called from several threads. */
typedef struct lamina_vector {
  size_t size;
  lamina_activate *sigmoid, *tanh, *silu; /**< y = f(x); y may be x; `parameters` is not read */
  /** y = exp(x - max) / sum, of one row; y may be x. Returns log(sum exp(x)), the maximum included. */
  float (*softmax)(int64_t n, const float *x, float *y);
  /** dx (+)= y * (dy - sum(y * dy)); dx may be dy. */
  void (*softmax_backward)(int64_t n, const float *y, const float *dy, int accumulate, float *dx);
  /** y = exp(x - max), of one row; y may be x. Returns the sum of y, which the caller divides by where that is cheapest. */
  float (*softmax_unscaled)(int64_t n, const float *x, float *y);
} lamina_vector;

/** Services. Every function takes the host itself first. */
struct lamina_host {
  size_t size;
  uint32_t abi_major, abi_minor;
  const lamina_cpu *cpu;
  /** Records a message (the host adds node, layer and plugin) and returns `status`, so that one may `return host->fail(...)`. */
  lamina_status (*fail)(const lamina_host *host, lamina_status status, const char *format, ...);
  void (*log)(const lamina_host *host, const char *message);
  /** 64-byte aligned memory through the context's allocator, or NULL. */
  void *(*alloc)(const lamina_host *host, size_t bytes);
  void (*release)(const lamina_host *host, void *memory);
  /** How many threads `parallel` may use: the bound of a task's `thread`. */
  int (*threads)(const lamina_host *host);
  /** Runs task(arg, index, thread) for every index below `tasks`; returns when all have ended. Split work by shape, never
      by thread count: then results do not depend on it. */
  void (*parallel)(const lamina_host *host, int64_t tasks, void (*task)(void *arg, int64_t index, int thread), void *arg);
  /** n uniform numbers in [0, 1): number `offset + i` of stream `seed`, whatever the calls before. */
  void (*random)(const lamina_host *host, uint64_t seed, uint64_t offset, int64_t n, float *out);
  size_t (*gemm_workspace)(const lamina_host *host, const lamina_gemm *gemm);
  void (*gemm)(const lamina_host *host, const lamina_gemm *gemm);
  size_t (*gemm_packed_bytes)(const lamina_host *host, int64_t k, int64_t n);
  /** Packs B(k,n) = b[k * b_k + n * b_n] for gemm; column n is multiplied by scale[n] if scale is not NULL. */
  void (*gemm_pack_b)(const lamina_host *host, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                      const float *scale, float *packed);
  /** Later services by name, or NULL. "lamina.kernels" is the table of kernels.h: no part of this stable ABI. */
  const void *(*ext)(const lamina_host *host, const char *id);
  lamina_math_mode math; /**< the context's math mode */
  /** How `gemm` will compute a product, for lamina_cost: "gemm 14x32 kc 512", tile and depth of a block. Reads sizes and
      strides alone; the string lives as long as the host. */
  const char *(*gemm_algorithm)(const lamina_host *host, const lamina_gemm *gemm);
  /** `gemm` on the calling thread alone, for the many small products of a task of `parallel`; the same bits as `gemm`. Its
      workspace holds gemm_serial_workspace bytes, whatever the number of threads. */
  size_t (*gemm_serial_workspace)(const lamina_host *host, const lamina_gemm *gemm);
  void (*gemm_serial)(const lamina_host *host, const lamina_gemm *gemm);
  /** `gemm_pack_b` on the calling thread alone. */
  void (*gemm_pack_b_serial)(const lamina_host *host, int64_t k, int64_t n, const float *b, int64_t b_k, int64_t b_n,
                             const float *scale, float *packed);
  const lamina_vector *vector;
};

#ifdef __cplusplus
}
#endif
#endif
