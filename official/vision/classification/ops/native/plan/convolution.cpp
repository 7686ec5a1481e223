// Convolution as a product of matrices that are nowhere written down: a row of the left one is what
// a window of the map holds, the right one is the packed weight.
//
// A window's values come in runs that are contiguous in memory: for each of its rows the pixels
// beside each other, all channels; with dilated columns or groups each pixel is a run. The packed
// weight has, for every 64 output channels (a panel; the last may be of 16, 32 or 48) and every run,
// groups of four bytes of input channels: one float, two bfloat16 or four bytes, for which there is
// one instruction each that multiplies and adds them in 16 lanes. A tile of 6 pixels by 64 channels
// has its sums in 24 registers.

#include <algorithm>

#include "plan.h"

namespace resnet {
namespace plan {
namespace {

#if defined(__AVX512F__)
constexpr int ROWS = 6, WIDTH = 4;  // of a tile, in pixels and in 16 channels
#else
constexpr int ROWS = 6, WIDTH = 1;  // sixteen registers of half the size
#endif
constexpr size_t PANEL = 64;
constexpr size_t CHUNK = 384 << 10;  // bytes of a panel that stay in the second-level cache
constexpr size_t BLOCK = 96;         // pixels of a part of the work

template <typename E>
struct Arithmetic;

#if defined(__AVX512F__)
template <>
struct Arithmetic<float> {
    typedef Floats Sums;
    static constexpr size_t GROUP = 1;
    static Floats broadcast(const float* x) { return *x - Floats{}; }
    static void add(Floats& sum, Floats x, Floats w) { sum += x * w; }
    static Floats floats(Floats sum) { return sum; }
};
#else
template <>
struct Arithmetic<float> {
    typedef float Half __attribute__((vector_size(32)));
    struct Sums {  // in registers, where GCC would keep a vector of sixteen in memory
        Half low, high;
    };
    static constexpr size_t GROUP = 1;
    static Half broadcast(const float* x) { return *x - Half{}; }
    static void add(Sums& sum, Half x, const Sums& w) {
        sum.low += x * w.low;
        sum.high += x * w.high;
    }
    static Floats floats(const Sums& sum) {
        Floats result;
        std::memcpy(&result, &sum, sizeof(result));
        return result;
    }
};
#endif

#if defined(__AVX512BF16__)
template <>
struct Arithmetic<Bfloat16> {
    typedef Floats Sums;
    static constexpr size_t GROUP = 2;
    static Floats broadcast(const Bfloat16* x) {
        int pair;  // no float, which might be subnormal and taken for zero
        std::memcpy(&pair, x, 4);
        return (Floats)_mm512_set1_epi32(pair);
    }
    static void add(Floats& sum, Floats x, Floats w) {
        sum = (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
    }
    static Floats floats(Floats sum) { return sum; }
};
#endif

#if defined(__AVX512VNNI__)
template <>
struct Arithmetic<uint8_t> {
    typedef __m512i Sums;
    static constexpr size_t GROUP = 4;
    static __m512i broadcast(const uint8_t* x) {
        int four;
        std::memcpy(&four, x, 4);
        return _mm512_set1_epi32(four);
    }
    static void add(__m512i& sum, __m512i x, __m512i w) { sum = _mm512_dpbusd_epi32(sum, x, w); }
    static Floats floats(__m512i sum) { return (Floats)_mm512_cvtepi32_ps(sum); }
};
#endif

// Sums of sixteen lanes from memory, and back.
template <typename Sums>
INLINE Sums read_sums(const void* from) {
    Sums result;
#if defined(__AVX512F__)
    std::memcpy(&result, from, sizeof(result));
#else
    std::memcpy(&result.low, from, sizeof(result.low));
    std::memcpy(&result.high, static_cast<const char*>(from) + sizeof(result.low), sizeof(result.low));
#endif
    return result;
}

template <typename Sums>
INLINE void write_sums(const Sums& sums, void* to) {
#if defined(__AVX512F__)
    std::memcpy(to, &sums, sizeof(sums));
#else
    std::memcpy(to, &sums.low, sizeof(sums.low));
    std::memcpy(static_cast<char*>(to) + sizeof(sums.low), &sums.high, sizeof(sums.low));
#endif
}

// How windows lie in a map of E.
template <typename E>
struct Windows {
    const Step& step;
    size_t runs, groups;  // groups of four bytes in a run
    size_t columns;       // runs in a row of the window
    size_t run_row, run_column;

