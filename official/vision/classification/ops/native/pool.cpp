#include "pool.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

namespace resnet {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::nanoseconds;
constexpr std::chrono::microseconds SPIN{50};
constexpr std::chrono::milliseconds GLANCE{5}, CALM{50};
constexpr double CROWDED = 0.1;  // share of the time that a thread had no core

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>& word) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// Nanoseconds that this thread was ready and had no core, as far as Linux tells.
uint64_t waited() {
    const int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    char text[64]{};
    unsigned long long ran = 0, waited = 0;
    if (read(file, text, sizeof(text) - 1) > 0)
        std::sscanf(text, "%llu %llu", &ran, &waited);
    close(file);
    return waited;
}

// Whether another program kept the core from this thread a short while ago: spinning would keep it
// from that one for nothing, and the scheduler would hold it against this thread. What other
// threads of this process do now and then is too short to count.
bool crowded(Clock::time_point now) {
    thread_local Clock::time_point glance = now, calm_until;
    thread_local uint64_t before = waited();
    if (now - glance >= GLANCE) {
        const uint64_t after = waited();
        if (double(after) - double(before) > CROWDED * double(nanoseconds(now - glance).count()))
            calm_until = now + CALM;
        before = after;
        glance = now;
    }
    return now < calm_until;
}

// Whether `met()` became true while spinning.
template <typename F>
bool spin_until(F met) {
    if (met())
        return true;
    const auto start = Clock::now();
    if (crowded(start))
        return false;
    do {
        for (int turn = 0; turn < 32; ++turn) {
            if (met())
                return true;
            pause();
        }
    } while (Clock::now() - start < SPIN);
    return false;
}

// A job's number, its parts, and the next one to be taken, in one word: whoever adds one to it has
// taken that part of that job, however late it looked. A job whose parts are all taken stays as it
// is until they are done, so its work may be read after a part was taken.
struct Ticket {
    static constexpr int BITS = 20;
    static constexpr uint64_t MASK = (1 << BITS) - 1;
    uint64_t word;
    Ticket(uint64_t word) : word(word) {}
    Ticket(uint64_t job, uint64_t parts, uint64_t next)
            : word(job << 2 * BITS | parts << BITS | next) {}
    uint64_t job() const { return word >> 2 * BITS; }
    uint64_t parts() const { return word >> BITS & MASK; }
    uint64_t next() const { return word & MASK; }
    bool open() const { return next() < parts(); }
};

thread_local bool working = false;  // this thread is in a part of a job

class Pool {
public:
    std::mutex caller;  // held by the thread whose job it is

    // Hand out parts from `first` on.
    void begin(size_t parts, size_t first, Work work, void* what) {
        start_workers();
        work_ = work;
        what_ = what;
        done_ = uint32_t(first);
        const Ticket last(ticket_.load());
        ticket_ = Ticket(last.job() + 1, parts, first).word;
        jobs_.fetch_add(1);
        if (sleepers_.load() > 0)
            wake_all(jobs_);
    }

    void take_parts() {
        while (Ticket(ticket_.load()).open()) {
            const Ticket mine(ticket_.fetch_add(1));
            if (!mine.open())
                return;
            working = true;
            work_(what_, mine.next());
            working = false;
            if (done_.fetch_add(1) + 1 == mine.parts() && caller_sleeps_.load())
                wake_all(done_);
        }
    }

    void wait_until_done() {
        const uint32_t parts = uint32_t(Ticket(ticket_.load()).parts());
        if (spin_until([&] { return done_.load() == parts; }))
            return;
        caller_sleeps_ = true;
        for (uint32_t done = done_.load(); done != parts; done = done_.load())
            sleep_while(done_, done);
        caller_sleeps_ = false;
    }

private:
    void start_workers() {
        for (; workers_ + 1 < threads(); ++workers_)
            std::thread([this, number = workers_ + 1] { serve(number); }).detach();
    }

    void serve(int number) {
        for (;;) {
            const uint32_t seen = jobs_.load();
            if (number < threads())
                take_parts();
            if (spin_until([&] { return jobs_.load() != seen; }))
                continue;
            sleepers_.fetch_add(1);
            sleep_while(jobs_, seen);
            sleepers_.fetch_sub(1);
        }
    }

    Work work_ = nullptr;
    void* what_ = nullptr;
    int workers_ = 0;
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<uint32_t> done_{0};
    std::atomic<bool> caller_sleeps_{false};
    alignas(64) std::atomic<uint32_t> jobs_{0};
    std::atomic<int> sleepers_{0};
};

std::atomic<int> thread_count{int(std::max(1u, std::thread::hardware_concurrency()))};
Pool* pool = nullptr;  // never freed: its threads live as long as the process

// A forked process has none of its parent's threads.
void renew() {
    pool = new Pool;
}

const int ready = (renew(), pthread_atfork(nullptr, nullptr, renew));

}  // namespace

int threads() {
    return thread_count.load(std::memory_order_relaxed);
}

int threads_here() {
    return working ? 1 : threads();
}

void run_parts(size_t parts, Work work, void* what) {
    Pool& mine = *pool;
    std::unique_lock<std::mutex> lock(mine.caller, std::defer_lock);
    if (parts < 2 || parts > Ticket::MASK || threads() == 1 || working || !lock.try_lock()) {
        for (size_t part = 0; part < parts; ++part)
            work(what, part);
        return;
    }
    mine.begin(parts, 0, work, what);
    mine.take_parts();
    mine.wait_until_done();
}

float* scratch(size_t count) {
    struct Free {
        void operator()(float* pointer) const { std::free(pointer); }
    };
    thread_local std::unique_ptr<float, Free> storage;
    thread_local size_t size = 0;
    if (count > size) {
        size = (count + 15) / 16 * 16;
        storage.reset(static_cast<float*>(std::aligned_alloc(64, size * sizeof(float))));
    }
    return storage.get();
}

void begin_team(size_t parts, Work work, void* what) {
    pool->caller.lock();
    pool->begin(parts, 1, work, what);
    working = true;
}

void end_team() {
    working = false;
    pool->take_parts();
    pool->wait_until_done();
    pool->caller.unlock();
}

}  // namespace resnet

// Threads of every kernel from now on.
extern "C" void resnet_set_threads(int count) {
    resnet::thread_count = std::max(1, count);
}
