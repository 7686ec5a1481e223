// What the uses of oneDNN share.
#pragma once

#include <cstdlib>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

#include "common.h"

namespace resnet {

inline const dnnl::engine& engine() {
    static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
}

// Memory that stays from call to call and grows to the largest that was asked for.
class Buffer {
public:
    float* floats(size_t count) { return static_cast<float*>(bytes(count * sizeof(float))); }

    dnnl::memory of(const dnnl::memory::desc& desc) {
        return dnnl::memory(desc, engine(), bytes(desc.get_size()));
    }

private:
    struct Free {
        void operator()(void* pointer) const { std::free(pointer); }
    };

    void* bytes(size_t size) {
        if (size > size_) {
            storage_.reset();
            size_ = (size + 63) / 64 * 64;
            storage_.reset(std::aligned_alloc(64, size_));
        }
        return storage_.get();
    }

    std::unique_ptr<void, Free> storage_;
    size_t size_ = 0;
};

}  // namespace resnet
