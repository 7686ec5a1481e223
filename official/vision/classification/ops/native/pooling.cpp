// Max pooling, the mean of a map, and every second pixel, on (N, H, W, C).

#include <algorithm>
#include <limits>

#include "common.h"

namespace resnet {
namespace {

typedef int32_t Places __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(16)));

struct Window {
    int kernel, stride, top, bottom, left, right;
    explicit Window(const Param& p)
            : kernel(integer(p, "kernel")),
              stride(integer(p, "stride")),
              top(integer(p, "top")),
              bottom(integer(p, "bottom")),
              left(integer(p, "left")),
              right(integer(p, "right")) {}
    size_t rows(size_t height) const { return (height + top + bottom - kernel) / stride + 1; }
    size_t columns(size_t width) const { return (width + left + right - kernel) / stride + 1; }
};

// x -> y, and if PLACES for each value its place in the window (uint8), as row * kernel + column
template <bool PLACES>
void max_shape(const Shapes& in, const Param& p, Shapes& out) {
    const Window window(p);
    out[0] = {in[0][0], window.rows(in[0][1]), window.columns(in[0][2]), in[0][3]};
    if (PLACES)
        out[1] = out[0];
}

void max_dtype(const std::vector<DType>& inputs, const Param&, std::vector<DType>& outputs) {
    outputs[0] = inputs[0];
    outputs[1] = DType(custom::DTypeEnum::uint8);
}

// Call f(place, row, column) for the window's pixels that are on the map.
template <typename F>
void each_pixel(const Window& w, size_t height, size_t width, size_t row, size_t column, F f) {
    for (int i = 0; i < w.kernel; ++i)
        for (int j = 0; j < w.kernel; ++j) {
            const ptrdiff_t r = ptrdiff_t(row * w.stride) + i - w.top;
            const ptrdiff_t c = ptrdiff_t(column * w.stride) + j - w.left;
            if (r >= 0 && c >= 0 && r < ptrdiff_t(height) && c < ptrdiff_t(width))
                f(i * w.kernel + j, size_t(r), size_t(c));
        }
}

// The largest of a window's pixels for channels k to k + n, and where it is: the first of equals.
// NaN is larger than all numbers, so that it is not lost.
template <typename T>
struct Pixel {
    const T* values;
    int32_t place;
};

template <typename T>
Floats largest(const std::vector<Pixel<T>>& pixels, size_t k, size_t n, Places& where) {
    Floats best = Floats{} - std::numeric_limits<float>::infinity();
    where = Places{};
    for (const Pixel<T>& pixel : pixels) {
        const Floats value = load(pixel.values + k, n);
        const Places larger = (value > best) | (value != value);
        best = larger ? value : best;
        where = larger ? Places{} + pixel.place : where;
    }
    return best;
}

template <typename T, bool PLACES>
void max_forward(const Tensors& in, const Param& p, Tensors& out) {
    const Window window(p);
    const Shape from = in[0].shape(), to = out[0].shape();
    const size_t height = from[1], width = from[2], count = from[3];
    const T* x = data<T>(in[0]);
    T* y = data<T>(out[0]);
    uint8_t* places = PLACES ? data<uint8_t>(out[1]) : nullptr;
    parallel(to[0] * to[1], [&](size_t begin, size_t end, int) {
        std::vector<Pixel<T>> pixels;
        for (size_t at = begin * to[2]; at < end * to[2]; ++at) {
            const size_t line = at / to[2];
            const T* image = x + line / to[1] * height * width * count;
            pixels.clear();
            each_pixel(
                    window, height, width, line % to[1], at % to[2],
                    [&](int place, size_t r, size_t c) {
                        pixels.push_back({image + (r * width + c) * count, place});
                    });
            each_lanes(0, count, [&](size_t k, size_t n) {
                Places where;
                store(y + at * count + k, largest(pixels, k, n, where), n);
                if (PLACES) {
                    const Bytes bytes = __builtin_convertvector(where, Bytes);
                    std::memcpy(places + at * count + k, &bytes, n);
                }
            });
        }
    });
}

template <bool PLACES>
void compute_max(const Tensors& in, const Param& p, Tensors& out) {
    with_type_of(in[0], [&](auto* t) {
        max_forward<std::remove_pointer_t<decltype(t)>, PLACES>(in, p, out);
    });
}

// dy, places -> dx (N, height, width, C)
void map_shape(const Shapes& in, const Param& p, Shapes& out) {
    out[0] = {in[0][0], size_t(integer(p, "height")), size_t(integer(p, "width")),
              channels(in[0])};
}

