// The algorithms, each with its whole search in its own file.
#pragma once

#include "kmeans/filter.h"
#include "kmeans/state.h"

namespace saal {

/// Updates all weights after each row (kmeans.cpp).
template <class T>
void draw_plain(State<T>& state);

/// Draws by stale weights and rejects (rejection.cpp).
template <class T>
void draw_rejection(State<T>& state, const FilterTable& filter);

/// Sorts rows of one number (sorted.cpp).
template <class T>
Seeding draw_sorted(const Rows<T>& x, const Options& options, const PassTable& table);

}  // namespace saal
