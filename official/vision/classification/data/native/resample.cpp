// Pillow's resizing of colour images, to the bit (its "Resample.c": weights of 22 bits after the point,
// rows first, each pass rounded to bytes), with the pixels of a few places computed at once.

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace {

constexpr int POINT = 22;  // bits of a weight after the point
constexpr int HALF = 1 << (POINT - 1);
constexpr int GROUP = 2;  // pixels that are summed up at once
constexpr int ROOM = 64;  // bytes behind a row that may be read and written

enum Filter { BILINEAR = 1, BICUBIC = 2 };

double weight(Filter filter, double x) {
    x = std::fabs(x);
    if (filter == BILINEAR)
        return x < 1.0 ? 1.0 - x : 0.0;
    const double a = -0.5;  // of Keys' family of cubic convolutions
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

// Of every pixel that comes out: the first of those that it is made of, and their weights.
struct Taps {
    int room;  // weights of one pixel; those that are not used are 0
    std::vector<int> first, count, weights;

    Taps(int in, int out, Filter filter) {
        const double scale = double(in) / out, wide = std::max(scale, 1.0);
        const double support = wide * filter;  // as far as the filter's name says
        room = (int(std::ceil(support)) * 2 + 1 + GROUP - 1) / GROUP * GROUP;
        first.resize(out);
        count.resize(out);
        weights.resize(size_t(out) * room);
        std::vector<double> found(room);
        for (int to = 0; to < out; ++to) {
            const double centre = (to + 0.5) * scale;
            const int begin = std::max(int(centre - support + 0.5), 0);
            const int end = std::min(int(centre + support + 0.5), in);
            double sum = 0;
            for (int from = begin; from < end; ++from) {
                found[from - begin] = weight(filter, (from - centre + 0.5) * (1.0 / wide));
                sum += found[from - begin];
            }
            first[to] = begin;
            count[to] = end - begin;
            for (int i = 0; i < end - begin; ++i) {
                const double share = found[i] / sum * (1 << POINT);
                weights[size_t(to) * room + i] = int(share < 0 ? share - 0.5 : share + 0.5);
            }
        }
    }
};

#ifdef __AVX2__

// Eight sums to bytes: rounded, and cut off at 0 and 255.
__m128i to_bytes(__m256i sums) {
    sums = _mm256_srai_epi32(_mm256_add_epi32(sums, _mm256_set1_epi32(HALF)), POINT);
    const __m128i words =
            _mm_packus_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return _mm_packus_epi16(words, words);
}

__m256i times(__m128i bytes, __m256i weights) {
    return _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), weights);
}

// One row; of `in` and `out` are ROOM bytes more. A vector holds two pixels of three colours.
void across(const uint8_t* in, const Taps& taps, const std::vector<int>& weights, uint8_t* out) {
    const __m128i apart = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const int* eight = weights.data();
    for (const int first : taps.first) {
        const uint8_t* from = in + 3 * ptrdiff_t(first);
        __m256i sums = _mm256_setzero_si256();
        for (int i = 0; i < taps.room; i += GROUP, from += 3 * GROUP, eight += 8) {
            const __m128i pixels = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
            const __m256i weight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(eight));
            sums = _mm256_add_epi32(sums, times(_mm_shuffle_epi8(pixels, apart), weight));
        }
        sums = _mm256_add_epi32(sums, _mm256_permute2x128_si256(sums, sums, 1));
        const int pixel = _mm_cvtsi128_si32(to_bytes(sums));
        std::memcpy(out, &pixel, sizeof pixel);
        out += 3;
    }
}

// One row of `bytes` bytes from rows that are `pitch` bytes apart; ROOM as above.
void down(const uint8_t* in, ptrdiff_t pitch, const int* weights, int count, int bytes, uint8_t* out) {
    for (int x = 0; x < bytes; x += 8) {
        __m256i sums = _mm256_setzero_si256();
        for (int i = 0; i < count; ++i) {
            const uint8_t* from = in + i * pitch + x;
            const __m128i values = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
            sums = _mm256_add_epi32(sums, times(values, _mm256_set1_epi32(weights[i])));
        }
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + x), to_bytes(sums));
    }
}

// The weights of pairs of pixels, each for three colours and what is added to them.
std::vector<int> paired(const Taps& taps) {
    std::vector<int> found;
    for (const int weight : taps.weights)
        found.insert(found.end(), {weight, weight, weight, 0});
    return found;
}

#endif

}  // namespace

// The image of `in_height` rows of three bytes a pixel, `in_pitch` bytes apart, in another size; `filter`
// is 1 (bilinear) or 2 (bicubic). `out` is contiguous. False where the processor has no AVX2, or there
// is no memory.
extern "C" bool resample(
        const uint8_t* in, int in_width, int in_height, ptrdiff_t in_pitch, int filter, int width,
        int height, uint8_t* out) try {
#ifdef __AVX2__
    const Taps columns(in_width, width, Filter(filter)), rows(in_height, height, Filter(filter));
    const std::vector<int> weights = paired(columns);
    const ptrdiff_t pitch = 3 * ptrdiff_t(width) + ROOM;
    const size_t in_row = 3 * size_t(in_width), margin = 3 * size_t(columns.room) + ROOM;
    const std::unique_ptr<uint8_t[]> line(new uint8_t[in_row + margin]());
    const std::unique_ptr<uint8_t[]> between(new uint8_t[size_t(pitch) * in_height]);
    const std::unique_ptr<uint8_t[]> found(new uint8_t[size_t(pitch)]);
    for (int y = 0; y < in_height; ++y) {
        std::memcpy(line.get(), in + y * in_pitch, in_row);
        across(line.get(), columns, weights, between.get() + y * pitch);
    }
    for (int y = 0; y < height; ++y) {
        const uint8_t* first = between.get() + rows.first[y] * pitch;
        down(first, pitch, &rows.weights[size_t(y) * rows.room], rows.count[y], 3 * width, found.get());
        std::memcpy(out + size_t(y) * 3 * width, found.get(), 3 * size_t(width));
    }
    return true;
#else
    return false;
#endif
} catch (const std::bad_alloc&) {
    return false;
}
