// The kernels of tiles and of minimal filtering, of an instruction set that runs here.
#pragma once

#include <string>

#include "conv/tiles_kernels.h"
#include "conv/winograd_kernels.h"
#include "support/isa.h"

namespace saal {

template <class T>
const TileKernels<T>& tile_kernels(const std::string& isa) {
    return of_type<T>(find_table<TileTable>(SAAL_BUILT_TABLES(tile_table), isa));
}

template <class T>
const WinogradKernels<T>& winograd_kernels(const std::string& isa) {
    return of_type<T>(find_table<WinogradTable>(SAAL_BUILT_TABLES(winograd_table), isa));
}

}  // namespace saal
