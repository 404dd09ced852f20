/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file lamina.h
 * Lamina: neural networks trained and run on CPUs.
 *
 * Handles, each created and destroyed by the caller; nothing is global:
 *   lamina_context   threads, memory, instruction set, registry of layers, last error message
 *   lamina_graph     layers, values and parameters of a network
 *   lamina_plan      a graph compiled for a batch size and a mode; immutable, shared by any number of threads
 *   lamina_exec      one thread's memory for a plan: forward, backward, step
 *   lamina_dataset   labelled images for training and testing
 *   lamina_batches   its training images in random order, augmented and loaded by a thread of their own
 * A handle keeps what it was made from alive; they may be destroyed in any order.
 *
 * Errors: every call that can fail returns a lamina_status; lamina_error_message tells what happened and where. Nothing
 * here aborts, exits or prints. Output arguments are untouched when a call fails, except that a handle is set to NULL.
 *
 * Memory layout is channels last: (N, H, W, C), (N, C). Parameters have PyTorch's names, shapes and layouts.
 *
 * Threads: a context and its plans may be used from several threads at once; a graph must not be changed while it is
 * used elsewhere; an exec belongs to one thread at a time. Parameters and states belong to all that share them: while a
 * step, a load, an initialisation or a forward in TRAIN that updates running statistics changes them, no other thread may
 * run anything of the same store.
 */
#ifndef LAMINA_LAMINA_H
#define LAMINA_LAMINA_H

#include "plugin.h"
#include "version.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(LAMINA_BUILDING)
#define LAMINA_API __attribute__((visibility("default")))
#else
#define LAMINA_API
#endif

typedef struct lamina_context lamina_context;
typedef struct lamina_graph lamina_graph;
typedef struct lamina_plan lamina_plan;
typedef struct lamina_exec lamina_exec;
typedef struct lamina_dataset lamina_dataset;
typedef struct lamina_batches lamina_batches;

/** The version of the library that runs, "0.1.0" (LAMINA_VERSION is the one compiled against). */
LAMINA_API const char *lamina_version(void);
/** A short constant name of a status: "out of memory". */
LAMINA_API const char *lamina_status_name(lamina_status status);

/* ---- context --------------------------------------------------------------------------------------------------- */

/** Zero-initialise, set `size` to sizeof, then the fields wanted. */
typedef struct lamina_context_options {
  size_t size;
  const char *isa; /**< "generic", "avx2", "avx512", "neon"; NULL: LAMINA_ISA from the environment, else the best here */
  int threads;     /**< 0: one for each core that this process may use */
  lamina_math_mode math;
  /** Memory: both or none. `alloc` returns NULL on failure; the result needs malloc's alignment only. */
  void *(*alloc)(void *user, size_t bytes);
  void (*release)(void *user, void *memory);
  void *alloc_user;
  /** The caller's thread pool in place of Lamina's own: run must call task(arg, i, thread) for each i < tasks, with
      thread < threads and never the same one twice at a time, and return when all have ended. */
  void (*run)(void *user, int64_t tasks, void (*task)(void *arg, int64_t index, int thread), void *arg);
  void *run_user;
  /** Receives warnings; NULL: they are dropped. */
  void (*log)(void *user, const char *message);
  void *log_user;
  /** Where a failing lamina_context_create leaves its message (there is no context to ask yet); may be NULL. */
  char *error;
  size_t error_size;
  const char *plugin_path; /**< folders of plugins, separated by colons; NULL: none (see lamina_context_load_plugin) */
} lamina_context_options;

/** Creates a context; options may be NULL. Fails with LAMINA_UNSUPPORTED when the ISA asked for is not there. */
LAMINA_API lamina_status lamina_context_create(const lamina_context_options *options, lamina_context **context);
LAMINA_API void lamina_context_destroy(lamina_context *context);
/** The message of this thread's last failing call on this context or on what was made from it; "" if there was none. Valid
    until the next failing call. */
LAMINA_API const char *lamina_error_message(const lamina_context *context);

