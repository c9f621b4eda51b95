// The exact part of k-means++: squared distances in double, with sums in the order that policy.h defines.
// Compiled once per instruction set (pass.cpp), chosen at run time.
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

/// A matrix with its columns next to each other in memory; `row_stride` in elements.
template <class T>
struct Matrix {
    const T* data;
    std::int64_t rows;
    std::int64_t dim;
    std::int64_t row_stride;

    const T* row(std::int64_t i) const { return data + i * row_stride; }
};

/// The data: rows x_i [D]; or, where `left` has columns, outer products left_i ⊗ x_i [C · D], never formed.
template <class T>
struct Rows {
    Matrix<T> x;
    Matrix<T> left;
    const double* norms;  // ‖left_i‖² ‖x_i‖² [N], for outer products only

    bool factored() const { return left.dim > 0; }
    std::int64_t count() const { return x.rows; }
    std::int64_t width() const { return x.dim + left.dim; }  // numbers in a row
};

/// The passes of one instruction set for one type.
template <class T>
struct Passes {
    /// ‖x_i − x_j‖².
    double (*distance)(const Rows<T>& x, std::int64_t i, std::int64_t j);
    /// out[i] <- ‖x_i‖² for rows [begin, end).
    void (*norms)(const Rows<T>& x, std::int64_t begin, std::int64_t end, double* out);
    /// weights[i] <- min(weights[i], sample[i] ‖x_i − centre‖²) for the rows of blocks [begin, end), and the
    /// sum of each block. `centre`: the row's numbers, those of `left` first; `norm`: its squared norm;
    /// `sample`: null for ones.
    void (*fold)(const Rows<T>& x, const double* sample, const double* centre, double norm,
                 std::int64_t begin, std::int64_t end, double* weights, double* block_sums);
};

/// `sums`: lane sums of `count` values in chunks of kFan. `nearest`: the least (x − values[p])², of one value
/// or more.
struct PassTable {
    const char* isa;
    Passes<float> f32;
    Passes<double> f64;
    void (*sums)(const double* values, std::int64_t count, double* out);
    double (*nearest)(const double* values, std::int64_t count, double x);
};

SAAL_DECLARE_TABLES(PassTable, pass_table);

}  // namespace saal
