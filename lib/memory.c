/* SPDX-License-Identifier: Apache-2.0 */
/* Memory through the context's allocator, aligned to a cache line whatever that allocator gives. */
#include "core.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* From two huge pages on memory begins on one and asks for them: what streams through it waits less for the page tables
   (an optimizer's step: a third of its time in a virtual machine), and the hardware's prefetch does not stop every 4
   KiB. */
enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static void ask_for_huge_pages(void *memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(memory, bytes & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE); /* an advice: without them all is as before */
#endif
}

/* The block that the allocator gave is remembered in the word before the aligned address. */
void *lamina_alloc(const lamina_context *context, size_t bytes) {
  const bool huge = !context->options.alloc && bytes >= 2 * (size_t)HUGE_PAGE;
  const size_t alignment = huge ? HUGE_PAGE : ALIGNMENT;
  size_t total;
  if (!lamina_add(bytes, alignment + sizeof(void *), &total)) return NULL;
  void *block = context->options.alloc ? context->options.alloc(context->options.alloc_user, total) : malloc(total);
  if (!block) return NULL;
  uintptr_t aligned = ((uintptr_t)block + sizeof(void *) + alignment - 1) & ~(uintptr_t)(alignment - 1);
  ((void **)aligned)[-1] = block;
  if (huge) ask_for_huge_pages((void *)aligned, bytes);
  return (void *)aligned;
}

void *lamina_alloc_zeroed(const lamina_context *context, size_t bytes) {
  void *memory = lamina_alloc(context, bytes);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

void lamina_free(const lamina_context *context, void *memory) {
  if (!memory) return;
  void *block = ((void **)memory)[-1];
  if (context->options.release)
    context->options.release(context->options.alloc_user, block);
  else
    free(block);
}

char *lamina_copy_string(const lamina_context *context, const char *text) {
  size_t bytes = strlen(text) + 1;
  char *copy = lamina_alloc(context, bytes);
  if (copy) memcpy(copy, text, bytes);
  return copy;
}

void *lamina_grow(const lamina_context *context, void *array, size_t *capacity, size_t count, size_t item_bytes) {
  if (array && count <= *capacity) return array;
  size_t wanted = count > 2 * *capacity ? count : 2 * *capacity, bytes;
  if (wanted < 8) wanted = 8;
  if (!lamina_multiply(wanted, item_bytes, &bytes)) return NULL;
  void *grown = lamina_alloc(context, bytes);
  if (!grown) return NULL;
  if (array) memcpy(grown, array, *capacity * item_bytes);
  lamina_free(context, array);
  *capacity = wanted;
  return grown;
}

const char *lamina_intern(const lamina_context *context, const char *text) {
  lamina_context *mutable = (lamina_context *)context;
  pthread_mutex_lock(&mutable->message_lock);
  lamina_string *t = mutable->texts;
  while (t && strcmp(t->text, text) != 0) t = t->next;
  if (!t && (t = lamina_alloc(context, sizeof *t + strlen(text) + 1))) {
    strcpy(t->text, text);
    t->next = mutable->texts;
    mutable->texts = t;
  }
  pthread_mutex_unlock(&mutable->message_lock);
  return t ? t->text : NULL;
}
