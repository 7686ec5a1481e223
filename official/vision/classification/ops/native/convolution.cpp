// Convolution and its two gradients by oneDNN, on (N, H, W, C) activations and MegEngine's weights.
//
// oneDNN packs weights in an order of its own; they are packed anew at every call, into one buffer
// for all layers, since in training they are new at every call. That reads and writes them once.

#include <map>
#include <unordered_map>

#include "onednn.h"
#include "winograd.h"

namespace resnet {
namespace {

using dnnl::memory;
using dims = memory::dims;
using tag = memory::format_tag;
using type = memory::data_type;

enum Kind { FORWARD, BACKWARD_DATA, BACKWARD_FILTER };

struct Problem {
    Kind kind;
    bool bfloat16, bias, add;
    bool relu;  // not oneDNN's, of which the ReLU of NaN is 0
    dims x, y, weight, stride, padding, dilation;

    std::vector<int64_t> key() const {
        std::vector<int64_t> key{kind, bfloat16, bias, add, threads()};
        for (const dims* each : {&x, &y, &weight, &stride, &padding, &dilation})
            key.insert(key.end(), each->begin(), each->end());
        return key;
    }
    type activation() const { return bfloat16 ? type::bf16 : type::f32; }
};

// A primitive and what it takes; `plain` is the weight as MegEngine has it.
struct Plan {
    dnnl::primitive primitive;
    dnnl::reorder packing;
    memory::desc x, y, bias, packed, plain, scratchpad;
};

memory::desc activation(const dims& shape, type element) {
    return {shape, element, tag::acdb};
}

Plan make_plan(const Problem& p) {
    Plan plan;
    const type element = p.activation();
    const bool grouped = p.weight.size() == 5;
    // The gradient is accumulated in float32 whatever the activations are.
    const type packed_type = p.kind == BACKWARD_FILTER ? type::f32 : element;
    memory::desc any_weight(p.weight, element, tag::any);
    memory::desc any_gradient(p.weight, packed_type, tag::any);
    plan.plain = memory::desc(p.weight, type::f32, grouped ? tag::abcde : tag::abcd);
    plan.x = activation(p.x, element);
    plan.y = activation(p.y, element);
    if (p.bias)
        plan.bias = memory::desc({p.y[1]}, type::f32, tag::a);

    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops after;
    if (p.add)
        after.append_binary(dnnl::algorithm::binary_add, plan.y);
    attributes.set_post_ops(after);
    const auto direct = dnnl::algorithm::convolution_direct;
    const auto use = p.kind == FORWARD && p.add ? dnnl::prop_kind::forward_inference
                                                             : dnnl::prop_kind::forward_training;
    auto forward_bias = p.kind == FORWARD ? plan.bias : memory::desc();
    dnnl::convolution_forward::primitive_desc forward(
            engine(), use, direct, plan.x, any_weight, forward_bias, plan.y, p.stride,
            p.dilation, p.padding, p.padding,
            p.kind == FORWARD ? attributes : dnnl::primitive_attr());
    if (p.kind == FORWARD) {
        plan.primitive = dnnl::convolution_forward(forward);
        plan.packed = forward.weights_desc();
        plan.scratchpad = forward.scratchpad_desc();
    } else if (p.kind == BACKWARD_DATA) {
        dnnl::convolution_backward_data::primitive_desc backward(
                engine(), direct, plan.x, any_weight, plan.y, p.stride, p.dilation, p.padding,
                p.padding, forward, attributes);
        plan.primitive = dnnl::convolution_backward_data(backward);
        plan.packed = backward.weights_desc();
        plan.scratchpad = backward.scratchpad_desc();
    } else {
        dnnl::convolution_backward_weights::primitive_desc backward(
                engine(), direct, plan.x, any_gradient, plan.bias, plan.y, p.stride, p.dilation,
                p.padding, p.padding, forward, attributes);
        plan.primitive = dnnl::convolution_backward_weights(backward);
        plan.packed = backward.diff_weights_desc();
        plan.scratchpad = backward.scratchpad_desc();
    }
    if (plan.packed != plan.plain) {
        const bool unpack = p.kind == BACKWARD_FILTER;
        plan.packing = dnnl::reorder(dnnl::reorder::primitive_desc(
                engine(), unpack ? plan.packed : plan.plain, engine(),
                unpack ? plan.plain : plan.packed));
    }
    return plan;
}

// Plans by problem; forgotten all at once when there are many, as images of ever new sizes make.
const Plan& plan_of(const Problem& problem) {
    static std::map<std::vector<int64_t>, Plan> plans;
    auto key = problem.key();
    auto found = plans.find(key);
    if (found == plans.end()) {
        if (plans.size() >= 1024)
            plans.clear();
        found = plans.emplace(std::move(key), make_plan(problem)).first;
    }
    return found->second;
}

struct Operands {
    void *x, *weight, *bias, *add, *y;
};

template <typename T>
void run_winograd(const Problem& p, const Winograd& problem, const Operands& o) {
    T *x = static_cast<T*>(o.x), *add = static_cast<T*>(o.add), *y = static_cast<T*>(o.y);
    float *weight = static_cast<float*>(o.weight), *bias = static_cast<float*>(o.bias);
    if (p.kind == FORWARD)
        winograd_forward<T>(problem, x, weight, bias, add, p.relu, y);
    else if (p.kind == BACKWARD_DATA)
        winograd_data<T>(problem, y, weight, x);
    else
        winograd_filter<T>(problem, x, y, weight);
}

// AMX multiplies bfloat16 so much faster than AVX-512 float32 that Winograd's algorithm does not
// make up for it.
#ifdef __AMX_BF16__
constexpr bool DIRECT_IN_BFLOAT16 = true;
#else
constexpr bool DIRECT_IN_BFLOAT16 = false;
#endif

// Whether Winograd's algorithm does it, and did.
bool run_winograd(const Problem& p, const Operands& o) {
    const dims one{1, 1}, none{0, 0};
    if ((p.bfloat16 && DIRECT_IN_BFLOAT16) || p.weight.size() != 4 || p.weight[2] != 3 ||
        p.weight[3] != 3 || p.stride != one ||
        p.dilation != none || p.padding[0] != p.padding[1] ||
        (p.bias && p.kind == BACKWARD_FILTER))
        return false;
    const Winograd problem{size_t(p.x[0]), size_t(p.x[2]), size_t(p.x[3]), size_t(p.x[1]),
                           size_t(p.y[1]), int(p.padding[0])};
    if (!problem.pays())
        return false;
    (p.bfloat16 ? run_winograd<Bfloat16> : run_winograd<float>)(p, problem, o);
    return true;
}

void run(const Problem& problem, const Operands& operands) {
    static Buffer packed_buffer, scratchpad_buffer;
    dnnl::stream stream(engine());
    const Plan& plan = plan_of(problem);
    memory plain(plan.plain, engine(), operands.weight);
    const bool packing = plan.packed != plan.plain;
    memory packed = packing ? packed_buffer.of(plan.packed) : plain;
    const bool filter = problem.kind == BACKWARD_FILTER;
    if (packing && !filter)
        plan.packing.execute(stream, plain, packed);

    memory x(plan.x, engine(), operands.x), y(plan.y, engine(), operands.y);
    std::unordered_map<int, memory> arguments{
            {DNNL_ARG_SCRATCHPAD, scratchpad_buffer.of(plan.scratchpad)}};
    if (problem.kind == FORWARD) {
        arguments.insert(
                {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, y}});
    } else if (problem.kind == BACKWARD_DATA) {
        arguments.insert(
                {{DNNL_ARG_DIFF_SRC, x}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DIFF_DST, y}});
    } else {
        arguments.insert(
                {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_WEIGHTS, packed}, {DNNL_ARG_DIFF_DST, y}});
    }
    if (problem.bias)
        arguments.insert(
                {filter ? DNNL_ARG_DIFF_BIAS : DNNL_ARG_BIAS,
                 memory(plan.bias, engine(), operands.bias)});
    if (problem.add)
        arguments.insert(
                {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                 memory(plan.y, engine(), operands.add)});
    plan.primitive.execute(stream, arguments);
    if (packing && filter)
        plan.packing.execute(stream, packed, plain);
    stream.wait();
}

