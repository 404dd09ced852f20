/* SPDX-License-Identifier: Apache-2.0 */
/* The small network of models/mynet.json, 28x28. */
inline constexpr Shape mynet[] = {
    conv(3, 28, 64, 3),
    conv(64, 14, 128, 3),
    norm(512, 1),
    max_pool(64, 28, 2, 2),
    max_pool(128, 14, 2, 2),
    linear(6272, 512),
    linear(512, 10),
    softmax(10),
    optimizer("sgd", 6272, 512),
    optimizer("adam", 6272, 512),
    net("mynet"),
};
