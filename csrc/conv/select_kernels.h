// The kernels of an instruction set that runs here, for one type.
#pragma once

#include <string>
#include <type_traits>

#include "conv/tiles_kernels.h"
#include "conv/winograd_kernels.h"
#include "support/isa.h"

namespace saal {

/// A table's kernels for a type.
template <class T, class Table>
const auto& of_type(const Table& table) {
    if constexpr (std::is_same_v<T, float>)
        return table.f32;
    else
        return table.f64;
}

template <class T>
const Kernels<T>& kernels_of(const std::string& isa) {
    return of_type<T>(find_table<KernelTable>(
        {
            &kernel_table_baseline,
#if defined(SAAL_HAVE_AVX2)
            &kernel_table_avx2,
#endif
#if defined(SAAL_HAVE_AVX512)
            &kernel_table_avx512,
#endif
        },
        isa));
}

template <class T>
const WinogradKernels<T>& winograd_kernels_of(const std::string& isa) {
    return of_type<T>(find_table<WinogradTable>(
        {
            &winograd_table_baseline,
#if defined(SAAL_HAVE_AVX2)
            &winograd_table_avx2,
#endif
#if defined(SAAL_HAVE_AVX512)
            &winograd_table_avx512,
#endif
        },
        isa));
}

}  // namespace saal
