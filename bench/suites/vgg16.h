/* SPDX-License-Identifier: Apache-2.0 */
/* VGG-16 (Simonyan and Zisserman 2014, configuration D), 224x224. */
inline constexpr Shape vgg16[] = {
    conv(3, 224, 64, 3),
    conv(64, 224, 64, 3),
    conv(64, 112, 128, 3),
    conv(128, 112, 128, 3),
    conv(128, 56, 256, 3),
    conv(256, 56, 256, 3, 1, 2),
    conv(256, 28, 512, 3),
    conv(512, 28, 512, 3, 1, 2),
    conv(512, 14, 512, 3, 1, 3),
    max_pool(64, 224, 2, 2),
    max_pool(128, 112, 2, 2),
    max_pool(256, 56, 2, 2),
    max_pool(512, 28, 2, 2),
    max_pool(512, 14, 2, 2),
    linear(25088, 4096),
    linear(4096, 4096),
    linear(4096, 1000),
    softmax(1000),
};
