/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include "session.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void progress_start(progress *p, FILE *stream) {
  const char *terminal = getenv("TERM");
  const bool capable = isatty(fileno(stream)) && terminal && strcmp(terminal, "dumb");
  *p = (progress){.stream = capable ? stream : NULL};
}

bool progress_due(const progress *p) { return p->stream && now_seconds() - p->last >= 0.1; }

static int columns(FILE *stream) {
  struct winsize size;
  return ioctl(fileno(stream), TIOCGWINSZ, &size) || size.ws_col < 20 ? 80 : size.ws_col;
}

void progress_update(progress *p, const char *format, ...) {
  char text[512];
  if (!p->stream) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  fprintf(p->stream, "\r%.*s\033[K", columns(p->stream) - 1, text); /* never wraps: a wrapped line cannot be redrawn */
  fflush(p->stream);
  p->last = now_seconds();
  p->drawn = true;
}

void progress_count(progress *p, const char *what, int64_t done, int64_t all, double elapsed) {
  char left[32];
  if (!progress_due(p) || done < 1) return;
  progress_update(p, "%s  %lld/%lld  %.0f images/s  %s left", what, (long long)done, (long long)all,
                  elapsed > 0 ? (double)done / elapsed : 0,
                  duration_text(elapsed / (double)done * (double)(all - done), left, sizeof left));
}

void progress_clear(progress *p) {
  if (p->stream && p->drawn) {
    fputs("\r\033[K", p->stream);
    fflush(p->stream);
  }
  p->drawn = false;
}

const char *duration_text(double seconds, char *buffer, size_t size) {
  const long s = seconds < 0 || seconds > 1e8 ? 0 : (long)(seconds + 0.5);
  if (s >= 3600)
    snprintf(buffer, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else
    snprintf(buffer, size, "%ld:%02ld", s / 60, s % 60);
  return buffer;
}
