/* SPDX-License-Identifier: Apache-2.0 */
/* ConvNeXt-T (Liu et al. 2022), 224x224; its pointwise linear layers as 1x1 convolutions. */
inline constexpr Shape convnext_t[] = {
    conv_pad(3, 224, 96, 4, 4, 0),
    depthwise(96, 56, 7, 1, 3),
    conv(96, 56, 384, 1, 1, 3),
    conv(384, 56, 96, 1, 1, 3),
    conv_pad(96, 56, 192, 2, 2, 0),
    depthwise(192, 28, 7, 1, 3),
    conv(192, 28, 768, 1, 1, 3),
    conv(768, 28, 192, 1, 1, 3),
    conv_pad(192, 28, 384, 2, 2, 0),
    depthwise(384, 14, 7, 1, 9),
    conv(384, 14, 1536, 1, 1, 9),
    conv(1536, 14, 384, 1, 1, 9),
    conv_pad(384, 14, 768, 2, 2, 0),
    depthwise(768, 7, 7, 1, 3),
    conv(768, 7, 3072, 1, 1, 3),
    conv(3072, 7, 768, 1, 1, 3),
    global_pool(768, 7),
    linear(768, 1000),
    softmax(1000),
};
