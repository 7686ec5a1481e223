// The threads that all kernels share.
//
// Whoever asks for work takes part in it, and the parts of a job are handed out one by one: where
// another program holds a core, the others do its share instead of waiting for it. A thread that
// has nothing to do spins for SPIN, which is longer than the gaps between the kernels of a network
// and much shorter than a time slice, and then sleeps.
#pragma once

#include <cstddef>

namespace resnet {

using Work = void (*)(void* what, size_t part);

int threads();
// Those that would share in a job of this thread: one in a part of another job.
int threads_here();

// Call work(what, part) for every part below `parts`, on all threads; return when all are done.
// Of several threads that ask at once one gets the others' help, the rest work alone.
void run_parts(size_t parts, Work work, void* what);

// The same for parts that may wait for each other: each is in a thread of its own, and the caller
// does part 0 between begin and end, in which it may do others, too.
void begin_team(size_t parts, Work work, void* what);
void end_team();

// Call f(part) for every part below `parts`, on all threads.
template <typename F>
void each_part(size_t parts, F f) {
    run_parts(parts, [](void* what, size_t part) { (*static_cast<F*>(what))(part); }, &f);
}

// Call f(begin, end, part) for about equal parts of [0, count), at most `parts_at_most()`; where
// they begin depends on count and threads() alone.
inline size_t parts_at_most() {
    return threads() == 1 ? 1 : 4 * size_t(threads());
}

template <typename F>
void parallel(size_t count, F f) {
    const size_t parts = count < parts_at_most() ? count : parts_at_most();
    each_part(parts, [&](size_t part) {
        f(count * part / parts, count * (part + 1) / parts, int(part));
    });
}

// As many parts or a few more, so that no thread waits for the last of several.
inline size_t for_all_threads(size_t parts) {
    const size_t several = threads_here();
    return parts <= 1 ? 1 : (parts + several - 1) / several * several;
}

// Floats of this thread that stay from call to call.
float* scratch(size_t count);

}  // namespace resnet
