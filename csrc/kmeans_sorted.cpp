// Rows of one number, sorted: a new row changes the weights of its own Voronoi cell only, which is a run of
// neighbours. All runs together are some N (1 + 2 ln k) rows, whatever is chosen. The weights are the exact
// ones, not differences of prefix sums, which cancel where a cell is narrow.
#include <algorithm>
#include <numeric>
#include <vector>

#include "kmeans_ways.h"

namespace saal {
namespace {

/// Folds a row into the blocks around it, outwards until a block's outer row has a nearer one.
template <class T>
void fold_cell(State<T>& state, std::int64_t row) {
    const auto value = static_cast<double>(state.x.x.data[row]);
    double* weights = state.tree.rows();
    const auto nearer = [&](std::int64_t outer) {  // exactly as `fold` rounds it
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

}  // namespace

template <class T>
Seeding draw_sorted(const Rows<T>& x, const Options& options, const PassTable& table) {
    const auto n = static_cast<std::size_t>(x.count());
    for (std::size_t i = 0; i < n; ++i)
        if (!std::isfinite(*x.x.row(static_cast<std::int64_t>(i)))) throw_not_finite(static_cast<std::int64_t>(i));
    struct Entry {
        T value;
        std::int64_t row;
    };
    std::vector<Entry> entries(n);
    for (std::size_t i = 0; i < n; ++i) {
        const auto row = static_cast<std::int64_t>(i);
        entries[i] = {*x.x.row(row), row};
    }
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return a.value < b.value || (a.value == b.value && a.row < b.row);
    });
    std::vector<T> values(n);
    std::vector<double> weights(options.weights == nullptr ? 0 : n);
    for (std::size_t i = 0; i < n; ++i) {
        values[i] = entries[i].value;
        if (options.weights != nullptr) weights[i] = options.weights[entries[i].row];
    }

    Options sorted = options;
    if (options.weights != nullptr) sorted.weights = weights.data();
    if (!options.initial.empty()) {
        std::vector<std::int64_t> place(n);
        for (std::size_t i = 0; i < n; ++i)
            place[static_cast<std::size_t>(entries[i].row)] = static_cast<std::int64_t>(i);
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
    for (auto& row : state.chosen) row = entries[static_cast<std::size_t>(row)].row;
    return {std::move(state.chosen), state.info};
}

template Seeding draw_sorted<float>(const Rows<float>&, const Options&, const PassTable&);
template Seeding draw_sorted<double>(const Rows<double>&, const Options&, const PassTable&);

}  // namespace saal
