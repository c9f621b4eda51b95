// A few threads that call functions over parts of a range, without being created anew for each.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "support/first_error.h"

namespace saal {

/// `size` threads, the caller among them. They live as long as the object.
class Team {
  public:
    explicit Team(int size) {
        threads_.reserve(static_cast<std::size_t>(size > 1 ? size - 1 : 0));
        try {
            for (int member = 1; member < size; ++member)
                threads_.emplace_back([this, member] { serve(member); });
        } catch (const std::exception&) {
            // The system gives no more threads, or no memory for them: those at hand do the work, with the
            // same result.
        }
    }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    ~Team() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
        }
        start_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return static_cast<int>(threads_.size()) + 1; }

    /// Calls work(begin, end) on contiguous parts of [0, count), one a thread, and waits. Throws the first
    /// exception of theirs, once all have ended.
    void run(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
        if (threads_.empty()) return work(0, count);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            work_ = &work;
            count_ = count;
            busy_ = threads_.size();
            ++round_;
        }
        start_.notify_all();
        error_.keep([&] { part(0, count, work); });
        {
            std::unique_lock<std::mutex> lock(mutex_);
            done_.wait(lock, [this] { return busy_ == 0; });
        }
        error_.rethrow();
    }

  private:
    void part(std::int64_t member, std::int64_t count,
              const std::function<void(std::int64_t, std::int64_t)>& work) const {
        const auto size = static_cast<std::int64_t>(threads_.size()) + 1;
        const std::int64_t begin = count * member / size;
        const std::int64_t end = count * (member + 1) / size;
        if (begin < end) work(begin, end);
    }

    void serve(int member) {
        std::uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            start_.wait(lock, [&] { return stop_ || round_ != seen; });
            if (stop_) return;
            seen = round_;
            const auto* work = work_;
            const std::int64_t count = count_;
            lock.unlock();
            error_.keep([&] { part(member, count, *work); });
            lock.lock();
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable start_, done_;
    std::vector<std::thread> threads_;
    const std::function<void(std::int64_t, std::int64_t)>* work_ = nullptr;
    std::int64_t count_ = 0;
    std::size_t busy_ = 0;
    std::uint64_t round_ = 0;
    bool stop_ = false;
    FirstError error_;
};

}  // namespace saal
