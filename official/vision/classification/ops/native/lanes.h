// Elements of maps, and sixteen floats at a time, by GCC's vector extensions: for each processor what
// it has.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pool.h"

namespace resnet {

// Upper half of a float32; arithmetic is float32's.
struct Bfloat16 {
    uint16_t bits;
    Bfloat16() = default;
    Bfloat16(float value) {
        uint32_t word;
        std::memcpy(&word, &value, 4);
        const uint32_t rounded = word + 0x7fff + ((word >> 16) & 1);  // to nearest, ties to even
        const uint32_t nan = word | 0x400000;
        bits = static_cast<uint16_t>(((word & 0x7fffffff) > 0x7f800000 ? nan : rounded) >> 16);
    }
    operator float() const {
        uint32_t word = static_cast<uint32_t>(bits) << 16;
        float value;
        std::memcpy(&value, &word, 4);
        return value;
    }
};

constexpr size_t LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

// `n` elements, at most 16, in float32; zeros beyond them.
inline Floats load(const float* from, size_t n = LANES) {
    Floats result{};
    std::memcpy(&result, from, n == LANES ? sizeof(result) : n * sizeof(float));
    return result;
}

inline Floats load(const Bfloat16* from, size_t n = LANES) {
    Halves halves{};
    std::memcpy(&halves, from, n == LANES ? sizeof(halves) : n * sizeof(Bfloat16));
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

inline void store(float* to, Floats values, size_t n = LANES) {
    std::memcpy(to, &values, n == LANES ? sizeof(values) : n * sizeof(float));
}

inline void store(Bfloat16* to, Floats values, size_t n = LANES) {
    const Words words = (Words)values;
    const Words rounded = words + 0x7fff + ((words >> 16) & 1);  // to nearest, ties to even
    const Words nan = words | 0x400000;
    const Words chosen = (words & 0x7fffffff) > 0x7f800000 ? nan : rounded;
    const Halves halves = __builtin_convertvector(chosen >> 16, Halves);
    std::memcpy(to, &halves, n == LANES ? sizeof(halves) : n * sizeof(Bfloat16));
}

// Call f(index, n) for every sixteen of `count` elements; n is less than 16 for the last of them.
template <typename F>
inline __attribute__((always_inline)) void each_lanes(size_t begin, size_t end, F f) {
    size_t index = begin;
    for (; index + LANES <= end; index += LANES)
        f(index, LANES);
    if (index < end)
        f(index, end - index);
}

// `values > 0 ? values : 0`, where NaN stays NaN.
inline Floats rectified(Floats values) {
    return values <= 0 ? Floats{} : values;
}

// `gradient` where `active` is above zero, else 0.
inline Floats passed(Floats gradient, Floats active) {
    return active > 0 ? gradient : Floats{};
}

// An array of `count` floats that can be read sixteen at a time to its end.
inline std::vector<float> padded(size_t count) {
    return std::vector<float>((count + LANES - 1) / LANES * LANES);
}

}  // namespace resnet
