// Exceptions in shared-out work: the caller gets the first, after all parts have ended, and the threads go on
// serving.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

#include "support/buffer.h"
#include "support/team.h"
#include "support/workers.h"

namespace {

void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

/// `run(count, work)` with a part that throws, for each of them, and one with all.
template <class Run>
void check(const Run& run, std::int64_t count) {
    for (std::int64_t bad = 0; bad <= count; ++bad) {
        std::atomic<int> done{0};
        std::string caught;
        try {
            run(count, [&](std::int64_t begin, std::int64_t end) {
                ++done;
                if (bad == count || (begin <= bad && bad < end)) throw std::runtime_error("part");
            });
        } catch (const std::runtime_error& error) {
            caught = error.what();
        }
        expect(caught == "part", "the caller catches what a part throws");
        expect(done > 0, "parts ran");
        std::atomic<std::int64_t> sum{0};
        run(count, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
        expect(sum == count, "the next work is done as a whole");
    }
}

}  // namespace

int main() {
    for (int size = 1; size <= 4; ++size) {
        saal::Team team(size);
        check([&](std::int64_t count, const auto& work) { team.run(count, work); }, 7);
        saal::Workers workers(size);
        check([&](std::int64_t count, const auto& work) { workers.run(count, work); }, 7);
    }
    for (const std::int64_t size : {std::int64_t{-1}, std::int64_t{1} << 61, INT64_MAX}) {
        bool refused = false;
        try {
            const saal::Buffer<double> buffer(size);
        } catch (const std::bad_alloc&) {
            refused = true;
        }
        expect(refused, "a buffer that no memory holds is refused");
    }
    return 0;
}
