// Which rows no pending centre can have come nearer to. A row whose centre lies at least twice as far from
// another centre as the row does is no nearer to that one: the triangle inequality, as Elkan, "Using the
// triangle inequality to accelerate k-means" (ICML 2003), has it. In tight clusters this spares all rows of
// those found before.
//
// The margins are far beyond the rounding of squared distances, but for those so small that squares
// underflow, which are never spared. Distances of outer products come with an error of their norms' size:
// none are kept.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "kmeans/bounds.h"
#include "kmeans/policy.h"

namespace saal {

template <class T>
class Reach {
  public:
    using Scratch = typename Bounds<T>::Scratch;
    using Panels = typename Bounds<T>::Panels;

    /// `kept`: whether to keep rows' centres at all. At first every row's is number 0.
    Reach(const Bounds<T>& bounds, std::int64_t rows, bool kept)
        : bounds_(bounds), nearest_(kept ? static_cast<std::size_t>(rows) : 0) {}

    /// Before a refresh: half the distances, squared, from centres to those pending, the last of them, which
    /// the refresh takes `tile` at a time. share(count, numbers, work) shares out `count` things of so many
    /// numbers each among threads: work(member, from, to).
    template <class Share>
    void find(const std::vector<std::int64_t>& centres, const Panels& pending, std::int64_t tile,
              std::vector<Scratch>& scratch, const Share& share) {
        const auto count = static_cast<std::int64_t>(centres.size());
        tiles_ = parts(pending.count, tile);
        reach_.clear();
        // Where centres are many, it would cost as much as the refresh, or more memory than the weights.
        const auto rows = static_cast<std::int64_t>(nearest_.size());
        if (count * std::max<std::int64_t>(tiles_, 8) > rows) return;
        reach_.assign(static_cast<std::size_t>(count * tiles_), std::numeric_limits<double>::infinity());
        share(parts(count, kRows), kRows * pending.count,
              [&](auto member, std::int64_t from, std::int64_t to) {
                  Scratch& mine = scratch[static_cast<std::size_t>(member)];
                  for (std::int64_t a = from * kRows; a < std::min(to * kRows, count); a += kRows)
                      find_some(centres, a, std::min(kRows, count - a), pending, tile, mine);
              });
    }

    /// Whether no centre in `tile` or those after it can have come nearer to a row than `squared`.
    bool spares(std::int64_t row, std::int64_t tile, double squared) const {
        if (reach_.empty() || !(squared >= 1e-280)) return false;
        const auto centre = static_cast<std::int64_t>(nearest_[static_cast<std::size_t>(row)]);
        return squared <= reach_[static_cast<std::size_t>(centre * tiles_ + tile)];
    }

    void set(std::int64_t row, std::int64_t centre) {
        if (!nearest_.empty()) nearest_[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(centre);
    }

  private:
    static constexpr std::int64_t kRows = 64;

    void find_some(const std::vector<std::int64_t>& centres, std::int64_t a, std::int64_t count,
                   const Panels& pending, std::int64_t tile, Scratch& scratch) {
        const auto before = static_cast<std::int64_t>(centres.size()) - pending.count;
        bounds_.pack(
            count, [&](std::int64_t r) { return centres[static_cast<std::size_t>(a + r)]; }, scratch.rows);
        const std::int64_t stride = bounds_.pad_centres(pending.count);
        scratch.dots.resize(static_cast<std::size_t>(bounds_.pad_rows(count) * stride));
        bounds_.dots(scratch.rows, 0, count, pending, 0, pending.count, scratch.dots.data(), stride,
                     scratch.left_dots);
        for (std::int64_t r = 0; r < count; ++r) {
            double reach = std::numeric_limits<double>::infinity();
            for (std::int64_t t = tiles_ - 1; t >= 0; --t) {
                const std::int64_t last = std::min((t + 1) * tile, pending.count);
                for (std::int64_t c = t * tile; c < last; ++c) {
                    if (before + c == a + r) continue;  // itself
                    const double squared =
                        bounds_.lower(scratch.dots[static_cast<std::size_t>(r * stride + c)],
                                      pending.norms[static_cast<std::size_t>(c)],
                                      scratch.rows.norms[static_cast<std::size_t>(r)]);
                    reach = std::min(reach, squared * (0.25 * (1.0 - 1e-6)));
                }
                reach_[static_cast<std::size_t>((a + r) * tiles_ + t)] = reach;
            }
        }
    }

    const Bounds<T>& bounds_;
    std::vector<std::int32_t> nearest_;  // each row's centre
    std::vector<double> reach_;          // [centres, tiles]
    std::int64_t tiles_ = 0;
};

}  // namespace saal