typedef struct lamina_context_info {
  size_t size;          /**< set by the caller */
  const char *isa;      /**< in force */
  const char *isas;     /**< usable here, best first, separated by spaces */
  const char *cpu;      /**< model name */
  int threads, cores;
  size_t l1, l2, l3;    /**< bytes of data cache */
} lamina_context_info;

/** Fills the fields that `size` covers; strings live as long as the context. */
LAMINA_API lamina_status lamina_context_get_info(const lamina_context *context, lamina_context_info *info);

/** Number of layers in the registry, and the i-th one's descriptor (sorted by name; NULL past the end). */
LAMINA_API int lamina_layer_count(const lamina_context *context);
LAMINA_API const lamina_layer *lamina_layer_at(const lamina_context *context, int index);
/** The layer of that name, or NULL. `provider` (may be NULL) is set to "built-in" or the plugin's file. */
LAMINA_API const lamina_layer *lamina_layer_find(const lamina_context *context, const char *name, const char **provider);

/* ---- plugins ---------------------------------------------------------------------------------------------------- */

/**
 * Loads the layers of a plugin, whose code runs in this process: load only what you trust. `plugin` is a path with a slash in
 * it, or the name of a file NAME.so in one of these folders, in this order: those of the context's option plugin_path, those
 * of the environment's LAMINA_PLUGIN_PATH (colons between; not in a privileged process), lamina/plugins beside liblamina.so.
 * The file and the folders above it must belong to root or the user and not be writable by others. What can be refused is
 * refused before any code of the file runs. A file that is loaded already is left as it is: LAMINA_OK.
 */
LAMINA_API lamina_status lamina_context_load_plugin(lamina_context *context, const char *plugin);
/** Takes a plugin's layers out of the registry, named by its path, its name or its id. Its code goes when the last graph, plan
    and exec that use it have gone. LAMINA_BUSY while another plugin overrides one of its layers. Pointers that
    lamina_layer_find and lamina_layer_at gave for its layers are no longer valid. */
LAMINA_API lamina_status lamina_context_unload_plugin(lamina_context *context, const char *plugin);

typedef struct lamina_plugin_info {
  size_t size;      /**< set by the caller */
  const char *path; /**< absolute */
  const char *id, *version;
  const char *layers; /**< their names, separated by blanks */
  const char *isa;    /**< what the file was compiled for; "": any processor of this kind */
  int abi_major, abi_minor;
  int usable; /**< 0: this library or this processor cannot run it */
} lamina_plugin_info;

/** Reads what a plugin's file says about itself, without running any code of it. Strings live as long as the context. */
LAMINA_API lamina_status lamina_plugin_inspect(lamina_context *context, const char *plugin, lamina_plugin_info *info);
/** Calls `found` for each plugin in the folders above, read as by lamina_plugin_inspect; other files are passed over. */
LAMINA_API void lamina_plugin_list(lamina_context *context, void (*found)(void *user, const lamina_plugin_info *info),
                                   void *user);
/** Checks a plugin's file as its author should, without running any code of it: calls `report` with each thing that is wrong
    (exports too much, links Lamina or a C++ or OpenMP runtime, static constructors, an executable stack ...). Fails if
    the file cannot be read as a plugin at all. */
LAMINA_API lamina_status lamina_plugin_lint(lamina_context *context, const char *plugin,
                                            void (*report)(void *user, const char *problem), void *user);
/** The services that this context hands to layers, for a program that calls a layer's callbacks itself (to test or time one
    alone). Lives as long as the context; a copy of it does not work. */
LAMINA_API const lamina_host *lamina_context_host(const lamina_context *context);

/* ---- graph ----------------------------------------------------------------------------------------------------- */

/** Creates an empty graph. With `share` not NULL it uses that graph's parameter store: layers of the same name share
    parameters (two networks of a GAN, a training and an inference graph). */
