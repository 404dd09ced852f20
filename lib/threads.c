/* SPDX-License-Identifier: Apache-2.0 */
#include "threads.h"

#include <sched.h>
#include <string.h>

#if defined(__x86_64__)
static void relax(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static void relax(void) { __asm__ volatile("yield"); }
#else
static void relax(void) {}
#endif

/* A worker looks for the next job this often before it sleeps: some tens of microseconds, longer than the serial gaps
   between two layers and short enough to leave the core to others soon. */
enum { SPINS = 4000 };

typedef struct worker {
  lamina_pool *pool;
  pthread_t thread;
  int index;
} worker;

struct lamina_pool {
  const lamina_context *context;
  int threads, started;
  worker *workers;
  atomic_bool busy; /* a job is being run */
  /* A job is open while `open` holds its number. Workers count themselves into `inside` before they look at `open`, and
     the caller waits for `inside` to reach zero after closing: so a late worker is never waited for. */
  _Alignas(64) atomic_uint open;
  atomic_uint generation;
  atomic_int inside;
  _Alignas(64) _Atomic int64_t next;
  int64_t tasks;
  void (*task)(void *arg, int64_t index, int thread);
  void *arg;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  atomic_int sleeping;
  atomic_bool stop;
};

static void work(lamina_pool *pool, int thread) {
  for (;;) {
    int64_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (index >= pool->tasks) return;
    pool->task(pool->arg, index, thread);
  }
}

/* Waits for a generation other than `seen`. */
static unsigned wait_for_job(lamina_pool *pool, unsigned seen) {
  for (int i = 0; i < SPINS; i++) {
    unsigned generation = atomic_load(&pool->generation);
    if (generation != seen || atomic_load_explicit(&pool->stop, memory_order_relaxed)) return generation;
    relax();
  }
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->sleeping, 1);
  while (atomic_load(&pool->generation) == seen && !atomic_load(&pool->stop))
    pthread_cond_wait(&pool->wake, &pool->lock);
  atomic_fetch_sub(&pool->sleeping, 1);
  pthread_mutex_unlock(&pool->lock);
  return atomic_load(&pool->generation);
}

static void *worker_main(void *argument) {
  worker *self = argument;
  lamina_pool *pool = self->pool;
  unsigned seen = 0;
  while (!atomic_load(&pool->stop)) {
    seen = wait_for_job(pool, seen);
    atomic_fetch_add(&pool->inside, 1);
    if (atomic_load(&pool->open) == seen && seen != 0) work(pool, self->index);
    atomic_fetch_sub(&pool->inside, 1);
  }
  return NULL;
}

lamina_status lamina_pool_create(const lamina_context *context, int threads, const lamina_topology *topology,
                                 lamina_pool **out) {
  lamina_pool *pool = lamina_alloc_zeroed(context, sizeof *pool);
  worker *workers = lamina_alloc_zeroed(context, (size_t)threads * sizeof *workers);
  if (!pool || !workers) {
    lamina_free(context, workers);
    lamina_free(context, pool);
    return lamina_fail_memory(context, sizeof *pool);
  }
  pool->context = context;
  pool->threads = threads;
  pool->workers = workers;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  /* The caller, who works too, is left where it is: a worker on its core would wait for it while another core idles. */
  const int cores = lamina_topology_cores(topology), here = lamina_topology_here(topology);
  for (int i = 1; i < threads; i++) {
    workers[i] = (worker){.pool = pool, .index = i};
    int error = pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
    if (error) {
      lamina_pool_destroy(pool);
      return lamina_fail(context, LAMINA_OUT_OF_MEMORY, "thread %d of %d could not be started: %s", i + 1, threads,
                         strerror(error));
    }
    pool->started = i;
    if (threads <= cores) lamina_topology_bind(topology, workers[i].thread, (here + i) % cores);
  }
  *out = pool;
  return LAMINA_OK;
}

void lamina_pool_destroy(lamina_pool *pool) {
  if (!pool) return;
  pthread_mutex_lock(&pool->lock);
  atomic_store(&pool->stop, true);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 1; i <= pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  lamina_free(pool->context, pool->workers);
  lamina_free(pool->context, pool);
}

static void run_here(int64_t tasks, void (*task)(void *arg, int64_t index, int thread), void *arg) {
  for (int64_t i = 0; i < tasks; i++) task(arg, i, 0);
}

void lamina_pool_run(lamina_pool *pool, int64_t tasks, void (*task)(void *arg, int64_t index, int thread), void *arg) {
  if (tasks <= 1 || pool->threads == 1 || atomic_exchange(&pool->busy, true)) {
    run_here(tasks, task, arg);
    return;
  }
  pool->tasks = tasks;
  pool->task = task;
  pool->arg = arg;
  atomic_store(&pool->next, 0);
  unsigned generation = atomic_load(&pool->generation) + 1;
  if (generation == 0) generation = 1; /* 0 means that no job is open */
  atomic_store(&pool->open, generation);
  atomic_store(&pool->generation, generation);
  if (atomic_load(&pool->sleeping) > 0) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
  }
  work(pool, 0);
  atomic_store(&pool->open, 0);
  for (int spins = 0; atomic_load(&pool->inside) > 0; spins++) {
    relax();
    if (spins > SPINS) sched_yield(); /* more threads than cores: let the others end */
  }
  atomic_store(&pool->busy, false);
}
