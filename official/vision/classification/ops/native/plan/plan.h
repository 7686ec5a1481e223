// Networks as lists of steps: ops/plan.py writes them, resnet_run does them.
//
// Between steps maps lie in one arena as (N, H + 2 halo, W + 2 halo, C): around each image there are
// pixels of zeros, so that a convolution need not ask where a map ends. The two structures are
// ctypes' in ops/steps.py.
#pragma once

#include "../lanes.h"

namespace resnet {
namespace plan {

enum Type : int32_t { FLOAT, BFLOAT16, BYTE };
enum Kind : int32_t { CONVOLVE, WINOGRAD, AFFINE, ADD, MAX_POOL, MEAN, HALVE, SUBSAMPLE, COPY };

// A byte q stands for scale * (q - zero).
struct Map {
    void* data;  // the first pixel of the first image, halo included
    int32_t type, count, height, width, channels, halo, zero;
    float scale;

    size_t element() const { return type == FLOAT ? 4 : type == BFLOAT16 ? 2 : 1; }
    size_t row() const { return size_t(width + 2 * halo) * channels; }  // in elements
    size_t image() const { return row() * (height + 2 * halo); }
    // Where the pixel is in `data`, in elements; halo pixels have coordinates beyond the map.
    size_t at(size_t n, ptrdiff_t y, ptrdiff_t x) const {
        return n * image() + (y + halo) * row() + (x + halo) * channels;
    }
    size_t pixels() const { return size_t(count) * height * width; }
};

struct Step {
    int32_t kind, relu;
    Map x, y, add;  // `add` is not there if its data is null
    int32_t kernel[2], stride[2], padding[2], dilation[2];  // of rows and columns
    int32_t groups, before;       // `before`: channels of zeros in front of a subsampled map's
    const void* weight;           // packed: see convolution.cpp, winograd.cpp
    const float *scale, *bias;    // per channel of y; a null scale is 1
};

// Whole sixteens are known to be so where these are called; else each is a call of memcpy.
#define INLINE inline __attribute__((always_inline))

// `n` bytes, at most 16, as they are.
INLINE Floats load(const uint8_t* from, size_t n) {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    Bytes bytes{};
    std::memcpy(&bytes, from, n);
    return __builtin_convertvector(bytes, Floats);
}

INLINE void store(uint8_t* to, Floats values, size_t n) {
    typedef int32_t Integers __attribute__((vector_size(64)));
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    values += 0.5f;  // all are above zero, or become zero
    values = values > 0 ? values : Floats{};
    values = values < 255.5f ? values : Floats{} + 255;
    const Bytes bytes = __builtin_convertvector(__builtin_convertvector(values, Integers), Bytes);
    std::memcpy(to, &bytes, n);
}

INLINE Floats read(const Map& map, size_t at, size_t n) {
    if (map.type == FLOAT)
        return resnet::load(static_cast<const float*>(map.data) + at, n);
    if (map.type == BFLOAT16)
        return resnet::load(static_cast<const Bfloat16*>(map.data) + at, n);
    return map.scale * (load(static_cast<const uint8_t*>(map.data) + at, n) - float(map.zero));
}

// What is stored for numbers that are already in the map's unit: bytes have their zero added.
INLINE void store(const Map& map, size_t at, Floats values, size_t n) {
    if (map.type == FLOAT)
        resnet::store(static_cast<float*>(map.data) + at, values, n);
    else if (map.type == BFLOAT16)
        resnet::store(static_cast<Bfloat16*>(map.data) + at, values, n);
    else
        store(static_cast<uint8_t*>(map.data) + at, values, n);
}

INLINE void write(const Map& map, size_t at, Floats values, size_t n) {
    store(map, at, map.type == BYTE ? values / map.scale + float(map.zero) : values, n);
}

// What is done to sixteen sums of a convolution before they are a map's:
// y = relu(sum * scale + bias + add), in y's unit.
struct Ending {
    const Step& step;
    float add_scale, floor;
    explicit Ending(const Step& s)
            : step(s),
              add_scale(s.add.scale / (s.y.type == BYTE ? s.y.scale : 1)),
              floor(s.y.type == BYTE ? float(s.y.zero) : 0) {}

    // Channels c to c + n of the pixel that lies at `to`, and at `from` in what is added.
    void operator()(Floats value, size_t c, size_t n, size_t to, size_t from) const {
        if (n == LANES)
            finish(value, c, LANES, to + c, from + c);
        else
            finish(value, c, n, to + c, from + c);
    }

private:
    INLINE void finish(
            Floats value, size_t c, size_t n, size_t to, size_t from) const {
        if (step.scale)
            value *= resnet::load(step.scale + c);
        value += resnet::load(step.bias + c);
        if (step.add.data) {
            if (step.add.type == BYTE)  // whose zero is part of the bias
                value += load(static_cast<const uint8_t*>(step.add.data) + from, n) * add_scale;
            else
                value += read(step.add, from, n);
        }
        if (step.relu)
            value = value <= floor ? Floats{} + floor : value;  // NaN stays NaN
        store(step.y, to, value, n);
    }
};

// A pixel of all images' maps, in order.
struct Pixel {
    int32_t n, y, x;
    Pixel(const Map& map, size_t number)
            : n(int32_t(number / map.width / map.height)),
              y(int32_t(number / map.width % map.height)),
              x(int32_t(number % map.width)) {}
    void next(const Map& map) {
        if (++x < map.width)
            return;
        x = 0;
        if (++y == map.height) {
            y = 0;
            ++n;
        }
    }
};

// Floats of this thread that stay from step to step.
float* scratch(size_t count);

void convolve(const Step& step);
void winograd(const Step& step);

}  // namespace plan
}  // namespace resnet
