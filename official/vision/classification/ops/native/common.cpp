#include "common.h"

#include <stdexcept>

#define QUOTE(text) #text
#define QUOTED(macro) QUOTE(macro)

namespace resnet {

void require(bool met, const char* expected) {
    if (!met)
        throw std::invalid_argument(expected);
}

void same_dtype(const std::vector<DType>& inputs, const Param&, std::vector<DType>& outputs) {
    for (auto& output : outputs)
        output = inputs[0];
}

void float_dtype(const std::vector<DType>&, const Param&, std::vector<DType>& outputs) {
    for (auto& output : outputs)
        output = DType(custom::DTypeEnum::float32);
}

static void same_device(
        const std::vector<custom::Device>& inputs, const Param&,
        std::vector<custom::Device>& outputs) {
    for (auto& output : outputs)
        output = inputs[0];
}

custom::CustomOp& define(
        const char* name, int inputs, int outputs, custom::CustomOp::ShapeInferFuncPtr shapes,
        custom::CustomOp::DTypeInferFuncPtr dtypes,
        custom::CustomOp::ProcessFuncPtrWithoutRuntimeArgs compute,
        std::initializer_list<const char*> integers) {
    // The suffix lets two versions of this library live in one process.
    auto op = custom::op_insert(std::string(name) + "_" QUOTED(RESNET_BUILD), CUSTOM_OP_VERSION);
    const std::initializer_list<std::string> types = {"float32", "bfloat16", "uint8"};
    for (int index = 0; index < inputs; ++index)
        op->add_input("input" + std::to_string(index), types);
    for (int index = 0; index < outputs; ++index)
        op->add_output("output" + std::to_string(index), types);
    for (const char* each : integers)
        op->add_param(each, 0);
    op->set_device_infer(same_device).set_shape_infer(shapes).set_dtype_infer(dtypes);
    op->set_compute("x86", compute);
    return *op;
}

}  // namespace resnet
