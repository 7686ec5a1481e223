// Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) with what follows it in a residual
// network: y = relu(x * scale + shift + shortcut), in one pass over memory.

#include <algorithm>
#include <cmath>

#include "common.h"

namespace resnet {
namespace {

constexpr size_t RUN = 32;  // rows that are summed in float

// Two sums over rows for each channel: add(row, c, n, first, second) adds channels c to c + n of a
// row to sixteen floats of each. Returns the first sums and after them the second.
template <typename F>
std::vector<double> sum_rows(size_t row_count, size_t count, F add) {
    const size_t width = padded(count).size();
    std::vector<std::vector<double>> sums(parts_at_most(), std::vector<double>(2 * count, 0.0));
    parallel(row_count, [&](size_t begin, size_t end, int part) {
        std::vector<float> run(2 * width);
        float *first = run.data(), *second = first + width;
        double* sum = sums[part].data();
        for (size_t start = begin; start < end; start += RUN) {
            const size_t stop = std::min(start + RUN, end);
            std::fill(run.begin(), run.end(), 0.f);
            for (size_t row = start; row < stop; ++row)
                each_lanes(0, count, [&](size_t c, size_t n) {
                    Floats a = load(first + c), b = load(second + c);
                    add(row, c, n, a, b);
                    store(first + c, a);
                    store(second + c, b);
                });
            for (size_t c = 0; c < count; ++c) {
                sum[c] += first[c];
                sum[count + c] += second[c];
            }
        }
    });
    for (size_t part = 1; part < sums.size(); ++part)
        for (size_t index = 0; index < 2 * count; ++index)
            sums[0][index] += sums[part][index];
    return sums[0];
}

// x -> mean and variance over rows, (2, C)
void moments_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = {2, channels(in[0])};
}

template <typename T>
void moments(const T* x, size_t row_count, size_t count, float* mean, float* variance) {
    // About the first row: of values far from zero the squares would leave nothing of the variance.
    std::vector<float> origin = padded(count);
    std::copy(x, x + count, origin.begin());
    const float* shift = origin.data();
    auto sums = sum_rows(
            row_count, count, [=](size_t row, size_t c, size_t n, Floats& sum, Floats& squares) {
                const Floats value = load(x + row * count + c, n) - load(shift + c);
                sum += value;
                squares += value * value;
            });
    for (size_t c = 0; c < count; ++c) {
        const double difference = sums[c] / row_count;
        const double square = sums[count + c] / row_count - difference * difference;
        mean[c] = float(origin[c] + difference);
        variance[c] = float(std::max(square, 0.0));
    }
}

void compute_moments(const Tensors& in, const Param&, Tensors& out) {
    const size_t count = channels(in[0].shape());
    float* result = data<float>(out[0]);
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        moments(data<T>(in[0]), rows(in[0]), count, result, result + count);
    });
}

// The network's per-channel inputs: moments (2, C), gamma and beta.
struct Affine {
    std::vector<float> scale, shift;
    Affine(size_t count, const float* moments, const float* gamma, const float* beta, double eps)
            : scale(padded(count)), shift(padded(count)) {
        for (size_t c = 0; c < count; ++c) {
            const double factor = gamma[c] / std::sqrt(double(moments[count + c]) + eps);
            scale[c] = float(factor);
            shift[c] = float(beta[c] - moments[c] * factor);
        }
    }
};

template <typename T, bool ADD, bool RELU>
void normalize(const T* x, const T* add, T* y, size_t row_count, size_t count, const Affine& a) {
    const float *scale = a.scale.data(), *shift = a.shift.data();
    parallel(row_count, [=](size_t begin, size_t end, int) {
        for (size_t at = begin * count; at < end * count; at += count)
            each_lanes(0, count, [=](size_t c, size_t n) {
                Floats value = load(x + at + c, n) * load(scale + c) + load(shift + c);
                if (ADD)
                    value += load(add + at + c, n);
                store(y + at + c, RELU ? rectified(value) : value, n);
            });
    });
}

double epsilon(const Param& p) {
    return p["eps"].as<double>();
}

// x, moments, gamma, beta[, shortcut] -> y
void normalize_shape(const Shapes& in, const Param&, Shapes& out) {
    const size_t count = channels(in[0]);
    const bool met = in[1][1] == count && in[2][1] == count && in[3][1] == count;
    require(met, "a normalisation of as many channels as the map has expected");
    require(in.size() == 4 || in[4] == in[0], "a shortcut of the map's shape expected");
    out[0] = in[0];
}

