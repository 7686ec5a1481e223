// What follows a training step's gradients, in one pass over a tensor: the update of stochastic
// gradient descent with momentum, and that of an average of the weights.

#include "common.h"

namespace resnet {
namespace {

// weight, gradient, velocity, (rate, momentum, decay) -> weight, velocity
void two_like_first(const Shapes& in, const Param&, Shapes& out) {
    require(in[0] == in[1] && in[0] == in[2], "tensors of one shape expected");
    out[0] = out[1] = in[0];
}

// v <- momentum v + g + decay w;  w <- w - rate v, or with Nesterov's momentum the v to come
void descend(const Tensors& in, const Param& p, Tensors& out) {
    const bool nesterov = integer(p, "nesterov");
    const float *weight = data<float>(in[0]), *gradient = data<float>(in[1]);
    const float *velocity = data<float>(in[2]), *rates = data<float>(in[3]);
    const float rate = rates[0], momentum = rates[1], decay = rates[2];
    float *new_weight = data<float>(out[0]), *new_velocity = data<float>(out[1]);
    each_element(in[0], [=](size_t i, size_t n) {
        const Floats w = load(weight + i, n);
        const Floats g = load(gradient + i, n) + decay * w;
        const Floats v = momentum * load(velocity + i, n) + g;
        store(new_velocity + i, v, n);
        store(new_weight + i, w - rate * (nesterov ? g + momentum * v : v), n);
    });
}

// start, end, share -> start
void like_start(const Shapes& in, const Param&, Shapes& out) {
    require(in[0] == in[1], "tensors of one shape expected");
    out[0] = in[0];
}

// start + share (end - start)
void lerp(const Tensors& in, const Param&, Tensors& out) {
    const float *start = data<float>(in[0]), *end = data<float>(in[1]);
    const float share = data<float>(in[2])[0];
    float* result = data<float>(out[0]);
    each_element(in[0], [=](size_t i, size_t n) {
        const Floats from = load(start + i, n);
        store(result + i, from + share * (load(end + i, n) - from), n);
    });
}

auto& op_descend =
        define("Descend", 4, 2, two_like_first, same_dtype, descend, {"nesterov"});
auto& op_lerp = define("Lerp", 3, 1, like_start, same_dtype, lerp);

}  // namespace
}  // namespace resnet
