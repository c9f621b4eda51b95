// saal_fast._core.
#include "bindings/define.h"
#include "build_info.h"
#include "support/heap.h"
#include "support/workers.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "The C++ core of saal_fast.";
    define_kmeans(m);
    define_diagonal_sums(m);
    define_tiles(m);
    m.def("keep_freed_memory", &saal::keep_freed_memory, pybind11::arg("keep"),
          "Whether freed memory is kept for the next allocation, or given back to the system.");
    m.def("use_openmp_of", &saal::use_openmp_of, pybind11::arg("folder"),
          "Whether the OpenMP runtime loaded from below the folder was found; its threads are used then.");
    m.attr("compiler") = SAAL_BUILD_COMPILER;
    m.attr("flags") = SAAL_BUILD_FLAGS;
    m.attr("cuda") = SAAL_BUILD_CUDA;
}