template <typename T>
void max_backward(const Tensors& in, const Param& p, Tensors& out) {
    const Window window(p);
    const Shape from = out[0].shape(), to = in[0].shape();
    const size_t height = from[1], width = from[2], count = from[3];
    const T* dy = data<T>(in[0]);
    const uint8_t* place = data<uint8_t>(in[1]);
    parallel(to[0], [&](size_t begin, size_t end, int) {
        std::vector<float> map(height * width * count);
        for (size_t image = begin; image < end; ++image) {
            std::fill(map.begin(), map.end(), 0.f);
            for (size_t row = 0; row < to[1]; ++row)
                for (size_t column = 0; column < to[2]; ++column) {
                    const size_t at = ((image * to[1] + row) * to[2] + column) * count;
                    const T* gradient = dy + at;
                    const uint8_t* chosen = place + at;
                    each_pixel(
                            window, height, width, row, column,
                            [&](int index, size_t r, size_t c) {
                                float* sum = map.data() + (r * width + c) * count;
#pragma omp simd
                                for (size_t k = 0; k < count; ++k)
                                    sum[k] += chosen[k] == index ? float(gradient[k]) : 0.f;
                            });
                }
            std::copy(map.begin(), map.end(), data<T>(out[0]) + image * map.size());
        }
    });
}

void compute_max_gradient(const Tensors& in, const Param& p, Tensors& out) {
    with_type_of(in[0], [&](auto* t) {
        max_backward<std::remove_pointer_t<decltype(t)>>(in, p, out);
    });
}

// x -> the mean of each map, (N, C) in float32
void mean_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = {in[0][0], in[0][3]};
}

void compute_mean(const Tensors& in, const Param&, Tensors& out) {
    const size_t count = channels(in[0].shape()), pixels = in[0].shape()[1] * in[0].shape()[2];
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* x = data<T>(in[0]);
        float* y = data<float>(out[0]);
        parallel(in[0].shape()[0], [&](size_t begin, size_t end, int) {
            for (size_t image = begin; image < end; ++image) {
                float* sum = y + image * count;
                std::fill(sum, sum + count, 0.f);
                for (size_t pixel = 0; pixel < pixels; ++pixel)
                    each_lanes(0, count, [&](size_t c, size_t n) {
                        const T* values = x + (image * pixels + pixel) * count + c;
                        store(sum + c, load(sum + c, n) + load(values, n), n);
                    });
                for (size_t c = 0; c < count; ++c)
                    sum[c] /= float(pixels);
            }
        });
    });
}

// dy (N, C) in float32, x (for its shape and type) -> dx
void second_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = in[1];
}

void second_dtype(const std::vector<DType>& inputs, const Param&, std::vector<DType>& outputs) {
    outputs[0] = inputs[1];
}

void compute_mean_gradient(const Tensors& in, const Param&, Tensors& out) {
    const Shape shape = out[0].shape();
    const size_t count = channels(shape), pixels = shape[1] * shape[2];
    with_type_of(out[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const float* dy = data<float>(in[0]);
        T* dx = data<T>(out[0]);
        parallel(rows(out[0]), [&](size_t begin, size_t end, int) {
            for (size_t row = begin; row < end; ++row)
                for (size_t c = 0; c < count; ++c)
                    dx[row * count + c] = T(dy[row / pixels * count + c] / float(pixels));
        });
    });
}

// x -> every stride-th pixel, with `before` and `after` channels of zeros around x's
void subsample_shape(const Shapes& in, const Param& p, Shapes& out) {
    const size_t stride = integer(p, "stride");
    out[0] = {in[0][0], (in[0][1] + stride - 1) / stride, (in[0][2] + stride - 1) / stride,
              in[0][3] + integer(p, "before") + integer(p, "after")};
}

// Call f(small, large): where the rows of the small map begin and where they lie on the large one.
template <typename F>
void each_kept_row(const Shape& small, const Shape& large, size_t stride, F f) {
    parallel(small[0] * small[1], [&](size_t begin, size_t end, int) {
        for (size_t line = begin; line < end; ++line)
            for (size_t column = 0; column < small[2]; ++column)
                f((line * small[2] + column) * small[3],
                  ((line / small[1] * large[1] + line % small[1] * stride) * large[2] +
                   column * stride) *
                          large[3]);
    });
}

void compute_subsample(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = channels(in[0].shape()), before = integer(p, "before");
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* x = data<T>(in[0]);
        T* y = data<T>(out[0]);
        std::fill(y, y + out[0].size(), T(0.f));
        each_kept_row(
                out[0].shape(), in[0].shape(), integer(p, "stride"),
                [=](size_t small, size_t large) {
                    std::copy(x + large, x + large + count, y + small + before);
                });
    });
}

