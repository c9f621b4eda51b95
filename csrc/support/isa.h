// Which of the instruction sets that were compiled in runs here. Tables of functions carry the set's name as
// `isa`.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

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

/// The last of the tables, slowest first, that runs here and is called `isa`, or of any name where that is
/// empty.
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

}  // namespace saal
