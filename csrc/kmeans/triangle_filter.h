// Finds the rows that no pending centre can be nearest to, by the triangle inequality: where a row's centre
// is at least twice as far from another centre as from the row, the row is no nearer to that one (Elkan,
// "Using the triangle inequality to accelerate k-means", ICML 2003). In tight clusters this spares all rows
// of the clusters found before.
//
// The margins are far wider than the rounding of squared distances. Distances so small that their squares
// underflow are never spared. Outer products are never spared either: their distances have errors of their
// norms' size.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "kmeans/bounds.h"
#include "kmeans/policy.h"

namespace saal {

template <class T>
class TriangleFilter {
  public:
    using Scratch = typename Bounds<T>::Scratch;
    using Panels = typename Bounds<T>::Panels;

    /// `enabled`: without, it spares no row. At first, centre 0 is the nearest to every row.
    TriangleFilter(const Bounds<T>& bounds, std::int64_t rows, bool enabled)
        : bounds_(bounds), nearest_(enabled ? static_cast<std::size_t>(rows) : 0) {}

    /// Prepares a refresh by the `pending` centres, the last of `centres`, which it folds `tile` at a time:
    /// the squares of half the distances between centres. share(count, numbers, work) divides `count` things
    /// of so many numbers each among threads, which call work(member, from, to).
    template <class Share>
    void prepare(const std::vector<std::int64_t>& centres, const Panels& pending, std::int64_t tile,
                 std::vector<Scratch>& scratch, const Share& share) {
        const auto count = static_cast<std::int64_t>(centres.size());
        tiles_ = parts(pending.count, tile);
        spared_.clear();
        // With many centres it would cost as much as the refresh, or more memory than the weights.
        const auto rows = static_cast<std::int64_t>(nearest_.size());
        if (count * std::max<std::int64_t>(tiles_, 8) > rows) return;
        spared_.assign(static_cast<std::size_t>(count * tiles_), std::numeric_limits<double>::infinity());
        share(parts(count, kCentresTogether), kCentresTogether * pending.count,
              [&](auto member, std::int64_t from, std::int64_t to) {
                  Scratch& mine = scratch[static_cast<std::size_t>(member)];
                  for (std::int64_t a = from * kCentresTogether; a < std::min(to * kCentresTogether, count);
                       a += kCentresTogether)
                      prepare_some(centres, a, std::min(kCentresTogether, count - a), pending, tile, mine);
              });
    }

    /// Whether no centre of `tile` or of a later one can be nearer to a row than `squared`.
    bool spares(std::int64_t row, std::int64_t tile, double squared) const {
        if (spared_.empty() || !(squared >= 1e-280)) return false;
        const auto centre = static_cast<std::int64_t>(nearest_[static_cast<std::size_t>(row)]);
        return squared <= spared_[static_cast<std::size_t>(centre * tiles_ + tile)];
    }

    void set_nearest(std::int64_t row, std::int64_t centre) {
        if (!nearest_.empty()) nearest_[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(centre);
    }

  private:
    static constexpr std::int64_t kCentresTogether = 64;

    void prepare_some(const std::vector<std::int64_t>& centres, std::int64_t a, std::int64_t count,
                      const Panels& pending, std::int64_t tile, Scratch& scratch) {
        const auto before = static_cast<std::int64_t>(centres.size()) - pending.count;
        bounds_.pack(
            count, [&](std::int64_t r) { return centres[static_cast<std::size_t>(a + r)]; }, scratch.rows);
        const std::int64_t stride = bounds_.pad_centres(pending.count);
        scratch.dots.resize(static_cast<std::size_t>(bounds_.pad_rows(count) * stride));
        bounds_.dots(scratch.rows, 0, count, pending, 0, pending.count, scratch.dots.data(), stride,
                     scratch.left_dots);
        for (std::int64_t r = 0; r < count; ++r) {
            double spared = std::numeric_limits<double>::infinity();
            for (std::int64_t t = tiles_ - 1; t >= 0; --t) {
                const std::int64_t last = std::min((t + 1) * tile, pending.count);
                for (std::int64_t c = t * tile; c < last; ++c) {
                    if (before + c == a + r) continue;  // itself
                    const double squared =
                        bounds_.lower_bound(scratch.dots[static_cast<std::size_t>(r * stride + c)],
                                            pending.norms[static_cast<std::size_t>(c)],
                                            scratch.rows.norms[static_cast<std::size_t>(r)]);
                    spared = std::min(spared, squared * (0.25 * (1.0 - 1e-6)));
                }
                spared_[static_cast<std::size_t>((a + r) * tiles_ + t)] = spared;
            }
        }
    }

    const Bounds<T>& bounds_;
    std::vector<std::int32_t> nearest_;  // each row's centre
    std::vector<double> spared_;  // [centres, tiles]: up to this squared distance, a centre's row is spared
    std::int64_t tiles_ = 0;
};

}  // namespace saal
