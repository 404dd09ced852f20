/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file onednn_api.h
 * The primitive descriptors that the benchmark needs, over the interfaces of oneDNN 2.x (operation descriptors) and 3.x.
 */
#ifndef LAMINA_BENCH_ONEDNN_API_H
#define LAMINA_BENCH_ONEDNN_API_H

#include <dnnl.hpp>

namespace bench {
namespace api {

using namespace dnnl;
using Dims = memory::dims;
using Desc = memory::desc;

/** Strides, dilations (oneDNN counts from 0) and padding of a window. */
struct Window {
  Dims kernel, strides, dilates, pad_low, pad_high;
};

#if DNNL_VERSION_MAJOR >= 3

inline convolution_forward::primitive_desc conv_forward(const engine &e, prop_kind kind, const Desc &src, const Desc &weights,
                                                        const Desc &bias, const Desc &dst, const Window &w,
                                                        const primitive_attr &attr) {
  return {e, kind, algorithm::convolution_direct, src, weights, bias, dst, w.strides, w.dilates, w.pad_low, w.pad_high, attr};
}
inline convolution_backward_data::primitive_desc conv_backward_data(const engine &e, const Desc &d_src, const Desc &weights,
                                                                    const Desc &d_dst, const Window &w,
                                                                    const convolution_forward::primitive_desc &hint,
                                                                    const primitive_attr &attr) {
  return {e, algorithm::convolution_direct, d_src, weights, d_dst, w.strides, w.dilates, w.pad_low, w.pad_high, hint, attr};
}
inline convolution_backward_weights::primitive_desc
conv_backward_weights(const engine &e, const Desc &src, const Desc &d_weights, const Desc &d_dst, const Window &w,
                      const convolution_forward::primitive_desc &hint, const primitive_attr &attr) {
  return {e, algorithm::convolution_direct, src, d_weights, d_dst, w.strides, w.dilates, w.pad_low, w.pad_high, hint, attr};
}
inline batch_normalization_forward::primitive_desc norm_forward(const engine &e, prop_kind kind, const Desc &x, float eps,
                                                                normalization_flags flags, const primitive_attr &attr) {
  return {e, kind, x, x, eps, flags, attr};
}
inline batch_normalization_backward::primitive_desc
norm_backward(const engine &e, const Desc &x, float eps, normalization_flags flags,
              const batch_normalization_forward::primitive_desc &hint, const primitive_attr &attr) {
  return {e, prop_kind::backward, x, x, x, eps, flags, hint, attr};
}
inline inner_product_forward::primitive_desc linear_forward(const engine &e, prop_kind kind, const Desc &src,
                                                            const Desc &weights, const Desc &bias, const Desc &dst,
                                                            const primitive_attr &attr) {
  return {e, kind, src, weights, bias, dst, attr};
}
inline inner_product_backward_data::primitive_desc linear_backward_data(const engine &e, const Desc &d_src,
                                                                        const Desc &weights, const Desc &d_dst,
                                                                        const inner_product_forward::primitive_desc &hint,
                                                                        const primitive_attr &attr) {
  return {e, d_src, weights, d_dst, hint, attr};
}
inline inner_product_backward_weights::primitive_desc
linear_backward_weights(const engine &e, const Desc &src, const Desc &d_weights, const Desc &d_bias, const Desc &d_dst,
                        const inner_product_forward::primitive_desc &hint, const primitive_attr &attr) {
  return {e, src, d_weights, d_bias, d_dst, hint, attr};
}
inline pooling_forward::primitive_desc pool_forward(const engine &e, prop_kind kind, algorithm a, const Desc &src,
                                                    const Desc &dst, const Window &w, const primitive_attr &attr) {
  return {e, kind, a, src, dst, w.strides, w.kernel, w.dilates, w.pad_low, w.pad_high, attr};
}
inline pooling_backward::primitive_desc pool_backward(const engine &e, algorithm a, const Desc &d_src, const Desc &d_dst,
                                                      const Window &w, const pooling_forward::primitive_desc &hint,
                                                      const primitive_attr &attr) {
  return {e, a, d_src, d_dst, w.strides, w.kernel, w.dilates, w.pad_low, w.pad_high, hint, attr};
}
inline softmax_forward::primitive_desc softmax(const engine &e, const Desc &x, int axis, const primitive_attr &attr) {
  return {e, prop_kind::forward_inference, algorithm::softmax_accurate, x, x, axis, attr};
}
inline binary::primitive_desc add(const engine &e, const Desc &x, const primitive_attr &attr) {
  return {e, algorithm::binary_add, x, x, x, attr};
}
inline eltwise_forward::primitive_desc relu_forward(const engine &e, const Desc &x) {
  return {e, prop_kind::forward_training, algorithm::eltwise_relu_use_dst_for_bwd, x, x, 0.f, 0.f};
}
inline eltwise_backward::primitive_desc relu_backward(const engine &e, const Desc &x, const primitive_attr &attr) {
  return {e, algorithm::eltwise_relu_use_dst_for_bwd, x, x, x, 0.f, 0.f, relu_forward(e, x), attr};
}
inline eltwise_forward::primitive_desc relu_inference(const engine &e, const Desc &x, const primitive_attr &attr) {
  return {e, prop_kind::forward_inference, algorithm::eltwise_relu, x, x, 0.f, 0.f, attr};
}
inline void append_relu(post_ops &ops) { ops.append_eltwise(algorithm::eltwise_relu, 0.f, 0.f); }
inline Dims dims_of(const Desc &d) { return d.get_dims(); }
constexpr bool kNormBackwardTakesShift = false;

#else

inline convolution_forward::primitive_desc conv_forward(const engine &e, prop_kind kind, const Desc &src, const Desc &weights,
                                                        const Desc &bias, const Desc &dst, const Window &w,
                                                        const primitive_attr &attr) {
  return {{kind, algorithm::convolution_direct, src, weights, bias, dst, w.strides, w.dilates, w.pad_low, w.pad_high}, attr, e};
}
inline convolution_backward_data::primitive_desc conv_backward_data(const engine &e, const Desc &d_src, const Desc &weights,
                                                                    const Desc &d_dst, const Window &w,
                                                                    const convolution_forward::primitive_desc &hint,
                                                                    const primitive_attr &attr) {
  return {{algorithm::convolution_direct, d_src, weights, d_dst, w.strides, w.dilates, w.pad_low, w.pad_high}, attr, e, hint};
}
inline convolution_backward_weights::primitive_desc
conv_backward_weights(const engine &e, const Desc &src, const Desc &d_weights, const Desc &d_dst, const Window &w,
                      const convolution_forward::primitive_desc &hint, const primitive_attr &attr) {
  return {{algorithm::convolution_direct, src, d_weights, d_dst, w.strides, w.dilates, w.pad_low, w.pad_high}, attr, e, hint};
}
inline batch_normalization_forward::primitive_desc norm_forward(const engine &e, prop_kind kind, const Desc &x, float eps,
                                                                normalization_flags flags, const primitive_attr &attr) {
  return {{kind, x, eps, flags}, attr, e};
}
inline batch_normalization_backward::primitive_desc
norm_backward(const engine &e, const Desc &x, float eps, normalization_flags flags,
              const batch_normalization_forward::primitive_desc &hint, const primitive_attr &attr) {
  return {{prop_kind::backward, x, x, eps, flags}, attr, e, hint};
}
inline inner_product_forward::primitive_desc linear_forward(const engine &e, prop_kind kind, const Desc &src,
                                                            const Desc &weights, const Desc &bias, const Desc &dst,
                                                            const primitive_attr &attr) {
  return {{kind, src, weights, bias, dst}, attr, e};
}
inline inner_product_backward_data::primitive_desc linear_backward_data(const engine &e, const Desc &d_src,
                                                                        const Desc &weights, const Desc &d_dst,
                                                                        const inner_product_forward::primitive_desc &hint,
                                                                        const primitive_attr &attr) {
  return {{d_src, weights, d_dst}, attr, e, hint};
}
inline inner_product_backward_weights::primitive_desc
linear_backward_weights(const engine &e, const Desc &src, const Desc &d_weights, const Desc &d_bias, const Desc &d_dst,
                        const inner_product_forward::primitive_desc &hint, const primitive_attr &attr) {
  return {{src, d_weights, d_bias, d_dst}, attr, e, hint};
}
inline pooling_forward::primitive_desc pool_forward(const engine &e, prop_kind kind, algorithm a, const Desc &src,
                                                    const Desc &dst, const Window &w, const primitive_attr &attr) {
  return {{kind, a, src, dst, w.strides, w.kernel, w.pad_low, w.pad_high}, attr, e};
}
inline pooling_backward::primitive_desc pool_backward(const engine &e, algorithm a, const Desc &d_src, const Desc &d_dst,
                                                      const Window &w, const pooling_forward::primitive_desc &hint,
                                                      const primitive_attr &attr) {
  return {{a, d_src, d_dst, w.strides, w.kernel, w.pad_low, w.pad_high}, attr, e, hint};
}
inline softmax_forward::primitive_desc softmax(const engine &e, const Desc &x, int axis, const primitive_attr &attr) {
  return {{prop_kind::forward_inference, x, axis}, attr, e};
}
inline binary::primitive_desc add(const engine &e, const Desc &x, const primitive_attr &attr) {
  return {{algorithm::binary_add, x, x, x}, attr, e};
}
inline eltwise_forward::primitive_desc relu_forward(const engine &e, const Desc &x) {
  return {{prop_kind::forward_training, algorithm::eltwise_relu_use_dst_for_bwd, x, 0.f, 0.f}, e};
}
inline eltwise_backward::primitive_desc relu_backward(const engine &e, const Desc &x, const primitive_attr &attr) {
  return {{algorithm::eltwise_relu_use_dst_for_bwd, x, x, 0.f, 0.f}, attr, e, relu_forward(e, x)};
}
inline eltwise_forward::primitive_desc relu_inference(const engine &e, const Desc &x, const primitive_attr &attr) {
  return {{prop_kind::forward_inference, algorithm::eltwise_relu, x, 0.f, 0.f}, attr, e};
}
inline void append_relu(post_ops &ops) { ops.append_eltwise(1.f, algorithm::eltwise_relu, 0.f, 0.f); }
inline Dims dims_of(const Desc &d) { return d.dims(); }
constexpr bool kNormBackwardTakesShift = true;

#endif

} // namespace api
} // namespace bench

#endif
