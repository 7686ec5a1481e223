// Sums, and the gradient of a ReLU.

#include "common.h"

namespace resnet {
namespace {

void first_shape(const Shapes& in, const Param&, Shapes& out) {
    require(in[0] == in.back(), "maps of one shape expected");
    out[0] = in[0];
}

void add(const Tensors& in, const Param& p, Tensors& out) {
    const bool rectify = integer(p, "relu");
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T *a = data<T>(in[0]), *b = data<T>(in[1]);
        T* y = data<T>(out[0]);
        each_element(in[0], [=](size_t i, size_t n) {
            const Floats sum = load(a + i, n) + load(b + i, n);
            store(y + i, rectify ? rectified(sum) : sum, n);
        });
    });
}

// dy, y -> dy where y > 0, else 0
void relu_gradient(const Tensors& in, const Param&, Tensors& out) {
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T *dy = data<T>(in[0]), *y = data<T>(in[1]);
        T* dx = data<T>(out[0]);
        each_element(in[0], [=](size_t i, size_t n) {
            store(dx + i, passed(load(dy + i, n), load(y + i, n)), n);
        });
    });
}

auto& op_add = define("Add", 2, 1, first_shape, same_dtype, add, {"relu"});
auto& op_relu_gradient = define("ReluData", 2, 1, first_shape, same_dtype, relu_gradient);

}  // namespace
}  // namespace resnet
