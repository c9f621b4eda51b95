#include "norm/norms.h"

#include <algorithm>

#include "norm/norms_kernels.h"
#include "support/isa.h"
#include "support/workers.h"

namespace saal {
namespace {

template <class T>
const NormKernels<T>& kernels_for(const std::string& isa) {
    return of_type<T>(find_table<NormTable>(SAAL_BUILT_TABLES(norm_table), isa));
}

/// A number that is read, changed and written takes a thread as long as some multiply-adds.
constexpr double kMultiplyAddsPerNumber = 8;

Workers workers_for(std::int64_t parts, std::int64_t each, int threads) {
    const double work = kMultiplyAddsPerNumber * static_cast<double>(parts) * static_cast<double>(each);
    return Workers(useful_threads(work, threads));
}

}  // namespace

template <class T>
void layer_norm(const T* x, const T* weight, const T* bias, double eps, const RowSizes& sizes, int threads,
                const std::string& isa, T* y, T* mean, T* rstd) {
    const NormKernels<T>& kernels = kernels_for<T>(isa);
    const std::int64_t rows = sizes.rows, width = sizes.width;
    workers_for(sizes.samples, rows * width, threads)
        .run(sizes.samples, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t n = begin; n < end; ++n)
                kernels.layer_norm(x + n * rows * width, weight + n * width, bias + n * width,
                                   static_cast<T>(eps), rows, width, y + n * rows * width, mean + n * rows,
                                   rstd + n * rows);
        });
}

template <class T>
void layer_norm_back(const T* x, const T* g, const T* weight, const T* mean, const T* rstd,
                     const RowSizes& sizes, int threads, const std::string& isa, T* gx, T* sums) {
    const NormKernels<T>& kernels = kernels_for<T>(isa);
    const std::int64_t rows = sizes.rows, width = sizes.width;
    std::fill(sums, sums + sizes.samples * 2 * width, T{0});
    workers_for(sizes.samples, rows * width, threads)
        .run(sizes.samples, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t n = begin; n < end; ++n)
                kernels.layer_norm_back(x + n * rows * width, g + n * rows * width, weight + n * width,
                                        mean + n * rows, rstd + n * rows, rows, width, gx + n * rows * width,
                                        sums + n * 2 * width);
        });
}

#define SAAL_INSTANTIATE(T)                                                                                  \
    template void layer_norm<T>(const T*, const T*, const T*, double, const RowSizes&, int,                  \
                                const std::string&, T*, T*, T*);                                             \
    template void layer_norm_back<T>(const T*, const T*, const T*, const T*, const T*, const RowSizes&, int, \
                                     const std::string&, T*, T*)
SAAL_INSTANTIATE(float);
SAAL_INSTANTIATE(double);
#undef SAAL_INSTANTIATE

}  // namespace saal
