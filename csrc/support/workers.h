// Threads for work that alternates with torch's operations: torch's own, where torch lends them. They wait
// for their next work actively, so that threads of ours beside them would get half a core each.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "support/team.h"

namespace saal {

/// Looks for `torch_parallel_for` in `library`, the path from which libtorch_cpu has been loaded. Returns
/// whether the `Workers` of this process use it from now on. Torch has it since 2.10; we look on Linux only.
bool use_torch_threads(const std::string& library);

/// How many of `threads` gain time on so many multiply-adds; at least one.
int useful_threads(double multiply_adds, int threads);

/// Up to `size` threads, the caller among them.
class Workers {
  public:
    explicit Workers(int size);

    /// Calls work(begin, end) on at most `size` contiguous parts of [0, count), and waits. The parts do not
    /// depend on how many threads torch has. Throws the first exception of `work`, once all have ended.
    void run(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work);

  private:
    int size_;
    std::optional<Team> team_;  // where torch's threads cannot be used
};

}  // namespace saal
