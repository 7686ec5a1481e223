// Networks as lists of steps: ops/plan.py writes them, resnet_run does them.
//
// Between steps maps lie in one arena as (N, H + 2 halo, W + 2 halo, C): around each image there are
// pixels of zeros, so that a convolution need not ask where a map ends. The two structures are
// ctypes' in ops/steps.py.
#pragma once

#include <cmath>
#include <type_traits>

#if defined(__AVX__)
#include <immintrin.h>
#endif

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

    // Some of `all` images. A map that has fewer lies `skipped` bytes further on.
    void keep(int32_t first, int32_t some, int32_t all, size_t skipped) {
        data = static_cast<char*>(data) + (count == all ? first * image() * element() : skipped);
        count = some;
    }
};

struct Step {
    int32_t kind, relu;
    Map x, y, add;  // `add` is not there if its data is null
    int32_t kernel[2], stride[2], padding[2], dilation[2];  // of rows and columns
    int32_t groups, before;       // `before`: channels of zeros in front of a subsampled map's; of a
                                  // copied one whether x lies as (N, C, H, W), in float32
    int32_t images, at_once;      // all, and those that go through this step and its neighbours
    int32_t apart;                // how many threads may do so, each with other images; 1: together
    size_t spacing;               // bytes from a thread's maps for some images to the next one's
    const void* weight;           // packed: see convolution.cpp, winograd.cpp
    const float *scale, *bias;    // per channel of y; a null scale is 1
};

// Whole sixteens are known to be so where these are called; else each is a call of memcpy.
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

using resnet::load;

// `n` bytes, at most 16, as they are.
INLINE Floats load(const uint8_t* from, size_t n) {
#if defined(__AVX512F__)  // what GCC 12 makes of the line for others goes byte by byte
    __m128i bytes{};
    std::memcpy(&bytes, from, n);
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#else
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    Bytes bytes{};
    std::memcpy(&bytes, from, n);
    return __builtin_convertvector(bytes, Floats);
#endif
}

INLINE void put(float* to, Floats values, size_t n) {
    resnet::store(to, values, n);
}

// Rounded to nearest, and to what a byte can be.
INLINE void put(uint8_t* to, Floats values, size_t n) {
#if defined(__AVX512F__)
    const __m512i integers = _mm512_cvtps_epi32((__m512)values);
    const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32(integers, __m512i{}));
#else
    typedef int32_t Integers __attribute__((vector_size(64)));
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    values += 0.5f;  // all are above zero, or become zero
    values = values > 0 ? values : Floats{};
    values = values < 255.5f ? values : Floats{} + 255;
    const Bytes bytes = __builtin_convertvector(__builtin_convertvector(values, Integers), Bytes);
#endif
    std::memcpy(to, &bytes, n);
}

#if defined(__AVX512BF16__)
// As resnet::store, in one instruction; what is too small for a normal number becomes zero.
INLINE void put(Bfloat16* to, Floats values, size_t n) {
    const __m256bh halves = _mm512_cvtneps_pbh((__m512)values);
    std::memcpy(to, &halves, n * sizeof(Bfloat16));
}
#else
INLINE void put(Bfloat16* to, Floats values, size_t n) {
    resnet::store(to, values, n);
}
#endif

// N times sixteen numbers that lie beside each other.
template <typename Y, int N>
INLINE void put_row(Y* to, const Floats (&values)[N]) {
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v)
        put(to + v * LANES, values[v], LANES);
}

#if defined(__AVX512BW__)
// As four times `put`, in fewer instructions: what cannot be a byte becomes the nearest that can.
INLINE void put_row(uint8_t* to, const Floats (&values)[4]) {
    const auto integers = [&](int v) INLINE_LAMBDA { return _mm512_cvtps_epi32((__m512)values[v]); };
    const __m512i low = _mm512_packs_epi32(integers(0), integers(1));
    const __m512i high = _mm512_packs_epi32(integers(2), integers(3));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    // A pack takes four numbers of each vector in turn.
    const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
    std::memcpy(to, &bytes, sizeof(bytes));
}
#endif

#if defined(__AVX512BF16__)
INLINE void put_row(Bfloat16* to, const Floats (&values)[4]) {
    for (int v = 0; v < 4; v += 2) {
        const __m512bh halves = _mm512_cvtne2ps_pbh((__m512)values[v + 1], (__m512)values[v]);
        std::memcpy(to + v * LANES, &halves, sizeof(halves));
    }
}
#endif

// `value`, or `floor` where it is less; NaN stays NaN.
INLINE Floats at_least(Floats value, Floats floor) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)floor, (__m512)value);  // the second one where one is NaN
#else
    return value < floor ? floor : value;
#endif
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
        put(static_cast<float*>(map.data) + at, values, n);
    else if (map.type == BFLOAT16)
        put(static_cast<Bfloat16*>(map.data) + at, values, n);
    else
        put(static_cast<uint8_t*>(map.data) + at, values, n);
}

INLINE void write(const Map& map, size_t at, Floats values, size_t n) {
    store(map, at, map.type == BYTE ? values / map.scale + float(map.zero) : values, n);
}

template <typename E>
constexpr Type type_of() {
    return std::is_same<E, float>::value ? FLOAT : std::is_same<E, uint8_t>::value ? BYTE : BFLOAT16;
}