LAMINA_API lamina_status lamina_graph_create(lamina_context *context, lamina_graph *share, lamina_graph **graph);
LAMINA_API void lamina_graph_destroy(lamina_graph *graph);

/** Adds an input value. `dim` is the shape of one sample, channels last, without the batch dimension: a batch of images
    {H, W, C}, of labels rank 0. dtype is LAMINA_F32 or LAMINA_I32. */
LAMINA_API lamina_status lamina_graph_input(lamina_graph *graph, const char *name, lamina_dtype dtype, int rank,
                                            const int64_t *dim);
/**
 * Adds a layer. Its first output value has the layer's name; others are NAME.PORT. Shapes are checked here.
 * @param type       a registered layer: "conv2d", or a plugin's
 * @param name       unique in the graph; parameters are called NAME.PORT ("conv1.weight")
 * @param inputs     names of values, separated by commas: "conv1" or "bn2, skip"
 * @param attributes "key=value" pairs separated by spaces: "out_channels=64 kernel=3,3 bias=false"; NULL for none
 */
LAMINA_API lamina_status lamina_graph_add(lamina_graph *graph, const char *type, const char *name, const char *inputs,
                                          const char *attributes);
/** Marks a layer's value as an output of the graph. With none marked, every layer's first one that nothing consumes is an
    output. */
LAMINA_API lamina_status lamina_graph_output(lamina_graph *graph, const char *name);

/** Shape of a value for one sample (dim[0] of the tensor is the batch, given as 1), and its dtype; data is NULL. */
LAMINA_API lamina_status lamina_graph_value(const lamina_graph *graph, const char *name, lamina_tensor *tensor);
LAMINA_API int lamina_graph_input_count(const lamina_graph *graph);
LAMINA_API const char *lamina_graph_input_name(const lamina_graph *graph, int index);
LAMINA_API int lamina_graph_output_count(const lamina_graph *graph);
LAMINA_API const char *lamina_graph_output_name(const lamina_graph *graph, int index);

typedef struct lamina_parameter {
  size_t size;      /**< set by the caller */
  const char *name; /**< "conv1.weight" */
  int trainable;    /**< 0: a state, such as running statistics */
  lamina_tensor tensor; /**< the store's own memory, in PyTorch's shape */
} lamina_parameter;

/** Parameters and states of this graph's nodes, in the order of the layers. */
LAMINA_API int lamina_graph_parameter_count(const lamina_graph *graph);
LAMINA_API lamina_status lamina_graph_parameter_at(lamina_graph *graph, int index, lamina_parameter *parameter);
LAMINA_API lamina_status lamina_graph_parameter_find(lamina_graph *graph, const char *name, lamina_parameter *parameter);
/** Tells the plans that parameters were written through the pointers above, so that packed copies are made anew. */
LAMINA_API void lamina_graph_parameters_changed(lamina_graph *graph);
/** Initialises every parameter by its layer's rule; the same seed gives the same bits on every machine. Without this call
    a plan initialises, with seed 0, what was never written. */
LAMINA_API lamina_status lamina_graph_initialize(lamina_graph *graph, uint64_t seed);

/** Reads a network from a JSON model file. */
LAMINA_API lamina_status lamina_graph_load_model(lamina_context *context, const char *path, lamina_graph **graph);
/** Writes the network as a JSON model file, atomically. */
LAMINA_API lamina_status lamina_graph_save_model(const lamina_graph *graph, const char *path);

/** A key and its value in a weights file's metadata. */
typedef struct lamina_metadata {
  const char *key, *value;
} lamina_metadata;

enum {
  LAMINA_WEIGHTS_TRAINING = 1 << 0 /**< the optimizer's state as well, so that training can go on */
};

/** Writes parameters and states to a safetensors file, atomically (temporary file, sync, rename): on failure the old file
    is as it was. `metadata` is an array ended by a NULL key, or NULL. */
LAMINA_API lamina_status lamina_graph_save_weights(lamina_graph *graph, const char *path, uint32_t flags,
                                                   const lamina_metadata *metadata);
