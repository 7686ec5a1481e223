// Y = A' [ (G g G') * (B' d B) ] A for tiles d of 6x6 pixels, filters g of 3x3 and outputs of 4x4; a
// prime transposes, * multiplies element by element. Over channels the 36 element-wise products are
// 36 matrix products. The gradient of g is G' [ (B' d B) * (A dY A') ] G by the same tiles.

#include "winograd.h"

#include <algorithm>
#include <map>

#include "lanes.h"
#include "onednn.h"

namespace resnet {
namespace {

constexpr size_t POINTS = 36;
constexpr size_t BLOCK_FLOATS = 3 << 20;  // of a block of tiles before and after the products

// One row or column each of the three transforms and of the transposes that the gradient needs.
void input_points(const Floats d[6], Floats r[6]) {  // B'
    const Floats a = d[4] - 4 * d[2], b = d[3] - 4 * d[1];
    const Floats c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    r[0] = 4 * d[0] - 5 * d[2] + d[4];
    r[1] = a + b;
    r[2] = a - b;
    r[3] = c + e;
    r[4] = c - e;
    r[5] = 4 * d[1] - 5 * d[3] + d[5];
}

void output_points(const Floats m[6], Floats r[4]) {  // A'
    const Floats a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    r[0] = m[0] + a + c;
    r[1] = b + 2 * e;
    r[2] = a + 4 * c;
    r[3] = b + 8 * e + m[5];
}

void gradient_points(const Floats y[4], Floats r[6]) {  // A
    const Floats a = y[0] + y[2], b = y[1] + y[3];
    const Floats c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
    r[0] = y[0];
    r[1] = a + b;
    r[2] = a - b;
    r[3] = c + e;
    r[4] = c - e;
    r[5] = y[3];
}

void filter_points(const Floats g[3], Floats r[6]) {  // G
    const Floats a = (g[0] + g[2]) * (-1.f / 6), b = g[1] * (1.f / 6);
    const Floats c = g[0] * (1.f / 24) + g[2] * (1.f / 6), e = g[1] * (1.f / 12);
    r[0] = g[0] * 0.25f;
    r[1] = a - b;
    r[2] = a + b;
    r[3] = c + e;
    r[4] = c - e;
    r[5] = g[2];
}

void filter_sums(const Floats m[6], Floats r[3]) {  // G'
    const Floats a = m[1] + m[2], b = m[2] - m[1], c = m[3] + m[4], e = m[3] - m[4];
    r[0] = m[0] * 0.25f - a * (1.f / 6) + c * (1.f / 24);
    r[1] = b * (1.f / 6) + e * (1.f / 12);
    r[2] = (c - a) * (1.f / 6) + m[5];
}

// Apply a transform of ROWS to POINTS along both axes of a tile.
template <int FROM, int TO, void TRANSFORM(const Floats*, Floats*)>
void both_axes(const Floats (&tile)[FROM][FROM], Floats (&result)[TO][TO]) {
    Floats half[FROM][TO];
    for (int row = 0; row < FROM; ++row)
        TRANSFORM(tile[row], half[row]);
    for (int column = 0; column < TO; ++column) {
        Floats line[FROM], transformed[TO];
        for (int row = 0; row < FROM; ++row)
            line[row] = half[row][column];
        TRANSFORM(line, transformed);
        for (int row = 0; row < TO; ++row)
            result[row][column] = transformed[row];
    }
}

// How the tiles lie over an output of height x width.
struct Tiles {
    size_t high, wide, all;
    Tiles(size_t count, size_t height, size_t width)
            : high((height + 3) / 4), wide((width + 3) / 4), all(count * high * wide) {}
    size_t image(size_t tile) const { return tile / (high * wide); }
    ptrdiff_t row(size_t tile) const { return tile / wide % high * 4; }
    ptrdiff_t column(size_t tile) const { return tile % wide * 4; }
};

// A map's pixels by (image, row, column), which may lie beyond its border.
template <typename T>
struct Map {
    T* data;
    size_t height, width, channels;
    T* at(size_t image, ptrdiff_t row, ptrdiff_t column) const {
        if (row < 0 || column < 0 || row >= ptrdiff_t(height) || column >= ptrdiff_t(width))
            return nullptr;
        return data + ((image * height + row) * width + column) * channels;
    }
};

// The points of tiles first to last of a map, where SIZE x SIZE pixels make a tile:
// points[point][tile - first][channel].
template <int SIZE, void TRANSFORM(const Floats*, Floats*)>
void to_points(
        const Map<const float>& map, const Tiles& tiles, int offset, size_t first, size_t last,
        float* points) {
    const size_t count = map.channels, plane = (last - first) * count;
    parallel(last - first, [&](size_t begin, size_t end, int) {
        for (size_t index = begin; index < end; ++index) {
            const size_t tile = first + index;
            const float* pixels[SIZE][SIZE];
            for (int i = 0; i < SIZE; ++i)
                for (int j = 0; j < SIZE; ++j)
                    pixels[i][j] = map.at(
                            tiles.image(tile), tiles.row(tile) + i - offset,
                            tiles.column(tile) + j - offset);
            each_lanes(0, count, [&](size_t c, size_t n) {
                Floats from[SIZE][SIZE], to[6][6];
                for (int i = 0; i < SIZE; ++i)
                    for (int j = 0; j < SIZE; ++j)
                        from[i][j] = pixels[i][j] ? load(pixels[i][j] + c, n) : Floats{};
                both_axes<SIZE, 6, TRANSFORM>(from, to);
                float* result = points + index * count + c;
                for (int i = 0; i < 6; ++i)
                    for (int j = 0; j < 6; ++j)
                        store(result + (i * 6 + j) * plane, to[i][j], n);
            });
        }
    });
}

// What is done to an output before it is written.
struct Ending {
    const float *bias, *add;
    bool relu;
};

// The outputs of tiles first to last from their points.
void from_points(
        const float* points, const Map<float>& map, const Tiles& tiles, size_t first, size_t last,
        const Ending& ending) {
    const size_t count = map.channels, plane = (last - first) * count;
    parallel(last - first, [&](size_t begin, size_t end, int) {
        for (size_t index = begin; index < end; ++index) {
            const size_t tile = first + index;
            each_lanes(0, count, [&](size_t c, size_t n) {
                Floats from[6][6], to[4][4];
                const float* source = points + index * count + c;
                for (int i = 0; i < 6; ++i)
                    for (int j = 0; j < 6; ++j)
                        from[i][j] = load(source + (i * 6 + j) * plane, n);
                both_axes<6, 4, output_points>(from, to);
                const Floats bias = ending.bias ? load(ending.bias + c, n) : Floats{};
                for (int i = 0; i < 4; ++i)
                    for (int j = 0; j < 4; ++j) {
                        float* pixel = map.at(
                                tiles.image(tile), tiles.row(tile) + i, tiles.column(tile) + j);
                        if (!pixel)
                            continue;
                        Floats value = to[i][j] + bias;
                        if (ending.add)
                            value += load(ending.add + (pixel - map.data) + c, n);
                        store(pixel + c, ending.relu ? rectified(value) : value, n);
                    }
            });
        }
    });
}

// Filters (out, in, 3, 3) as MegEngine has them, and where the one for (from, to) lies.
struct Filters {
    size_t from, to;                // channels of the map that is transformed, and of the result
    size_t from_stride, to_stride;  // in floats
    bool flipped;                   // for the gradient of the input: the filters turned around
};

// points[point][from][to]
void filters_to_points(const float* weight, const Filters& filters, float* points) {
    const size_t plane = filters.from * filters.to;
    parallel(filters.from, [&](size_t begin, size_t end, int) {
        for (size_t from = begin; from < end; ++from)
            each_lanes(0, filters.to, [&](size_t to, size_t n) {
                Floats filter[3][3]{}, result[6][6];
                for (size_t lane = 0; lane < n; ++lane) {
                    const float* values = weight + from * filters.from_stride +
                                          (to + lane) * filters.to_stride;
                    for (int k = 0; k < 9; ++k)
                        filter[k / 3][k % 3][lane] = values[filters.flipped ? 8 - k : k];
                }
                both_axes<3, 6, filter_points>(filter, result);
                for (int k = 0; k < 36; ++k)
                    store(points + k * plane + from * filters.to + to, result[k / 6][k % 6], n);
            });
    });
}

// points[point][in][out] -> (out, in, 3, 3)
void points_to_filters(const float* points, size_t in, size_t out, float* dweight) {
    parallel(in, [&](size_t begin, size_t end, int) {
        for (size_t i = begin; i < end; ++i)
            each_lanes(0, out, [&](size_t o, size_t n) {
                Floats from[6][6], filter[3][3];
                for (int k = 0; k < 36; ++k)
                    from[k / 6][k % 6] = load(points + (k * in + i) * out + o, n);
                both_axes<6, 3, filter_sums>(from, filter);
                for (size_t lane = 0; lane < n; ++lane)
                    for (int k = 0; k < 9; ++k)
                        dweight[((o + lane) * in + i) * 9 + k] = filter[k / 3][k % 3][lane];
            });
    });
}

// 36 products (rows x inner) (inner x columns); the first factor may be stored transposed, and the
// result be added to what is there.
void multiply(
        size_t rows, size_t inner, size_t columns, bool transposed, bool accumulate,
        const float* left, const float* right, float* result) {
    using dnnl::memory;
    struct Plan {
        dnnl::matmul primitive;
        memory::desc left, right, result, scratchpad;
    };
    static std::map<std::vector<size_t>, Plan> plans;
    static Buffer scratchpad;
    const std::vector<size_t> key{
            rows, inner, columns, transposed, accumulate, size_t(threads())};
    auto found = plans.find(key);
    if (found == plans.end()) {
        if (plans.size() >= 1024)
            plans.clear();
        const auto desc = [](size_t a, size_t b, memory::format_tag tag) {
            return memory::desc(
                    {int64_t(POINTS), int64_t(a), int64_t(b)}, memory::data_type::f32, tag);
        };
        using tag = memory::format_tag;
        Plan plan;
        plan.left = desc(rows, inner, transposed ? tag::acb : tag::abc);
        plan.right = desc(inner, columns, tag::abc);
        plan.result = desc(rows, columns, tag::abc);
        dnnl::primitive_attr attributes;
        attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
        if (accumulate) {
            dnnl::post_ops after;
            after.append_sum();
            attributes.set_post_ops(after);
        }
        dnnl::matmul::primitive_desc matmul(
                engine(), plan.left, plan.right, plan.result, attributes);
        plan.primitive = dnnl::matmul(matmul);
        plan.scratchpad = matmul.scratchpad_desc();
        found = plans.emplace(key, plan).first;
    }
    const Plan& plan = found->second;
    dnnl::stream stream(engine());
    const auto argument = [](const memory::desc& desc, const float* data) {
        return memory(desc, engine(), const_cast<float*>(data));
    };
    plan.primitive.execute(
            stream, {{DNNL_ARG_SRC, argument(plan.left, left)},
                     {DNNL_ARG_WEIGHTS, argument(plan.right, right)},
                     {DNNL_ARG_DST, argument(plan.result, result)},
                     {DNNL_ARG_SCRATCHPAD, scratchpad.of(plan.scratchpad)}});
    stream.wait();
}

// Call f(first, last) for blocks of tiles that stay in the cache between the steps.
template <typename F>
void each_block(const Tiles& tiles, size_t channels, F f) {
    const size_t most = std::max<size_t>(32, BLOCK_FLOATS / (POINTS * channels));
    const size_t blocks = (tiles.all + most - 1) / most;
    const size_t size = (tiles.all + blocks - 1) / blocks;
    for (size_t first = 0; first < tiles.all; first += size)
        f(first, std::min(first + size, tiles.all));
}

Buffer filter_buffer, input_buffer, output_buffer;

void convolve(
        const Map<const float>& x, const float* weight, const Filters& filters, int padding,
        size_t count, const Ending& ending, const Map<float>& y) {
    const Tiles tiles(count, y.height, y.width);
    float* filter_points_ = filter_buffer.floats(POINTS * filters.from * filters.to);
    filters_to_points(weight, filters, filter_points_);
    each_block(tiles, filters.from + filters.to, [&](size_t first, size_t last) {
        const size_t size = last - first;
        float* inputs = input_buffer.floats(POINTS * size * filters.from);
        float* outputs = output_buffer.floats(POINTS * size * filters.to);
        to_points<6, input_points>(x, tiles, padding, first, last, inputs);
        multiply(size, filters.from, filters.to, false, false, inputs, filter_points_, outputs);
        from_points(outputs, y, tiles, first, last, ending);
    });
}

}  // namespace

bool Winograd::pays() const {
    const size_t tiles = count * ((out_height() + 3) / 4) * ((out_width() + 3) / 4);
    return in >= 32 && out >= 32 && tiles >= 32 && padding <= 2;
}

void winograd_forward(
        const Winograd& p, const float* x, const float* weight, const float* bias,
        const float* add, bool relu, float* y) {
    convolve(
            {x, p.height, p.width, p.in}, weight, {p.in, p.out, 9, p.in * 9, false}, p.padding,
            p.count, {bias, add, relu}, {y, p.out_height(), p.out_width(), p.out});
}

void winograd_data(const Winograd& p, const float* dy, const float* weight, float* dx) {
    convolve(
            {dy, p.out_height(), p.out_width(), p.out}, weight, {p.out, p.in, p.in * 9, 9, true},
            2 - p.padding, p.count, {nullptr, nullptr, false}, {dx, p.height, p.width, p.in});
}

void winograd_filter(const Winograd& p, const float* x, const float* dy, float* dweight) {
    const Map<const float> map{x, p.height, p.width, p.in};
    const Map<const float> gradient{dy, p.out_height(), p.out_width(), p.out};
    const Tiles tiles(p.count, p.out_height(), p.out_width());
    float* sums = filter_buffer.floats(POINTS * p.in * p.out);
    each_block(tiles, p.in + p.out, [&](size_t first, size_t last) {
        const size_t size = last - first;
        float* inputs = input_buffer.floats(POINTS * size * p.in);
        float* outputs = output_buffer.floats(POINTS * size * p.out);
        to_points<6, input_points>(map, tiles, p.padding, first, last, inputs);
        to_points<4, gradient_points>(gradient, tiles, 0, first, last, outputs);
        multiply(p.in, size, p.out, true, first > 0, inputs, outputs, sums);
    });
    points_to_filters(sums, p.in, p.out, dweight);
}

}  // namespace resnet
