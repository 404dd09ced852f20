/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file gate_arena.h
 * Memory of the two sides. Where activations and weights lie decides a few per cent of a kernel's time: offsets within
 * a page (store forwarding, L1 sets) and which physical pages (L2 sets). So both sides take their memory from two
 * equal arenas, by the same rule and with the same random gaps, and change arenas in the middle of each round: what
 * an arena's pages do to the time cancels out. Each round draws other gaps.
 */
#ifndef LAMINA_BENCH_GATE_ARENA_H
#define LAMINA_BENCH_GATE_ARENA_H

#include "stats.h"

#include <cstddef>
#include <mutex>

namespace bench {

/** A range of address space that blocks are taken from one after the other. */
class Arena {
public:
  Arena();
  ~Arena();
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  /** Begins a layout; the same seed and the same requests give the same offsets in any arena. What still lives from
      before (something that a library keeps for good) stays where it is. */
  void start(uint64_t seed);
  /** 64-byte aligned; NULL when the range is used up. */
  void *alloc(size_t bytes);
  void release();
  bool owns(const void *p) const { return p >= base_ && p < base_ + size_; }

private:
  char *base_ = nullptr;
  size_t size_ = 0, used_ = 0, live_ = 0;
  Random random_{0};
  std::mutex lock_;
};

/** One side's allocator, for the context's options: the heap, or an arena while one is chosen. */
class SideMemory {
public:
  explicit SideMemory(Arena arenas[2]) : arenas_(arenas) {}
  void use(Arena *arena) { now_ = arena; }
  static void *alloc(void *memory, size_t bytes);
  static void release(void *memory, void *block);

private:
  Arena *arenas_, *now_ = nullptr;
};

} // namespace bench

#endif
