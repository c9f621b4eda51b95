// The inner loops, plain C++ for the compiler to vectorise: kLanes independent sums are what lets it, with no
// licence to reorder. CMake compiles this file once per instruction set and names the table by SAAL_ISA.
// Include no header with inline code here: the linker could then choose a copy that only newer CPUs can run.
#include "kmeans_pass.h"

#include "kmeans_policy.h"

#define SAAL_JOIN_(a, b) a##b
#define SAAL_JOIN(a, b) SAAL_JOIN_(a, b)
#define SAAL_TEXT_(a) #a
#define SAAL_TEXT(a) SAAL_TEXT_(a)

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

template <class T>
double squared_distance(const T* row, const double* centre, std::int64_t dim) {
    double lanes[kLanes] = {};
    std::int64_t j = 0;
    for (; j + kLanes <= dim; j += kLanes)
        for (int l = 0; l < kLanes; ++l)
            lanes[l] = add_square(lanes[l], static_cast<double>(row[j + l]) - centre[j + l]);
    for (int l = 0; j < dim; ++j, ++l)
        lanes[l] = add_square(lanes[l], static_cast<double>(row[j]) - centre[j]);
    return fold(lanes);
}

template <class T>
void pass(const Matrix<T>& x, const double* centre, std::int64_t begin, std::int64_t end, double* weights,
          double* block_sums) {
    for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t first = block * kFan;
        const std::int64_t last = first + kFan < x.rows ? first + kFan : x.rows;
        if (x.dim == 1) {  // a row is one number: vectorise over rows instead
            const double c = centre[0];
            for (std::int64_t i = first; i < last; ++i) {
                const double squared = add_square(0.0, static_cast<double>(x.data[i * x.row_stride]) - c);
                weights[i] = squared < weights[i] ? squared : weights[i];
            }
        } else {
            for (std::int64_t i = first; i < last; ++i) {
                const double squared = squared_distance(x.data + i * x.row_stride, centre, x.dim);
                weights[i] = squared < weights[i] ? squared : weights[i];
            }
        }
        block_sums[block] = lane_sum(weights + first, last - first);
    }
}

void sums(const double* values, std::int64_t count, double* out) {
    for (std::int64_t i = 0; i < count; i += kFan)
        *out++ = lane_sum(values + i, count - i < kFan ? count - i : kFan);
}

}  // namespace

extern const PassTable SAAL_JOIN(pass_table_, SAAL_ISA) = {SAAL_TEXT(SAAL_ISA), pass<float>, pass<double>,
                                                           sums};

}  // namespace saal
