/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: a new suite is one table in suites/ and one row here. */
#include "shape.h"

namespace bench {

#include "suites/aliasing.h"
#include "suites/convnext_t.h"
#include "suites/densenet121.h"
#include "suites/efficientnet_b0.h"
#include "suites/inception_v3.h"
#include "suites/mobilenet_v1.h"
#include "suites/mobilenet_v2.h"
#include "suites/mobilenet_v3_large.h"
#include "suites/mynet.h"
#include "suites/odd.h"
#include "suites/quick.h"
#include "suites/resnet50.h"
#include "suites/resnext50_32x4d.h"
#include "suites/unet.h"
#include "suites/vgg16.h"

template <size_t N> static Suite suite(const char *name, const char *doc, Norms norms, const Shape (&rows)[N]) {
  return {name, doc, norms, rows, N};
}

const std::vector<Suite> &suites() {
  static const std::vector<Suite> all = {
      suite("resnet50", "ResNet-50 v1.5", Norms::AfterConv, resnet50),
      suite("vgg16", "VGG-16: 3x3 stride 1 throughout", Norms::None, vgg16),
      suite("mobilenet_v1", "MobileNet-V1 1.0", Norms::AfterConv, mobilenet_v1),
      suite("mobilenet_v2", "MobileNet-V2 1.0", Norms::AfterConv, mobilenet_v2),
      suite("mobilenet_v3_large", "MobileNet-V3-large 1.0", Norms::AfterConv, mobilenet_v3_large),
      suite("efficientnet_b0", "EfficientNet-B0", Norms::AfterConv, efficientnet_b0),
      suite("densenet121", "DenseNet-121", Norms::BeforeConv, densenet121),
      suite("inception_v3", "Inception-v3, with 1x7 and 7x1 kernels", Norms::AfterConv, inception_v3),
      suite("unet", "U-Net, 256x256", Norms::None, unet),
      suite("resnext50_32x4d", "ResNeXt-50 32x4d: groups of 4 to 32 channels", Norms::AfterConv, resnext50_32x4d),
      suite("convnext_t", "ConvNeXt-T: depthwise 7x7", Norms::None, convnext_t),
      suite("mynet", "the small network of models/mynet.json", Norms::AfterConv, mynet),
      suite("aliasing", "channels around 512, 1024, 2048", Norms::None, aliasing),
      suite("odd", "sizes that no vector divides", Norms::None, odd),
      suite("quick", "a little of everything, small", Norms::None, quick),
  };
  return all;
}

const Suite *find_suite(const std::string &name) {
  for (const Suite &s : suites())
    if (name == s.name) return &s;
  return nullptr;
}

static void add(std::vector<Shape> &list, const Shape &shape) {
  for (Shape &s : list)
    if (s.name() == shape.name()) {
      s.count += shape.count;
      return;
    }
  list.push_back(shape);
}

/* 1x1 images are squeeze-and-excitation's, which has no batch norm; nor has the image itself. */
static bool has_norm(const Shape &row, Norms norms) {
  if (row.kind != Kind::Conv || row.h == 1) return false;
  return norms == Norms::AfterConv || (norms == Norms::BeforeConv && row.c != 3);
}

static Shape norm_of(const Shape &conv, Norms norms) {
  if (norms == Norms::BeforeConv) return {Kind::Norm, conv.c, conv.h, conv.w, conv.c, 1, 1, 1, 1, 0, 0, 1, conv.count, nullptr};
  return {Kind::Norm, conv.k, conv.oh(), conv.ow(), conv.k, 1, 1, 1, 1, 0, 0, 1, conv.count, nullptr};
}

std::vector<Shape> shapes_of(const Suite &suite, Pass pass) {
  std::vector<Shape> list;
  for (size_t i = 0; i < suite.row_count; i++) {
    const Shape &row = suite.rows[i];
    if (pass_fits(pass, row)) add(list, row);
    if (has_norm(row, suite.norms) && pass_fits(pass, norm_of(row, suite.norms))) add(list, norm_of(row, suite.norms));
  }
  return list;
}

} // namespace bench
