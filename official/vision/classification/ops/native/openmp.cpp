// What oneDNN asks of OpenMP, by the threads of pool.h.
//
// oneDNN's library is linked to GCC's OpenMP (libgomp), whose threads spin for milliseconds when
// they wait: beside another program that wants their core, networks take many times as long. These
// are the functions of libgomp that the library calls, under libgomp's names. The dynamic linker
// finds them here first, since oneDNN is loaded for the sake of this library. Semantics: OpenMP
// 5.0, sections 2.6, 2.9.2.3 and 3.2; the calls are those of GCC's libgomp/libgomp_g.h.

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "pool.h"

namespace {

// Threads that run one function, and how many of them have come to its barrier.
struct Team {
    void (*function)(void*) = nullptr;
    void* data = nullptr;
    int size = 1;
    std::atomic<int> arrived{0}, round{0};
};

// Where a thread is in its team; and its ranges of the loop that it is in, as numbers of turns.
struct Place {
    Team* team = nullptr;
    int number = 0;
    long start = 0, step = 1;
    long turn = 0, turns = 0, chunk = 1, stride = 1;
    int size() const { return team ? team->size : 1; }
};

thread_local Place place;
thread_local Team led;                 // by this thread
thread_local std::vector<Place> left;  // places that this thread comes back to

void join(void* what, size_t number) {
    const Place before = place;
    Team& team = *static_cast<Team*>(what);
    place = Place{&team, int(number)};
    team.function(team.data);
    place = before;
}

}  // namespace

extern "C" {

int omp_get_max_threads() {
    return resnet::threads();
}

int omp_get_num_threads() {
    return place.size();
}

int omp_get_thread_num() {
    return place.number;
}

int omp_in_parallel() {
    return place.size() > 1;
}

// The caller is number 0 of the team and calls `function` itself, before GOMP_parallel_end.
void GOMP_parallel_start(void (*function)(void*), void* data, unsigned count) {
    left.push_back(place);
    const int wanted = count ? std::min(int(count), resnet::threads()) : resnet::threads();
    const bool nested = place.size() > 1;
    place = Place{};
    if (nested || wanted == 1)
        return;
    led.function = function;
    led.data = data;
    led.size = wanted;
    place.team = &led;
    resnet::begin_team(wanted, join, &led);
}

void GOMP_parallel_end() {
    const bool leads = place.team != nullptr;
    place = left.back();
    left.pop_back();
    if (leads)
        resnet::end_team();
}

void GOMP_barrier() {
    if (place.size() == 1)
        return;
    Team& team = *place.team;
    const int round = team.round.load();
    if (team.arrived.fetch_add(1) + 1 == team.size) {
        team.arrived = 0;
        team.round = round + 1;
    }
    while (team.round.load() == round)
        std::this_thread::yield();
}

// The calling thread's next range of the loop, if there is one.
bool GOMP_loop_static_next(long* from, long* to) {
    if (place.turn >= place.turns)
        return false;
    *from = place.start + place.step * place.turn;
    *to = place.start + place.step * std::min(place.turn + place.chunk, place.turns);
    place.turn += place.stride;
    return true;
}

// Chunks of a loop are dealt out in turn; with a chunk of 0 everyone gets one, of about equal size.
bool GOMP_loop_static_start(long start, long end, long step, long chunk, long* from, long* to) {
    const long turns = std::max(0L, (end - start + step - (step > 0 ? 1 : -1)) / step);
    const long size = place.size();
    place.start = start;
    place.step = step;
    place.chunk = chunk ? chunk : std::max(1L, (turns + size - 1) / size);
    place.stride = place.chunk * size;
    place.turn = place.chunk * place.number;
    place.turns = turns;
    return GOMP_loop_static_next(from, to);
}

void GOMP_loop_end_nowait() {}

}  // extern "C"