/** Reads parameters and states from a safetensors file. Names and shapes must match exactly; on failure nothing has
    changed. With LAMINA_WEIGHTS_TRAINING the optimizer's state is read too and must be there. */
LAMINA_API lamina_status lamina_graph_load_weights(lamina_graph *graph, const char *path, uint32_t flags);
/**
 * Fine-tuning: reads the parameters and states that a safetensors file has in the graph's shape, and leaves the others (a
 * head of another width) as they are: initialise the graph first. `skipped` (may be NULL) is told of each parameter that
 * was left alone, and of each tensor of the file that the graph has no use for, with the reason in words. A file of which
 * nothing fits is LAMINA_BAD_FILE; on failure nothing has changed and `skipped` is not called.
 */
LAMINA_API lamina_status lamina_graph_load_partial(lamina_graph *graph, const char *path,
                                                   void (*skipped)(void *user, const char *name, const char *reason),
                                                   void *user);
/** One metadata value of a safetensors file: copied to `value` and cut to `value_size`. LAMINA_NOT_FOUND if absent. */
LAMINA_API lamina_status lamina_weights_metadata(lamina_context *context, const char *path, const char *key, char *value,
                                                 size_t value_size);

/* ---- plan ------------------------------------------------------------------------------------------------------ */

/** Zero-initialise, set `size` to sizeof, then the fields wanted. */
typedef struct lamina_plan_options {
  size_t size;
  lamina_mode mode;
  int64_t batch;        /**< samples in a run; 0 means 1 */
  const char *outputs;  /**< names separated by commas; NULL: the graph's outputs. What they do not need is left out. */
  int input_gradients;  /**< TRAIN: also compute gradients of the f32 inputs */
  int strict;           /**< a node that would run generic code although the ISA is better is an error */
  int no_fusion;        /**< keep every node as it is written */
  const char *freeze;   /**< TRAIN: parameters that get no gradient and are not stepped: names separated by commas, in which
                             '*' stands for any characters ("conv1.*, bn*"); NULL: none. What no gradient needs to pass is
                             left out of the backward pass, keeps nothing for it, and is fused as at inference. */
  int tune;             /**< 1: where a node has several kernels, the fastest is found by measuring them here, and kept in the
                             wisdom file; 0: as LAMINA_PLAN_TUNE says (off unless it is set, and not to 0); -1: off */
  int adapt_states;     /**< TRAIN: 0: a node whose parameters are all frozen uses its states (running statistics) as at
                             inference and leaves them as they are; 1: it goes on adapting them to the batches */
  /* TRAIN: memory for time. Results are the same to the last bit. */
  int in_place;          /**< outputs of cheap layers (batch norm with what is fused into it, activations, sums) are not kept
                              for the backward pass but computed again from what is kept: about half the activations */
  const char *recompute; /**< nodes whose output is not kept but computed again in the backward pass (checkpointing): names
                              separated by commas, in which '*' stands for any characters ("layer1.*"); NULL: none. Each
                              runs once more, before the first node that needs it. Outputs of the graph, views, and layers
                              with states that do not know how to run again are kept. */
  int pack_late;         /**< packed copies of weights that are trained are not kept but made anew for each forward and
                              backward of their node, in memory that is used again */
  int early_step;        /**< gradients of parameters are not kept: lamina_exec_backward_step applies each as soon as it is
                              final, and its memory is used again */
  int64_t accumulate;    /**< gradient accumulation: gradients are the mean over so many runs (0 means 1), and a step follows
                              the last of them: the update of a batch so many times as large, to rounding. Batch norm takes
                              its statistics from each run alone, and its running statistics move with each */
} lamina_plan_options;

LAMINA_API lamina_status lamina_plan_create(lamina_graph *graph, const lamina_plan_options *options, lamina_plan **plan);
LAMINA_API void lamina_plan_destroy(lamina_plan *plan);