void rectify(Tensor& y) {
    with_type_of(y, [&](auto* t) {
        auto* values = data<std::remove_pointer_t<decltype(t)>>(y);
        each_element(y, [=](size_t i, size_t n) {
            store(values + i, rectified(load(values + i, n)), n);
        });
    });
}

// ---- what MegEngine calls ----

// A weight is (O, I, kh, kw) or (G, O/G, I/G, kh, kw).
dims weight_dims(const Shape& shape) {
    dims result;
    for (size_t index = 0; index < shape.ndim(); ++index)
        result.push_back(shape[index]);
    return result;
}

dims nchw(const Shape& shape) {
    return {int64_t(shape[0]), int64_t(shape[3]), int64_t(shape[1]), int64_t(shape[2])};
}

Problem problem_of(Kind kind, const Shape& x, const Shape& weight, const Shape& y, const Param& p) {
    Problem problem{};
    problem.kind = kind;
    problem.x = nchw(x);
    problem.y = nchw(y);
    problem.weight = weight_dims(weight);
    problem.stride = {integer(p, "stride_h"), integer(p, "stride_w")};
    problem.padding = {integer(p, "pad_h"), integer(p, "pad_w")};
    problem.dilation = {integer(p, "dilate_h") - 1, integer(p, "dilate_w") - 1};
    return problem;
}

