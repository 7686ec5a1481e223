// The matrix products of Winograd's algorithm. Channels of a result come in panels of 64, the last of
// which is as wide as sixteens allow: so sums of six rows stay in registers.
#pragma once

#include "lanes.h"

namespace resnet {

constexpr size_t PANEL = 64;

inline size_t panels_of(size_t channels) {
    return (channels + PANEL - 1) / PANEL;
}

inline size_t lanes_of(size_t panel, size_t channels) {
    return std::min(PANEL, (channels - panel * PANEL + LANES - 1) / LANES * LANES);
}

// Numbers of a matrix that lie `row` and `column` apart.
struct Strided {
    const float* data;
    size_t row, column;
};

// result (R, 16 N) = left (R, inner) right (inner, 16 N)
template <int R, int N>
void multiply_rows(Strided left, size_t inner, const float* right, float* result) {
    Floats sums[R][N]{};
    for (size_t k = 0; k < inner; ++k, right += N * LANES) {
        Floats w[N];
        for (int v = 0; v < N; ++v)
            w[v] = load(right + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Floats x = left.data[r * left.row + k * left.column] - Floats{};
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v)
                sums[r][v] += x * w[v];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < N; ++v)
            store(result + (r * N + v) * LANES, sums[r][v]);
}

// Few rows at a time read `right` often: all parts have about as many.
template <int N>
void multiply_lanes(size_t rows, Strided left, size_t inner, const float* right, float* result) {
    static constexpr decltype(&multiply_rows<1, N>) ROWS[] = {
            multiply_rows<1, N>, multiply_rows<2, N>, multiply_rows<3, N>,
            multiply_rows<4, N>, multiply_rows<5, N>, multiply_rows<6, N>};
    for (size_t parts = (rows + 5) / 6; parts > 0; --parts) {
        const size_t some = (rows + parts - 1) / parts;
        ROWS[some - 1](left, inner, right, result);
        rows -= some;
        left.data += some * left.row;
        result += some * N * LANES;
    }
}

// result (rows, lanes) = left (rows, inner) right (inner, lanes), for a panel's lanes
inline void multiply(
        size_t rows, Strided left, size_t inner, const float* right, size_t lanes, float* result) {
    static constexpr decltype(&multiply_lanes<1>) LANES_OF[] = {
            multiply_lanes<1>, multiply_lanes<2>, multiply_lanes<3>, multiply_lanes<4>};
    LANES_OF[lanes / LANES - 1](rows, left, inner, right, result);
}

}  // namespace resnet
