// 3x3 convolutions with stride 1 by Winograd's algorithm (winograd_tiles.h). Maps may be of
// bfloat16; points and products are float32: so it is still faster than the direct method.
//
// The weight is transformed beforehand: for every 64 output channels and each of the 36 points a
// matrix (in, 64). A block of tiles goes through all of it at once: its points stay in the cache.

#include <algorithm>

#include "../winograd_products.h"
#include "../winograd_tiles.h"
#include "plan.h"

namespace resnet {
namespace plan {
namespace {

constexpr size_t PANEL = 64;
constexpr size_t CACHE = 640 << 10;  // bytes of a block's points
constexpr size_t WEIGHT = 4 << 20;   // bytes of a weight that stays in a cache

// Points (36, tiles, channels) of tiles first to last of x, whose numbers are of E.
template <typename E>
void to_points(const Step& s, const Tiles& tiles, size_t first, size_t last, float* points) {
    const E* x = static_cast<const E*>(s.x.data);
    const size_t channels = s.x.channels, plane = (last - first) * channels, row = s.x.row();
    for (size_t tile = first; tile < last; ++tile) {
        const ptrdiff_t top = tiles.row(tile) - s.padding[0], left = tiles.column(tile) - s.padding[1];
        const E* corner = x + s.x.at(tiles.image(tile), top, left);
        // Of the last tiles there may be pixels beyond the halo, which count for nothing.
        const ptrdiff_t height = s.x.height + s.x.halo - top, width = s.x.width + s.x.halo - left;
        float* result = points + (tile - first) * channels;
        each_lanes(0, channels, [&](size_t c, size_t n) {
            Floats from[6][6], to[6][6];
            for (int i = 0; i < 6; ++i)
                for (int j = 0; j < 6; ++j)
                    from[i][j] = i < height && j < width
                                         ? resnet::load(corner + i * row + j * channels + c, n)
                                         : Floats{};
            both_axes<6, 6, input_points>(from, to);
            for (int k = 0; k < 36; ++k)
                resnet::store(result + k * plane + c, to[k / 6][k % 6], n);
        });
    }
}

// The outputs of tiles first to last, channels `channel` to + lanes, from points (36, tiles, lanes).
template <typename E>
void from_points(
        const Step& s, const Ending<E>& ending, const Tiles& tiles, size_t first, size_t last,
        size_t channel, size_t lanes, const float* points) {
    const size_t plane = (last - first) * lanes;
    for (size_t tile = first; tile < last; ++tile) {
        const size_t n = tiles.image(tile);
        const ptrdiff_t top = tiles.row(tile), left = tiles.column(tile);
        // The pixels of the tile that the map has: which they are, and where they lie.
        size_t count = 0, at[16], add[16], places[16];
        for (int i = 0; i < 4 && top + i < s.y.height; ++i)
            for (int j = 0; j < 4 && left + j < s.y.width; ++j) {
                places[count] = i * 4 + j;
                at[count] = s.y.at(n, top + i, left + j);
                add[count] = s.add.data ? s.add.at(n, top + i, left + j) : 0;
                ending.expect(channel, lanes, at[count], add[count]);
                ++count;
            }
        for (size_t c = 0; c < lanes; c += LANES) {
            Floats from[6][6], to[4][4];
            const float* source = points + (tile - first) * lanes + c;
            for (int k = 0; k < 36; ++k)
                from[k / 6][k % 6] = resnet::load(source + k * plane);
            both_axes<6, 4, output_points>(from, to);
            Floats pixels[16];
            for (size_t pixel = 0; pixel < count; ++pixel)
                pixels[pixel] = to[places[pixel] / 4][places[pixel] % 4];
            ending(pixels, count, 1, channel + c, at, add);
        }
    }
}

// Panels first to last of the outputs of a block of tiles whose points are known.
template <typename E>
void compute_panels(
        const Step& s, const Ending<E>& ending, const Tiles& tiles, size_t begin, size_t end,
        size_t first_panel, size_t last_panel, const float* points, float* products) {
    const size_t inner = s.x.channels, rows = end - begin;
    for (size_t panel = first_panel; panel < last_panel; ++panel) {
        const size_t channel = panel * PANEL;
        const size_t lanes = lanes_of<PANEL>(panel, s.y.channels);
        const float* weight = static_cast<const float*>(s.weight) + channel * POINTS * inner;
        for (size_t point = 0; point < POINTS; ++point) {
            const Strided left{points + point * rows * inner, inner, 1};
            const float* right = weight + point * inner * lanes;
            multiply(rows, left, inner, right, lanes, products + point * rows * lanes);
        }
        from_points(s, ending, tiles, begin, end, channel, lanes, products);
    }
}

template <typename E>
void compute(const Step& s) {
    const Tiles tiles(s.y.count, s.y.height, s.y.width);
    const Ending<E> ending(s);
    const size_t panels = panels_of<PANEL>(s.y.channels);
    const size_t bytes = POINTS * 4 * (s.x.channels + PANEL);  // of a tile's points
    // Few tiles at a time read the weight often; of many the points leave the cache. Where the weight
    // leaves it, it is read once, by threads that share its panels; each makes the points it needs.
    const size_t most = std::max<size_t>(48, CACHE / bytes / 6 * 6);
    const bool once = POINTS * 4 * s.x.channels * s.y.channels > WEIGHT && tiles.all <= 2 * most;
    const size_t wanted = once ? 1 : for_all_threads((tiles.all + most - 1) / most);
    const size_t block = (tiles.all + wanted - 1) / wanted;
    const size_t blocks = (tiles.all + block - 1) / block;
    const size_t shares = blocks > 1 ? 1 : std::min(panels, size_t(threads_here()));
    each_part(blocks * shares, [&](size_t part) {
        const size_t number = part / shares, share = part % shares;
        const size_t begin = number * block, end = std::min(tiles.all, begin + block);
        const size_t floats = POINTS * (end - begin) * s.x.channels;
        float* points = scratch(floats + POINTS * (end - begin) * PANEL);
        to_points<E>(s, tiles, begin, end, points);
        compute_panels(
                s, ending, tiles, begin, end, panels * share / shares, panels * (share + 1) / shares,
                points, points + floats);
    });
}

}  // namespace

void winograd(const Step& step) {
    if (step.x.type == FLOAT)
        compute<float>(step);
    else
        compute<Bfloat16>(step);
}

}  // namespace plan
}  // namespace resnet
