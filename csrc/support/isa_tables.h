// Files of inner loops are compiled once per instruction set, with SAAL_ISA the set's name; each defines a
// table of its functions. These macros name the tables. There is no inline code here: the linker could choose
// a copy of it that only newer CPUs can run.
#pragma once

#define SAAL_JOIN_(a, b) a##b
#define SAAL_JOIN(a, b) SAAL_JOIN_(a, b)
#define SAAL_TEXT_(a) #a
#define SAAL_TEXT(a) SAAL_TEXT_(a)

/// Declares the tables of all instruction sets. Only those that are built are linked.
#define SAAL_DECLARE_TABLES(Table, name) \
    extern const Table name##_baseline;  \
    extern const Table name##_avx2;      \
    extern const Table name##_avx512

/// Defines the table of this file's instruction set. Its first member is the set's name.
#define SAAL_DEFINE_TABLE(Table, name, ...) \
    extern const Table SAAL_JOIN(name##_, SAAL_ISA) = {SAAL_TEXT(SAAL_ISA), __VA_ARGS__}

/// The tables that are built, the slowest first. A compiler that knows AVX-512 knows AVX2.
#if defined(SAAL_HAVE_AVX512)
#define SAAL_BUILT_TABLES(name) {&name##_baseline, &name##_avx2, &name##_avx512}
#elif defined(SAAL_HAVE_AVX2)
#define SAAL_BUILT_TABLES(name) {&name##_baseline, &name##_avx2}
#else
#define SAAL_BUILT_TABLES(name) {&name##_baseline}
#endif
