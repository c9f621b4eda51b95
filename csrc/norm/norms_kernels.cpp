// See norms_kernels.h. CMake compiles this file once per instruction set. Include no header with inline code
// here but those with internal linkage: the linker could choose a copy of it that only newer CPUs can run.
#include "norm/norms_kernels.h"

#include "support/vector.h"

namespace saal {
namespace {

template <class T>
SAAL_INLINE T total(Vector<T> v) {
    T sum = T{0};
    for (int lane = 0; lane < kLanesOf<T>; ++lane) sum += v[lane];
    return sum;
}

/// use(i) for whole vectors, rest(i) for what is left.
template <class T, class Use, class Rest>
SAAL_INLINE void each(std::int64_t width, const Use& use, const Rest& rest) {
    std::int64_t i = 0;
    for (; i + kLanesOf<T> <= width; i += kLanesOf<T>) use(i);
    for (; i < width; ++i) rest(i);
}

template <class T>
void layer_norm(const T* x, const T* weight, const T* bias, T eps, std::int64_t rows, std::int64_t width,
                T* y, T* mean, T* rstd) {
    const auto n = static_cast<T>(width);
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width) {
        Vector<T> sums = zero<T>();
        T sum = T{0};
        each<T>(width, [&](std::int64_t i) { sums += load<T>(x + i); }, [&](std::int64_t i) { sum += x[i]; });
        const T middle = (sum + total<T>(sums)) / n;
        sums = zero<T>();
        sum = T{0};
        each<T>(
            width,
            [&](std::int64_t i) {
                const Vector<T> off = load<T>(x + i) - middle;
                sums += off * off;
            },
            [&](std::int64_t i) { sum += (x[i] - middle) * (x[i] - middle); });
        const T variance = (sum + total<T>(sums)) / n;
        const T by = static_cast<T>(1 / __builtin_sqrt(static_cast<double>(variance + eps)));
        each<T>(
            width,
            [&](std::int64_t i) {
                store<T>(y + i, (load<T>(x + i) - middle) * by * load<T>(weight + i) + load<T>(bias + i));
            },
            [&](std::int64_t i) { y[i] = (x[i] - middle) * by * weight[i] + bias[i]; });
        mean[row] = middle;
        rstd[row] = by;
    }
}

template <class T>
void layer_norm_back(const T* x, const T* g, const T* weight, const T* mean, const T* rstd, std::int64_t rows,
                     std::int64_t width, T* gx, T* sums) {
    const auto n = static_cast<T>(width);
    T* const by_bias = sums + width;
    for (std::int64_t row = 0; row < rows; ++row, x += width, g += width, gx += width) {
        const T middle = mean[row], by = rstd[row];
        Vector<T> plains = zero<T>(), products = zero<T>();
        T plain = T{0}, product = T{0};
        each<T>(
            width,
            [&](std::int64_t i) {
                const Vector<T> at = load<T>(g + i);
                const Vector<T> normal = (load<T>(x + i) - middle) * by;
                const Vector<T> inner = at * load<T>(weight + i);
                plains += inner;
                products += inner * normal;
                store<T>(sums + i, load<T>(sums + i) + at * normal);
                store<T>(by_bias + i, load<T>(by_bias + i) + at);
            },
            [&](std::int64_t i) {
                const T normal = (x[i] - middle) * by, inner = g[i] * weight[i];
                plain += inner;
                product += inner * normal;
                sums[i] += g[i] * normal;
                by_bias[i] += g[i];
            });
        const T level = (plain + total<T>(plains)) / n, slope = (product + total<T>(products)) / n;
        each<T>(
            width,
            [&](std::int64_t i) {
                const Vector<T> normal = (load<T>(x + i) - middle) * by;
                store<T>(gx + i, (load<T>(g + i) * load<T>(weight + i) - level - normal * slope) * by);
            },
            [&](std::int64_t i) { gx[i] = (g[i] * weight[i] - level - (x[i] - middle) * by * slope) * by; });
    }
}

template <class T>
constexpr NormKernels<T> kKernels{layer_norm<T>, layer_norm_back<T>};

}  // namespace

SAAL_DEFINE_TABLE(NormTable, norm_table, kKernels<float>, kKernels<double>);

}  // namespace saal
