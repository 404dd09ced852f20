/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes that no vector or tile divides: 1 to 4, 17 and 31 channels, images of 7x7 and 13x13. */
inline constexpr Shape odd[] = {
    conv(1, 13, 64, 3),     conv(2, 13, 64, 3),     conv(3, 13, 64, 3),     conv(4, 13, 64, 3),
    conv(17, 13, 64, 3),    conv(31, 13, 64, 3),    conv(64, 13, 1, 3),     conv(64, 13, 2, 3),
    conv(64, 13, 3, 3),     conv(64, 13, 4, 3),     conv(64, 13, 17, 3),    conv(64, 13, 31, 3),
    conv(17, 7, 17, 3),     conv(31, 7, 31, 3),     conv(17, 13, 31, 1),    conv(31, 13, 17, 1),
    conv(31, 7, 256, 1),    conv(256, 7, 31, 1),    conv(17, 13, 31, 3, 2), conv(31, 13, 17, 5),
    conv(512, 13, 512, 3),  depthwise(17, 13, 3),   depthwise(31, 7, 5),    grouped(34, 13, 34, 3, 1, 17),
    norm(1, 28),            norm(3, 56),            norm(17, 13),           norm(20, 30),
    norm(31, 56),           max_pool(17, 13, 3, 2), max_pool(31, 7, 2, 2),  avg_pool(31, 13, 3, 2, 1),
    linear(31, 17),         linear(1023, 1001),     softmax(1),             softmax(17),
    softmax(31),            softmax(30522),
};
