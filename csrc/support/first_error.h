// Exceptions of work that threads share: one that left a thread's function would end the process.
#pragma once

#include <exception>
#include <mutex>
#include <utility>

namespace saal {

/// Keeps the first exception of several threads for the one that waits for them.
class FirstError {
  public:
    /// Calls `work`, and keeps what it throws.
    template <class Work>
    void keep(const Work& work) noexcept {
        try {
            work();
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!error_) error_ = std::current_exception();
        }
    }

    /// Throws the exception kept, if there is one. No thread may be in `keep`.
    void rethrow() {
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

  private:
    std::mutex mutex_;
    std::exception_ptr error_;
};

}  // namespace saal
