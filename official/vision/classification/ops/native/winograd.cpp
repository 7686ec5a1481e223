// Convolutions with weights that are new at every call: their tiles are in winograd_tiles.h, their
// products in winograd_products.h. Maps may be of bfloat16; points and products are float32.
//
// Each thread takes a block of tiles through all of it, whose points stay in its cache. Points of
// large filters do not: a thread then makes those of one panel of them at a time, for all tiles.

#include "winograd.h"

#include "onednn.h"
#include "winograd_products.h"
#include "winograd_tiles.h"

namespace resnet {
namespace {

constexpr size_t CACHE = 640 << 10;       // bytes of the points of a thread's block of tiles
constexpr size_t LARGE = 4 << 20;         // bytes of the points of filters that leave the cache
constexpr size_t SHARED_FLOATS = 3 << 20; // of points that all threads read

// Points of maps: (panel, point, tile, channel), with `panel` channels in each but the last.
struct Points {
    float* data;
    size_t tiles, channels, panel;

    size_t lanes(size_t c) const { return std::min(panel, channels - c / panel * panel); }
    size_t plane(size_t c) const { return tiles * lanes(c); }
    // Of the first point, from channel c on.
    float* at(size_t tile, size_t c) const {
        return data + c / panel * panel * POINTS * tiles + tile * lanes(c) + c % panel;
    }
};

// Ask for a tile's pixels before they are needed: of an input for those that the tile before it has
// not had (`columns` of them), of an output for channels begin to end.
template <int WRITE, typename T>
void prefetch(
        const Map<T>& map, const Tiles& tiles, size_t tile, int offset, int rows, int columns,
        size_t begin, size_t end) {
    const ptrdiff_t top = tiles.row(tile) - offset, right = tiles.column(tile) - offset + rows;
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j)
            if (T* pixel = map.at(tiles.image(tile), top + i, right - columns + j))
                for (size_t c = begin; c < end; c += 64 / sizeof(T))
                    __builtin_prefetch(pixel + c, WRITE);
}

// The points of `points.tiles` tiles from `first` on, those from `begin` to `end` of them, where
// SIZE x SIZE pixels make a tile.
template <int SIZE, void TRANSFORM(const Floats*, Floats*), typename T>
void to_points(
        const Map<const T>& map, const Tiles& tiles, int offset, size_t first, size_t begin,
        size_t end, const Points& points) {
    for (size_t index = begin; index < end; ++index) {
        const size_t tile = first + index;
        if (index + 1 < end)
            prefetch<0>(map, tiles, tile + 1, offset, SIZE, 4, 0, map.channels);
        const T* pixels[SIZE][SIZE];
        for (int i = 0; i < SIZE; ++i)
            for (int j = 0; j < SIZE; ++j)
                pixels[i][j] = map.at(
                        tiles.image(tile), tiles.row(tile) + i - offset,
                        tiles.column(tile) + j - offset);
        each_lanes(0, map.channels, [&](size_t c, size_t n) {
            Floats from[SIZE][SIZE], to[6][6];
            for (int i = 0; i < SIZE; ++i)
                for (int j = 0; j < SIZE; ++j)
                    from[i][j] = pixels[i][j] ? load(pixels[i][j] + c, n) : Floats{};
            both_axes<SIZE, 6, TRANSFORM>(from, to);
            float* result = points.at(index, c);
            const size_t plane = points.plane(c);
            for (int k = 0; k < 36; ++k)
                store(result + k * plane, to[k / 6][k % 6], n);
        });
    }
}

// What is done to an output before it is written.
template <typename T>
struct Ending {
    const float* bias;
    const T* add;
    bool relu;
};

// The outputs of tiles first to last from a panel's points (point, tile, lanes).
template <typename T>
void from_points(
        const float* points, const Map<T>& map, const Tiles& tiles, size_t first, size_t last,
        size_t panel, const Ending<T>& ending) {
    const size_t lanes = lanes_of(panel, map.channels), plane = (last - first) * lanes;
    const size_t begin = panel * PANEL, end = std::min(begin + PANEL, map.channels);
    for (size_t tile = first; tile < last; ++tile) {
        prefetch<1>(map, tiles, tile, 0, 4, 4, begin, end);
        each_lanes(begin, end, [&](size_t c, size_t n) {
            Floats from[6][6], to[4][4];
            const float* source = points + (tile - first) * lanes + c - begin;
            for (int k = 0; k < 36; ++k)
                from[k / 6][k % 6] = load(source + k * plane);
            both_axes<6, 4, output_points>(from, to);
            const Floats bias = ending.bias ? load(ending.bias + c, n) : Floats{};
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) {
                    T* pixel = map.at(
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
}

// Filters (out, in, 3, 3) as MegEngine has them, and where the one for (from, to) lies.
struct Filters {
    const float* weight;
    size_t from, to;                // channels of the map that is transformed, and of the result
    size_t from_stride, to_stride;  // in floats
    bool flipped;                   // for the gradient of the input: the filters turned around
};

// Values as a map of T has them.
template <typename T>
Floats as_in_maps(Floats values) {
    T kept[LANES];
    store(kept, values);
    return load(kept);
}

// points[point][from][lane] of a panel of the result, for `begin` to `end` of the map's channels;
// the filters are rounded as maps of T are.
template <typename T>
void filters_to_points(
        const Filters& filters, size_t panel, size_t begin, size_t end, float* points) {
    const size_t lanes = lanes_of(panel, filters.to), plane = filters.from * lanes;
    const size_t first = panel * PANEL, last = std::min(first + PANEL, filters.to);
    for (size_t from = begin; from < end; ++from)
        each_lanes(first, last, [&](size_t to, size_t n) {
            Floats filter[3][3]{}, result[6][6];
            for (size_t lane = 0; lane < n; ++lane) {
                const float* values = filters.weight + from * filters.from_stride +
                                      (to + lane) * filters.to_stride;
                for (int k = 0; k < 9; ++k)
                    filter[k / 3][k % 3][lane] = values[filters.flipped ? 8 - k : k];
            }
            for (int k = 0; k < 9; ++k)
                filter[k / 3][k % 3] = as_in_maps<T>(filter[k / 3][k % 3]);
            both_axes<3, 6, filter_points>(filter, result);
            for (int k = 0; k < 36; ++k)
                store(points + k * plane + from * lanes + to - first, result[k / 6][k % 6]);
        });
}

// A panel's outputs of tiles first to last from points (point, tile, channel) of the map.
template <typename T>
void compute_panel(
        const float* inputs, const float* filters, size_t from, const Map<T>& y, const Tiles& tiles,
        size_t first, size_t last, size_t panel, const Ending<T>& ending, float* products) {
    const size_t lanes = lanes_of(panel, y.channels), rows = last - first;
    for (size_t point = 0; point < POINTS; ++point)
        multiply(
                rows, {inputs + point * rows * from, from, 1}, from, filters + point * from * lanes,
                lanes, products + point * rows * lanes);
    from_points(products, y, tiles, first, last, panel, ending);
}

Buffer filter_buffer, input_buffer, output_buffer;

template <typename T>
void convolve_by_tiles(
        const Map<const T>& x, const Filters& filters, int padding, const Map<T>& y,
        const Tiles& tiles, const Ending<T>& ending) {
    const size_t panels = panels_of(filters.to), from = filters.from, panel_floats = POINTS * from;
    float* weight = filter_buffer.floats(panel_floats * panels * PANEL);
    parallel(from, [&](size_t begin, size_t end, int) {
        for (size_t panel = 0; panel < panels; ++panel)
            filters_to_points<T>(filters, panel, begin, end, weight + panel * PANEL * panel_floats);
    });
    const size_t most = std::max<size_t>(48, CACHE / (POINTS * 4 * (from + PANEL)) / 6 * 6);
    const size_t blocks = for_all_threads((tiles.all + most - 1) / most);
    each_part(blocks, [&](size_t part) {
        const size_t first = tiles.all * part / blocks, last = tiles.all * (part + 1) / blocks;
        const size_t size = last - first, floats = POINTS * size * from;
        float* inputs = scratch(floats + POINTS * size * PANEL);
        to_points<6, input_points>(
                x, tiles, padding, first, 0, size, Points{inputs, size, from, from});
        for (size_t panel = 0; panel < panels; ++panel)
            compute_panel(
                    inputs, weight + panel * PANEL * panel_floats, from, y, tiles, first, last,
                    panel, ending, inputs + floats);
    });
}

// Call f(first, last) for blocks of tiles that stay in the cache between the steps.
template <typename F>
void each_block(const Tiles& tiles, size_t channels, F f) {
    const size_t most = std::max<size_t>(32, SHARED_FLOATS / (POINTS * channels));
    const size_t blocks = (tiles.all + most - 1) / most;
    const size_t size = (tiles.all + blocks - 1) / blocks;
    for (size_t first = 0; first < tiles.all; first += size)
        f(first, std::min(first + size, tiles.all));
}

template <typename T>
void convolve_by_panels(
        const Map<const T>& x, const Filters& filters, int padding, const Map<T>& y,
        const Tiles& tiles, const Ending<T>& ending) {
    const size_t from = filters.from;
    each_block(tiles, from, [&](size_t first, size_t last) {
        const size_t size = last - first;
        const Points inputs{input_buffer.floats(POINTS * size * from), size, from, from};
        parallel(size, [&](size_t begin, size_t end, int) {
            to_points<6, input_points>(x, tiles, padding, first, begin, end, inputs);
        });
        each_part(panels_of(filters.to), [&](size_t panel) {
            const size_t lanes = lanes_of(panel, filters.to);
            float* weight = scratch(POINTS * lanes * (from + size));
            filters_to_points<T>(filters, panel, 0, from, weight);
            compute_panel(
                    inputs.data, weight, from, y, tiles, first, last, panel, ending,
                    weight + POINTS * lanes * from);
        });
    });
}

template <typename T>
void convolve(
        const Map<const T>& x, const Filters& filters, int padding, size_t count,
        const Map<T>& y, const Ending<T>& ending) {
    const Tiles tiles(count, y.height, y.width);
    const bool large = POINTS * 4 * filters.from * filters.to > LARGE && tiles.all <= 128;
    (large ? convolve_by_panels<T> : convolve_by_tiles<T>)(x, filters, padding, y, tiles, ending);
}

// Filters' points (point, row, lane) of the map's channels from `in` on and a panel of the
// gradient's become, or are added to, filters (out, in, 3, 3).
void points_to_filters(
        const float* points, size_t rows, size_t in, size_t panel, bool add, const Winograd& p,
        float* dweight) {
    const size_t lanes = lanes_of(panel, p.out), plane = rows * lanes;
    const size_t first = panel * PANEL, last = std::min(first + PANEL, p.out);
    for (size_t row = 0; row < rows; ++row)
        each_lanes(first, last, [&](size_t out, size_t n) {
            Floats from[6][6], filter[3][3];
            for (int k = 0; k < 36; ++k)
                from[k / 6][k % 6] = load(points + k * plane + row * lanes + out - first);
            both_axes<6, 3, filter_sums>(from, filter);
            for (size_t lane = 0; lane < n; ++lane) {
                float* result = dweight + ((out + lane) * p.in + in + row) * 9;
                for (int k = 0; k < 9; ++k)
                    result[k] = (add ? result[k] : 0.f) + filter[k / 3][k % 3][lane];
            }
        });
}

}  // namespace

bool Winograd::pays() const {
    const size_t tiles = count * ((out_height() + 3) / 4) * ((out_width() + 3) / 4);
    return in >= 32 && out >= 32 && tiles >= 32 && padding <= 2;
}

template <typename T>
void winograd_forward(
        const Winograd& p, const T* x, const float* weight, const float* bias, const T* add,
        bool relu, T* y) {
    convolve<T>(
            {x, p.height, p.width, p.in}, {weight, p.in, p.out, 9, p.in * 9, false}, p.padding,
            p.count, {y, p.out_height(), p.out_width(), p.out}, {bias, add, relu});
}

template <typename T>
void winograd_data(const Winograd& p, const T* dy, const float* weight, T* dx) {
    convolve<T>(
            {dy, p.out_height(), p.out_width(), p.out},
            {weight, p.out, p.in, p.in * 9, 9, true}, 2 - p.padding, p.count,
            {dx, p.height, p.width, p.in}, {nullptr, nullptr, false});
}

template <typename T>
void winograd_filter(const Winograd& p, const T* x, const T* dy, float* dweight) {
    constexpr size_t ROWS = LANES;  // channels of the map in a part
    const Map<const T> map{x, p.height, p.width, p.in};
    const Map<const T> gradient{dy, p.out_height(), p.out_width(), p.out};
    const Tiles tiles(p.count, p.out_height(), p.out_width());
    const size_t in = (p.in + LANES - 1) / LANES * LANES, out = (p.out + LANES - 1) / LANES * LANES;
    const size_t panels = panels_of(p.out), parts = in / ROWS * panels;
    each_block(tiles, in + out, [&](size_t first, size_t last) {
        const size_t size = last - first;
        const Points inputs{input_buffer.floats(POINTS * size * in), size, in, PANEL};
        const Points outputs{output_buffer.floats(POINTS * size * out), size, out, PANEL};
        parallel(size, [&](size_t begin, size_t end, int) {
            to_points<6, input_points>(map, tiles, p.padding, first, begin, end, inputs);
            to_points<4, gradient_points>(gradient, tiles, 0, first, begin, end, outputs);
        });
        each_part(parts, [&](size_t part) {
            const size_t panel = part * panels / parts, c = part % (in / ROWS) * ROWS;
            const size_t lanes = lanes_of(panel, p.out), rows = std::min(ROWS, p.in - c);
            const float *left = inputs.at(0, c), *right = outputs.at(0, panel * PANEL);
            float* products = scratch(POINTS * ROWS * lanes);
            for (size_t point = 0; point < POINTS; ++point)
                multiply(
                        rows, {left + point * inputs.plane(c), 1, inputs.lanes(c)}, size,
                        right + point * size * lanes, lanes, products + point * rows * lanes);
            points_to_filters(products, rows, c, panel, first > 0, p, dweight);
        });
    });
}

#define FOR_MAPS_OF(T)                                                                            \
    template void winograd_forward(                                                               \
            const Winograd&, const T*, const float*, const float*, const T*, bool, T*);           \
    template void winograd_data(const Winograd&, const T*, const float*, T*);                     \
    template void winograd_filter(const Winograd&, const T*, const T*, float*);

FOR_MAPS_OF(float)
FOR_MAPS_OF(Bfloat16)

}  // namespace resnet
