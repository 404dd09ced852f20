/* SPDX-License-Identifier: Apache-2.0 */
/* Plugins: other versions work, what cannot be trusted or read is refused with a clear message before any of its code
   runs, and code stays as long as somebody uses it. */
#include "io_test.h"
#include "plugin/loader.h"

#include <elf.h>
#include <errno.h>
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static char modules[4096];

/* A module of the build, copied to the test's own folder under another name; its path. */
static const char *take_as(const char *module, const char *name) {
  static char path[8192];
  FILE *in;
  snprintf(path, sizeof path, "%s/%s.so", modules, module);
  in = fopen(path, "rb");
  ck_assert_ptr_nonnull(in);
  static char content[1 << 20];
  const size_t bytes = fread(content, 1, sizeof content, in);
  fclose(in);
  io_write(name, content, bytes);
  return io_path(name);
}

static const char *take(const char *module) {
  char name[64];
  snprintf(name, sizeof name, "%s.so", module);
  return take_as(module, name);
}

/* Runs a layer on {1, 2, 3, ...}, `channels` of them; its output's first element. */
static float run_layer_of(lamina_context *c, const char *type, int64_t channels) {
  lamina_graph *graph;
  lamina_plan *plan;
  lamina_exec *exec;
  lamina_tensor out;
  float data[16];
  for (int i = 0; i < 16; i++) data[i] = (float)(i + 1);
  const lamina_tensor in = lamina_tensor_of(data, LAMINA_F32, 2, (int64_t[]){1, channels});
  io_expect_ok(lamina_graph_create(c, NULL, &graph));
  io_expect_ok(lamina_graph_input(graph, "x", LAMINA_F32, 1, &channels));
  io_expect_ok(lamina_graph_add(graph, type, "node", "x", NULL));
  io_expect_ok(lamina_plan_create(graph, NULL, &plan));
  lamina_graph_destroy(graph);
  io_expect_ok(lamina_exec_create(plan, &exec));
  io_expect_ok(lamina_exec_set_input(exec, "x", &in));
  io_expect_ok(lamina_exec_forward(exec));
  io_expect_ok(lamina_exec_output(exec, "node", &out));
  const float result = *(const float *)out.data;
  lamina_exec_destroy(exec);
  lamina_plan_destroy(plan);
  return result;
}

static float run_layer(const char *type) { return run_layer_of(context, type, 4); }

static const char *mark(void) {
  static char path[4096];
  snprintf(path, sizeof path, "%s", io_path("mark"));
  setenv("LAMINA_TEST_MARK", path, 1);
  return path;
}

START_TEST(plugins_of_every_minor_version_work) {
  const char *const names[] = {"probe", "newer", "older"};
  for (int i = 0; i < 3; i++) {
    io_expect_ok(lamina_context_load_plugin(context, take(names[i])));
    ck_assert_float_eq(run_layer(names[i]), 2);
    const lamina_layer *layer = lamina_layer_find(context, names[i], NULL);
    ck_assert_uint_eq(layer->size, sizeof *layer);
    ck_assert_uint_eq(layer->attrs[0]->size, sizeof **layer->attrs);
    ck_assert(layer->as_epilogue == NULL);
    ck_assert_ptr_null(layer->ports[0]->doc);
    ck_assert(layer->kernels[0]->possible == NULL);
    ck_assert_int_eq(layer->kernels[0]->variant, 0);
  }
}
END_TEST

