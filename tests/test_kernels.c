/* SPDX-License-Identifier: Apache-2.0 */
/* Every function of the groups norm, eltwise, pool, softmax, optimizer and depthwise, of every table that this CPU supports,
   against a reference in double precision. Memory is guarded on both sides. */
#include "kernel_cases.h"

const lamina_kernels *kernel_tables[TEST_MAX_TABLES];
int kernel_table_count;

static TCase *new_tcase(Suite *suite, const char *name) {
  TCase *tcase = tcase_create(name);
  tcase_set_timeout(tcase, 240);
  suite_add_tcase(suite, tcase);
  return tcase;
}

int main(void) {
  test_print_seed();
  kernel_table_count = test_tables(kernel_tables);
  if (kernel_table_count == 0) return TEST_SKIPPED;
  Suite *suite = suite_create("kernels");
  add_eltwise_tests(new_tcase(suite, "eltwise"));
  add_norm_tests(new_tcase(suite, "norm"));
  add_pool_tests(new_tcase(suite, "pool"));
  add_row_tests(new_tcase(suite, "softmax and optimizer"));
  add_depthwise_tests(new_tcase(suite, "depthwise"));
  add_winograd_tests(new_tcase(suite, "winograd"));
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
