// A rule's φ and δ (see Map) of a vector of gradients. All functions have internal linkage, as in
// support/vector.h.
#pragma once

#include "conv/tiles_kernels.h"
#include "support/vector.h"

namespace saal {
namespace {

template <Map kMap>
struct MapTag {
    static constexpr Map value = kMap;
};

/// use(MapTag<map>{}): a function with the map known to the compiler.
template <class Use>
SAAL_INLINE auto by_map(Map map, const Use& use) {
    switch (map) {
        case Map::kSquare:
            return use(MapTag<Map::kSquare>{});
        case Map::kAdaptive:
            return use(MapTag<Map::kAdaptive>{});
        case Map::kAbsolute:
            return use(MapTag<Map::kAbsolute>{});
        default:
            return use(MapTag<Map::kPower>{});
    }
}

/// φ(m)
template <Map kMap, class T>
SAAL_INLINE Vector<T> phi(Vector<T> m, const T* weight, double q) {
    if constexpr (kMap == Map::kSquare) {
        return m * m;
    } else if constexpr (kMap == Map::kAdaptive) {
        const Vector<T> wm = load<T>(weight) * m;
        return wm * wm;
    } else if constexpr (kMap == Map::kAbsolute) {
        return absolute<T>(m);
    } else {
        return power(absolute<T>(m), q);
    }
}

/// δ(m)
template <Map kMap, class T>
SAAL_INLINE Vector<T> delta(Vector<T> m, const T* weight, double q) {
    if constexpr (kMap == Map::kSquare) {
        return m;
    } else if constexpr (kMap == Map::kAdaptive) {
        const Vector<T> w = load<T>(weight);
        return w * w * m;
    } else if constexpr (kMap == Map::kAbsolute) {
        return sign<T>(m);
    } else {
        return sign<T>(m) * power(absolute<T>(m), q - 1);
    }
}

}  // namespace
}  // namespace saal