START_TEST(another_major_or_processor_is_refused_before_its_code_runs) {
  const char *path = mark();
  io_expect_failure(lamina_context_load_plugin(context, take("major")), LAMINA_UNSUPPORTED, "major.so",
                    "layer ABI 2.0");
  io_expect_failure(lamina_context_load_plugin(context, take("foreign")), LAMINA_UNSUPPORTED, "foreign.so", "avx999");
  ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

static void ignore(void *user, const char *problem) { snprintf(user, 1024, "%s", problem); }

static void count(void *user, const lamina_plugin_info *info) {
  *(int *)user += info->usable;
  ck_assert_str_eq(info->version, "1.0");
}

START_TEST(listing_runs_no_code) {
  lamina_plugin_info info = {.size = sizeof info};
  char problem[1024] = "", folder[4096];
  int usable = 0;
  const char *path = mark();
  char *file = strdup(take("constructor"));
  take("major");
  io_write_text("notes.so", "not a plugin");
  io_expect_ok(lamina_plugin_inspect(context, file, &info));
  ck_assert_str_eq(info.id, "test.constructor");
  ck_assert_str_eq(info.layers, "constructor");
  ck_assert_int_eq(info.usable, 1);
  io_expect_ok(lamina_plugin_lint(context, file, ignore, problem));
  ck_assert_ptr_nonnull(strstr(problem, "constructor"));
  snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(file, '/') - file), file);
  setenv("LAMINA_PLUGIN_PATH", folder, 1);
  lamina_plugin_list(context, count, &usable);
  ck_assert_int_eq(usable, 1);
  lamina_graph *graph;
  io_expect_ok(lamina_graph_create(context, NULL, &graph));
  io_expect_ok(lamina_graph_input(graph, "x", LAMINA_F32, 1, (int64_t[]){4}));
  io_expect_failure(lamina_graph_add(graph, "constructor", "n", "x", NULL), LAMINA_NOT_FOUND, "constructor.so",
                    "not loaded");
  io_expect_failure(lamina_graph_add(graph, "nobody", "n", "x", NULL), LAMINA_NOT_FOUND, "nobody", folder);
  lamina_graph_destroy(graph);
  ck_assert_int_ne(access(path, F_OK), 0);
  io_expect_ok(lamina_context_load_plugin(context, "constructor")); /* found by its name; and then it does run */
  ck_assert_int_eq(access(path, F_OK), 0);
  unsetenv("LAMINA_PLUGIN_PATH");
  io_expect_failure(lamina_context_load_plugin(context, "constructor"), LAMINA_NOT_FOUND, "constructor",
                    "a path has a slash");
  free(file);
}
END_TEST

START_TEST(a_manifest_that_lies_is_refused) {
  io_expect_failure(lamina_context_load_plugin(context, take("liar")), LAMINA_PLUGIN_ERROR, "'truth'", "'liar'");
  ck_assert_ptr_null(lamina_layer_find(context, "liar", NULL));
  ck_assert_ptr_null(lamina_layer_find(context, "truth", NULL));
  size_t bytes;
  char *content = io_read("liar.so", &bytes), *id = memmem(content, bytes, "\nid=test.liar", 13);
  ck_assert_ptr_nonnull(id);
  io_write("none.so", content, bytes);
  memcpy(id + 4, "rest", 4);
  io_write("other.so", content, bytes);
  io_expect_failure(lamina_context_load_plugin(context, io_path("other.so")), LAMINA_PLUGIN_ERROR, "rest.liar",
                    "test.liar");
  memcpy(id + 1, "xx", 2);
  io_write("noid.so", content, bytes);
  io_expect_failure(lamina_context_load_plugin(context, io_path("noid.so")), LAMINA_BAD_FILE, "noid.so", "missing");
  free(content);
}
END_TEST

START_TEST(files_that_are_no_plugins_are_refused) {
  io_write_text("text.so",
                "#!/bin/sh\nexit 0\n# and more than the sixty-four bytes that the head of an ELF file would need\n");
  io_write_text("empty.so", "");
  io_expect_failure(lamina_context_load_plugin(context, io_path("text.so")), LAMINA_BAD_FILE, "text.so", "no ELF file");
  io_expect_failure(lamina_context_load_plugin(context, io_path("empty.so")), LAMINA_BAD_FILE, "empty.so", "0 bytes");
  io_expect_failure(lamina_context_load_plugin(context, io_path("none.so")), LAMINA_NOT_FOUND, "none.so", "no such");
  io_expect_failure(lamina_context_load_plugin(context, take("nothing")), LAMINA_BAD_FILE, "nothing.so", "manifest");
  io_expect_failure(lamina_context_load_plugin(context, "/"), LAMINA_INVALID_ARGUMENT, "/", "");
  mkdir(io_path("folder.so"), 0700);
  io_expect_failure(lamina_context_load_plugin(context, io_path("folder.so")), LAMINA_INVALID_ARGUMENT, "folder.so",
                    "folder");
  rmdir(io_path("folder.so"));
  mkfifo(io_path("pipe.so"), 0600);
  io_expect_failure(lamina_context_load_plugin(context, io_path("pipe.so")), LAMINA_INVALID_ARGUMENT, "pipe.so",
                    "regular");
}
END_TEST

