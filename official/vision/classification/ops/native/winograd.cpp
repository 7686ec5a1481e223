// Convolutions with weights that are new at every call: their tiles are in winograd_tiles.h.

#include "winograd.h"

#include <map>

#include "onednn.h"
#include "winograd_tiles.h"

namespace resnet {
namespace {

constexpr size_t BLOCK_FLOATS = 3 << 20;  // of a block of tiles before and after the products

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