typedef struct lamina_plan_info {
  size_t size;        /**< set by the caller */
  int nodes, fused;   /**< nodes that run; nodes merged into others or removed */
  size_t arena;       /**< bytes of activations and gradients after planning by lifetime */
  size_t unplanned;   /**< the same when every value has memory of its own */
  size_t saved, packed, workspace;
  double flops, backward_flops; /**< of one run */
  int timed, remembered; /**< tuning: kernels that were measured; nodes whose fastest kernel the wisdom file knew */
  int frozen;            /**< TRAIN: nodes that the backward pass leaves out */
  int64_t trained;       /**< numbers that get a gradient and are stepped */
  int recomputed;        /**< TRAIN: nodes that run once more in the backward pass */
  size_t gradients;      /**< bytes of parameters' gradients that an exec keeps beside the arena */
  size_t plain;          /**< arena + gradients + packed without in_place, recompute, pack_late, early_step, accumulate */
  double fused_bytes;    /**< memory traffic of a run that the fused nodes save, forward and backward */
} lamina_plan_info;

LAMINA_API lamina_status lamina_plan_get_info(const lamina_plan *plan, lamina_plan_info *info);

/** One node that runs. Strings live as long as the plan. */
typedef struct lamina_node_info {
  size_t size; /**< set by the caller */
  const char *name, *type, *kernel, *isa, *algorithm;
  const char *fused;   /**< names of the nodes merged into it, separated by spaces; "" if none */
  const char *rejected; /**< other kernels of the layer and why they do not run it; "" if none */
  lamina_tensor output; /**< shape only */
  double flops, bytes, backward_flops, backward_bytes;
  double fused_bytes; /**< memory traffic that the merged nodes save: each value between (and its gradient) would be written
                           and read */
  int recomputed;     /**< 1: its output is not kept for the backward pass but computed again there */
} lamina_node_info;

LAMINA_API lamina_status lamina_plan_node(const lamina_plan *plan, int index, lamina_node_info *info);
/** Writes the plan as text, a piece at a time: every node with kernel, cost and fusions, then memory. */
LAMINA_API lamina_status lamina_plan_explain(const lamina_plan *plan, void (*write)(void *user, const char *text),
                                             void *user);

/* ---- exec ------------------------------------------------------------------------------------------------------ */

LAMINA_API lamina_status lamina_exec_create(lamina_plan *plan, lamina_exec **exec);
LAMINA_API void lamina_exec_destroy(lamina_exec *exec);

/** Makes a dense tensor the value of an input for the runs to come. Its memory is read during forward and backward, never
    copied. dim[0] is the batch; dtype and shape must be the plan's. */
LAMINA_API lamina_status lamina_exec_set_input(lamina_exec *exec, const char *name, const lamina_tensor *tensor);
/** A dense tensor on `data` of the given shape, for the call above. */
LAMINA_API lamina_tensor lamina_tensor_of(void *data, lamina_dtype dtype, int rank, const int64_t *dim);
/** Elements of a tensor; -1 if the count overflows. */
LAMINA_API int64_t lamina_tensor_count(const lamina_tensor *tensor);

/** Sets the seed of random layers (dropout) for the runs to come; the n-th run uses stream (seed, n). */
LAMINA_API void lamina_exec_seed(lamina_exec *exec, uint64_t seed, uint64_t run);
/** Runs the network. Every input must have been set. */
LAMINA_API lamina_status lamina_exec_forward(lamina_exec *exec);
/** A view of an output after forward, in memory of the exec (or of the input, where the output is nothing but a view of it):
    valid until the next forward. */
LAMINA_API lamina_status lamina_exec_output(lamina_exec *exec, const char *name, lamina_tensor *tensor);
/** TRAIN: sets the gradient of an output (copied). A loss's is 1 and any other's 0 if this is never called. */
LAMINA_API lamina_status lamina_exec_set_output_gradient(lamina_exec *exec, const char *name, const lamina_tensor *tensor);
/** TRAIN: computes gradients of all parameters (and inputs, if planned), once for each forward. Gradients are overwritten;
    with `accumulate`, the first of so many runs overwrites them, the others add. */