    explicit Windows(const Step& s) : step(s) {
        const bool pixels = s.groups > 1 || s.dilation[1] > 1;
        columns = pixels ? s.kernel[1] : 1;
        runs = s.kernel[0] * columns;
        const size_t length = pixels ? depth() : s.kernel[1] * s.x.channels;
        groups = (length + Arithmetic<E>::GROUP - 1) / Arithmetic<E>::GROUP;
        run_row = s.dilation[0] * s.x.row();
        run_column = s.dilation[1] * s.x.channels;
    }
    // Output channels that share a panel, and input channels that they see.
    size_t panel() const {
        const size_t share = step.y.channels / step.groups;
        if (step.groups == 1 || share % PANEL == 0)
            return PANEL;
        return share % LANES || share > PANEL ? LANES : share;
    }
    size_t depth() const {
        const size_t inputs = step.x.channels / step.groups, outputs = step.y.channels / step.groups;
        return inputs * std::max<size_t>(1, step.groups == 1 ? 1 : panel() / outputs);
    }
    size_t first_channel(size_t panel_number) const {
        if (step.groups == 1)
            return 0;
        const size_t outputs = step.y.channels / step.groups;
        return panel_number * panel() / outputs * (step.x.channels / step.groups);
    }
    size_t run(size_t number) const {
        return number / columns * run_row + number % columns * run_column;
    }
    const E* window(const Pixel& p) const {
        return static_cast<const E*>(step.x.data) +
               step.x.at(p.n, ptrdiff_t(p.y) * step.stride[0] - step.padding[0],
                         ptrdiff_t(p.x) * step.stride[1] - step.padding[1]);
    }
};

// Add to the sums of R pixels by N times 16 channels what runs first to last give.
template <typename E, int R, int N>
INLINE void add_runs(
        const Windows<E>& windows, const E* const* pixels, size_t first, size_t last,
        const char* weight, size_t weight_step, typename Arithmetic<E>::Sums (&sums)[R][N]) {
    using A = Arithmetic<E>;
    using Sums = typename A::Sums;
    for (size_t run = first; run < last; ++run) {
        const E* from[R];
        for (int r = 0; r < R; ++r)
            from[r] = pixels[r] + windows.run(run);
        for (size_t group = 0; group < windows.groups; ++group) {
            Sums w[N];
            for (int v = 0; v < N; ++v)
                w[v] = read_sums<Sums>(weight + v * sizeof(Sums));
            weight += weight_step;
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const auto x = A::broadcast(from[r]);
                from[r] += A::GROUP;
#pragma GCC unroll 8
                for (int v = 0; v < N; ++v)
                    A::add(sums[r][v], x, w[v]);
            }
        }
    }
}

// Goes through the pixels of y: where each one's window begins, and where it lies in y and in what
// is added.
template <typename E>
class Walk {
public:
    Walk(const Windows<E>& windows, size_t number)
            : windows_(&windows), pixel_(windows.step.y, number) {
        seek();
    }
    const E* window() const { return window_; }
    size_t to() const { return to_; }
    size_t from() const { return from_; }
    INLINE void next() {
        const Step& s = windows_->step;
        pixel_.next(s.y);
        if (pixel_.x == 0)
            return seek();
        window_ += size_t(s.stride[1]) * s.x.channels;
        to_ += s.y.channels;
        from_ += s.y.channels;
    }

private:
    void seek() {
        const Step& s = windows_->step;
        if (pixel_.n >= s.y.count)
            return;  // beyond the last
        window_ = windows_->window(pixel_);
        to_ = s.y.at(pixel_.n, pixel_.y, pixel_.x);
        from_ = s.add.data ? s.add.at(pixel_.n, pixel_.y, pixel_.x) : 0;
    }

