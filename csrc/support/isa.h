// Chooses among the tables of functions (isa_tables.h) by the instruction sets that this CPU runs.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "support/isa_tables.h"

namespace saal {

inline bool cpu_runs([[maybe_unused]] const char* isa) {
#if defined(SAAL_HAVE_AVX2)
    if (std::strcmp(isa, "avx2") == 0)
        return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
#endif
#if defined(SAAL_HAVE_AVX512)
    if (std::strcmp(isa, "avx512") == 0) return __builtin_cpu_supports("avx512f") != 0;
#endif
    return true;
}

/// The table of instruction set `isa`, or where that is empty, the fastest that this CPU runs. `tables`: the
/// slowest first. Throws std::invalid_argument where there is none.
template <class Table>
const Table& find_table(const std::vector<const Table*>& tables, const std::string& isa) {
    const Table* found = nullptr;
    for (const Table* table : tables)
        if (cpu_runs(table->isa) && (isa.empty() || isa == table->isa)) found = table;
    if (found == nullptr)
        throw std::invalid_argument("expected an instruction set that is built and runs here, got '" + isa +
                                    "'");
    return *found;
}

/// A table's functions for one type.
template <class T, class Table>
const auto& of_type(const Table& table) {
    if constexpr (std::is_same_v<T, float>)
        return table.f32;
    else
        return table.f64;
}

}  // namespace saal