size_t output_size(size_t size, size_t kernel, int stride, int padding, int dilation) {
    return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

// x (N, H, W, I), weight[, bias (O)][, add (N, H', W', O)] -> y (N, H', W', O)
void forward_shape(const Shapes& in, const Param& p, Shapes& out) {
    const Shape& weight = in[1];
    const size_t last = weight.ndim() - 1;
    const size_t groups = weight.ndim() == 5 ? weight[0] : 1;
    const size_t filters = groups * weight[last - 3];
    require(channels(in[0]) == groups * weight[last - 2],
            "a convolution of as many channels as the map has expected");
    out[0] = {in[0][0],
              output_size(in[0][1], weight[last - 1], integer(p, "stride_h"), integer(p, "pad_h"),
                          integer(p, "dilate_h")),
              output_size(in[0][2], weight[last], integer(p, "stride_w"), integer(p, "pad_w"),
                          integer(p, "dilate_w")),
              filters};
}

template <bool BIAS, bool ADD>
void forward(const Tensors& in, const Param& p, Tensors& out) {
    Problem problem = problem_of(FORWARD, in[0].shape(), in[1].shape(), out[0].shape(), p);
    problem.bfloat16 = is_bfloat16(in[0]);
    problem.bias = BIAS;
    problem.add = ADD;
    problem.relu = integer(p, "relu");
    const Operands operands{in[0].data(), in[1].data(), BIAS ? in[2].data() : nullptr,
                            ADD ? in[2 + BIAS].data() : nullptr, out[0].data()};
    if (run_winograd(problem, operands))
        return;
    run(problem, operands);
    if (problem.relu)
        rectify(out[0]);
}

// dy, weight -> dx (N, height, width, I)
void data_shape(const Shapes& in, const Param& p, Shapes& out) {
    const Shape& weight = in[1];
    const bool grouped = weight.ndim() == 5;
    out[0] = {in[0][0], size_t(integer(p, "height")), size_t(integer(p, "width")),
              grouped ? weight[0] * weight[2] : weight[1]};
}

void backward_data(const Tensors& in, const Param& p, Tensors& out) {
    Problem problem = problem_of(BACKWARD_DATA, out[0].shape(), in[1].shape(), in[0].shape(), p);
    problem.bfloat16 = is_bfloat16(in[0]);
    const Operands operands{out[0].data(), in[1].data(), nullptr, nullptr, in[0].data()};
    if (!run_winograd(problem, operands))
        run(problem, operands);
}

// x, dy, weight (for its shape alone) -> dweight[, dbias]
template <bool BIAS>
void filter_shape(const Shapes& in, const Param&, Shapes& out) {
    out[0] = in[2];
    if (BIAS)
        out[1] = {channels(in[1])};
}

template <bool BIAS>
void backward_filter(const Tensors& in, const Param& p, Tensors& out) {
    Problem problem =
            problem_of(BACKWARD_FILTER, in[0].shape(), in[2].shape(), in[1].shape(), p);
    problem.bfloat16 = is_bfloat16(in[0]);
    problem.bias = BIAS;
    const Operands operands{in[0].data(), out[0].data(), BIAS ? out[1].data() : nullptr, nullptr,
                            in[1].data()};
    if (!run_winograd(problem, operands))
        run(problem, operands);
}

const std::initializer_list<const char*> GEOMETRY = {
        "stride_h", "stride_w", "pad_h", "pad_w", "dilate_h", "dilate_w",
        "relu",     "height",   "width"};

auto& conv = define("Conv", 2, 1, forward_shape, same_dtype, forward<false, false>, GEOMETRY);
auto& conv_bias =
        define("ConvBias", 3, 1, forward_shape, same_dtype, forward<true, false>, GEOMETRY);
auto& conv_bias_add =
        define("ConvBiasAdd", 4, 1, forward_shape, same_dtype, forward<true, true>, GEOMETRY);
auto& conv_data = define("ConvData", 2, 1, data_shape, same_dtype, backward_data, GEOMETRY);
auto& conv_filter =
        define("ConvFilter", 3, 1, filter_shape<false>, float_dtype, backward_filter<false>,
               GEOMETRY);
auto& conv_filter_bias =
        define("ConvFilterBias", 3, 2, filter_shape<true>, float_dtype, backward_filter<true>,
               GEOMETRY);

}  // namespace
}  // namespace resnet