LAMINA_API lamina_status lamina_exec_backward(lamina_exec *exec);
/** A view of a gradient after backward: of a parameter (PyTorch's shape) or of an input. A plan with early_step keeps none of
    parameters. */
LAMINA_API lamina_status lamina_exec_gradient(lamina_exec *exec, const char *name, lamina_tensor *tensor);

typedef enum lamina_optimizer_type { LAMINA_SGD = 0, LAMINA_ADAM, LAMINA_ADAMW } lamina_optimizer_type;

/** PyTorch's optimizers, with PyTorch's meaning of each field. Zero-initialise and set `size`; see lamina_optimizer_defaults.
    Each parameter counts its own steps. */
typedef struct lamina_optimizer {
  size_t size;
  lamina_optimizer_type type;
  double lr, weight_decay;
  double momentum, dampening; /**< SGD */
  int nesterov;               /**< SGD */
  double beta1, beta2, eps;   /**< Adam, AdamW */
} lamina_optimizer;

/** PyTorch's defaults of that optimizer (SGD has no default rate there; here 0.01). */
LAMINA_API lamina_optimizer lamina_optimizer_defaults(lamina_optimizer_type type);
/** Updates the parameters by the gradients of the last backward. The optimizer's state lives in the graph's store. */
LAMINA_API lamina_status lamina_exec_step(lamina_exec *exec, const lamina_optimizer *optimizer);
/** Backward and, after the last of the plan's `accumulate` runs, the step, with the same bits as lamina_exec_backward and
    lamina_exec_step. A plan with early_step steps each parameter in the midst of the backward pass: if that fails half-way
    (a layer's error), some parameters have been stepped and others not. */
LAMINA_API lamina_status lamina_exec_backward_step(lamina_exec *exec, const lamina_optimizer *optimizer);
/** Between backward and step: scales all gradients of parameters by one factor so that the norm of them together is at most
    max_norm (PyTorch's clip_grad_norm_). `norm` (may be NULL) is set to what it was. A norm that is not finite is
    LAMINA_NOT_FINITE, and the gradients stay. A plan with early_step has no gradients to clip: LAMINA_UNSUPPORTED. */
LAMINA_API lamina_status lamina_exec_clip_gradients(lamina_exec *exec, double max_norm, double *norm);

typedef enum lamina_schedule_type {
  LAMINA_SCHEDULE_CONSTANT = 0,
  LAMINA_SCHEDULE_STEP,  /**< lr * gamma^(floor(epoch / step_epochs)) */
  LAMINA_SCHEDULE_COSINE /**< from lr to min_lr along half a cosine over `epochs` */
} lamina_schedule_type;

typedef struct lamina_schedule {
  size_t size;
  lamina_schedule_type type;
  double lr, min_lr, gamma;
  double epochs, step_epochs;
} lamina_schedule;

/** The learning rate at a moment, counted in epochs and fractions of them. */
LAMINA_API double lamina_schedule_rate(const lamina_schedule *schedule, double epoch);

/** The first node whose output is not finite when the current inputs are run again, or NULL. Leaves states as they were. */
LAMINA_API const char *lamina_exec_find_not_finite(lamina_exec *exec);
/** Milliseconds that each node (by lamina_plan_node's index) took in the last forward and backward; either array may be
    NULL. Timing is on from the first call, so the first call gives zeros. */
LAMINA_API lamina_status lamina_exec_times(lamina_exec *exec, int nodes, double *forward_ms, double *backward_ms);

/* ---- data ------------------------------------------------------------------------------------------------------ */

typedef enum lamina_split { LAMINA_SPLIT_TRAIN = 0, LAMINA_SPLIT_TEST = 1 } lamina_split;

