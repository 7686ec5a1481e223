// What all custom operators share: their tensors, and their registration.
//
// Activations are contiguous arrays of shape (N, H, W, C), "rows" of C channels; T is float or
// Bfloat16. Sums are taken in float over short runs and in double over those, in a fixed order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "megbrain/custom/custom.h"
#include "lanes.h"

namespace resnet {

using custom::DType;
using custom::Param;
using custom::Shape;
using custom::Tensor;
using Tensors = std::vector<Tensor>;
using Shapes = std::vector<Shape>;

// Throws unless `met`; MegEngine raises a ValueError of it in Python.
void require(bool met, const char* expected);

inline bool is_bfloat16(const Tensor& tensor) {
    return tensor.dtype() == custom::DTypeEnum::bfloat16;
}

template <typename T>
T* data(const Tensor& tensor) {
    return static_cast<T*>(tensor.data());
}

// Call f with a null pointer of the element type of `tensor`: f(float*) or f(Bfloat16*).
template <typename F>
void with_type_of(const Tensor& tensor, F f) {
    if (is_bfloat16(tensor))
        f(static_cast<Bfloat16*>(nullptr));
    else
        f(static_cast<float*>(nullptr));
}

inline size_t channels(const Shape& shape) {
    return shape[shape.ndim() - 1];
}

constexpr size_t PART = 4096;  // elements: what is smaller is not worth a second thread

// Call f(index, n) for all elements of the tensor, by `each_lanes`, on all threads.
template <typename F>
void each_element(const Tensor& tensor, F f) {
    const size_t size = tensor.size();
    parallel((size + PART - 1) / PART, [=](size_t begin, size_t end, int) {
        each_lanes(begin * PART, std::min(end * PART, size), f);
    });
}

inline size_t rows(const Tensor& tensor) {
    return tensor.size() / channels(tensor.shape());
}

inline int integer(const Param& param, const char* name) {
    return param[name].as<int>();
}

// Outputs have the element type of the first input.
void same_dtype(const std::vector<DType>& inputs, const Param&, std::vector<DType>& outputs);
// Outputs are float32.
void float_dtype(const std::vector<DType>& inputs, const Param&, std::vector<DType>& outputs);

// A custom operator named `name` and the suffix of this build.
custom::CustomOp& define(
        const char* name, int inputs, int outputs, custom::CustomOp::ShapeInferFuncPtr shapes,
        custom::CustomOp::DTypeInferFuncPtr dtypes,
        custom::CustomOp::ProcessFuncPtrWithoutRuntimeArgs compute,
        std::initializer_list<const char*> integers = {});

}  // namespace resnet
