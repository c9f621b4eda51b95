// See winograd_kernels.h. CMake compiles this file once per instruction set; tiles_kernels.cpp says what that
// forbids.
#include "conv/winograd_kernels.h"

#include "conv/rules.h"
#include "support/vector.h"

namespace saal {
namespace {

/// Stores a vector of inputs in strips, `strip_size` apart.
template <class T>
SAAL_INLINE void store_strips(T* to, std::int64_t strip_size, const Vector<T>& v) {
    constexpr int kLanes = kLanesOf<T>;
    constexpr int kPart = kLanes < kStrip ? kLanes : static_cast<int>(kStrip);
    T lanes[kLanes];
    store<T>(lanes, v);
    for (int part = 0; part < kLanes / kPart; ++part)
        __builtin_memcpy(to + part * strip_size, lanes + part * kPart, kPart * sizeof(T));
}

template <class T>
void inputs(const T* const* window, std::int64_t channels, std::int64_t tiles, std::int64_t place, T* to) {
    const std::int64_t strip_size = tiles * kStrip;
    for (std::int64_t c = 0; c < channels; c += kLanesOf<T>) {
        Vector<T> rows[4][4];
        SAAL_UNROLL
        for (int j = 0; j < 4; ++j) {  // Bᵀ d
            const Vector<T> d0 = load<T>(window[j] + c), d1 = load<T>(window[4 + j] + c);
            const Vector<T> d2 = load<T>(window[8 + j] + c), d3 = load<T>(window[12 + j] + c);
            rows[0][j] = d0 - d2;
            rows[1][j] = d1 + d2;
            rows[2][j] = d2 - d1;
            rows[3][j] = d1 - d3;
        }
        T* at = to + c / kStrip * strip_size + c % kStrip;
        SAAL_UNROLL
        for (int i = 0; i < 4; ++i, at += 4 * place) {
            store_strips<T>(at, strip_size, rows[i][0] - rows[i][2]);
            store_strips<T>(at + place, strip_size, rows[i][1] + rows[i][2]);
            store_strips<T>(at + 2 * place, strip_size, rows[i][2] - rows[i][1]);
            store_strips<T>(at + 3 * place, strip_size, rows[i][1] - rows[i][3]);
        }
    }
}

template <class T>
void gradients(const T* const* pixels, bool half, std::int64_t place, T* to) {
    const int width = half ? kLanesOf<T> : 2 * kLanesOf<T>;
    for (int o = 0; o < width; o += kLanesOf<T>) {
        Vector<T> rows[4][2];
        for (int j = 0; j < 2; ++j) {  // A dY
            const Vector<T> y0 = load<T>(pixels[j] + o), y1 = load<T>(pixels[2 + j] + o);
            rows[0][j] = y0;
            rows[1][j] = y0 + y1;
            rows[2][j] = y0 - y1;
            rows[3][j] = zero<T>() - y1;
        }
        T* at = to + o;
        for (int i = 0; i < 4; ++i, at += 4 * place) {
            store<T>(at, rows[i][0]);
            store<T>(at + place, rows[i][0] + rows[i][1]);
            store<T>(at + 2 * place, rows[i][0] - rows[i][1]);
            store<T>(at + 3 * place, zero<T>() - rows[i][1]);
        }
    }
}

template <class T>
SAAL_INLINE void filter_rows(const Vector<T> (&w)[3], Vector<T> (&to)[4]) {
    const Vector<T> ends = (w[0] + w[2]) * T{0.5};
    const Vector<T> middle = w[1] * T{0.5};
    to[0] = w[0];
    to[1] = ends + middle;
    to[2] = ends - middle;
    to[3] = w[2];
}

template <bool kStepped, Map kMap, class T, int kVectors>
SAAL_INLINE void weights_of(const Filters<T>& filters, T scale, std::int64_t place, T* to) {
    constexpr int kLanes = kLanesOf<T>;
    const std::int64_t size = filters.channels * kVectors * kLanes;  // of a tap
    for (std::int64_t at = 0; at < size; at += kLanes) {
        Vector<T> columns[3][4];
        SAAL_UNROLL
        for (int j = 0; j < 3; ++j) {  // G w
            Vector<T> taps[3];
            SAAL_UNROLL
            for (int i = 0; i < 3; ++i) {
                const std::int64_t from = (i * 3 + j) * size + at;
                taps[i] = load<T>(filters.weight + from);
                if constexpr (kStepped)
                    taps[i] += delta<kMap, T>(load<T>(filters.materialized + from), filters.weight + from,
                                              filters.q) *
                               scale;
            }
            filter_rows<T>(taps, columns[j]);
        }
        SAAL_UNROLL
        for (int i = 0; i < 4; ++i) {
            const Vector<T> row[3] = {columns[0][i], columns[1][i], columns[2][i]};
            Vector<T> done[4];
            filter_rows<T>(row, done);
            for (int j = 0; j < 4; ++j) store<T>(to + (i * 4 + j) * place + at, done[j]);
        }
    }
}

template <class T>
void weights(const Filters<T>& filters, T scale, std::int64_t place, T* to) {
    if (filters.materialized == nullptr)
        return filters.half ? weights_of<false, Map::kSquare, T, 1>(filters, scale, place, to)
                            : weights_of<false, Map::kSquare, T, 2>(filters, scale, place, to);
    by_map(filters.map, [&](auto map) {
        filters.half ? weights_of<true, map.value, T, 1>(filters, scale, place, to)
                     : weights_of<true, map.value, T, 2>(filters, scale, place, to);
    });
}

template <class T>
void outputs(const T* from, bool half, std::int64_t place, T* const* pixels) {
    const int width = half ? kLanesOf<T> : 2 * kLanesOf<T>;
    for (int o = 0; o < width; o += kLanesOf<T>) {
        Vector<T> rows[2][4];
        SAAL_UNROLL
        for (int j = 0; j < 4; ++j) {  // Aᵀ m
            const T* at = from + j * place + o;
            const Vector<T> m1 = load<T>(at + 4 * place), m2 = load<T>(at + 8 * place);
            rows[0][j] = load<T>(at) + m1 + m2;
            rows[1][j] = m1 - m2 - load<T>(at + 12 * place);
        }
        for (int i = 0; i < 2; ++i) {
            if (pixels[2 * i] != nullptr) store<T>(pixels[2 * i] + o, rows[i][0] + rows[i][1] + rows[i][2]);
            if (pixels[2 * i + 1] != nullptr)
                store<T>(pixels[2 * i + 1] + o, rows[i][1] - rows[i][2] - rows[i][3]);
        }
    }
}

template <class T>
SAAL_INLINE void gradient_rows(const Vector<T>& m0, const Vector<T>& m1, const Vector<T>& m2,
                               const Vector<T>& m3, Vector<T> (&to)[3]) {
    const Vector<T> even = (m1 + m2) * T{0.5};
    to[0] = m0 + even;
    to[1] = (m1 - m2) * T{0.5};
    to[2] = even + m3;
}

template <Map kMap, class T, int kVectors>
double norm_of(const T* from, std::int64_t place, const Filters<T>& filters) {
    constexpr int kLanes = kLanesOf<T>;
    const std::int64_t size = filters.channels * kVectors * kLanes;
    Vector<T> sum = zero<T>();
    for (std::int64_t at = 0; at < size; at += kLanes) {
        Vector<T> columns[4][3];
        SAAL_UNROLL
        for (int j = 0; j < 4; ++j) {  // Gᵀ m
            const T* m = from + j * place + at;
            gradient_rows<T>(load<T>(m), load<T>(m + 4 * place), load<T>(m + 8 * place),
                             load<T>(m + 12 * place), columns[j]);
        }
        SAAL_UNROLL
        for (int i = 0; i < 3; ++i) {
            Vector<T> done[3];
            gradient_rows<T>(columns[0][i], columns[1][i], columns[2][i], columns[3][i], done);
            for (int j = 0; j < 3; ++j) {
                const std::int64_t to = (i * 3 + j) * size + at;
                sum += phi<kMap, T>(done[j], filters.weight + to, filters.q);
                if (filters.materialized != nullptr) store<T>(filters.materialized + to, done[j]);
            }
        }
    }
    double total = 0.0;
    for (int lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sum[lane]);
    return total;
}

template <class T>
double norm(const T* from, std::int64_t place, const Filters<T>& filters) {
    return by_map(filters.map, [&](auto map) {
        return filters.half ? norm_of<map.value, T, 1>(from, place, filters)
                            : norm_of<map.value, T, 2>(from, place, filters);
    });
}

template <class T>
constexpr WinogradKernels<T> kKernels{inputs<T>, gradients<T>, weights<T>, outputs<T>, norm<T>};

}  // namespace

SAAL_DEFINE_TABLE(WinogradTable, winograd_table, kKernels<float>, kKernels<double>);

}  // namespace saal
