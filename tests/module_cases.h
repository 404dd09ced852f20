/* SPDX-License-Identifier: Apache-2.0 */
/* The networks of test_modules.c, as a table: every layer that is shipped in a loadable module. */
#ifndef LAMINA_MODULE_CASES_H
#define LAMINA_MODULE_CASES_H

#include "gradient_test.h"

#define SEQUENCE(l, c)                                                                                                 \
  {                                                                                                                    \
    { "x0", 2, {l, c}, 0, NET_UNIFORM }                                                                                \
  }

const net_case gradient_cases[] = {
    /* normalisations */
    {"group norm", 3, IMAGE(4, 3, 12), {{"group_norm", "g", "x0", "num_groups=3"}}, NULL, 0},
    {"group norm, one group", 2, IMAGE(3, 3, 5), {{"group_norm", "g", "x0", "num_groups=1"}}, NULL, 0},
    {"group norm of several tasks", 2, SEQUENCE(5, 150), {{"group_norm", "g", "x0", "num_groups=30"}}, NULL, 0},
    {"group norm of rows", 3, ROW(24), {{"group_norm", "g", "x0", "num_groups=4 affine=false"}}, NULL, 0},
    {"group norm, many positions", 1, IMAGE(13, 11, 4), {{"group_norm", "g", "x0", "num_groups=2"}}, NULL, 0},
    {"instance norm", 2, IMAGE(5, 4, 7), {{"instance_norm", "i", "x0", NULL}}, NULL, 0},
    {"instance norm affine", 2, SEQUENCE(9, 70), {{"instance_norm", "i", "x0", "affine=true eps=1e-3"}}, NULL, 0},
    {"layer norm", 5, ROW(37), {{"layer_norm", "l", "x0", NULL}}, NULL, 0},
    {"layer norm without bias", 2, SEQUENCE(40, 16), {{"layer_norm", "l", "x0", "bias=false"}}, NULL, 0},
    {"layer norm not affine", 2, IMAGE(3, 2, 9), {{"layer_norm", "l", "x0", "elementwise_affine=false"}}, NULL, 0},
    {"rms norm", 3, SEQUENCE(30, 21), {{"rms_norm", "r", "x0", NULL}}, NULL, 0},
    {"rms norm not affine", 4, ROW(7), {{"rms_norm", "r", "x0", "elementwise_affine=false eps=1e-3"}}, NULL, 0},
    {"batch renorm without correction",
     7,
     IMAGE(9, 5, 6),
     {{"batch_renorm", "b", "x0", "r_max=1 d_max=0"}},
     NULL,
     CASE_INFER_DIFFERS},
    {"linear, batch renorm, relu",
     9,
     ROW(14),
     {{"linear", "l", "x0", "out_features=70"}, {"batch_renorm", "b", "l", "r_max=1 d_max=0"}, {"relu", "r", "b", NULL}},
     NULL,
     CASE_INFER_DIFFERS},
    {"residual branch with layer norm",
     2,
     SEQUENCE(5, 12),
     {{"layer_norm", "n", "x0", NULL},
      {"linear", "l1", "n", "out_features=20"},
      {"gelu", "g", "l1", NULL},
      {"linear", "l2", "g", "out_features=12"},
      {"add", "a", "l2,x0", NULL},
      {"rms_norm", "r", "a", NULL}},
     NULL,
     0},
    /* activations */
    {"gelu", 3, IMAGE(3, 5, 4), {{"gelu", "g", "x0", NULL}}, NULL, 0},
    {"gelu by tanh", 3, ROW(37), {{"gelu", "g", "x0", "approximate=tanh"}}, NULL, 0},
    {"mish", 3, ROW(37), {{"mish", "m", "x0", NULL}}, NULL, 0},
    {"conv, mish, and another reader",
     2,
     IMAGE(6, 5, 4),
     {{"conv2d", "c", "x0", "out_channels=7 kernel=3 padding=1"}, {"mish", "m", "c", NULL}, {"add", "a", "m,c", NULL}},
     NULL,
     0},
    {"linear, gelu", 5, ROW(14), {{"linear", "l", "x0", "out_features=21"}, {"gelu", "g", "l", NULL}}, NULL, 0},
    {"linear, gelu by tanh, mish",
     5,
     ROW(14),
     {{"linear", "l", "x0", "out_features=21"}, {"gelu", "g", "l", "approximate=tanh"}, {"mish", "m", "g", NULL}},
     NULL,
     0},
    /* embedding and upsampling */
    {"embedding", 5, {{"x0", 0, {0}, 9, NET_UNIFORM}}, {{"embedding", "e", "x0", "num_embeddings=9 embedding_dim=70"}}, NULL, 0},
    {"embedding of sequences, linear",
     3,
     {{"x0", 1, {6}, 7, NET_UNIFORM}},
     {{"embedding", "e", "x0", "num_embeddings=7 embedding_dim=5"}, {"linear", "l", "e", "out_features=4"}},
     NULL,
     0},
    {"upsample nearest", 2, IMAGE(3, 4, 5), {{"upsample", "u", "x0", "scale_factor=2,3"}}, NULL, CASE_LINEAR},
    {"upsample bilinear", 2, IMAGE(4, 3, 70), {{"upsample", "u", "x0", "mode=bilinear"}}, NULL, CASE_LINEAR},
    {"upsample bilinear, corners aligned",
     2,
     IMAGE(3, 1, 6),
     {{"upsample", "u", "x0", "scale_factor=3 mode=bilinear align_corners=true"}},
     NULL,
     CASE_LINEAR},
    /* attention */
    {"attention",
     2,
     {{"x0", 2, {5, 6}, 0, NET_UNIFORM}, {"x1", 2, {7, 6}, 0, NET_UNIFORM}, {"x2", 2, {7, 4}, 0, NET_UNIFORM}},
     {{"scaled_dot_product_attention", "a", "x0,x1,x2", NULL}},
     NULL,
     0},
    {"attention of three heads, causal",
     2,
     {{"x0", 2, {70, 12}, 0, NET_UNIFORM}, {"x1", 2, {70, 12}, 0, NET_UNIFORM}, {"x2", 2, {70, 6}, 0, NET_UNIFORM}},
     {{"scaled_dot_product_attention", "a", "x0,x1,x2", "num_heads=3 is_causal=true"}},
     NULL,
     0},
    {"attention, causal, fewer keys",
     1,
     {{"x0", 2, {9, 8}, 0, NET_UNIFORM}, {"x1", 2, {4, 8}, 0, NET_UNIFORM}, {"x2", 2, {4, 8}, 0, NET_UNIFORM}},
     {{"scaled_dot_product_attention", "a", "x0,x1,x2", "num_heads=2 is_causal=true scale=1.5"}},
     NULL,
     0},
    {"self-attention block",
     2,
     SEQUENCE(6, 8),
     {{"layer_norm", "n", "x0", NULL},
      {"linear", "q", "n", "out_features=8"},
      {"linear", "k", "n", "out_features=8"},
      {"scaled_dot_product_attention", "a", "q,k,n", "num_heads=2"},
      {"linear", "o", "a", "out_features=8"},
      {"add", "s", "o,x0", NULL}},
     NULL,
     0},
    {"attention of one value to itself", 2, SEQUENCE(6, 8), {{"scaled_dot_product_attention", "a", "x0,x0,x0", NULL}}, NULL, 0},
    /* MORE */
};

const int gradient_case_count = (int)(sizeof gradient_cases / sizeof *gradient_cases);

#endif
