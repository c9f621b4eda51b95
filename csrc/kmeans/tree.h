// The weights of all rows and the tree of sums over them, as kmeans_policy.h defines it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include "kmeans/pass.h"
#include "kmeans/policy.h"

namespace saal {

/// Memory that vector registers reach without straddling two cache lines.
template <class T>
struct Aligned {
    using value_type = T;
    static constexpr std::align_val_t kTo{64};
    Aligned() = default;
    template <class U>
    explicit Aligned(const Aligned<U>& /*other*/) {}
    T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kTo)); }
    void deallocate(T* memory, std::size_t /*count*/) { ::operator delete(memory, kTo); }
    friend bool operator==(const Aligned& /*a*/, const Aligned& /*b*/) { return true; }
    friend bool operator!=(const Aligned& /*a*/, const Aligned& /*b*/) { return false; }
};

class Tree {
  public:
    Tree(std::int64_t rows, const PassTable& table)
        : table_(table),
          rows_(static_cast<std::size_t>(rows), std::numeric_limits<double>::infinity()),
          blocks_(static_cast<std::size_t>(parts(rows, kFan))),
          groups_(static_cast<std::size_t>(parts(parts(rows, kFan), kFan))) {}

    std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
    double* rows() { return rows_.data(); }
    double* block_sums() { return blocks_.data(); }

    /// Sets all weights.
    void assign(const double* weights) {
        std::copy(weights, weights + rows_.size(), rows_.begin());
        sum_blocks(0, blocks());
        sum_groups(0, blocks());
    }
    void forget() { std::fill(rows_.begin(), rows_.end(), std::numeric_limits<double>::infinity()); }

    /// The sums of blocks [begin, end) from their rows.
    void sum_blocks(std::int64_t begin, std::int64_t end) {
        const auto rows = static_cast<std::int64_t>(rows_.size());
        const std::int64_t first = begin * kFan;
        table_.sums(rows_.data() + first, std::min(end * kFan, rows) - first, blocks_.data() + begin);
    }

    /// The sums above blocks [begin, end), and the total.
    void sum_groups(std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin / kFan;
        const std::int64_t last = parts(end, kFan);
        table_.sums(blocks_.data() + first * kFan, std::min(last * kFan, blocks()) - first * kFan,
                    groups_.data() + first);
        total_ = 0.0;
        for (const double group : groups_) total_ += group;
    }

    double total() const { return total_; }

    /// The row that `u` aims at; needs a finite total above 0.
    std::int64_t draw(double u) const {
        Pick pick = descend(groups_.data(), static_cast<std::int64_t>(groups_.size()), u * total_);
        std::int64_t begin = pick.index * kFan;
        pick = descend(blocks_.data() + begin, std::min<std::int64_t>(kFan, blocks() - begin), pick.rest);
        begin = (begin + pick.index) * kFan;
        const auto rows = static_cast<std::int64_t>(rows_.size());
        pick = descend(rows_.data() + begin, std::min<std::int64_t>(kFan, rows - begin), pick.rest);
        return begin + pick.index;
    }

  private:
    const PassTable& table_;
    std::vector<double, Aligned<double>> rows_;
    std::vector<double> blocks_, groups_;
    double total_ = 0.0;
};

}  // namespace saal
