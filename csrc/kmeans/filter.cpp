// See filter.h. CMake compiles this file once per instruction set. Include no header with inline code here
// but those with internal linkage: the linker could choose a copy of it that only newer CPUs can run.
#include "kmeans/filter.h"

#include "support/vector.h"

namespace saal {
namespace {

constexpr int kLanes = kLanesOf<float>;
constexpr int kStrip = kVectorRegisters == 32 ? 8 : 4;
constexpr int kWidth = 2 * kLanes;
constexpr int kChunk = 16;

/// Σ out², in kChunk partial sums of floats.
double squares(const float* out, std::int64_t dim) {
    float sums[kChunk] = {};
    std::int64_t j = 0;
    for (; j + kChunk <= dim; j += kChunk)
        for (int l = 0; l < kChunk; ++l) sums[l] += out[j + l] * out[j + l];
    for (int l = 0; j < dim; ++j, ++l) sums[l] += out[j] * out[j];
    double sum = 0.0;
    for (const float part : sums) sum += static_cast<double>(part);
    return sum;
}

template <class T>
double pack(const T* row, const T* shift, T scale, std::int64_t dim, float* out) {
    for (std::int64_t j = 0; j < dim; ++j) out[j] = static_cast<float>((row[j] - shift[j]) * scale);
    return squares(out, dim);
}

/// A strip of rows by one panel, or by its first half (`kVectors` 1).
template <int kVectors>
SAAL_INLINE void strip_by_panel(const float* rows, std::int64_t dim, const float* panel, float* dots,
                                std::int64_t stride) {
    Vector<float> sums[kStrip][kVectors];
    SAAL_UNROLL
    for (int r = 0; r < kStrip; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] = zero<float>();
    for (std::int64_t j = 0; j < dim; ++j, panel += kWidth) {
        Vector<float> centres[kVectors];
        for (int v = 0; v < kVectors; ++v) centres[v] = load(panel + v * kLanes);
        SAAL_UNROLL
        for (int r = 0; r < kStrip; ++r)
            for (int v = 0; v < kVectors; ++v) sums[r][v] += centres[v] * rows[r * dim + j];
    }
    SAAL_UNROLL
    for (int r = 0; r < kStrip; ++r)
        for (int v = 0; v < kVectors; ++v) store<float>(dots + r * stride + v * kLanes, sums[r][v]);
}

void dots(const float* rows, std::int64_t count, std::int64_t dim, const float* centres,
          std::int64_t centre_count, float* dots, std::int64_t stride) {
    for (std::int64_t c = 0; c < centre_count; c += kWidth)  // a panel stays in the cache for all rows
        for (std::int64_t r = 0; r < count; r += kStrip) {
            if (centre_count - c > kLanes)
                strip_by_panel<2>(rows + r * dim, dim, centres + c * dim, dots + r * stride + c, stride);
            else
                strip_by_panel<1>(rows + r * dim, dim, centres + c * dim, dots + r * stride + c, stride);
        }
}

void multiply(float* dots, const float* others, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) dots[i] *= others[i];
}

std::int64_t below(const float* dots, const float* norms, std::int64_t count, float norm, float keep,
                   float absolute, float bound, std::int32_t* hits) {
    std::int64_t found = 0;
    const auto spared = [=](std::int64_t p) {  // false for NaN
        return (norm + norms[p]) * keep - 2.0F * dots[p] - absolute >= bound;
    };
    std::int64_t p = 0;
    for (; p + kChunk <= count; p += kChunk) {
        int all = 1;
        for (int l = 0; l < kChunk; ++l) all &= static_cast<int>(spared(p + l));
        if (all != 0) continue;
        for (int l = 0; l < kChunk; ++l)
            if (!spared(p + l)) hits[found++] = static_cast<std::int32_t>(p + l);
    }
    for (; p < count; ++p)
        if (!spared(p)) hits[found++] = static_cast<std::int32_t>(p);
    return found;
}

}  // namespace

SAAL_DEFINE_TABLE(FilterTable, filter_table, kStrip, kWidth, pack<float>, pack<double>, dots, multiply,
                  below);

}  // namespace saal
