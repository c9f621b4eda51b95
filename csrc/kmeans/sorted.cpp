// Sorts rows of one number, so that a new row changes only the weights of its own Voronoi cell, a run of
// neighbours. All runs together have some N (1 + 2 ln k) rows, whichever are chosen. The weights are exact,
// not differences of prefix sums, which cancel where a cell is narrow.
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "kmeans/algorithms.h"

namespace saal {
namespace {

/// Folds a row into the blocks around it, outwards, up to a block whose outer row has a nearer centre.
template <class T>
void fold_cell(State<T>& state, std::int64_t row) {
    const auto value = static_cast<double>(state.x.x.data[row]);
    double* weights = state.tree.rows();
    const auto nearer = [&](std::int64_t outer) {  // with the rounding of `fold`
        const double difference = static_cast<double>(state.x.x.data[outer]) - value;
        return state.sample(outer) > 0.0 && weights[outer] < state.sample(outer) * (difference * difference);
    };
    const auto fold = [&](std::int64_t block) {
        state.pass.fold(state.x, state.options.weights, &value, 0.0, block, block + 1, weights,
                        state.tree.block_sums());
        state.info.distances += std::min<std::int64_t>(kFan, state.x.count() - block * kFan);
    };
    std::int64_t begin = row / kFan, end = begin;
    for (bool last = false; !last && begin >= 0; --begin) {
        last = nearer(begin * kFan);
        if (begin != row / kFan) fold(begin);
    }
    for (bool last = false; !last && end < state.tree.blocks(); ++end) {
        last = nearer(std::min((end + 1) * kFan, state.x.count()) - 1);
        fold(end);
    }
    state.tree.sum_groups(begin + 1, end);
}

/// A number's bits as an unsigned integer of the same order; those of 0 for −0.
std::uint32_t sortable(float value) {
    value += 0.0F;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
std::uint64_t sortable(double value) {
    value += 0.0;
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits >> 63) != 0 ? ~bits : bits | 0x8000000000000000u;
}

/// Calls work(i) for i < n, and `between` now and then.
template <class Work>
void over_rows(std::size_t n, const std::function<void()>& between, const Work& work) {
    constexpr std::size_t kTogether = 1 << 20;  // some 10 ms
    for (std::size_t begin = 0; begin < n; begin += kTogether) {
        between();
        const std::size_t end = std::min(n, begin + kTogether);
        for (std::size_t i = begin; i < end; ++i) work(i);
    }
}

/// The rows in the order of their numbers, of equals the lower row first. A radix sort by 11 bits a pass.
template <class T>
std::vector<std::int64_t> sorted_order(const Matrix<T>& x, const std::function<void()>& between) {
    using Key = decltype(sortable(T{}));
    struct Entry {
        Key key;
        std::uint32_t row[sizeof(Key) / 4];  // 32 bits beside 32, else 64
    };
    constexpr int kBits = 11;
    constexpr int kPasses = (8 * static_cast<int>(sizeof(Key)) + kBits - 1) / kBits;
    constexpr Key kMask = (Key{1} << kBits) - 1;
    const auto n = static_cast<std::size_t>(x.rows);
    std::vector<std::size_t> counts(static_cast<std::size_t>(kPasses) << kBits);
    std::vector<Entry> entries(n);
    between();
    std::vector<Entry> next(n);
    over_rows(n, between, [&](std::size_t i) {
        Entry& entry = entries[i];
        entry.key = sortable(*x.row(static_cast<std::int64_t>(i)));
        std::memcpy(entry.row, &i, sizeof entry.row);
        for (int pass = 0; pass < kPasses; ++pass)
            ++counts[(static_cast<std::size_t>(pass) << kBits) + ((entry.key >> (pass * kBits)) & kMask)];
    });
    for (int pass = 0; pass < kPasses; ++pass) {
        std::size_t* count = counts.data() + (static_cast<std::size_t>(pass) << kBits);
        std::size_t before = 0;
        for (std::size_t digit = 0; digit <= kMask; ++digit) {
            const std::size_t here = count[digit];
            count[digit] = before;
            before += here;
        }
        over_rows(n, between, [&](std::size_t i) {
            next[count[(entries[i].key >> (pass * kBits)) & kMask]++] = entries[i];
        });
        entries.swap(next);
    }
    std::vector<std::int64_t> order(n);
    over_rows(n, between,
              [&](std::size_t i) { std::memcpy(order.data() + i, entries[i].row, sizeof entries[i].row); });
    return order;
}

}  // namespace

template <class T>
Seeding draw_sorted(const Rows<T>& x, const Options& options, const PassTable& table) {
    const auto n = static_cast<std::size_t>(x.count());
    over_rows(n, options.between, [&](std::size_t i) {
        if (!std::isfinite(*x.x.row(static_cast<std::int64_t>(i))))
            throw_not_finite(static_cast<std::int64_t>(i));
    });
    const std::vector<std::int64_t> order = sorted_order(x.x, options.between);
    std::vector<T> values(n);
    std::vector<double> weights(options.weights == nullptr ? 0 : n);
    over_rows(n, options.between, [&](std::size_t i) {
        values[i] = *x.x.row(order[i]);
        if (options.weights != nullptr) weights[i] = options.weights[order[i]];
    });

    Options sorted = options;
    if (options.weights != nullptr) sorted.weights = weights.data();
    if (!options.initial.empty()) {
        std::vector<std::int64_t> place(n);
        over_rows(n, options.between, [&](std::size_t i) {
            place[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
        });
        for (auto& row : sorted.initial) row = place[static_cast<std::size_t>(row)];
    }
    Rows<T> line = x;
    line.x = {values.data(), x.x.rows, 1, 1};
    State<T> state(line, sorted, table);
    state.start();
    for (std::int64_t t = static_cast<std::int64_t>(state.chosen.size()); state.remaining() > 0; ++t) {
        options.between();
        if (state.tree.total() == 0.0) {
            state.fill(t);
            break;
        }
        state.chosen.push_back(state.tree.draw(options.uniforms(t)));
        if (state.remaining() > 0 || options.potential) fold_cell(state, state.chosen.back());
    }
    if (options.potential) state.info.potential = state.tree.total();
    for (auto& row : state.chosen) row = order[static_cast<std::size_t>(row)];
    return {std::move(state.chosen), state.info};
}

template Seeding draw_sorted<float>(const Rows<float>&, const Options&, const PassTable&);
template Seeding draw_sorted<double>(const Rows<double>&, const Options&, const PassTable&);

}  // namespace saal
