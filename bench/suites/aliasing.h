/* SPDX-License-Identifier: Apache-2.0 */
/* Channels around powers of two: pixels a multiple of 4 KiB apart fall into one set of a cache, and 16 channels more or
   less should cost only their own work. */
inline constexpr Shape aliasing[] = {
    conv(496, 14, 256, 1),   conv(512, 14, 256, 1),   conv(528, 14, 256, 1),
    conv(1008, 14, 256, 1),  conv(1024, 14, 256, 1),  conv(1040, 14, 256, 1),
    conv(2032, 14, 256, 1),  conv(2048, 14, 256, 1),  conv(2064, 14, 256, 1),
    conv(256, 14, 496, 1),   conv(256, 14, 512, 1),   conv(256, 14, 528, 1),
    conv(256, 14, 1008, 1),  conv(256, 14, 1024, 1),  conv(256, 14, 1040, 1),
    conv(256, 14, 2032, 1),  conv(256, 14, 2048, 1),  conv(256, 14, 2064, 1),
    conv(496, 14, 128, 3),   conv(512, 14, 128, 3),   conv(528, 14, 128, 3),
    conv(1008, 14, 128, 3),  conv(1024, 14, 128, 3),  conv(1040, 14, 128, 3),
    conv(2032, 14, 128, 3),  conv(2048, 14, 128, 3),  conv(2064, 14, 128, 3),
    norm(496, 14),           norm(512, 14),           norm(528, 14),
    norm(1008, 14),          norm(1024, 14),          norm(1040, 14),
    norm(2032, 7),           norm(2048, 7),           norm(2064, 7),
    linear(1008, 1008),      linear(1024, 1024),      linear(1040, 1040),
    linear(2032, 2032),      linear(2048, 2048),      linear(2064, 2064),
};
