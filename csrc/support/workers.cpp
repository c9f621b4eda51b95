#include "support/workers.h"

#include <algorithm>
#include <stdexcept>

#if defined(__linux__)
#include <dlfcn.h>
#include <unistd.h>
#endif

namespace saal {
namespace {

constexpr double kWorkPerThread = 1 << 20;  // multiply-adds: a thread with fewer costs more than it saves

/// A part of torch's stable C interface (torch/csrc/stable/c/shim.h). Returns 0 on success. Within a parallel
/// region of torch's, and where torch has one thread, it calls the function once, on the calling thread.
using ParallelFor = std::int32_t (*)(std::int64_t begin, std::int64_t end, std::int64_t grain,
                                     void (*function)(std::int64_t begin, std::int64_t end, void* context),
                                     void* context);

ParallelFor torch_parallel_for = nullptr;

#if defined(__linux__)

pid_t process = 0;  // the one that found it: a forked child has none of its parent's threads, and would hang

bool torch_lends_threads() {
    return torch_parallel_for != nullptr && process == getpid();
}

#else

bool torch_lends_threads() {
    return false;
}

#endif

struct Shares {
    std::int64_t count, size;
    const std::function<void(std::int64_t, std::int64_t)>& work;
    FirstError error{};
};

/// Parts [first, last) of the `size` that [0, count) is divided into.
void run_parts(std::int64_t first, std::int64_t last, void* context) {
    Shares& shares = *static_cast<Shares*>(context);
    shares.error.keep([&] {
        for (std::int64_t part = first; part < last; ++part) {
            const std::int64_t begin = shares.count * part / shares.size;
            const std::int64_t end = shares.count * (part + 1) / shares.size;
            if (begin < end) shares.work(begin, end);
        }
    });
}

}  // namespace

int useful_threads(double multiply_adds, int threads) {
    return std::clamp(static_cast<int>(std::min(multiply_adds / kWorkPerThread, 4096.0)), 1,
                      std::max(threads, 1));
}

bool use_torch_threads([[maybe_unused]] const std::string& library) {
#if defined(__linux__)
    void* const loaded = dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    void* const found = loaded == nullptr ? nullptr : dlsym(loaded, "torch_parallel_for");
    torch_parallel_for = reinterpret_cast<ParallelFor>(found);
    process = getpid();
#endif
    return torch_lends_threads();
}

Workers::Workers(int size) : size_(std::max(size, 1)) {
    if (size_ > 1 && !torch_lends_threads()) team_.emplace(size_);
}

void Workers::run(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
    if (team_.has_value()) return team_->run(count, work);
    if (size_ == 1) return count > 0 ? work(0, count) : void();
    Shares shares{count, size_, work};
    if (torch_parallel_for(0, size_, 1, run_parts, &shares) != 0)
        throw std::runtime_error("torch_parallel_for failed");
    shares.error.rethrow();
}

}  // namespace saal