// What is done to the sums of a convolution of E before they are a map's:
// y = max(sum * scale + bias + add, floor), in y's unit; without a ReLU the floor is -infinity.
template <typename E>
class Ending {
public:
    explicit Ending(const Step& step)
            : step_(step),
              unit_(step.y.type == BYTE ? step.y.scale : 1),
              floor_(step.relu ? (step.y.type == BYTE ? float(step.y.zero) : 0) : -INFINITY),
              finish_(chosen(step)) {}

    // Let the lines that will be read and written be on their way.
    INLINE void expect(size_t channel, size_t lanes, size_t to, size_t from) const {
        const size_t y = step_.y.element(), line = 64;
        const char* written = static_cast<const char*>(step_.y.data) + (to + channel) * y;
        for (size_t at = 0; at < lanes * y; at += line)
            __builtin_prefetch(written + at, 1);
        if (!step_.add.data)
            return;
        const char* added = static_cast<const char*>(step_.add.data) + (from + channel) * sizeof(E);
        for (size_t at = 0; at < lanes * sizeof(E); at += line)
            __builtin_prefetch(added + at, 0);
    }

    // sums (rows, width) of sixteen channels from `channel` on, of pixels that lie at `to` in y and
    // at `from` in what is added.
    void operator()(
            const Floats* sums, size_t rows, size_t width, size_t channel, const size_t* to,
            const size_t* from) const {
        finish_(*this, sums, rows, width, channel, to, from);
    }

    // The same for a tile whose sums are still in registers.
    template <int R, int N>
    INLINE void operator()(
            const Floats (&sums)[R][N], size_t channel, const size_t (&to)[R],
            const size_t (&from)[R]) const {
        if (step_.y.type != type_of<E>() || channel + N * LANES > size_t(step_.y.channels)) {
            Floats copy[R][N];  // so that the others need not be in memory
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v)
                    copy[r][v] = sums[r][v];
            (*this)(copy[0], R, N, channel, to, from);
        } else if (step_.add.data)
            finish_tile<true>(sums, channel, to, from);
        else
            finish_tile<false>(sums, channel, to, from);
    }

private:
    using Finish = void (*)(
            const Ending&, const Floats*, size_t, size_t, size_t, const size_t*, const size_t*);

    // Y is the type of y, ADDS whether there is an addend, which is of E.
    template <typename Y, bool ADDS>
    static void finish(
            const Ending& ending, const Floats* sums, size_t rows, size_t width, size_t channel,
            const size_t* to, const size_t* from) {
        const Step& step = ending.step_;
        for (size_t v = 0; v < width; ++v, channel += LANES) {
            if (channel + LANES <= size_t(step.y.channels))
                ending.finish_sixteen<Y, ADDS>(sums + v, rows, width, channel, LANES, to, from);
            else if (channel < size_t(step.y.channels))
                ending.finish_sixteen<Y, ADDS>(
                        sums + v, rows, width, channel, step.y.channels - channel, to, from);
        }
    }

    // What the sum of sixteen channels, or of the last n, becomes.
    template <bool ADDS>
    INLINE Floats ended(Floats sum, size_t channel, const E* add, size_t n) const {
        const bool bytes = std::is_same<E, uint8_t>::value;
        const Floats bias = resnet::load(step_.bias + channel);
        Floats value = bytes ? sum * resnet::load(step_.scale + channel) + bias : sum + bias;
        if (ADDS) {  // the zero of its bytes is part of the bias
            const Floats added = load(add, n);
            value += bytes ? added * (step_.add.scale / unit_) : added;
        }
        return at_least(value, floor_ - Floats{});
    }

    template <bool ADDS, int R, int N>
    INLINE void finish_tile(
            const Floats (&sums)[R][N], size_t channel, const size_t* to,
            const size_t* from) const {
        const E* add = static_cast<const E*>(step_.add.data) + channel;
        E* y = static_cast<E*>(step_.y.data) + channel;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            Floats values[N];
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) {
                const size_t lane = v * LANES;
                values[v] = ended<ADDS>(sums[r][v], channel + lane, add + from[r] + lane, LANES);
            }
            put_row(y + to[r], values);
        }
    }

    template <typename Y, bool ADDS>
    INLINE void finish_sixteen(
            const Floats* sums, size_t rows, size_t width, size_t channel, size_t n,
            const size_t* to, const size_t* from) const {
        const E* add = static_cast<const E*>(step_.add.data) + channel;
        Y* y = static_cast<Y*>(step_.y.data) + channel;
        for (size_t r = 0; r < rows; ++r)
            put(y + to[r], ended<ADDS>(sums[r * width], channel, add + from[r], n), n);
    }

    static Finish chosen(const Step& step) {
        if (step.y.type == FLOAT)
            return step.add.data ? &finish<float, true> : &finish<float, false>;
        return step.add.data ? &finish<E, true> : &finish<E, false>;
    }

    const Step& step_;
    float unit_, floor_;
    Finish finish_;
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
        next_row(map);
    }
    void next_row(const Map& map) {
        x = 0;
        if (++y == map.height) {
            y = 0;
            ++n;
        }
    }
};

void convolve(const Step& step);
bool convolves(Type type);
void winograd(const Step& step);

}  // namespace plan
}  // namespace resnet
