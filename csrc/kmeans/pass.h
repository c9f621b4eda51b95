// The exact part of k-means++: squared distances in double, in the order that kmeans_policy.h defines.
// Compiled once per instruction set (kmeans_pass.cpp), chosen at run time.
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

    const T* row(std::int64_t i) const { return data + i * row_stride; }
};

/// The data: rows x_i [D], or, where `left` has columns, outer products left_i ⊗ x_i [C · D], never formed.
template <class T>
struct Rows {
    Matrix<T> x;
    Matrix<T> left;
    const double* norms;  // ‖left_i‖² ‖x_i‖² [N] of outer products; else unused

    bool factored() const { return left.dim > 0; }
    std::int64_t count() const { return x.rows; }
    std::int64_t numbers() const { return x.dim + left.dim; }  // in a row
};

/// The passes of one instruction set for one type.
template <class T>
struct Passes {
    /// ‖x_i − x_j‖².
    double (*distance)(const Rows<T>& x, std::int64_t i, std::int64_t j);
    /// out[i] <- ‖x_i‖² for rows [begin, end).
    void (*norms)(const Rows<T>& x, std::int64_t begin, std::int64_t end, double* out);
    /// weights[i] <- min(weights[i], sample[i] ‖x_i − centre‖²) for the rows of blocks [begin, end), and each
    /// block's sum. `centre`: the row's numbers, those of `left` first; `norm`: its squared norm; `sample`
    /// may be null, for ones.
    void (*fold)(const Rows<T>& x, const double* sample, const double* centre, double norm,
                 std::int64_t begin, std::int64_t end, double* weights, double* block_sums);
};

/// `sums` lane-sums `count` values in chunks of kFan. `nearest` is the least (x − values[p])², of
/// one value or more.
struct PassTable {
    const char* isa;
    Passes<float> f32;
    Passes<double> f64;
    void (*sums)(const double* values, std::int64_t count, double* out);
    double (*nearest)(const double* values, std::int64_t count, double x);
};

extern const PassTable pass_table_baseline;
extern const PassTable pass_table_avx2;    // linked only where built: SAAL_HAVE_AVX2
extern const PassTable pass_table_avx512;  // SAAL_HAVE_AVX512

}  // namespace saal
