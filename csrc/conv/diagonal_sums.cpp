#include "conv/diagonal_sums.h"

#include "support/isa.h"
#include "support/workers.h"

namespace saal {

template <class T>
void diagonal_sums(const T* pixels, T* out, std::int64_t batch, const Window& window, int threads,
                   const std::string& isa) {
    const auto& table = find_table<DiagonalTable>(SAAL_BUILT_TABLES(diagonal_table), isa);
    const DiagonalSums<T> sums = of_type<T>(table);
    const std::int64_t positions = window.out_height * window.out_width, rows = batch * positions;
    const double additions = static_cast<double>(rows) * static_cast<double>(positions) *
                             static_cast<double>(window.kernel_y * window.kernel_x);
    // An addition reads memory: it takes at least as long as two multiply-adds in registers.
    Workers workers(useful_threads(2 * additions, threads));
    workers.run(rows, [&](std::int64_t begin, std::int64_t end) { sums(pixels, out, window, begin, end); });
}

template void diagonal_sums<float>(const float*, float*, std::int64_t, const Window&, int,
                                   const std::string&);
template void diagonal_sums<double>(const double*, double*, std::int64_t, const Window&, int,
                                    const std::string&);

}  // namespace saal
