// What follows a training step's gradients, in one pass over a tensor: the updates of stochastic
// gradient descent with momentum and of AdamW and LAMB, and that of an average of the weights.

#include <cmath>

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

// weight, gradient, mean, square, seven numbers -> weight, mean, square
void three_like_first(const Shapes& in, const Param&, Shapes& out) {
    require(in[0] == in[1] && in[0] == in[2] && in[0] == in[3], "tensors of one shape expected");
    out[0] = out[1] = out[2] = in[0];
}

struct Adaptation {
    float rate, beta1, beta2, eps, decay;
    float first, second;  // how much of the mean and of the root there is after so few steps

    // The update of AdamW, before the rate; mean and square become those after this gradient.
    Floats operator()(Floats w, Floats g, Floats& mean, Floats& square) const {
        mean = beta1 * mean + (1 - beta1) * g;
        square = beta2 * square + (1 - beta2) * (g * g);
        Floats root;
        for (size_t lane = 0; lane < LANES; ++lane)
            root[lane] = std::sqrt(square[lane]);
        return (mean / first) / (root / second + eps) + decay * w;
    }
};

float sum(Floats values) {
    float total = 0;
    for (size_t lane = 0; lane < LANES; ++lane)
        total += values[lane];
    return total;
}

// w <- w - rate r u, where r is |w| / |u| with LAMB's trust ratio, else 1
void adapt(const Tensors& in, const Param& p, Tensors& out) {
    const float *weight = data<float>(in[0]), *gradient = data<float>(in[1]);
    const float *mean = data<float>(in[2]), *square = data<float>(in[3]);
    float *new_weight = data<float>(out[0]), *new_mean = data<float>(out[1]);
    float* new_square = data<float>(out[2]);
    Adaptation adaptation;
    std::memcpy(&adaptation, in[4].data(), sizeof(adaptation));
    const bool trust = integer(p, "trust");
    const size_t size = in[0].size(), parts = (size + PART - 1) / PART;
    std::vector<double> weights(parts), updates(parts);  // their squares, summed in a fixed order
    parallel(parts, [&](size_t begin, size_t end, int) {
        for (size_t part = begin; part < end; ++part) {
            Floats of_weights{}, of_updates{};
            each_lanes(part * PART, std::min((part + 1) * PART, size), [&](size_t i, size_t n) {
                Floats m = load(mean + i, n), v = load(square + i, n);
                const Floats w = load(weight + i, n);
                const Floats u = adaptation(w, load(gradient + i, n), m, v);
                store(new_mean + i, m, n);
                store(new_square + i, v, n);
                store(new_weight + i, trust ? u : w - adaptation.rate * u, n);
                of_weights += w * w;
                of_updates += u * u;
            });
            weights[part] = sum(of_weights);
            updates[part] = sum(of_updates);
        }
    });
    if (!trust)
        return;
    double of_weights = 0, of_updates = 0;
    for (size_t part = 0; part < parts; ++part) {
        of_weights += weights[part];
        of_updates += updates[part];
    }
    const bool defined = of_weights > 0 && of_updates > 0;
    const float ratio = defined ? std::sqrt(of_weights / of_updates) : 1.;
    each_element(in[0], [=](size_t i, size_t n) {
        const Floats u = load(new_weight + i, n);
        store(new_weight + i, load(weight + i, n) - adaptation.rate * (ratio * u), n);
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
auto& op_adapt = define("Adapt", 5, 3, three_like_first, same_dtype, adapt, {"trust"});
auto& op_lerp = define("Lerp", 3, 1, like_start, same_dtype, lerp);

}  // namespace
}  // namespace resnet