template <bool ADD>
void compute_normalize(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = channels(in[0].shape());
    const Affine affine(
            count, data<float>(in[1]), data<float>(in[2]), data<float>(in[3]), epsilon(p));
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* add = ADD ? data<T>(in[4]) : nullptr;
        if (integer(p, "relu"))
            normalize<T, ADD, true>(
                    data<T>(in[0]), add, data<T>(out[0]), rows(in[0]), count, affine);
        else
            normalize<T, ADD, false>(
                    data<T>(in[0]), add, data<T>(out[0]), rows(in[0]), count, affine);
    });
}

// dy, x, moments[, y] -> sums (2, C): of g and of g * (x - mean), where g is dy, or dy where y > 0;
// and g itself, for the shortcut that was added before the ReLU
void sums_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = {2, channels(in[0])};
    if (out.size() == 2)
        out[1] = in[0];
}

void sums_dtype(const std::vector<DType>& inputs, const Param&, std::vector<DType>& outputs) {
    outputs[0] = DType(custom::DTypeEnum::float32);
    if (outputs.size() == 2)
        outputs[1] = inputs[0];
}

template <bool RELU, bool KEEP>
void compute_sums(const Tensors& in, const Param&, Tensors& out) {
    const size_t count = channels(in[0].shape());
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T *dy = data<T>(in[0]), *x = data<T>(in[1]), *y = RELU ? data<T>(in[3]) : nullptr;
        T* kept = KEEP ? data<T>(out[1]) : nullptr;
        std::vector<float> centre = padded(count);
        std::copy(data<float>(in[2]), data<float>(in[2]) + count, centre.begin());
        const float* mean = centre.data();
        auto sums = sum_rows(
                rows(in[0]), count,
                [=](size_t row, size_t c, size_t n, Floats& sum, Floats& product) {
                    const size_t at = row * count + c;
                    Floats g = load(dy + at, n);
                    if (RELU)
                        g = passed(g, load(y + at, n));
                    if (KEEP)
                        store(kept + at, g, n);
                    sum += g;
                    product += g * (load(x + at, n) - load(mean + c));
                });
        std::copy(sums.begin(), sums.end(), data<float>(out[0]));
    });
}

// dy, x, moments, gamma, sums, pixels (1: the rows that sums are over)[, y] -> dx
//
// dx = gamma / sigma * (g - mean(g) - (x - mean) / sigma^2 * mean(g * (x - mean))), which is
// a * g + b * x + d per channel.
template <typename T, bool RELU>
void input_gradient(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = channels(in[0].shape());
    const float *moments = data<float>(in[2]), *gamma = data<float>(in[3]);
    const float* sums = data<float>(in[4]);
    const double over = data<float>(in[5])[0], eps = epsilon(p);
    std::vector<float> a = padded(count), b = a, d = a;
    for (size_t c = 0; c < count; ++c) {
        const double variance = double(moments[count + c]) + eps;
        const double factor = gamma[c] / std::sqrt(variance);
        const double slope = -factor * sums[count + c] / (variance * over);
        a[c] = float(factor);
        b[c] = float(slope);
        d[c] = float(-factor * sums[c] / over - slope * moments[c]);
    }
    const T *dy = data<T>(in[0]), *x = data<T>(in[1]);
    const T* y = RELU ? data<T>(in[6]) : nullptr;
    T* dx = data<T>(out[0]);
    const float *on_g = a.data(), *on_x = b.data(), *rest = d.data();
    parallel(rows(in[0]), [=](size_t begin, size_t end, int) {
        for (size_t at = begin * count; at < end * count; at += count)
            each_lanes(0, count, [=](size_t c, size_t n) {
                Floats g = load(dy + at + c, n);
                if (RELU)
                    g = passed(g, load(y + at + c, n));
                const Floats value = load(x + at + c, n);
                store(dx + at + c, load(on_g + c) * g + load(on_x + c) * value + load(rest + c), n);
            });
    });
}

void first_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = in[0];
}

