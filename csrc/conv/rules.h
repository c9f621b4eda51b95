// What a rule makes of a register's worth of gradients; see Map. Internal linkage, as tiles_vector.h.
#pragma once

#include "conv/tiles_kernels.h"
#include "support/vector.h"

namespace saal {
namespace {

template <Map kMap, class T>
SAAL_INLINE Vector<T> contribution(Vector<T> m, const T* weight, double q) {
    if constexpr (kMap == Map::kSquare) {
        return m * m;
    } else if constexpr (kMap == Map::kAdaptive) {
        const Vector<T> wm = load<T>(weight) * m;
        return wm * wm;
    } else if constexpr (kMap == Map::kAbsolute) {
        return absolute<T>(m);
    } else {
        return power<T>(absolute<T>(m), q);
    }
}

template <Map kMap, class T>
SAAL_INLINE Vector<T> mapped(Vector<T> m, const T* weight, double q) {
    if constexpr (kMap == Map::kSquare) {
        return m;
    } else if constexpr (kMap == Map::kAdaptive) {
        const Vector<T> w = load<T>(weight);
        return w * w * m;
    } else if constexpr (kMap == Map::kAbsolute) {
        return sign<T>(m);
    } else {
        return sign<T>(m) * power<T>(absolute<T>(m), q - 1);
    }
}

}  // namespace
}  // namespace saal
