// The ways to draw, each with its whole search in its own file.
#pragma once

#include "kmeans/filter.h"
#include "kmeans/state.h"

namespace saal {

/// All weights follow each row (kmeans.cpp).
template <class T>
void draw_plain(State<T>& state);

/// Stale weights and rejection (kmeans_rejection.cpp).
template <class T>
void draw_rejection(State<T>& state, const FilterTable& filter);

/// Rows of one number, sorted (kmeans_sorted.cpp).
template <class T>
Seeding draw_sorted(const Rows<T>& x, const Options& options, const PassTable& table);

}  // namespace saal
