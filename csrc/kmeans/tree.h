// The weights of all rows and the tree of their sums, as policy.h defines it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kmeans/pass.h"
#include "kmeans/policy.h"
#include "support/buffer.h"

namespace saal {

class Tree {
  public:
    Tree(std::int64_t rows, const PassTable& table)
        : table_(table),
          count_(rows),
          rows_(rows),
          blocks_(static_cast<std::size_t>(parts(rows, kFan))),
          groups_(static_cast<std::size_t>(parts(parts(rows, kFan), kFan))) {
        forget();
    }

    std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
    double* rows() { return rows_.get(); }
    double* block_sums() { return blocks_.data(); }

    /// Sets all weights.
    void assign(const double* weights) {
        std::copy(weights, weights + count_, rows());
        sum_blocks(0, blocks());
        sum_groups(0, blocks());
    }
    /// Sets all weights to infinity.
    void forget() { std::fill(rows(), rows() + count_, std::numeric_limits<double>::infinity()); }

    /// Sums the rows of blocks [begin, end).
    void sum_blocks(std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin * kFan;
        table_.sums(rows() + first, std::min(end * kFan, count_) - first, blocks_.data() + begin);
    }

    /// Sums the groups of blocks [begin, end), and the total.
    void sum_groups(std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin / kFan;
        const std::int64_t last = parts(end, kFan);
        table_.sums(blocks_.data() + first * kFan, std::min(last * kFan, blocks()) - first * kFan,
                    groups_.data() + first);
        total_ = 0.0;
        for (const double group : groups_) total_ += group;
    }

    double total() const { return total_; }

    /// The row that `u` draws. Needs a finite total above 0.
    std::int64_t draw(double u) const {
        Pick pick = descend(groups_.data(), static_cast<std::int64_t>(groups_.size()), u * total_);
        std::int64_t begin = pick.index * kFan;
        pick = descend(blocks_.data() + begin, std::min<std::int64_t>(kFan, blocks() - begin), pick.rest);
        begin = (begin + pick.index) * kFan;
        pick = descend(rows_.get() + begin, std::min<std::int64_t>(kFan, count_ - begin), pick.rest);
        return begin + pick.index;
    }

  private:
    const PassTable& table_;
    std::int64_t count_;
    Buffer<double> rows_;
    std::vector<double> blocks_, groups_;
    double total_ = 0.0;
};

}  // namespace saal
