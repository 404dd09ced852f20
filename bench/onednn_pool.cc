/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's pooling. */
#include "onednn.h"

namespace bench {

namespace {

class Pool : public OneDnnSide {
public:
  Pool(const Case &c, const Data &data, Tag layout) : OneDnnSide(c.threads) {
    const Shape &s = c.shape;
    const api::Dims src = {c.batch, s.c, s.h, s.w}, dst = {c.batch, s.k, s.oh(), s.ow()};
    const api::Desc x = tagged(src, layout), y = tagged(dst, layout);
    const api::Window window = {{s.kh, s.kw}, {s.sh, s.sw}, {0, 0}, {s.ph, s.pw}, {s.ph, s.pw}};
    const bool backward = c.pass == Pass::PoolBackward, max = s.kind == Kind::MaxPool;
    const auto algorithm = max ? dnnl::algorithm::pooling_max : dnnl::algorithm::pooling_avg_include_padding;
    const auto kind = backward ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;
    const auto pd = api::pool_forward(engine_, kind, algorithm, x, y, window, attributes());
    const dnnl::memory out = empty(y), dx = empty(x);
    Args args = {{DNNL_ARG_SRC, laid_out(plain(src, Tag::nhwc, data.x), x)}, {DNNL_ARG_DST, out}};
    dnnl::memory indices;
    if (backward && max) {
      indices = empty(pd.workspace_desc());
      args.insert({DNNL_ARG_WORKSPACE, indices});
    }
    step<dnnl::pooling_forward>(pd, args, !backward);
    if (!backward) {
      result(out, dst, Tag::nhwc);
      return;
    }
    args = {{DNNL_ARG_DIFF_DST, laid_out(plain(dst, Tag::nhwc, data.dy), y)}, {DNNL_ARG_DIFF_SRC, dx}};
    if (max) args.insert({DNNL_ARG_WORKSPACE, indices});
    step<dnnl::pooling_backward>(api::pool_backward(engine_, algorithm, x, y, window, pd, attributes()), args);
    result(dx, src, Tag::nhwc);
  }
};

} // namespace

std::unique_ptr<Side> make_onednn_pool(const Case &c, const Data &data, bool nhwc) {
  using Tag = dnnl::memory::format_tag;
  static const Tag blocked[] = {Tag::nChw16c, Tag::nChw8c}, last[] = {Tag::nhwc};
  const Tag *ways = nhwc ? last : blocked;
  return fastest(nhwc ? 1 : 2, [&](size_t i) { return std::make_unique<Pool>(c, data, ways[i]); });
}

} // namespace bench
