/* SPDX-License-Identifier: Apache-2.0 */
/* Error messages: one for each thread that failed on a context. */
#include <stdio.h>
#include <string.h>

#include "core.h"

const char *lamina_version(void) { return LAMINA_VERSION; }

const char *lamina_status_name(lamina_status status) {
  switch (status) {
  case LAMINA_OK: return "ok";
  case LAMINA_INVALID_ARGUMENT: return "invalid argument";
  case LAMINA_SHAPE_MISMATCH: return "shape mismatch";
  case LAMINA_NOT_FOUND: return "not found";
  case LAMINA_UNSUPPORTED: return "unsupported";
  case LAMINA_OUT_OF_MEMORY: return "out of memory";
  case LAMINA_IO_ERROR: return "input/output error";
  case LAMINA_BAD_FILE: return "bad file";
  case LAMINA_NOT_FINITE: return "not finite";
  case LAMINA_BUSY: return "busy";
  case LAMINA_PLUGIN_ERROR: return "plugin error";
  }
  return "unknown status";
}

/* This thread's message, made when `create` is set; when there is no memory for one, the first is shared. */
static lamina_message *message_of_thread(lamina_context *context, bool create) {
  pthread_t self = pthread_self();
  for (lamina_message *m = context->messages; m; m = m->next)
    if (pthread_equal(m->thread, self)) return m;
  if (!create) return NULL;
  lamina_message *m = context->messages ? lamina_alloc(context, sizeof *m) : &context->first_message;
  if (!m) return &context->first_message;
  m->thread = self;
  m->text[0] = '\0';
  m->next = context->messages;
  context->messages = m;
  return m;
}

const char *lamina_error_message(const lamina_context *context) {
  if (!context) return "";
  lamina_context *mutable = (lamina_context *)context;
  pthread_mutex_lock(&mutable->message_lock);
  const lamina_message *m = message_of_thread(mutable, false);
  pthread_mutex_unlock(&mutable->message_lock);
  return m ? m->text : "";
}

lamina_status lamina_fail_va(const lamina_context *context, lamina_status status, const char *format, va_list arguments) {
  lamina_context *mutable = (lamina_context *)context;
  char text[LAMINA_MESSAGE_BYTES]; /* formatted first: an argument may be the old message */
  vsnprintf(text, sizeof text, format, arguments);
  pthread_mutex_lock(&mutable->message_lock);
  memcpy(message_of_thread(mutable, true)->text, text, sizeof text);
  pthread_mutex_unlock(&mutable->message_lock);
  return status;
}

lamina_status lamina_fail(const lamina_context *context, lamina_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  lamina_fail_va(context, status, format, arguments);
  va_end(arguments);
  return status;
}

lamina_status lamina_fail_prefix(const lamina_context *context, lamina_status status, const char *format, ...) {
  char prefix[LAMINA_MESSAGE_BYTES / 4];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(prefix, sizeof prefix, format, arguments);
  va_end(arguments);
  return lamina_fail(context, status, "%s: %s", prefix, lamina_error_message(context));
}

lamina_status lamina_fail_memory(const lamina_context *context, size_t bytes) {
  return lamina_fail(context, LAMINA_OUT_OF_MEMORY, "out of memory: %zu bytes could not be allocated", bytes);
}

void lamina_warn(const lamina_context *context, const char *format, ...) {
  if (!context->options.log) return;
  char text[LAMINA_MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  context->options.log(context->options.log_user, text);
}
