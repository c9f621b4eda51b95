#include "kmeans.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "isa.h"
#include "kmeans_host.h"
#include "kmeans_policy.h"
#include "team.h"

namespace saal {
namespace {

/// Below this many numbers a pass is over before a second thread has woken up.
constexpr std::int64_t kNumbersPerThread = 1 << 16;

std::vector<const PassTable*> built_tables() {
    return {
        &pass_table_baseline,
#if defined(SAAL_HAVE_AVX2)
        &pass_table_avx2,
#endif
#if defined(SAAL_HAVE_AVX512)
        &pass_table_avx512,
#endif
    };
}

/// The weights of all rows, and the tree of sums over them.
template <class T>
class Weights {
  public:
    Weights(const Matrix<T>& x, const PassTable& table, int threads)
        : x_(x),
          table_(table),
          centre_(static_cast<std::size_t>(x.dim), 0.0),
          rows_(static_cast<std::size_t>(x.rows)),
          blocks_(static_cast<std::size_t>(parts(x.rows, kFan))),
          groups_(static_cast<std::size_t>(parts(parts(x.rows, kFan), kFan))),
          team_(team_size(x, threads)) {}

    /// Sets each weight to the squared distance from the origin.
    const double* norms() {
        forget();
        std::fill(centre_.begin(), centre_.end(), 0.0);
        fold();
        return rows_.data();
    }

    void forget() { std::fill(rows_.begin(), rows_.end(), std::numeric_limits<double>::infinity()); }

    /// Lowers each weight to the squared distance from row `centre`.
    void add_centre(std::int64_t centre) {
        const T* row = x_.data + centre * x_.row_stride;
        std::copy(row, row + x_.dim, centre_.begin());
        fold();
    }

    /// The row that `u` aims at, or kNoWeightLeft, or kOverflow.
    std::int64_t draw(double u) {
        const auto blocks = static_cast<std::int64_t>(blocks_.size());
        table_.sums(blocks_.data(), blocks, groups_.data());
        double total = 0.0;
        for (const double group : groups_) total += group;
        if (total == 0.0) return kNoWeightLeft;
        if (!std::isfinite(total)) return kOverflow;
        Pick pick = descend(groups_.data(), static_cast<std::int64_t>(groups_.size()), u * total);
        std::int64_t begin = pick.index * kFan;
        pick = descend(blocks_.data() + begin, std::min<std::int64_t>(kFan, blocks - begin), pick.rest);
        begin = (begin + pick.index) * kFan;
        pick = descend(rows_.data() + begin, std::min<std::int64_t>(kFan, x_.rows - begin), pick.rest);
        return begin + pick.index;
    }

  private:
    static int team_size(const Matrix<T>& x, int threads) {
        const std::int64_t useful = std::min(parts(x.rows, kFan), x.rows * x.dim / kNumbersPerThread);
        return static_cast<int>(std::clamp<std::int64_t>(useful, 1, std::max(threads, 1)));
    }

    void fold() {
        team_.run(static_cast<std::int64_t>(blocks_.size()), [this](std::int64_t begin, std::int64_t end) {
            if constexpr (std::is_same_v<T, float>)
                table_.pass_f32(x_, centre_.data(), begin, end, rows_.data(), blocks_.data());
            else
                table_.pass_f64(x_, centre_.data(), begin, end, rows_.data(), blocks_.data());
        });
    }

    Matrix<T> x_;
    const PassTable& table_;
    std::vector<double> centre_, rows_, blocks_, groups_;
    Team team_;  // last: its threads end before what they use does
};

}  // namespace

template <class T>
std::vector<std::int64_t> kmeans_plusplus(const Matrix<T>& x, std::int64_t k, First first,
                                          const std::vector<double>& uniforms, int threads,
                                          const std::function<void()>& between_centres,
                                          const std::string& isa) {
    check_arguments(x.rows, x.dim, k, uniforms);
    Weights<T> weights(x, find_table(built_tables(), isa), threads);

    const std::int64_t largest = check_norms(weights.norms(), x.rows, [&x](std::int64_t row) {
        const T* values = x.data + row * x.row_stride;
        return std::vector<T>(values, values + x.dim);
    });
    weights.forget();

    std::vector<std::int64_t> chosen(static_cast<std::size_t>(k));
    chosen[0] = first == First::kArgmax ? largest : uniform_index(uniforms[0], x.rows);
    for (std::size_t t = 1; t < chosen.size(); ++t) {
        between_centres();
        weights.add_centre(chosen[t - 1]);
        const std::int64_t row = weights.draw(uniforms[t]);
        if (row == kOverflow) throw_overflow();
        if (row == kNoWeightLeft) {  // weights never rise again
            fill_unchosen(chosen, t, x.rows, uniforms);
            break;
        }
        chosen[t] = row;
    }
    return chosen;
}

template std::vector<std::int64_t> kmeans_plusplus<float>(const Matrix<float>&, std::int64_t, First,
                                                          const std::vector<double>&, int,
                                                          const std::function<void()>&, const std::string&);
template std::vector<std::int64_t> kmeans_plusplus<double>(const Matrix<double>&, std::int64_t, First,
                                                           const std::vector<double>&, int,
                                                           const std::function<void()>&, const std::string&);

std::vector<std::string> built_isas() {
    std::vector<std::string> names;
    for (const auto* table : built_tables()) names.emplace_back(table->isa);
    return names;
}

std::vector<std::string> usable_isas() {
    std::vector<std::string> names;
    for (const auto* table : built_tables())
        if (cpu_runs(table->isa)) names.emplace_back(table->isa);
    return names;
}

}  // namespace saal
