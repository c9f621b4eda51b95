// See pass.h. Plain loops over kLanes independent sums, which the compiler vectorises without reordering a
// sum. CMake compiles this file once per instruction set. Include no header with inline code here but those
// with internal linkage: the linker could choose a copy of it that only newer CPUs can run.
#include "kmeans/pass.h"

#include "kmeans/policy.h"

namespace saal {
namespace {

double fold(const double* lanes) {
    double half[kLanes];
    for (int l = 0; l < kLanes; ++l) half[l] = lanes[l];
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int l = 0; l < width; ++l) half[l] += half[l + width];
    return half[0];
}

double lane_sum(const double* values, std::int64_t count) {
    double lanes[kLanes] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        for (int l = 0; l < kLanes; ++l) lanes[l] += values[i + l];
    for (int l = 0; i < count; ++i, ++l) lanes[l] += values[i];
    return fold(lanes);
}

/// Σ (row_j − centre_j)²
template <class T, class U>
double squared_distance(const T* row, const U* centre, std::int64_t dim) {
    double lanes[kLanes] = {};
    std::int64_t j = 0;
    for (; j + kLanes <= dim; j += kLanes)
        for (int l = 0; l < kLanes; ++l)
            lanes[l] =
                add_square(lanes[l], static_cast<double>(row[j + l]) - static_cast<double>(centre[j + l]));
    for (int l = 0; j < dim; ++j, ++l)
        lanes[l] = add_square(lanes[l], static_cast<double>(row[j]) - static_cast<double>(centre[j]));
    return fold(lanes);
}

/// Σ row_j other_j
template <class T, class U>
double dot(const T* row, const U* other, std::int64_t dim) {
    double lanes[kLanes] = {};
    std::int64_t j = 0;
    for (; j + kLanes <= dim; j += kLanes)
        for (int l = 0; l < kLanes; ++l)
            lanes[l] =
                add_product(lanes[l], static_cast<double>(row[j + l]), static_cast<double>(other[j + l]));
    for (int l = 0; j < dim; ++j, ++l)
        lanes[l] = add_product(lanes[l], static_cast<double>(row[j]), static_cast<double>(other[j]));
    return fold(lanes);
}

template <class T>
double distance(const Rows<T>& x, std::int64_t i, std::int64_t j) {
    if (!x.factored()) return squared_distance(x.x.row(i), x.x.row(j), x.x.dim);
    return from_products(x.norms[i], x.norms[j], dot(x.left.row(i), x.left.row(j), x.left.dim),
                         dot(x.x.row(i), x.x.row(j), x.x.dim));
}

template <class T>
void norms(const Rows<T>& x, std::int64_t begin, std::int64_t end, double* out) {
    for (std::int64_t i = begin; i < end; ++i) {
        out[i] = dot(x.x.row(i), x.x.row(i), x.x.dim);
        if (x.factored()) out[i] = dot(x.left.row(i), x.left.row(i), x.left.dim) * out[i];
    }
}

template <class T>
void fold_block(const Rows<T>& x, const double* sample, const double* centre, double norm, std::int64_t begin,
                std::int64_t end, double* weights) {
    const std::int64_t dim = x.x.dim;
    double squared[kFan];
    if (x.factored()) {
        for (std::int64_t i = begin; i < end; ++i)
            squared[i - begin] = from_products(x.norms[i], norm, dot(x.left.row(i), centre, x.left.dim),
                                               dot(x.x.row(i), centre + x.left.dim, dim));
    } else {
        for (std::int64_t i = begin; i < end; ++i)
            squared[i - begin] = squared_distance(x.x.row(i), centre, dim);
    }
    if (sample != nullptr)
        for (std::int64_t i = begin; i < end; ++i) squared[i - begin] *= sample[i];
    for (std::int64_t i = begin; i < end; ++i)
        weights[i] = squared[i - begin] < weights[i] ? squared[i - begin] : weights[i];
}

/// A block of rows of one number, vectorised over rows. Returns the sum of its weights.
template <class T>
double fold_line(const T* values, const double* sample, double centre, std::int64_t count, double* weights) {
    double squared[kFan];
    for (std::int64_t i = 0; i < count; ++i) squared[i] = square(static_cast<double>(values[i]) - centre);
    if (sample != nullptr)
        for (std::int64_t i = 0; i < count; ++i) squared[i] *= sample[i];
    for (std::int64_t i = 0; i < count; ++i) weights[i] = squared[i] < weights[i] ? squared[i] : weights[i];
    return lane_sum(weights, count);  // in a loop of its own, its lanes stay in registers
}

template <class T>
void fold_blocks(const Rows<T>& x, const double* sample, const double* centre, double norm,
                 std::int64_t begin, std::int64_t end, double* weights, double* block_sums) {
    for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t first = block * kFan;
        const std::int64_t last = first + kFan < x.x.rows ? first + kFan : x.x.rows;
        if (x.x.dim == 1 && !x.factored() && x.x.row_stride == 1) {
            block_sums[block] = fold_line(x.x.row(first), sample == nullptr ? nullptr : sample + first,
                                          centre[0], last - first, weights + first);
            continue;
        }
        fold_block(x, sample, centre, norm, first, last, weights);
        block_sums[block] = lane_sum(weights + first, last - first);
    }
}

double nearest(const double* values, std::int64_t count, double x) {
    double least[kLanes];
    for (int l = 0; l < kLanes; ++l) least[l] = square(x - values[0]);
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        for (int l = 0; l < kLanes; ++l) {
            const double squared = square(x - values[i + l]);
            least[l] = squared < least[l] ? squared : least[l];
        }
    for (int l = 0; i < count; ++i, ++l) {
        const double squared = square(x - values[i]);
        least[l] = squared < least[l] ? squared : least[l];
    }
    for (int l = 1; l < kLanes; ++l) least[0] = least[l] < least[0] ? least[l] : least[0];
    return least[0];
}

void sums(const double* values, std::int64_t count, double* out) {
    for (std::int64_t i = 0; i < count; i += kFan)
        *out++ = lane_sum(values + i, count - i < kFan ? count - i : kFan);
}

}  // namespace

SAAL_DEFINE_TABLE(PassTable, pass_table, {distance<float>, norms<float>, fold_blocks<float>},
                  {distance<double>, norms<double>, fold_blocks<double>}, sums, nearest);

}  // namespace saal