void compute_subsample_gradient(const Tensors& in, const Param& p, Tensors& out) {
    const size_t count = channels(out[0].shape()), before = integer(p, "before");
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* dy = data<T>(in[0]);
        T* dx = data<T>(out[0]);
        std::fill(dx, dx + out[0].size(), T(0.f));
        each_kept_row(
                in[0].shape(), out[0].shape(), integer(p, "stride"),
                [=](size_t small, size_t large) {
                    std::copy(dy + small + before, dy + small + before + count, dx + large);
                });
    });
}

// x -> the mean over each 2x2 square, or over what is there of it
void halve_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = {in[0][0], (in[0][1] + 1) / 2, (in[0][2] + 1) / 2, in[0][3]};
}

// The pixels that the mean at (line, column) of the small map is over: `first` is the number of the
// upper left one's row of channels on the large map.
struct Square {
    size_t first, height, width;
    Square(const Shape& small, const Shape& large, size_t line, size_t column) {
        const size_t row = line % small[1] * 2;
        first = (line / small[1] * large[1] + row) * large[2] + column * 2;
        height = std::min<size_t>(2, large[1] - row);
        width = std::min<size_t>(2, large[2] - column * 2);
    }
    float share() const { return 1.f / float(height * width); }
};

void compute_halve(const Tensors& in, const Param&, Tensors& out) {
    const Shape large = in[0].shape(), small = out[0].shape();
    const size_t count = channels(large);
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* x = data<T>(in[0]);
        T* y = data<T>(out[0]);
        parallel(rows(out[0]), [=](size_t begin, size_t end, int) {
            std::vector<float> sum(count);
            for (size_t at = begin; at < end; ++at) {
                const Square square(small, large, at / small[2], at % small[2]);
                std::fill(sum.begin(), sum.end(), 0.f);
                for (size_t i = 0; i < square.height; ++i)
                    for (size_t j = 0; j < square.width; ++j) {
                        const T* pixel = x + (square.first + i * large[2] + j) * count;
                        for (size_t c = 0; c < count; ++c)
                            sum[c] += float(pixel[c]);
                    }
                for (size_t c = 0; c < count; ++c)
                    y[at * count + c] = T(sum[c] * square.share());
            }
        });
    });
}

void compute_halve_gradient(const Tensors& in, const Param&, Tensors& out) {
    const Shape large = out[0].shape(), small = in[0].shape();
    const size_t count = channels(large);
    with_type_of(in[0], [&](auto* t) {
        using T = std::remove_pointer_t<decltype(t)>;
        const T* dy = data<T>(in[0]);
        T* dx = data<T>(out[0]);
        parallel(rows(in[0]), [=](size_t begin, size_t end, int) {
            for (size_t at = begin; at < end; ++at) {
                const Square square(small, large, at / small[2], at % small[2]);
                for (size_t i = 0; i < square.height; ++i)
                    for (size_t j = 0; j < square.width; ++j) {
                        T* pixel = dx + (square.first + i * large[2] + j) * count;
                        for (size_t c = 0; c < count; ++c)
                            pixel[c] = T(float(dy[at * count + c]) * square.share());
                    }
            }
        });
    });
}

const std::initializer_list<const char*> WINDOW = {
        "kernel", "stride", "top", "bottom", "left", "right", "height", "width"};
auto& op_halve = define("Halve", 1, 1, halve_shape, same_dtype, compute_halve);
auto& op_halve_gradient =
        define("HalveData", 1, 1, map_shape, same_dtype, compute_halve_gradient,
               {"height", "width"});
auto& op_max =
        define("MaxPool", 1, 1, max_shape<false>, same_dtype, compute_max<false>, WINDOW);
auto& op_max_places =
        define("MaxPoolPlaces", 1, 2, max_shape<true>, max_dtype, compute_max<true>, WINDOW);
auto& op_max_gradient =
        define("MaxPoolData", 2, 1, map_shape, same_dtype, compute_max_gradient,
               WINDOW);
auto& op_mean = define("Mean", 1, 1, mean_shape, float_dtype, compute_mean);
auto& op_mean_gradient =
        define("MeanData", 2, 1, second_shape, second_dtype, compute_mean_gradient);
auto& op_subsample =
        define("Subsample", 1, 1, subsample_shape, same_dtype, compute_subsample,
               {"stride", "before", "after"});
auto& op_subsample_gradient =
        define("SubsampleData", 2, 1, second_shape, same_dtype, compute_subsample_gradient,
               {"stride", "before", "after"});

}  // namespace
}  // namespace resnet
