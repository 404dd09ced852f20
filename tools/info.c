/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "session.h"

#include <string.h>

static const option options[] = {{NULL, NULL, OPTION_FLAG, 0, 0, 0, NULL, NULL}};

static int print_info_json(const session *s) {
  const lamina_context_info *i = &s->info;
  json_t *isas = json_array();
  for (const char *word = i->isas; word && *word;) {
    const size_t length = strcspn(word, " ");
    json_array_append_new(isas, json_stringn(word, length));
    word += length + strspn(word + length, " ");
  }
  return print_json(json_pack("{s:s s:s s:s s:o s:i s:i s:i s:I s:I s:I}", "version", lamina_version(), "cpu", i->cpu,
                              "isa", i->isa, "isas", isas, "threads", i->threads, "cores", i->cores, "layers",
                              lamina_layer_count(s->context), "l1_bytes", (json_int_t)i->l1, "l2_bytes",
                              (json_int_t)i->l2, "l3_bytes", (json_int_t)i->l3));
}

static void print_info(const session *s) {
  const lamina_context_info *i = &s->info;
  char l1[32], l2[32], l3[32];
  printf("lamina   %s\n", lamina_version());
  printf("cpu      %s\n", i->cpu);
  printf("isa      %s (usable here: %s)\n", i->isa, i->isas);
  printf("cores    %d; %d thread%s in use\n", i->cores, i->threads, i->threads == 1 ? "" : "s");
  printf("caches   L1 %s, L2 %s, L3 %s\n", bytes_text((double)i->l1, l1, sizeof l1),
         bytes_text((double)i->l2, l2, sizeof l2), bytes_text((double)i->l3, l3, sizeof l3));
  printf("layers   %d ('lamina layers' lists them)\n", lamina_layer_count(s->context));
}

static int run_command(const command *self, int argc, char **argv) {
  common_settings set = {0};
  parsed line;
  session s = {0};
  int status = options_parse(self, argc, argv, &set, &line);
  if (status != OPTIONS_RUN) return status;
  status = session_open(&s, self, &set);
  if (!status && set.json)
    status = print_info_json(&s);
  else if (!status)
    print_info(&s);
  session_close(&s);
  return status;
}

const command command_info = {
    .name = "info",
    .arguments = "",
    .summary = "this machine as lamina sees it: instruction sets, cores, caches",
    .text = "Prints the version, the processor, the instruction set in force and those usable here, cores and caches.",
    .examples = "  lamina info\n  lamina info --isa avx2 --threads 1\n  LAMINA_ISA=generic lamina info --json",
    .options = options,
    .run = run_command};
