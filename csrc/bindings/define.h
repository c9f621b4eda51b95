// The functions that each file adds to saal_fast._native._core.
#pragma once

#include <pybind11/pybind11.h>

void define_kmeans(pybind11::module_& m);
void define_diagonal_sums(pybind11::module_& m);
void define_tiles(pybind11::module_& m);
void define_depthwise(pybind11::module_& m);
void define_norms(pybind11::module_& m);
void define_uninterrupted(pybind11::module_& m);