START_TEST(truncated_and_foreign_files_are_refused) {
  size_t bytes;
  take("probe");
  char *content = io_read("probe.so", &bytes);
  Elf64_Ehdr *head = (Elf64_Ehdr *)(void *)content;
  io_write("cut.so", content, bytes);
  for (size_t cut = bytes; cut-- > 0;) { /* every length */
    if (truncate(io_path("cut.so"), (off_t)cut)) ck_abort_msg("it cannot be cut");
    const lamina_status status = lamina_context_load_plugin(context, io_path("cut.so"));
    if (status != LAMINA_BAD_FILE) /* an assertion writes a file each */
      ck_abort_msg("%zu bytes of %zu: %d %s", cut, bytes, (int)status, lamina_error_message(context));
  }
  const Elf64_Half machine = head->e_machine;
  head->e_machine = EM_RISCV;
  io_write("riscv.so", content, bytes);
  io_expect_failure(lamina_context_load_plugin(context, io_path("riscv.so")), LAMINA_UNSUPPORTED, "riscv.so", "riscv");
  head->e_machine = machine;
  head->e_ident[EI_CLASS] = ELFCLASS32;
  io_write("bits.so", content, bytes);
  io_expect_failure(lamina_context_load_plugin(context, io_path("bits.so")), LAMINA_UNSUPPORTED, "bits.so", "32 bits");
  head->e_ident[EI_CLASS] = ELFCLASS64;
  head->e_type = ET_EXEC;
  io_write("program.so", content, bytes);
  io_expect_failure(lamina_context_load_plugin(context, io_path("program.so")), LAMINA_BAD_FILE, "program.so",
                    "shared");
  free(content);
}
END_TEST

/* user::rw- user:4242:rw- group::r-- mask::rw- other::r--, as the kernel keeps it: version 2, then tag, rights and id. The
   mode shows the mask where the group's rights would be. */
static const unsigned char access_list[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 146, 16, 0, 0, 4, 0,
                                            4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255};

START_TEST(an_access_list_is_refused) {
  char *file = strdup(take("probe"));
  if (setxattr(file, "system.posix_acl_access", access_list, sizeof access_list, 0)) {
    ck_assert_int_eq(errno, ENOTSUP); /* this file system keeps none */
  } else {
    io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "probe.so", "access control list");
    ck_assert_int_eq(removexattr(file, "system.posix_acl_access"), 0);
  }
  chmod(file, 0644);
  ck_assert_int_eq(lamina_context_load_plugin(context, file), LAMINA_OK);
  free(file);
}
END_TEST

START_TEST(what_others_could_have_written_is_refused) {
  char *file = strdup(take("probe")), *link = strdup(io_path("link.so"));
  char folder[4096];
  snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(file, '/') - file), file);
  ck_assert_int_eq(symlink(file, link), 0);
  chmod(file, 0666);
  io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "probe.so", "writable by others");
  io_expect_failure(lamina_context_load_plugin(context, link), LAMINA_UNSUPPORTED, "link.so", "writable by others");
  chmod(file, 0644);
  chmod(folder, 0777);
  io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "folder", "writable by others");
  chmod(folder, 0755);
  if (geteuid() == 0) { /* groups are only compared when they may write */
    ck_assert_int_eq(chown(file, 0, 12345), 0);
    chmod(file, 0664); /* after chown, which may clear bits */
    io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "probe.so", "group 12345");
    chmod(file, 0644);
    ck_assert_int_eq(chown(file, 0, 0), 0);
    ck_assert_int_eq(chown(folder, 0, 12345), 0);
    chmod(folder, 0775);
    io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "folder", "writable by group 12345");
    chmod(folder, 0755);
    ck_assert_int_eq(chown(folder, 0, 0), 0);
    ck_assert_int_eq(chown(file, 12345, 0), 0);
    io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "probe.so", "12345");
    ck_assert_int_eq(chown(file, 0, 0), 0);
    ck_assert_int_eq(chown(folder, 12345, 0), 0);
    io_expect_failure(lamina_context_load_plugin(context, file), LAMINA_UNSUPPORTED, "folder", "12345");
    ck_assert_int_eq(chown(folder, 0, 0), 0);
  }
  io_expect_ok(lamina_context_load_plugin(context, link));
  free(file);
  free(link);
}
END_TEST

