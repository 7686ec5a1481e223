// The matrix products of Winograd's algorithm. Channels of a result come in panels, the last of which
// is as wide as sixteens allow: so sums of six rows stay in registers.
#pragma once

#include "lanes.h"

namespace resnet {

// What a register holds, and how many times that a row of sums has: six rows of them stay in the
// registers. GCC would keep longer vectors in memory.
#ifdef __AVX512F__
typedef Floats Register;
constexpr int MOST = 4;
#else
typedef float Register __attribute__((vector_size(32)));
constexpr int MOST = 2;
#endif
constexpr size_t WIDTH = sizeof(Register) / sizeof(float);

// Channels of a panel: as many as the sums of a row. Stepping over others of a wider one, a processor
// with AVX2 would use a quarter of its first-level cache.
constexpr size_t PANEL = MOST * WIDTH;

template <size_t WIDE = PANEL>
size_t panels_of(size_t channels) {
    return (channels + WIDE - 1) / WIDE;
}

template <size_t WIDE = PANEL>
size_t lanes_of(size_t panel, size_t channels) {
    return std::min(WIDE, (channels - panel * WIDE + LANES - 1) / LANES * LANES);
}

// Numbers of a matrix that lie `row` and `column` apart.
struct Strided {
    const float* data;
    size_t row, column;
};

// result (R, N registers) = left (R, inner) right (inner, N registers), parts of rows of `lanes`
template <int R, int N>
void multiply_rows(Strided left, size_t inner, const float* right, size_t lanes, float* result) {
    Register sums[R][N]{};
    for (size_t k = 0; k < inner; ++k, right += lanes) {
        Register w[N];
        for (int v = 0; v < N; ++v)
            std::memcpy(&w[v], right + v * WIDTH, sizeof(Register));
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const Register x = left.data[r * left.row + k * left.column] - Register{};
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v)
                sums[r][v] += x * w[v];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < N; ++v)
            std::memcpy(result + r * lanes + v * WIDTH, &sums[r][v], sizeof(Register));
}

// Few rows at a time read `right` often: all parts have about as many.
template <int N>
void multiply_columns(
        size_t rows, Strided left, size_t inner, const float* right, size_t lanes, float* result) {
    static constexpr decltype(&multiply_rows<1, N>) ROWS[] = {
            multiply_rows<1, N>, multiply_rows<2, N>, multiply_rows<3, N>,
            multiply_rows<4, N>, multiply_rows<5, N>, multiply_rows<6, N>};
    for (size_t parts = (rows + 5) / 6; parts > 0; --parts) {
        const size_t some = (rows + parts - 1) / parts;
        ROWS[some - 1](left, inner, right, lanes, result);
        rows -= some;
        left.data += some * left.row;
        result += some * lanes;
    }
}

// result (rows, lanes) = left (rows, inner) right (inner, lanes), for a panel's lanes
inline void multiply(
        size_t rows, Strided left, size_t inner, const float* right, size_t lanes, float* result) {
    static constexpr decltype(&multiply_columns<1>) COLUMNS[] = {
            multiply_columns<1>, multiply_columns<2>, multiply_columns<3>, multiply_columns<4>};
    for (size_t c = 0; c < lanes; c += MOST * WIDTH) {
        const size_t some = std::min<size_t>(MOST, (lanes - c) / WIDTH);
        COLUMNS[some - 1](rows, left, inner, right + c, lanes, result + c);
    }
}

}  // namespace resnet
