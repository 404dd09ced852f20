/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the built-in layers. */
#include "gradient_cases.h"

lamina_context *gradient_context(int threads) { return net_context(threads); }

/* Every layer of the registry occurs in the table, so that a new one cannot go unchecked. */
START_TEST(every_layer_is_checked) {
  lamina_context *context = gradient_context(1);
  for (int i = 0; i < lamina_layer_count(context); i++) {
    const char *name = lamina_layer_at(context, i)->name;
    bool found = false;
    for (int k = 0; k < gradient_case_count && !found; k++)
      for (int j = 0; j < NET_MAX_LAYERS && gradient_cases[k].layers[j].type && !found; j++)
        found = strcmp(gradient_cases[k].layers[j].type, name) == 0;
    test_that(found, "no case for layer %s", name);
  }
  lamina_context_destroy(context);
}
END_TEST

int main(void) {
  test_print_seed();
  if (net_isa_is_absent()) return TEST_SKIPPED;
  Suite *suite = suite_create("gradients");
  TCase *cases = gradient_checks();
  tcase_add_test(cases, every_layer_is_checked);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