START_TEST(the_file_that_was_checked_is_the_one_that_is_loaded) {
  lamina_plugin_file file;
  char *good = strdup(take("probe")), *evil = strdup(take("constructor")), *link = strdup(io_path("link.so"));
  const char *path = mark();
  ck_assert_int_eq(symlink(good, link), 0);
  io_expect_ok(lamina_plugin_open(context, link, &file));
  unlink(link);
  ck_assert_int_eq(symlink(evil, link), 0);
  ck_assert_int_eq(rename(evil, good), 0);
  io_expect_ok(lamina_plugin_load(context, &file));
  lamina_plugin_close(context, &file);
  ck_assert_ptr_null(lamina_layer_find(context, "constructor", NULL));
  ck_assert_float_eq(run_layer("probe"), 2);
  ck_assert_int_ne(access(path, F_OK), 0);
  free(good);
  free(evil);
  free(link);
}
END_TEST

/* The dynamic loader knows files by names; a descriptor's number that is used again must not bring back the file
 * before. */
START_TEST(contexts_do_not_mix_up_files) {
  lamina_context *other;
  io_expect_ok(lamina_context_create(NULL, &other));
  io_expect_ok(lamina_context_load_plugin(context, take("probe")));
  ck_assert_int_eq(lamina_context_load_plugin(other, take("twin")), LAMINA_OK);
  ck_assert_float_eq(run_layer("probe"), 2);
  ck_assert_float_eq(run_layer_of(other, "probe", 4), 3);
  lamina_context_destroy(other);
  ck_assert_float_eq(run_layer("probe"), 2);
}
END_TEST

START_TEST(a_clash_names_both_files) {
  io_expect_ok(lamina_context_load_plugin(context, take("probe")));
  io_expect_ok(lamina_context_load_plugin(context, io_path("probe.so"))); /* the same file: nothing to do */
  io_expect_failure(lamina_context_load_plugin(context, take("twin")), LAMINA_INVALID_ARGUMENT, "twin.so", "/probe.so");
  ck_assert_float_eq(run_layer("probe"), 2);
  io_expect_failure(lamina_context_load_plugin(context, take_as("probe", "copy.so")), LAMINA_INVALID_ARGUMENT,
                    "copy.so", "/probe.so");
}
END_TEST

START_TEST(an_override_falls_through_where_it_does_not_support) {
  const char *provider;
  io_expect_ok(lamina_context_load_plugin(context, take("override")));
  lamina_layer_find(context, "relu", &provider);
  ck_assert_ptr_nonnull(strstr(provider, "override.so"));
  ck_assert_float_eq(run_layer_of(context, "relu", 3), 7);
  ck_assert_float_eq(run_layer_of(context, "relu", 4), 1);
  io_expect_failure(lamina_context_load_plugin(context, take_as("override", "again.so")), LAMINA_INVALID_ARGUMENT,
                    "again.so", "/override.so");
  io_expect_ok(lamina_context_unload_plugin(context, "test.override"));
  lamina_layer_find(context, "relu", &provider);
  ck_assert_str_eq(provider, "built-in");
  ck_assert_float_eq(run_layer_of(context, "relu", 3), 1);
}
END_TEST

