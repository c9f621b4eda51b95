// saal_fast._native._core.
#include "bindings/define.h"
#include "build_info.h"
#include "support/heap.h"
#include "support/workers.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "The C++ core of saal_fast.";
    define_kmeans(m);
    define_diagonal_sums(m);
    define_tiles(m);
    define_depthwise(m);
    define_norms(m);
    define_uninterrupted(m);
    m.def("keep_freed_memory", &saal::keep_freed_memory, pybind11::arg("keep"),
          "Keeps freed memory for the next allocation, or gives it back to the system.");
    m.def("use_torch_threads", &saal::use_torch_threads, pybind11::arg("library"),
          "Whether the operations share torch's threads from now on; `library`: the path of libtorch_cpu.");
    m.attr("compiler") = SAAL_BUILD_COMPILER;
    m.attr("flags") = SAAL_BUILD_FLAGS;
    m.attr("cuda") = SAAL_BUILD_CUDA;
}
