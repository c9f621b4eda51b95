// The state that all algorithms share: the data, the exact weights, the threads, the rows chosen so far.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kmeans/host.h"
#include "kmeans/kmeans.h"
#include "kmeans/tree.h"
#include "support/isa.h"
#include "support/team.h"

namespace saal {

/// A thread takes at least so many numbers. A pass over fewer than kNumbersTogether takes one thread: it ends
/// before another has woken up.
constexpr std::int64_t kNumbersPerThread = 1 << 17;
constexpr std::int64_t kNumbersTogether = 1 << 20;
/// `between` is called after so many multiplications, some 50 ms.
constexpr std::int64_t kNumbersBetween = 1 << 27;

template <class T>
struct State {
    State(const Rows<T>& data, const Options& given, const PassTable& passes)
        : x(data),
          options(given),
          table(passes),
          pass(of_type<T>(passes)),
          tree(data.count(), passes),
          centre_(static_cast<std::size_t>(data.width())),
          team(team_size(data, given.threads)) {}

    std::int64_t remaining() const { return options.k - static_cast<std::int64_t>(chosen.size()); }
    double sample(std::int64_t row) const { return options.weights == nullptr ? 1.0 : options.weights[row]; }

    /// Calls work(member, begin, end) on each thread, for its part of [0, count).
    template <class Work>
    void by_member(std::int64_t count, const Work& work) {
        const std::int64_t members = team.size();
        team.run(members, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t m = from; m < to; ++m) {
                const std::int64_t begin = count * m / members, end = count * (m + 1) / members;
                if (begin < end) work(m, begin, end);
            }
        });
    }

    /// The same for things of so many multiplications each, in slices, with `between` called before each
    /// slice.
    template <class Work>
    void over(std::int64_t count, std::int64_t numbers, const Work& work) {
        const std::int64_t each = std::max<std::int64_t>(numbers, 1);
        const std::int64_t slice = std::max<std::int64_t>(kNumbersBetween / each, 1) * team.size();
        const bool alone = team.size() == 1 || count * each < kNumbersTogether;
        for (std::int64_t begin = 0; begin < count; begin += slice) {
            options.between();
            const std::int64_t here = std::min(slice, count - begin);
            if (alone)
                work(std::int64_t{0}, begin, begin + here);
            else
                by_member(here, [&](std::int64_t member, std::int64_t from, std::int64_t to) {
                    work(member, begin + from, begin + to);
                });
        }
    }

    /// The same for all blocks of rows.
    template <class Work>
    void over_blocks(std::int64_t numbers_per_row, const Work& work) {
        over(tree.blocks(), kFan * numbers_per_row, work);
    }

    /// Lowers each weight to the weighted squared distance from a chosen row, where that is less.
    void fold(std::int64_t row) {
        const T* left = x.left.row(row);
        const T* right = x.x.row(row);
        std::copy(left, left + x.left.dim, centre_.begin());
        std::copy(right, right + x.x.dim, centre_.begin() + x.left.dim);
        const double norm = x.factored() ? x.norms[row] : 0.0;
        over_blocks(x.width(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
            pass.fold(x, options.weights, centre_.data(), norm, begin, end, tree.rows(), tree.block_sums());
        });
        info.distances += x.count();
        ++info.refreshes;
    }

    /// Sums the weights after folds. Throws where the total is not finite.
    void sum_up() {
        tree.sum_groups(0, tree.blocks());
        if (!std::isfinite(tree.total())) {
            check_norms(norms());
            throw_overflow();
        }
    }

    /// All rows' squared norms.
    std::vector<double> norms() {
        std::vector<double> out(static_cast<std::size_t>(x.count()));
        over_blocks(x.width(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
            pass.norms(x, begin * kFan, std::min(end * kFan, x.count()), out.data());
        });
        return out;
    }

    /// Throws for rows that are not finite, and for norms that overflow.
    void check_norms(const std::vector<double>& norms) const {
        saal::check_norms(norms, [this](std::int64_t row) {
            std::vector<T> values(x.left.row(row), x.left.row(row) + x.left.dim);
            values.insert(values.end(), x.x.row(row), x.x.row(row) + x.x.dim);
            return values;
        });
    }

    /// Folds the initial rows into the weights; without any, chooses the first row and folds that.
    void start() {
        for (const auto row : options.initial) fold(row);
        if (options.initial.empty()) {
            chosen.push_back(first_row());
            fold(chosen[0]);
        }
        sum_up();
    }

    void fill(std::int64_t from) { saal::fill(chosen, x.count(), options, from); }

    Rows<T> x;
    const Options& options;
    const PassTable& table;
    const Passes<T>& pass;
    Tree tree;
    std::vector<std::int64_t> chosen;
    Info info;

  private:
    static int team_size(const Rows<T>& x, int threads) {
        const std::int64_t useful =
            std::min(parts(x.count(), kFan), x.count() * x.width() / kNumbersPerThread);
        return static_cast<int>(std::clamp<std::int64_t>(useful, 1, std::max(threads, 1)));
    }

    std::int64_t first_row() {
        if (options.first == First::kArgmax) {
            const std::vector<double> squared = norms();
            check_norms(squared);
            return largest_norm(squared, options.weights);
        }
        if (options.weights == nullptr) return uniform_index(options.uniforms(0), x.count());
        tree.assign(options.weights);
        const std::int64_t row = tree.draw(options.uniforms(0));
        tree.forget();
        return row;
    }

    std::vector<double> centre_;

  public:
    Team team;  // the last member: its threads end before the members that they use
};

}  // namespace saal
