// 3x3 convolutions with stride 1 by Winograd's algorithm F(4x4, 3x3): Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv:1509.09308), section 4.3. A
// quarter of the direct method's multiplications, in float32.
#pragma once

#include <cstddef>

namespace resnet {

// Maps of `in` channels, (count, height, width), become maps of `out` channels.
struct Winograd {
    size_t count, height, width, in, out;
    int padding;

    size_t out_height() const { return height + 2 * padding - 2; }
    size_t out_width() const { return width + 2 * padding - 2; }
    // Whether it is faster than the direct method.
    bool pays() const;
};

// For maps of float and of Bfloat16, T. weight is (out, in, 3, 3); bias and add may be null:
// y = relu(conv(x) + bias + add)
template <typename T>
void winograd_forward(
        const Winograd& problem, const T* x, const float* weight, const float* bias, const T* add,
        bool relu, T* y);
template <typename T>
void winograd_data(const Winograd& problem, const T* dy, const float* weight, T* dx);
template <typename T>
void winograd_filter(const Winograd& problem, const T* x, const T* dy, float* dweight);

}  // namespace resnet
