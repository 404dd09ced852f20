/* SPDX-License-Identifier: Apache-2.0 */
/* U-Net (Ronneberger et al. 2015), padded so that 256x256 stays 256x256; its transposed convolutions are left out. */
inline constexpr Shape unet[] = {
    conv(3, 256, 64, 3),
    conv(64, 256, 64, 3, 1, 2),
    conv(64, 128, 128, 3),
    conv(128, 128, 128, 3, 1, 2),
    conv(128, 64, 256, 3),
    conv(256, 64, 256, 3, 1, 2),
    conv(256, 32, 512, 3),
    conv(512, 32, 512, 3, 1, 2),
    conv(512, 16, 1024, 3),
    conv(1024, 16, 1024, 3),
    conv(1024, 32, 512, 3),
    conv(512, 64, 256, 3),
    conv(256, 128, 128, 3),
    conv(128, 256, 64, 3),
    conv(64, 256, 2, 1),
    max_pool(64, 256, 2, 2),
    max_pool(128, 128, 2, 2),
    max_pool(256, 64, 2, 2),
    max_pool(512, 32, 2, 2),
};