/** Zero-initialise, set `size` to sizeof, then the fields wanted. */
typedef struct lamina_dataset_options {
  size_t size;
  const char *directory; /**< IDX (MNIST's file names, plain or .gz), CIFAR-10 binary, or train_images.npy ...; NULL: digits
                              drawn by the embedded generator */
  uint64_t seed;         /**< of the generator */
  int64_t train_count, test_count; /**< of the generator; 0: 12000 and 2000 */
  const double *mean, *deviation;  /**< normalise: a value v of channel c becomes (v - mean[c]) / deviation[c], where bytes
                                        have been scaled to 0 .. 1, as PyTorch's transforms do; NULL: see lamina_dataset_batch */
  int statistics;                  /**< how many of each: one for all channels, or one for each channel of the data */
} lamina_dataset_options;

typedef struct lamina_dataset_info {
  size_t size; /**< set by the caller */
  const char *description;
  int64_t count[2]; /**< by lamina_split */
  int64_t height, width, channels;
  int classes; /**< largest label + 1 */
} lamina_dataset_info;

LAMINA_API lamina_status lamina_dataset_open(lamina_context *context, const lamina_dataset_options *options,
                                             lamina_dataset **dataset);
LAMINA_API void lamina_dataset_destroy(lamina_dataset *dataset);
LAMINA_API lamina_status lamina_dataset_get_info(const lamina_dataset *dataset, lamina_dataset_info *info);
/** Copies n samples, chosen by `index`, as floats (byte / 127.5 - 1 and .npy floats as they are, unless the data is
    normalised) in (n, H, W, channels). A grey
    image is repeated when `channels` is larger than the data's; any other difference is a LAMINA_SHAPE_MISMATCH. */
LAMINA_API lamina_status lamina_dataset_batch(const lamina_dataset *dataset, lamina_split split, int64_t n,
                                              const int64_t *index, int64_t channels, float *images, int32_t *labels);
/** A permutation of 0 .. count-1, the same for the same seed and epoch on every machine. */
LAMINA_API void lamina_shuffle(uint64_t seed, uint64_t epoch, int64_t count, int64_t *index);

/** Zero-initialise, set `size` to sizeof, then the fields wanted. Everything random is a function of the seed, the epoch and
    the sample: not of the batch size, of threads or of timing. */
typedef struct lamina_batches_options {
  size_t size;
  int64_t batch;    /**< samples in each; what is left over at the end of an epoch waits for the next one's shuffle */
  int64_t channels; /**< of the images handed out; 0: the data's */
  uint64_t seed;    /**< of the order and of the augmentation */
  int64_t epoch, step; /**< where to begin: batches of that epoch that were done before */
  int64_t shift;    /**< moves each image by up to so many pixels in both directions; what is uncovered is black */
  int64_t crop;     /**< cuts up to so many rows and columns off each image, and stretches it to its size (bilinear) */
  int flip;         /**< mirrors every other image, left to right, by chance */
  int synchronous;  /**< 1: no thread, lamina_batches_next does the work, with the same bits; 0: so where this process may
                         use one core only; -1: a thread always */
} lamina_batches_options;

/** Begins to load the training images of a data set, one batch ahead. */
LAMINA_API lamina_status lamina_batches_open(lamina_dataset *dataset, const lamina_batches_options *options,
                                             lamina_batches **batches);
LAMINA_API void lamina_batches_close(lamina_batches *batches);
/** The next batch: images (batch, H, W, channels) and labels (batch), valid until the next call. It goes on from epoch to
    epoch without an end. One thread at a time. */
LAMINA_API lamina_status lamina_batches_next(lamina_batches *batches, lamina_tensor *images, lamina_tensor *labels);

/** Reads a .npy file (f4, f8 converted to f4, i4, i8, u1; C order) into memory that lamina_array_release frees. */
LAMINA_API lamina_status lamina_array_load(lamina_context *context, const char *path, lamina_tensor *tensor);
LAMINA_API void lamina_array_release(lamina_context *context, lamina_tensor *tensor);
/** Writes a dense tensor as a .npy file, atomically. */
LAMINA_API lamina_status lamina_array_save(lamina_context *context, const char *path, const lamina_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
