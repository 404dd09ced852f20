/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_arena.h"

#include "gate_library.h"

#include <sys/mman.h>

#include <cstdlib>

namespace bench {

static constexpr size_t kLine = 64, kPage = 4096, kStartRange = 1 << 20;
static constexpr size_t kMostBytes = size_t(1) << 36, kLeastBytes = size_t(1) << 28;

Arena::Arena() {
  /* Address space only; memory comes when it is touched. Less of it where the process is limited. */
  for (size_ = kMostBytes; size_ >= kLeastBytes; size_ /= 2) {
    void *p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    base_ = static_cast<char *>(p);
    return;
  }
  throw GateError("there is no address space for the arenas");
}

Arena::~Arena() { munmap(base_, size_); }

void Arena::start(uint64_t seed) {
  std::lock_guard<std::mutex> guard(lock_);
  random_ = Random(seed);
  if (live_ == 0) used_ = 0;
  used_ += kLine * random_.below(kStartRange / kLine);
}

void *Arena::alloc(size_t bytes) {
  std::lock_guard<std::mutex> guard(lock_);
  size_t at = (used_ + kLine - 1) / kLine * kLine;
  if (bytes >= kPage) at += kLine * random_.below(kPage / kLine);
  if (at > size_ || size_ - at < bytes) return nullptr;
  used_ = at + bytes;
  live_++;
  return base_ + at;
}

void Arena::release() {
  std::lock_guard<std::mutex> guard(lock_);
  live_--;
}

void *SideMemory::alloc(void *memory, size_t bytes) {
  const SideMemory *m = static_cast<SideMemory *>(memory);
  return m->now_ ? m->now_->alloc(bytes) : std::malloc(bytes);
}

void SideMemory::release(void *memory, void *block) {
  const SideMemory *m = static_cast<SideMemory *>(memory);
  for (int i = 0; i < 2; i++)
    if (m->arenas_[i].owns(block)) return m->arenas_[i].release();
  std::free(block);
}

} // namespace bench
