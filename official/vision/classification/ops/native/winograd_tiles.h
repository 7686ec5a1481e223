// Y = A' [ (G g G') * (B' d B) ] A for tiles d of 6x6 pixels, filters g of 3x3 and outputs of 4x4; a
// prime transposes, * multiplies element by element. Over channels the 36 element-wise products are
// 36 matrix products. The gradient of g is G' [ (B' d B) * (A dY A') ] G by the same tiles.
#pragma once

#include "lanes.h"

namespace resnet {

constexpr size_t POINTS = 36;

// One row or column each of the three transforms and of the transposes that the gradient needs.
inline void input_points(const Floats d[6], Floats r[6]) {  // B'
    const Floats a = d[4] - 4 * d[2], b = d[3] - 4 * d[1];
    const Floats c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    r[0] = 4 * d[0] - 5 * d[2] + d[4];
    r[1] = a + b;
    r[2] = a - b;
    r[3] = c + e;
    r[4] = c - e;
    r[5] = 4 * d[1] - 5 * d[3] + d[5];
}

inline void output_points(const Floats m[6], Floats r[4]) {  // A'
    const Floats a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    r[0] = m[0] + a + c;
    r[1] = b + 2 * e;
    r[2] = a + 4 * c;
    r[3] = b + 8 * e + m[5];
}

inline void gradient_points(const Floats y[4], Floats r[6]) {  // A
    const Floats a = y[0] + y[2], b = y[1] + y[3];
    const Floats c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
    r[0] = y[0];
    r[1] = a + b;
    r[2] = a - b;
    r[3] = c + e;
    r[4] = c - e;
    r[5] = y[3];
}

inline void filter_points(const Floats g[3], Floats r[6]) {  // G
    const Floats a = (g[0] + g[2]) * (-1.f / 6), b = g[1] * (1.f / 6);
    const Floats c = g[0] * (1.f / 24) + g[2] * (1.f / 6), e = g[1] * (1.f / 12);
    r[0] = g[0] * 0.25f;
    r[1] = a - b;
    r[2] = a + b;
    r[3] = c + e;
    r[4] = c - e;
    r[5] = g[2];
}

inline void filter_sums(const Floats m[6], Floats r[3]) {  // G'
    const Floats a = m[1] + m[2], b = m[2] - m[1], c = m[3] + m[4], e = m[3] - m[4];
    r[0] = m[0] * 0.25f - a * (1.f / 6) + c * (1.f / 24);
    r[1] = b * (1.f / 6) + e * (1.f / 12);
    r[2] = (c - a) * (1.f / 6) + m[5];
}

// Apply a transform of ROWS to POINTS along both axes of a tile.
template <int FROM, int TO, void TRANSFORM(const Floats*, Floats*)>
inline void both_axes(const Floats (&tile)[FROM][FROM], Floats (&result)[TO][TO]) {
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

}  // namespace resnet
