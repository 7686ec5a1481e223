#include "plan.h"

#include <atomic>
#include <initializer_list>
#include <limits>

namespace resnet {
namespace plan {

namespace {

// What a map has around its images: zeros, or the byte that stands for zero. So has the place behind
// it, of which a window's last group may see some: there no NaN is left from another map.
void fill_halo(const Map& map) {
    if (!map.halo)
        return;
    const size_t element = map.element(), row = map.row() * element;
    const size_t side = size_t(map.halo) * map.channels * element;
    const int value = map.type == BYTE ? map.zero : 0;
    auto fill = [&](size_t image) {
        char* start = static_cast<char*>(map.data) + image * map.image() * element;
        const size_t height = map.height + 2 * map.halo;
        std::memset(start, value, map.halo * row);
        std::memset(start + (height - map.halo) * row, value, map.halo * row);
        for (size_t y = map.halo; y < height - map.halo; ++y) {
            std::memset(start + y * row, value, side);
            std::memset(start + (y + 1) * row - side, value, side);
        }
    };
    std::memset(static_cast<char*>(map.data) + map.count * map.image() * element, value, 16);
    if (map.count * map.image() * element < 1 << 20)
        for (int image = 0; image < map.count; ++image)
            fill(image);
    else
        each_part(map.count, fill);
}

// Call f(pixel, c, n, to) for every sixteen channels of y, where `to` is where they lie in it.
template <typename F>
void each_output(const Map& y, F f) {
    parallel(size_t(y.count) * y.height, [&](size_t begin, size_t end, int) {
        Pixel pixel(y, begin * y.width);
        for (size_t left = (end - begin) * y.width; left > 0; --left, pixel.next(y)) {
            const size_t to = y.at(pixel.n, pixel.y, pixel.x);
            each_lanes(0, y.channels, [&](size_t c, size_t n) INLINE_LAMBDA {
                if (n == LANES)
                    f(pixel, c, LANES, to + c);
                else
                    f(pixel, c, n, to + c);
            });
        }
    });
}

void affine(const Step& s) {
    each_output(s.y, [&](const Pixel& p, size_t c, size_t n, size_t to) INLINE_LAMBDA {
        Floats value = read(s.x, s.x.at(p.n, p.y, p.x) + c, n);
        value = value * resnet::load(s.scale + c, n) + resnet::load(s.bias + c, n);
        write(s.y, to, s.relu ? rectified(value) : value, n);
    });
}

void add(const Step& s) {
    each_output(s.y, [&](const Pixel& p, size_t c, size_t n, size_t to) INLINE_LAMBDA {
        const Floats value = read(s.x, s.x.at(p.n, p.y, p.x) + c, n) +
                             read(s.add, s.add.at(p.n, p.y, p.x) + c, n);
        write(s.y, to, s.relu ? rectified(value) : value, n);
    });
}

// The largest of several values, or NaN if one of them is.
struct Largest {
    Floats best = Floats{} - std::numeric_limits<float>::infinity();
#if defined(__AVX512F__)
    __mmask16 nan = 0;
    INLINE void take(Floats value) {
        nan |= _mm512_cmp_ps_mask((__m512)value, (__m512)value, _CMP_UNORD_Q);
        best = (Floats)_mm512_max_ps((__m512)best, (__m512)value);
    }
    INLINE Floats found() const {
        return (Floats)_mm512_mask_mov_ps((__m512)best, nan, _mm512_set1_ps(NAN));
    }
#elif defined(__AVX__)
    Floats nan{};  // all bits of a lane, or none
    INLINE void take(Floats value) {
        each_half([&](__m256& most, __m256& none, int half) INLINE_LAMBDA {
            const __m256 one = half_of(value, half);
            none = _mm256_or_ps(none, _mm256_cmp_ps(one, one, _CMP_UNORD_Q));
            most = _mm256_max_ps(most, one);
        });
    }
    INLINE Floats found() const {
        Largest result = *this;
        result.each_half([&](__m256& most, __m256& none, int) INLINE_LAMBDA {
            most = _mm256_blendv_ps(most, _mm256_set1_ps(NAN), none);
        });
        return result.best;
    }
    static __m256 half_of(const Floats& values, int half) {
        __m256 result;
        std::memcpy(&result, reinterpret_cast<const char*>(&values) + half * 32, 32);
        return result;
    }
    // GCC compares longer vectors one number at a time.
    template <typename F>
    INLINE void each_half(F f) {
        for (int half = 0; half < 2; ++half) {
            __m256 most = half_of(best, half), none = half_of(nan, half);
            f(most, none, half);
            std::memcpy(reinterpret_cast<char*>(&best) + half * 32, &most, 32);
            std::memcpy(reinterpret_cast<char*>(&nan) + half * 32, &none, 32);
        }
    }
#else
    INLINE void take(Floats value) {
        best = (value > best) | (value != value) ? value : best;
    }
    INLINE Floats found() const { return best; }
#endif
};

// Where the window of an output pixel begins and ends in x.
struct Window {
    int top, left, bottom, right;
    Window(const Step& s, const Pixel& p)
            : top(p.y * s.stride[0] - s.padding[0]), left(p.x * s.stride[1] - s.padding[1]) {
        bottom = std::min(top + s.kernel[0], s.x.height);
        right = std::min(left + s.kernel[1], s.x.width);
        top = std::max(top, 0);
        left = std::max(left, 0);
    }
};

// Bytes of x and y are in one unit, so that they need not be made numbers: 64 at a time.
void max_pool_bytes(const Step& s) {
    typedef uint8_t Bytes __attribute__((vector_size(64)));
    const auto* x = static_cast<const uint8_t*>(s.x.data);
    auto* y = static_cast<uint8_t*>(s.y.data);
    parallel(size_t(s.y.count) * s.y.height, [&](size_t begin, size_t end, int) {
        Pixel pixel(s.y, begin * s.y.width);
        for (size_t left = (end - begin) * s.y.width; left > 0; --left, pixel.next(s.y)) {
            const Window window(s, pixel);
            uint8_t* to = y + s.y.at(pixel.n, pixel.y, pixel.x);
            for (size_t c = 0; c < size_t(s.y.channels); c += sizeof(Bytes)) {
                const size_t n = std::min(sizeof(Bytes), s.y.channels - c);
                Bytes largest{};
                for (int row = window.top; row < window.bottom; ++row)
                    for (int column = window.left; column < window.right; ++column) {
                        Bytes found{};
                        const uint8_t* from = x + s.x.at(pixel.n, row, column) + c;
                        if (n == sizeof(Bytes))
                            std::memcpy(&found, from, sizeof(Bytes));
                        else
                            std::memcpy(&found, from, n);
                        largest = largest > found ? largest : found;
                    }
                if (n == sizeof(Bytes))
                    std::memcpy(to + c, &largest, sizeof(Bytes));
                else
                    std::memcpy(to + c, &largest, n);
            }
        }
    });
}

void max_pool(const Step& s) {
    if (s.x.type == BYTE && s.y.type == BYTE)
        return max_pool_bytes(s);
    each_output(s.y, [&](const Pixel& p, size_t c, size_t n, size_t to) INLINE_LAMBDA {
        const Window window(s, p);
        Largest largest;
        for (int y = window.top; y < window.bottom; ++y) {
            size_t from = s.x.at(p.n, y, window.left) + c;
            for (int x = window.left; x < window.right; ++x, from += s.x.channels)
                largest.take(read(s.x, from, n));
        }
        write(s.y, to, largest.found(), n);
    });
}

// Of a whole map (MEAN), or of each 2x2 square as far as there is one (HALVE).
void mean(const Step& s) {
    const bool whole = s.kind == MEAN;
    each_output(s.y, [&](const Pixel& p, size_t c, size_t n, size_t to) INLINE_LAMBDA {
        const int top = whole ? 0 : 2 * p.y, left = whole ? 0 : 2 * p.x;
        const int bottom = whole ? s.x.height : std::min(top + 2, s.x.height);
        const int right = whole ? s.x.width : std::min(left + 2, s.x.width);
        Floats sum{};
        for (int y = top; y < bottom; ++y)
            for (int x = left; x < right; ++x)
                sum += read(s.x, s.x.at(p.n, y, x) + c, n);
        write(s.y, to, sum / float((bottom - top) * (right - left)), n);
    });
}

void subsample(const Step& s) {
    each_output(s.y, [&](const Pixel& p, size_t c, size_t n, size_t to) INLINE_LAMBDA {
        Floats values{};
        const size_t from = s.x.at(p.n, p.y * s.stride[0], p.x * s.stride[1]);
        for (size_t lane = 0; lane < n; ++lane) {
            const ptrdiff_t channel = ptrdiff_t(c + lane) - s.before;
            if (channel >= 0 && channel < s.x.channels)
                values[lane] = read(s.x, from + channel, 1)[0];
        }
        write(s.y, to, values, n);
    });
}

// From (N, C, H, W).
void copy_planes(const Step& s) {
    const size_t channels = s.y.channels, plane = size_t(s.x.height) * s.x.width;
    parallel(size_t(s.y.count) * s.y.height, [&](size_t begin, size_t end, int) {
        std::vector<float> pixels(s.y.width * channels);
        for (Pixel row(s.y, begin * s.y.width); begin < end; ++begin, row.next_row(s.y)) {
            const float* x = static_cast<const float*>(s.x.data) + row.n * channels * plane +
                             size_t(row.y) * s.x.width;
            for (size_t c = 0; c < channels; ++c)
                for (int32_t column = 0; column < s.y.width; ++column)
                    pixels[column * channels + c] = x[c * plane + column];
            const size_t to = s.y.at(row.n, row.y, 0);
            each_lanes(0, pixels.size(), [&](size_t at, size_t n) INLINE_LAMBDA {
                write(s.y, to + at, resnet::load(pixels.data() + at, n), n);
            });
        }
    });
}

void copy(const Step& s) {
    if (s.before)
        return copy_planes(s);
    parallel(size_t(s.y.count) * s.y.height, [&](size_t begin, size_t end, int) {
        for (Pixel row(s.y, begin * s.y.width); begin < end; ++begin, row.next_row(s.y)) {
            const size_t from = s.x.at(row.n, row.y, 0), to = s.y.at(row.n, row.y, 0);
            each_lanes(0, size_t(s.y.width) * s.y.channels, [&](size_t at, size_t n) INLINE_LAMBDA {
                write(s.y, to + at, read(s.x, from + at, n), n);
            });
        }
    });
}

void run(const Step& step) {
    fill_halo(step.y);
    switch (step.kind) {
        case CONVOLVE: return convolve(step);
        case WINOGRAD: return winograd(step);
        case AFFINE: return affine(step);
        case ADD: return add(step);
        case MAX_POOL: return max_pool(step);
        case MEAN:
        case HALVE: return mean(step);
        case SUBSAMPLE: return subsample(step);
        case COPY: return copy(step);
    }
}

// Images `first` to `last` through these steps, with the place's own copy of maps for some images.
void run_some(const Step* step, const Step* end, int32_t first, int32_t last, size_t place) {
    for (; step < end; ++step) {
        Step part = *step;
        for (Map* map : {&part.x, &part.y, &part.add})
            if (map->data)
                map->keep(first, last - first, step->images, place * step->spacing);
        run(part);
    }
}

// Hands out places, of which there are enough for all who ask at a time.
class Places {
public:
    size_t take() {
        for (size_t place = 0;; place = (place + 1) % 64)
            if (!(taken_.fetch_or(uint64_t(1) << place) >> place & 1))
                return place;
    }
    void give(size_t place) { taken_.fetch_and(~(uint64_t(1) << place)); }

private:
    std::atomic<uint64_t> taken_{0};
};

// Steps that have the same number of images at once do all of them for so many images, then for the
// next: what they hand on is still in the cache. Threads that work apart wait for nobody meanwhile.
void run_neighbours(const Step* begin, const Step* end) {
    const size_t images = begin->images, parts = (images + begin->at_once - 1) / begin->at_once;
    auto part = [&](size_t number, size_t place) {
        run_some(begin, end, images * number / parts, images * (number + 1) / parts, place);
    };
    if (begin->apart == 1 || begin->apart < threads()) {
        for (size_t number = 0; number < parts; ++number)
            part(number, 0);
        return;
    }
    Places places;
    each_part(parts, [&](size_t number) {
        const size_t place = places.take();
        part(number, place);
        places.give(place);
    });
}

}  // namespace
}  // namespace plan
}  // namespace resnet

// Whether convolutions of maps of this type were compiled: the instructions are not everywhere.
extern "C" int resnet_convolves(int type) {
    return resnet::plan::convolves(resnet::plan::Type(type));
}

// Do the steps in order. Any thread may call it, several at once with maps of their own.
extern "C" void resnet_run(const resnet::plan::Step* steps, size_t count) {
    using resnet::plan::Step;
    for (const Step *step = steps, *end; step < steps + count; step = end) {
        for (end = step; end < steps + count && end->at_once == step->at_once; ++end) {
        }
        resnet::plan::run_neighbours(step, end);
    }
}