START_TEST(code_stays_until_the_last_plan_has_gone) {
  lamina_graph *graph;
  lamina_plan *plan;
  lamina_exec *exec;
  float data[4] = {1, 2, 3, 4};
  const lamina_tensor in = lamina_tensor_of(data, LAMINA_F32, 2, (int64_t[]){1, 4});
  io_expect_ok(lamina_context_load_plugin(context, take("probe")));
  io_expect_ok(lamina_graph_create(context, NULL, &graph));
  io_expect_ok(lamina_graph_input(graph, "x", LAMINA_F32, 1, (int64_t[]){4}));
  io_expect_ok(lamina_graph_add(graph, "probe", "node", "x", NULL));
  io_expect_ok(lamina_plan_create(graph, NULL, &plan));
  lamina_graph_destroy(graph);
  io_expect_ok(lamina_exec_create(plan, &exec));
  lamina_plan_destroy(plan);
  io_expect_ok(lamina_context_unload_plugin(context, io_path("probe.so")));
  io_expect_failure(lamina_context_unload_plugin(context, io_path("probe.so")), LAMINA_NOT_FOUND, "probe.so",
                    "not loaded");
  ck_assert_ptr_null(lamina_layer_find(context, "probe", NULL));
  io_expect_ok(lamina_exec_set_input(exec, "x", &in));
  io_expect_ok(lamina_exec_forward(exec));
  lamina_exec_destroy(exec);
  for (int i = 0; i < 1000; i++) {
    io_expect_ok(lamina_context_load_plugin(context, io_path("probe.so")));
    io_expect_ok(lamina_context_unload_plugin(context, "test.probe"));
  }
}
END_TEST

/* Saves a graph of one layer; the text of the file, to be freed. */
static char *save_layer(const char *type, int64_t channels) {
  lamina_graph *graph;
  size_t bytes;
  io_expect_ok(lamina_graph_create(context, NULL, &graph));
  io_expect_ok(lamina_graph_input(graph, "x", LAMINA_F32, 1, &channels));
  io_expect_ok(lamina_graph_add(graph, type, "node", "x", NULL));
  io_expect_ok(lamina_graph_save_model(graph, io_path("model.json")));
  lamina_graph_destroy(graph);
  return io_read("model.json", &bytes);
}

/* Loads the model with the layer's name replaced by another. */
static lamina_status load_as(const char *text, const char *from, const char *to) {
  lamina_graph *graph = NULL;
  char changed[4096];
  const char *at = strstr(text, from);
  ck_assert_ptr_nonnull(at);
  snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  io_write_text("changed.json", changed);
  const lamina_status status = lamina_graph_load_model(context, io_path("changed.json"), &graph);
  lamina_graph_destroy(graph);
  return status;
}