template <bool RELU>
void compute_input_gradient(const Tensors& in, const Param& p, Tensors& out) {
    with_type_of(in[0], [&](auto* t) {
        input_gradient<std::remove_pointer_t<decltype(t)>, RELU>(in, p, out);
    });
}

// sums, moments, gamma -> gradients of gamma and of beta, in the shape of both
void affine_shape(const Shapes& in, const Param&, Shapes& out) {
    require(in[0] == in[1], "sums of as many channels as the moments have expected");
    out[0] = out[1] = in[2];
}

void compute_affine_gradient(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = channels(in[0].shape());
    const float *sums = data<float>(in[0]), *variance = data<float>(in[1]) + count;
    float *dgamma = data<float>(out[0]), *dbeta = data<float>(out[1]);
    const double eps = epsilon(p);
    for (size_t c = 0; c < count; ++c) {
        dgamma[c] = float(sums[count + c] / std::sqrt(double(variance[c]) + eps));
        dbeta[c] = sums[c];
    }
}

// running mean, running variance, moments, rows (1) -> the next two: momentum * old + (1 - momentum)
// * new, where the new variance is the unbiased one
void two_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = in[0];
    out[1] = in[1];
}

void compute_running(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = in[0].size();
    const float* moments = data<float>(in[2]);
    const double over = data<float>(in[3])[0], momentum = p["momentum"].as<double>();
    const double unbiased = over / std::max(over - 1, 1.0);
    for (size_t c = 0; c < count; ++c) {
        data<float>(out[0])[c] =
                float(momentum * data<float>(in[0])[c] + (1 - momentum) * moments[c]);
        data<float>(out[1])[c] =
                float(momentum * data<float>(in[1])[c] +
                      (1 - momentum) * unbiased * moments[count + c]);
    }
}

// weight, gamma, beta, running mean, running variance -> weight and bias of a convolution that does
// what it and the normalisation did
void fold_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = in[0];
    out[1] = {in[1][0] * in[1][1]};
}

void compute_fold(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = in[1].size(), inner = in[0].size() / count;
    const float *weight = data<float>(in[0]), *gamma = data<float>(in[1]);
    const float *beta = data<float>(in[2]), *mean = data<float>(in[3]);
    const float* variance = data<float>(in[4]);
    float *folded = data<float>(out[0]), *bias = data<float>(out[1]);
    const double eps = epsilon(p);
    parallel(count, [=](size_t begin, size_t end, int) {
        for (size_t c = begin; c < end; ++c) {
            const double factor = gamma[c] / std::sqrt(double(variance[c]) + eps);
            bias[c] = float(beta[c] - mean[c] * factor);
            const float scale = float(factor);
            for (size_t index = c * inner; index < (c + 1) * inner; ++index)
                folded[index] = weight[index] * scale;
        }
    });
}

custom::CustomOp& with_eps(custom::CustomOp& op) {
    return op.add_param("eps", 1e-5);
}

auto& op_moments = define("Moments", 1, 1, moments_shape, float_dtype, compute_moments);
auto& op_normalize = with_eps(
        define("Normalize", 4, 1, normalize_shape, same_dtype, compute_normalize<false>, {"relu"}));
auto& op_normalize_add = with_eps(define(
        "NormalizeAdd", 5, 1, normalize_shape, same_dtype, compute_normalize<true>, {"relu"}));
auto& op_sums = define("NormSums", 3, 1, sums_shape, sums_dtype, compute_sums<false, false>);
auto& op_sums_relu =
        define("NormSumsRelu", 4, 1, sums_shape, sums_dtype, compute_sums<true, false>);
auto& op_sums_keep =
        define("NormSumsReluKeep", 4, 2, sums_shape, sums_dtype, compute_sums<true, true>);
auto& op_gradient = with_eps(
        define("NormData", 6, 1, first_shape, same_dtype, compute_input_gradient<false>));
auto& op_gradient_relu = with_eps(
        define("NormDataRelu", 7, 1, first_shape, same_dtype, compute_input_gradient<true>));

auto& op_affine = with_eps(
        define("NormAffine", 3, 2, affine_shape, float_dtype, compute_affine_gradient));
auto& op_running = define("Running", 4, 2, two_shape, float_dtype, compute_running)
                           .add_param("momentum", 0.9);
auto& op_fold = with_eps(define("Fold", 5, 2, fold_shape, float_dtype, compute_fold));

}  // namespace
}  // namespace resnet
