// CUDA's execution model in host threads, as far as our kernels use it: one std::thread a CUDA thread, a
// barrier for __syncthreads, one thread block after the other. Sanitizers then see what a GPU would only do
// wrong now and then.
#pragma once

#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

namespace on_host {

constexpr int kShuffle = 16;  // the width of every shuffle

struct Block {
    std::barrier<> all;
    std::deque<std::barrier<>> teams;
    std::vector<double> exchanged;

    explicit Block(int threads) : all(threads), exchanged(static_cast<std::size_t>(threads)) {
        for (int team = 0; team < threads / kShuffle; ++team) teams.emplace_back(kShuffle);
    }
};

inline Block* block = nullptr;

/// A line with a __syncthreads that is left out: the tests' control, of which the thread sanitizer must
/// complain.
inline const char* without_file = nullptr;
inline int without_line = 0;

inline void sync(const char* file, int line) {
    if (line == without_line && std::strstr(file, without_file) != nullptr) return;
    block->all.arrive_and_wait();
}

/// Runs a kernel over `grid` thread blocks of some threads.
template <class Kernel, class... Arguments>
void launch(Kernel kernel, std::int64_t grid, int threads, Arguments... arguments);

}  // namespace on_host

#define __syncthreads() on_host::sync(__FILE__, __LINE__)

struct Index {
    unsigned x;
};
inline thread_local Index threadIdx{0};
inline thread_local Index blockIdx{0};

inline double __shfl_xor_sync(unsigned mask, double value, int distance, int width) {
    const unsigned thread = threadIdx.x;
    if (width != on_host::kShuffle || ((mask >> (thread % 32)) & 1u) == 0) {
        std::fprintf(stderr, "a shuffle of width %d whose mask %x leaves out thread %u\n", width, mask,
                     thread);
        std::abort();
    }
    auto& team = on_host::block->teams[thread / on_host::kShuffle];
    auto& exchanged = on_host::block->exchanged;
    exchanged[thread] = value;
    team.arrive_and_wait();
    const double other = exchanged[thread ^ static_cast<unsigned>(distance)];
    team.arrive_and_wait();
    return other;
}

template <class Kernel, class... Arguments>
void on_host::launch(Kernel kernel, std::int64_t grid, int threads, Arguments... arguments) {
    Block here(threads);
    block = &here;
    std::barrier<> between(threads);
    std::vector<std::thread> members;
    for (int t = 0; t < threads; ++t)
        members.emplace_back([=, &between] {
            threadIdx.x = static_cast<unsigned>(t);
            for (std::int64_t b = 0; b < grid; ++b) {
                blockIdx.x = static_cast<unsigned>(b);
                kernel(arguments...);
                between.arrive_and_wait();
            }
        });
    for (auto& member : members) member.join();
}
