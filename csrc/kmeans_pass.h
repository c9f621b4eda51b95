// One pass of k-means++ over the rows: fold a centre into the weights. Compiled once per instruction set
// (kmeans_pass.cpp), chosen at run time.
#pragma once

#include <cstdint>

namespace saal {

/// Rows of a matrix; `row_stride` in elements, columns next to each other.
template <class T>
struct Matrix {
    const T* data;
    std::int64_t rows;
    std::int64_t dim;
    std::int64_t row_stride;
};

/// weights[i] <- min(weights[i], ‖x_i − centre‖²) for the rows of blocks [begin, end), and each block's sum.
/// `centre` holds `dim` doubles.
template <class T>
using Pass = void (*)(const Matrix<T>& x, const double* centre, std::int64_t begin, std::int64_t end,
                      double* weights, double* block_sums);

/// The passes of one instruction set. `sums` lane-sums `count` values in chunks of kFan.
struct PassTable {
    const char* isa;
    Pass<float> pass_f32;
    Pass<double> pass_f64;
    void (*sums)(const double* values, std::int64_t count, double* out);
};

extern const PassTable pass_table_baseline;
extern const PassTable pass_table_avx2;    // linked only where built: SAAL_HAVE_AVX2
extern const PassTable pass_table_avx512;  // SAAL_HAVE_AVX512

}  // namespace saal
