// Sums, ReLU and its gradient.

#include "common.h"

namespace resnet {
namespace {

void first_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = in[0];
}

float rectified(float value) {
    return value > 0 || value != value ? value : 0.f;  // NaN stays
}

// Call f(index) for every element of the tensor.
template <typename F>
void each_element(const Tensor& tensor, F f) {
    parallel(tensor.size(), [&](size_t begin, size_t end, int) {
#pragma omp simd
        for (size_t index = begin; index < end; ++index)
            f(index);
    });
}

void relu(const Tensors& in, const Param&, Tensors& out) {
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* x = data<T>(in[0]);
        T* y = data<T>(out[0]);
        each_element(in[0], [=](size_t i) { y[i] = T(rectified(x[i])); });
    });
}

void add(const Tensors& in, const Param& p, Tensors& out) {
    const bool rectify = integer(p, "relu");
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T *a = data<T>(in[0]), *b = data<T>(in[1]);
        T* y = data<T>(out[0]);
        if (rectify)
            each_element(
                    in[0], [=](size_t i) { y[i] = T(rectified(float(a[i]) + float(b[i]))); });
        else
            each_element(in[0], [=](size_t i) { y[i] = T(float(a[i]) + float(b[i])); });
    });
}

// dy, y -> dy where y > 0, else 0
void relu_gradient(const Tensors& in, const Param&, Tensors& out) {
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T *dy = data<T>(in[0]), *y = data<T>(in[1]);
        T* dx = data<T>(out[0]);
        each_element(in[0], [=](size_t i) {
            const float gradient = dy[i];
            dx[i] = T(float(y[i]) > 0 ? gradient : 0.f);
        });
    });
}

auto& op_relu = define("Relu", 1, 1, first_shape, same_dtype, relu);
auto& op_add = define("Add", 2, 1, first_shape, same_dtype, add, {"relu"});
auto& op_relu_gradient = define("ReluData", 2, 1, first_shape, same_dtype, relu_gradient);

}  // namespace
}  // namespace resnet
