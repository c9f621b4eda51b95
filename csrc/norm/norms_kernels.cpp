// See norms_kernels.h. CMake compiles this file once per instruction set. Include no header with inline code
// here but those with internal linkage: the linker could choose a copy of it that only newer CPUs can run.
#include "norm/norms_kernels.h"

#include "support/vector.h"

namespace saal {
namespace {

constexpr int kUnroll = 4;

template <class T>
SAAL_INLINE T total(Vector<T> v) {
    T sum = T{0};
    for (int lane = 0; lane < kLanesOf<T>; ++lane) sum += v[lane];
    return sum;
}

template <class T>
SAAL_INLINE Vector<T> all(T value) {
    return zero<T>() + value;
}

template <class T>
void plane_back(const T* x, const T* g, T scale, std::int64_t count, T* gx, T* sums) {
    constexpr int kLanes = kLanesOf<T>;
    Vector<T> products[kUnroll], plain[kUnroll];
    for (int u = 0; u < kUnroll; ++u) products[u] = plain[u] = zero<T>();
    std::int64_t i = 0;
    for (; i + kUnroll * kLanes <= count; i += kUnroll * kLanes)
        for (int u = 0; u < kUnroll; ++u) {
            const Vector<T> at = load<T>(g + i + u * kLanes);
            products[u] += at * load<T>(x + i + u * kLanes);
            plain[u] += at;
            store<T>(gx + i + u * kLanes, at * scale);
        }
    T product = T{0}, sum = T{0};
    for (; i < count; ++i) {
        product += g[i] * x[i];
        sum += g[i];
        gx[i] = g[i] * scale;
    }
    for (int u = 1; u < kUnroll; ++u) {
        products[0] += products[u];
        plain[0] += plain[u];
    }
    sums[0] = product + total<T>(products[0]);
    sums[1] = sum + total<T>(plain[0]);
}

/// Rows whose sums stay in registers before they are added to memory.
constexpr std::int64_t kRows = 64;

template <class T>
void rows_back(const T* x, const T* g, const T* scale, std::int64_t rows, std::int64_t width, T* gx,
               T* sums) {
    constexpr int kLanes = kLanesOf<T>;
    for (std::int64_t first = 0; first < rows; first += kRows) {
        const std::int64_t end = first + kRows < rows ? first + kRows : rows;
        std::int64_t c = 0;
        for (; c + kLanes <= width; c += kLanes) {
            const Vector<T> by = load<T>(scale + c);
            Vector<T> products = zero<T>(), plain = zero<T>();
            for (std::int64_t row = first; row < end; ++row) {
                const Vector<T> at = load<T>(g + row * width + c);
                products += at * load<T>(x + row * width + c);
                plain += at;
                store<T>(gx + row * width + c, at * by);
            }
            store<T>(sums + c, load<T>(sums + c) + products);
            store<T>(sums + width + c, load<T>(sums + width + c) + plain);
        }
        for (; c < width; ++c) {
            T product = T{0}, sum = T{0};
            for (std::int64_t row = first; row < end; ++row) {
                product += g[row * width + c] * x[row * width + c];
                sum += g[row * width + c];
                gx[row * width + c] = g[row * width + c] * scale[c];
            }
            sums[c] += product;
            sums[width + c] += sum;
        }
    }
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
constexpr NormKernels<T> kKernels{plane_back<T>, rows_back<T>, layer_norm<T>, layer_norm_back<T>};

}  // namespace

SAAL_DEFINE_TABLE(NormTable, norm_table, kKernels<float>, kKernels<double>);

}  // namespace saal