    const Windows<E>* windows_;
    Pixel pixel_;
    const E* window_ = nullptr;
    size_t to_ = 0, from_ = 0;
};

// The next R pixels of the walk, N times 16 channels from `channel` on, runs first to last. Sums
// that are not complete wait in `kept`.
template <typename E, int R, int N>
void tile(
        const Windows<E>& windows, const Ending<E>& ending, Walk<E>& walk, size_t channel,
        size_t first, size_t last, size_t first_channel, const char* weight, size_t weight_step,
        float* kept) {
    using A = Arithmetic<E>;
    using Sums = typename A::Sums;
    const bool complete = last == windows.runs;
    const E* pixels[R];
    size_t to[R], from[R];
    for (int r = 0; r < R; ++r, walk.next()) {
        pixels[r] = walk.window() + first_channel;
        to[r] = walk.to();
        from[r] = walk.from();
        if (complete)
            ending.expect(channel, N * LANES, to[r], from[r]);
    }
    // Copied one by one, and not as a whole: so the compiler keeps them in registers.
    Sums sums[R][N];
    const auto each_sum = [&](auto f) INLINE_LAMBDA {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v)
                f(sums[r][v], kept + (r * N + v) * LANES, r, v);
    };
    if (first)
        each_sum([](Sums& sum, const float* from, int, int) INLINE_LAMBDA {
            sum = read_sums<Sums>(from);
        });
    else
        each_sum([](Sums& sum, const float*, int, int) INLINE_LAMBDA { sum = Sums{}; });
    add_runs<E, R, N>(windows, pixels, first, last, weight, weight_step, sums);
    if (!complete) {
        each_sum([](const Sums& sum, float* to, int, int) INLINE_LAMBDA {
            write_sums(sum, to);
        });
        return;
    }
    Floats floats[R][N];
    each_sum([&](const Sums& sum, const float*, int r, int v) INLINE_LAMBDA {
        floats[r][v] = A::floats(sum);
    });
    ending(floats, channel, to, from);
}

template <typename E>
using Tile = void (*)(
        const Windows<E>&, const Ending<E>&, Walk<E>&, size_t, size_t, size_t, size_t,
        const char*, size_t, float*);

// The tile of `rows` pixels and `width` times 16 channels.
template <typename E, int R = ROWS, int N = WIDTH>
Tile<E> tile_of(int rows, int width) {
    if constexpr (N > 1) {
        if (width < N)
            return tile_of<E, R, N - 1>(rows, width);
    }
    if constexpr (R > 1) {
        if (rows < R)
            return tile_of<E, R - 1, N>(rows, width);
    }
    return tile<E, R, N>;
}

// Pixels begin to end of one panel.
template <typename E>
void compute_panel(
        const Windows<E>& windows, const Ending<E>& ending, size_t number, size_t begin,
        size_t end) {
    const Step& step = windows.step;
    const size_t panel = windows.panel(), channel = number * panel;
    const size_t lanes = std::min<size_t>(
            panel, (step.y.channels - channel + LANES - 1) / LANES * LANES);
    const size_t width = lanes / LANES, row = lanes * 4;  // bytes of a group of four
    const size_t runs_at_once =
            std::max<size_t>(1, CHUNK / std::max<size_t>(1, windows.groups * row));
    const char* weight = static_cast<const char*>(step.weight) +
                         channel * 4 * windows.runs * windows.groups;
    const size_t first_channel = windows.first_channel(number);
    float* sums = runs_at_once < windows.runs ? scratch((end - begin) * lanes) : nullptr;
    for (size_t first = 0; first < windows.runs; first += runs_at_once) {
        const size_t last = std::min(first + runs_at_once, windows.runs);
        const char* chunk = weight + first * windows.groups * row;
        Walk<E> walk(windows, begin);
        size_t tiles = (end - begin + ROWS - 1) / ROWS;  // of about as many pixels
        for (size_t at = begin, next; at < end; at = next, --tiles) {
            next = at + (end - at + tiles - 1) / tiles;
            const int rows = int(next - at);
            const Walk<E> start = walk;
            for (size_t v = 0; v < width; v += WIDTH) {
                walk = start;
                const int n = int(std::min<size_t>(WIDTH, width - v));
                float* kept = sums ? sums + (at - begin) * lanes + v * LANES * rows : nullptr;
                tile_of<E>(rows, n)(
                        windows, ending, walk, channel + v * LANES, first, last, first_channel,
                        chunk + v * LANES * 4, row, kept);
            }
        }
    }
}

template <typename E>
void compute(const Step& step) {
    const Windows<E> windows(step);
    const Ending<E> ending(step);
    const size_t panels = (step.y.channels + windows.panel() - 1) / windows.panel();
    const size_t pixels = step.y.pixels();
    const size_t weights = windows.runs * windows.groups * 4 * step.y.channels;
    const size_t wanted = for_all_threads((pixels + BLOCK - 1) / BLOCK);
    const size_t block = ((pixels + wanted - 1) / wanted + ROWS - 1) / ROWS * ROWS;
    const size_t blocks = (pixels + block - 1) / block;
    auto range = [&](size_t number, size_t panel) {
        compute_panel(
                windows, ending, panel, number * block, std::min(pixels, (number + 1) * block));
    };
    if (weights <= CHUNK && blocks >= 4 * size_t(threads_here())) {
        // All of the weight stays in the cache: each pixel is read once.
        each_part(blocks, [&](size_t part) {
            for (size_t panel = 0; panel < panels; ++panel)
                range(part, panel);
        });
    } else {
        each_part(blocks * panels, [&](size_t part) { range(part % blocks, part / blocks); });
    }
}

}  // namespace

void convolve(const Step& step) {
    if (step.x.type == FLOAT)
        compute<float>(step);
#if defined(__AVX512BF16__)
    if (step.x.type == BFLOAT16)
        compute<Bfloat16>(step);
#endif
#if defined(__AVX512VNNI__)
    if (step.x.type == BYTE)
        compute<uint8_t>(step);
#endif
}

bool convolves(Type type) {
#if defined(__AVX512BF16__)
    if (type == BFLOAT16)
        return true;
#endif
#if defined(__AVX512VNNI__)
    if (type == BYTE)
        return true;
#endif
    return type == FLOAT;
}

}  // namespace plan
}  // namespace resnet
