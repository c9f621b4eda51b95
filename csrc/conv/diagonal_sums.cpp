#include "conv/diagonal_sums.h"

#include "support/isa.h"
#include "support/workers.h"

namespace saal {
namespace {

/// Below this many additions the sums are done before a second thread has woken up.
constexpr std::int64_t kAdditionsPerThread = 1 << 20;

const DiagonalTable& table_for(const std::string& isa) {
    return find_table<DiagonalTable>(
        {
            &diagonal_table_baseline,
#if defined(SAAL_HAVE_AVX2)
            &diagonal_table_avx2,
#endif
#if defined(SAAL_HAVE_AVX512)
            &diagonal_table_avx512,
#endif
        },
        isa);
}

template <class T>
DiagonalSums<T> function_of(const DiagonalTable& table) {
    if constexpr (sizeof(T) == sizeof(float))
        return table.f32;
    else
        return table.f64;
}

}  // namespace

template <class T>
void diagonal_sums(const T* pixels, T* out, std::int64_t batch, const Window& window, int threads,
                   const std::string& isa) {
    const DiagonalSums<T> sums = function_of<T>(table_for(isa));
    const std::int64_t positions = window.out_height * window.out_width, rows = batch * positions;
    const std::int64_t additions = rows * positions * window.kernel_y * window.kernel_x;
    const std::int64_t useful = additions / kAdditionsPerThread + 1;
    Workers workers(static_cast<int>(useful < threads ? useful : threads));
    workers.run(rows, [&](std::int64_t begin, std::int64_t end) { sums(pixels, out, window, begin, end); });
}

template void diagonal_sums<float>(const float*, float*, std::int64_t, const Window&, int,
                                   const std::string&);
template void diagonal_sums<double>(const double*, double*, std::int64_t, const Window&, int,
                                    const std::string&);

}  // namespace saal
