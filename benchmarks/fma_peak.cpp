// What the cores can do at most: multiply-adds between registers, in as many independent chains as
// hide their latency.
//
//     fma_peak THREADS SECONDS
//
// prints {"fp32": GFLOP/s, "bf16": GFLOP/s or null, "instructions": {"fp32": "AVX-512", "bf16":
// "AMX"}}, two operations for a multiply-add; bf16 products are added up in float32. With AMX they
// are taken of whole tiles.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr const char* INSTRUCTIONS = "AVX-512";
using Lanes = __m512;
constexpr int SUMS = 24, LANES = 16;  // 24 of 32 registers
Lanes every(float x) { return _mm512_set1_ps(x); }
Lanes multiply_add(Lanes sum, Lanes a, Lanes b) { return _mm512_fmadd_ps(sum, a, b); }
#elif defined(__AVX2__) && defined(__FMA__)
constexpr const char* INSTRUCTIONS = "AVX2";
using Lanes = __m256;
constexpr int SUMS = 12, LANES = 8;  // 12 of 16 registers
Lanes every(float x) { return _mm256_set1_ps(x); }
Lanes multiply_add(Lanes sum, Lanes a, Lanes b) { return _mm256_fmadd_ps(sum, a, b); }
#else
#error "this CPU has no FMA instructions"
#endif

constexpr int REPEATS = 100000;
volatile float shrink = 0.999f, shift = 0.001f, sink;  // the compiler must not know the results

struct Float32 {
    static constexpr double OPERATIONS = 2.0 * LANES;
    static constexpr int CHAINS = SUMS;
    Lanes a = every(shrink), b = every(shift);
    Lanes operator()(Lanes sum) const { return multiply_add(sum, a, b); }
};

#if defined(__AVX512BF16__)
struct BFloat16 {
    static constexpr double OPERATIONS = 4.0 * LANES;  // two products for every sum
    static constexpr int CHAINS = SUMS;
    __m512bh a = _mm512_cvtne2ps_pbh(every(shrink), every(shrink));
    __m512bh b = _mm512_cvtne2ps_pbh(every(shift), every(shift));
    Lanes operator()(Lanes sum) const { return _mm512_dpbf16_ps(sum, a, b); }
};
#endif

template <class Operation>
void repeat() {
    const Operation operation;
    Lanes sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = every(static_cast<float>(i));
    for (int repetition = 0; repetition < REPEATS; ++repetition) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; ++i) sums[i] = operation(sums[i]);
    }
    Lanes total = sums[0];
    for (int i = 1; i < SUMS; ++i) total = total + sums[i];
    sink = total[0];
}

#if defined(__AMX_BF16__)
// Tiles of 16 rows of 64 bytes: six sums, a pair of factors.
struct Tiles {
    static constexpr double OPERATIONS = 2.0 * 16 * 16 * 32;
    static constexpr int CHAINS = 6;

    // Linux has a program ask for the registers first.
    static bool allowed() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
};

template <>
void repeat<Tiles>() {
    // static: GCC 12 does not see that _tile_loadconfig reads all of it
    static struct alignas(64) {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    _tile_loadconfig(&shapes);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int repetition = 0; repetition < REPEATS; ++repetition) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    _tile_release();
}
#endif

template <class Operation>
double giga_per_second(int threads, double seconds) {
    using Clock = std::chrono::steady_clock;
    std::atomic<int> waiting{threads};
    std::atomic<long> done{0};
    std::vector<std::thread> team;
    std::vector<double> spent(threads);
    for (int number = 0; number < threads; ++number) {
        team.emplace_back([&, number] {
            repeat<Operation>();  // wakes the vector units
            --waiting;
            while (waiting) {
            }
            const auto start = Clock::now();
            do {
                repeat<Operation>();
                ++done;
                spent[number] = std::chrono::duration<double>(Clock::now() - start).count();
            } while (spent[number] < seconds);
        });
    }
    for (auto& each : team) each.join();
    double longest = 0;
    for (double each : spent) longest = each > longest ? each : longest;
    return done * Operation::OPERATIONS * Operation::CHAINS * REPEATS / longest / 1e9;
}

}  // namespace

int main(int count, char** words) {
    if (count != 3) return 2;
    const int threads = std::atoi(words[1]);
    const double seconds = std::atof(words[2]);
    const double fp32 = giga_per_second<Float32>(threads, seconds);
    std::printf("{\"fp32\": %.1f, ", fp32);
    const char* half = nullptr;  // the instructions for bfloat16
    double bf16 = 0;
#if defined(__AVX512BF16__)
    half = "AVX-512";
    bf16 = giga_per_second<BFloat16>(threads, seconds);
#endif
#if defined(__AMX_BF16__)
    if (Tiles::allowed()) {
        half = "AMX";
        bf16 = giga_per_second<Tiles>(threads, seconds);
    }
#endif
    if (half)
        std::printf("\"bf16\": %.1f, ", bf16);
    else
        std::printf("\"bf16\": null, ");
    std::printf("\"instructions\": {\"fp32\": \"%s\", ", INSTRUCTIONS);
    if (half)
        std::printf("\"bf16\": \"%s\"}}\n", half);
    else
        std::printf("\"bf16\": null}}\n");
}
