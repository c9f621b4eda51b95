// Threads for work that goes on between torch's own: torch's, where its OpenMP runtime is found. Its threads
// wait for their next work actively, and threads of ours beside them would get half a core each.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "support/team.h"

namespace saal {

/// Looks for the OpenMP runtime that is loaded from below `folder`, or else for the only one that is loaded.
/// Returns whether `Workers` of this process use it from now on.
bool use_openmp_of(const std::string& folder);

/// Up to `size` threads, the caller among them.
class Workers {
  public:
    explicit Workers(int size);

    int size() const { return team_.has_value() ? team_->size() : size_; }

    /// Calls work(begin, end) on contiguous parts of [0, count), and waits. `work` must not throw.
    void run(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work);

  private:
    int size_;
    std::optional<Team> team_;  // where there is no OpenMP, or it isn't to be used
};

}  // namespace saal
