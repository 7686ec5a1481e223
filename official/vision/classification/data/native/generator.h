// What numpy.random.Generator(PCG64(key)) gives, number for number: SeedSequence, which mixes the key
// (M. E. O'Neill, "Developing a seed_seq alternative", 2015), and PCG64, XSL-RR of 128 bits (O'Neill,
// HMC-CS-2014-0905). An image needs a few numbers only, and the time to make the generator in Python
// is more than that to draw them.

#pragma once

#include <cstddef>
#include <cstdint>

namespace numpy {

class Generator {
public:
    Generator(const uint32_t* key, size_t length) {
        uint32_t pool[4], state[8];
        fill(key, length, pool);
        uint32_t constant = 0x8b51f9dd;
        for (int i = 0; i < 8; ++i) {
            uint32_t value = pool[i % 4] ^ constant;
            constant *= 0x58f38ded;
            value *= constant;
            state[i] = value ^ value >> 16;
        }
        increment_ = (pair(state + 4) << 1) | 1;
        state_ = increment_;  // a step from 0
        state_ += pair(state);
        step();
    }

    uint64_t next64() {
        step();
        const uint64_t mixed = uint64_t(state_ >> 64) ^ uint64_t(state_);
        const unsigned turn = unsigned(state_ >> 122);
        return mixed >> turn | mixed << (-turn & 63);
    }

    uint32_t next32() {
        if (has_half_) {
            has_half_ = false;
            return half_;
        }
        const uint64_t value = next64();
        has_half_ = true;
        half_ = uint32_t(value >> 32);
        return uint32_t(value);
    }

    // random(): from 0, below 1
    double share() { return double(next64() >> 11) * (1.0 / 9007199254740992.0); }

    double uniform(double low, double high) { return low + (high - low) * share(); }

    // integers(0, end) for an end from 1 to 2^32 - 1 (Lemire, arXiv:1805.10941)
    uint32_t below(uint32_t end) {
        if (end == 1)
            return 0;
        uint64_t product = uint64_t(next32()) * end;
        if (uint32_t(product) < end) {
            const uint32_t least = (UINT32_MAX - (end - 1)) % end;
            while (uint32_t(product) < least)
                product = uint64_t(next32()) * end;
        }
        return uint32_t(product >> 32);
    }

private:
    using Wide = unsigned __int128;

    Wide state_ = 0, increment_ = 0;
    bool has_half_ = false;
    uint32_t half_ = 0;

    void step() {
        constexpr Wide multiplier = Wide(2549297995355413924u) << 64 | 4865540595714422341u;
        state_ = state_ * multiplier + increment_;
    }

    // Two numbers of 64 bits, each of two words whose lower comes first; the first is the higher.
    static Wide pair(const uint32_t* words) {
        const uint64_t high = uint64_t(words[1]) << 32 | words[0];
        const uint64_t low = uint64_t(words[3]) << 32 | words[2];
        return Wide(high) << 64 | low;
    }

    static uint32_t hash(uint32_t value, uint32_t& constant) {
        value ^= constant;
        constant *= 0x931e8875;
        value *= constant;
        return value ^ value >> 16;
    }

    static uint32_t mix(uint32_t x, uint32_t y) {
        const uint32_t result = 0xca01f9dd * x - 0x4973f715 * y;
        return result ^ result >> 16;
    }

    static void fill(const uint32_t* key, size_t length, uint32_t* pool) {
        uint32_t constant = 0x43b0d7e5;
        for (size_t i = 0; i < 4; ++i)
            pool[i] = hash(i < length ? key[i] : 0, constant);
        for (int from = 0; from < 4; ++from)
            for (int to = 0; to < 4; ++to)
                if (from != to)
                    pool[to] = mix(pool[to], hash(pool[from], constant));
        for (size_t i = 4; i < length; ++i)
            for (int to = 0; to < 4; ++to)
                pool[to] = mix(pool[to], hash(key[i], constant));
    }
};

}  // namespace numpy
