// CUDA's execution model in host threads, as far as our kernels use it: one std::thread a CUDA thread, a
// barrier for
// __syncthreads, one thread block after the other. Sanitizers then see what a GPU would only do wrong now and
// then.
#pragma once

#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

namespace on_host {

constexpr int kBlock = 256;   // threads in a block
constexpr int kShuffle = 16;  // the width of every shuffle

struct Block {
    std::barrier<> all{kBlock};
    std::deque<std::barrier<>> teams;
    double exchanged[kBlock] = {};

    Block() {
        for (int team = 0; team < kBlock / kShuffle; ++team) teams.emplace_back(kShuffle);
    }
};

inline Block* block = nullptr;

/// Runs a kernel over `grid` thread blocks.
template <class Kernel, class... Arguments>
void launch(Kernel kernel, std::int64_t grid, Arguments... arguments);

}  // namespace on_host

struct Index {
    unsigned x;
};
inline thread_local Index threadIdx{0};
inline thread_local Index blockIdx{0};

inline void __syncthreads() {
#if !defined(SAAL_WITHOUT_SYNCTHREADS)  // the tests' control: the thread sanitizer must then complain
    on_host::block->all.arrive_and_wait();
#endif
}

inline double __shfl_xor_sync(unsigned mask, double value, int distance, int width) {
    const unsigned thread = threadIdx.x;
    if (width != on_host::kShuffle || ((mask >> (thread % 32)) & 1u) == 0) {
        std::fprintf(stderr, "a shuffle of width %d whose mask %x leaves out thread %u\n", width, mask,
                     thread);
        std::abort();
    }
    auto& team = on_host::block->teams[thread / on_host::kShuffle];
    on_host::block->exchanged[thread] = value;
    team.arrive_and_wait();
    const double other = on_host::block->exchanged[thread ^ static_cast<unsigned>(distance)];
    team.arrive_and_wait();
    return other;
}

template <class Kernel, class... Arguments>
void on_host::launch(Kernel kernel, std::int64_t grid, Arguments... arguments) {
    Block here;
    block = &here;
    std::barrier<> between(kBlock);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kBlock; ++t)
        threads.emplace_back([=, &between] {
            threadIdx.x = t;
            for (std::int64_t b = 0; b < grid; ++b) {
                blockIdx.x = static_cast<unsigned>(b);
                kernel(arguments...);
                between.arrive_and_wait();
            }
        });
    for (auto& thread : threads) thread.join();
}