START_TEST(a_model_names_vendor_layer_and_version) {
  io_expect_ok(lamina_context_load_plugin(context, take("probe")));
  io_expect_ok(lamina_context_load_plugin(context, take("override")));
  char *relu = save_layer("relu", 3), *text = save_layer("probe", 4);
  ck_assert_ptr_nonnull(strstr(relu, "\"relu\"")); /* what it overrides would do */
  ck_assert_ptr_nonnull(strstr(text, "\"test.probe@7\""));
  io_expect_ok(load_as(text, "probe@7", "probe@7"));
  io_expect_ok(load_as(text, "probe@7", "probe@3")); /* made with an earlier one */
  io_expect_ok(load_as(relu, "\"relu\"", "\"relu\""));
  io_expect_failure(load_as(text, "probe@7", "probe@8"), LAMINA_UNSUPPORTED, "made with test.probe@8", "version 7");
  io_expect_failure(load_as(text, "test.probe", "best.probe"), LAMINA_NOT_FOUND, "needs best.probe@7", "/probe.so");
  io_expect_failure(load_as(text, "test.probe@7", "lamina.rel9@1"), LAMINA_NOT_FOUND, "'rel9'", "no layer");
  io_expect_ok(load_as(text, "test.probe@7\"", "lamina.relu@1\""));
  io_expect_failure(load_as(text, "probe@7", "probe@4294967295"), LAMINA_UNSUPPORTED, "probe@4294967295", "version 7");
  const char *const bad[] = {"test.probe@4294967296", "test.probe@", "test.probe@x", "probe@7", ".probe@7", "test.@7",
                             "test.probe@-1", "test.probe@99999999999"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    io_expect_failure(load_as(text, "test.probe@7", bad[i]), LAMINA_INVALID_ARGUMENT, "VENDOR.LAYER@VERSION", bad[i]);
  io_expect_ok(lamina_context_unload_plugin(context, "test.probe"));
  io_expect_failure(load_as(text, "probe@7", "probe@7"), LAMINA_NOT_FOUND, "'probe'", "No plugin");
  free(relu);
  free(text);
}
END_TEST

START_TEST(a_load_leaves_the_floating_point_mode_alone) {
  io_expect_ok(lamina_context_load_plugin(context, take("rounding")));
  ck_assert_int_eq(fegetround(), FE_TONEAREST);
}
END_TEST

START_TEST(what_a_plugin_misses_is_named) {
  size_t bytes;
  io_expect_failure(lamina_context_load_plugin(context, take("undefined")), LAMINA_PLUGIN_ERROR, "undefined.so",
                    "lamina_test_is_nowhere");
  take("probe");
  char *content = io_read("probe.so", &bytes), *needed = memmem(content, bytes, "libc.so.6", 9);
  if (needed) {
    memcpy(needed, "libq.so.9", 9);
    io_write("needs.so", content, bytes);
    io_expect_failure(lamina_context_load_plugin(context, io_path("needs.so")), LAMINA_PLUGIN_ERROR, "needs.so",
                      "libq.so.9");
  }
  free(content);
}
END_TEST

START_TEST(lint_tells_what_is_wrong) {
  char problem[1024] = "";
  io_expect_ok(lamina_plugin_lint(context, take("probe"), ignore, problem));
  ck_assert_str_eq(problem, "");
  io_expect_ok(lamina_plugin_lint(context, take("exports"), ignore, problem));
  ck_assert_ptr_nonnull(strstr(problem, "probe_exported"));
  io_expect_ok(lamina_plugin_lint(context, take("undefined"), ignore, problem));
  ck_assert_ptr_nonnull(strstr(problem, "lamina_test_is_nowhere"));
  io_expect_ok(lamina_plugin_lint(context, take("foreign"), ignore, problem));
}
END_TEST

int main(void) {
  const char *folder = getenv("LAMINA_TEST_MODULES");
  if (!folder) return 77;
  snprintf(modules, sizeof modules, "%s", folder);
  umask(022);
  Suite *suite = suite_create("plugin");
  TCase *cases = tcase_create("loading");
  tcase_set_timeout(cases, 60);
  tcase_add_checked_fixture(cases, io_setup, io_teardown);
  tcase_add_test(cases, plugins_of_every_minor_version_work);
  tcase_add_test(cases, another_major_or_processor_is_refused_before_its_code_runs);
  tcase_add_test(cases, listing_runs_no_code);
  tcase_add_test(cases, a_manifest_that_lies_is_refused);
  tcase_add_test(cases, files_that_are_no_plugins_are_refused);
  tcase_add_test(cases, truncated_and_foreign_files_are_refused);
  tcase_add_test(cases, an_access_list_is_refused);
  tcase_add_test(cases, what_others_could_have_written_is_refused);
  tcase_add_test(cases, the_file_that_was_checked_is_the_one_that_is_loaded);
  tcase_add_test(cases, contexts_do_not_mix_up_files);
  tcase_add_test(cases, a_clash_names_both_files);
  tcase_add_test(cases, an_override_falls_through_where_it_does_not_support);
  tcase_add_test(cases, code_stays_until_the_last_plan_has_gone);
  tcase_add_test(cases, a_model_names_vendor_layer_and_version);
  tcase_add_test(cases, a_load_leaves_the_floating_point_mode_alone);
  tcase_add_test(cases, what_a_plugin_misses_is_named);
  tcase_add_test(cases, lint_tells_what_is_wrong);
  suite_add_tcase(suite, cases);
  return io_run(suite);
}
