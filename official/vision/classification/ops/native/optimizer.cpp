// The update of stochastic gradient descent with momentum, in one pass over a tensor.

#include <algorithm>

#include "lanes.h"

namespace resnet {
namespace {

constexpr size_t PART = 4096;  // elements; what is smaller is not worth a second thread

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
    const size_t size = in[0].size();
    parallel((size + PART - 1) / PART, [=](size_t begin, size_t end, int) {
        each_lanes(begin * PART, std::min(end * PART, size), [=](size_t i, size_t n) {
            const Floats w = load(weight + i, n);
            const Floats g = load(gradient + i, n) + decay * w;
            const Floats v = momentum * load(velocity + i, n) + g;
            store(new_velocity + i, v, n);
            store(new_weight + i, w - rate * (nesterov ? g + momentum * v : v), n);
        });
    });
}

auto& op_descend =
        define("Descend", 4, 2, two_like_first, same_dtype, descend, {"nesterov"});

}  // namespace
}  // namespace resnet
