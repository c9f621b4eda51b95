#include "kmeans.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "isa.h"
#include "kmeans_filter.h"
#include "kmeans_ways.h"

namespace saal {
namespace {

std::vector<const PassTable*> pass_tables() {
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

std::vector<const FilterTable*> filter_tables() {
    return {
        &filter_table_baseline,
#if defined(SAAL_HAVE_AVX2)
        &filter_table_avx2,
#endif
#if defined(SAAL_HAVE_AVX512)
        &filter_table_avx512,
#endif
    };
}

/// Checks weights and initial rows; throws where fewer than k rows are left to choose.
void check_choice(std::int64_t rows, const Options& options) {
    using std::to_string;
    std::vector<std::int64_t> initial = options.initial;
    std::sort(initial.begin(), initial.end());
    for (std::size_t i = 0; i < initial.size(); ++i) {
        if (initial[i] < 0 || initial[i] >= rows)
            throw std::invalid_argument("expected initial rows in [0, " + to_string(rows) + "), got " +
                                        to_string(initial[i]));
        if (i > 0 && initial[i] == initial[i - 1])
            throw std::invalid_argument("expected different initial rows, got row " + to_string(initial[i]) +
                                        " twice");
    }
    if (!initial.empty() && options.first == First::kArgmax)
        throw std::invalid_argument("expected first='random' with initial rows, got 'argmax'");
    std::int64_t left = rows;
    std::string who = "the number of rows";
    if (options.weights != nullptr) {
        double sum = 0.0;
        left = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
            const double weight = options.weights[i];
            if (!(weight >= 0.0) || !std::isfinite(weight))
                throw std::invalid_argument("expected finite weights >= 0, got " + to_string(weight) +
                                            " for row " + to_string(i));
            left += static_cast<std::int64_t>(weight > 0.0);
            sum += weight;
        }
        if (left == 0) throw std::invalid_argument("expected a weight above 0, got only zeros");
        if (!std::isfinite(sum))
            throw std::invalid_argument("expected weights of a finite sum, got an overflow");
        who = "the number of rows of positive weight";
    }
    if (!initial.empty()) {
        for (const auto row : initial)
            left -= static_cast<std::int64_t>(options.weights == nullptr || options.weights[row] > 0.0);
        who += " that aren't initial";
    }
    if (options.k < 1 || options.k > left)
        throw std::invalid_argument("expected 1 <= k <= " + to_string(left) + " (" + who +
                                    "), got k=" + to_string(options.k));
}

template <class T>
void check(const Rows<T>& x, const Options& options) {
    using std::to_string;
    if (x.x.rows < 1 || x.x.dim < 1)
        throw std::invalid_argument("expected x of at least one row and one column, got [" +
                                    to_string(x.x.rows) + ", " + to_string(x.x.dim) + "]");
    if (x.factored() && x.left.rows != x.x.rows)
        throw std::invalid_argument("expected as many rows in both factors, got " + to_string(x.left.rows) +
                                    " and " + to_string(x.x.rows));
    for (std::int64_t i = 0; i < options.uniforms.count; ++i)
        if (!(options.uniforms.given[i] >= 0.0 && options.uniforms.given[i] < 1.0))
            throw std::invalid_argument("expected uniforms in [0, 1), got " +
                                        to_string(options.uniforms.given[i]));
    check_choice(x.count(), options);
    if (options.algorithm == Algorithm::kSorted && (x.factored() || x.x.dim != 1))
        throw std::invalid_argument("expected x of one number a row for algorithm='sorted', got " +
                                    (x.factored() ? "a pair" : to_string(x.x.dim) + " columns"));
}

}  // namespace

template <class T>
void draw_plain(State<T>& state) {
    state.start();
    for (std::int64_t t = static_cast<std::int64_t>(state.chosen.size()); state.remaining() > 0; ++t) {
        if (state.tree.total() == 0.0) {
            state.fill(t);
            return;
        }
        state.chosen.push_back(state.tree.draw(state.options.uniforms(t)));
        if (state.remaining() == 0 && !state.options.potential) return;
        state.fold(state.chosen.back());
        state.sum_up();
    }
}

template <class T>
Seeding kmeans_plusplus(const Rows<T>& x, const Options& options) {
    check(x, options);
    Algorithm algorithm = options.algorithm;
    if (algorithm == Algorithm::kAuto)
        algorithm = choose_algorithm(x.count(), x.numbers(), options.k, x.factored());
    const PassTable& table = find_table(pass_tables(), options.isa);
    if (algorithm == Algorithm::kSorted) {
        Seeding seeding = draw_sorted(x, options, table);
        seeding.info.algorithm = "sorted";
        return seeding;
    }
    State<T> state(x, options, table);
    std::vector<double> norms;
    if (x.factored()) {
        norms = state.norms();
        state.check_norms(norms);
        state.x.norms = norms.data();
    }
    if (algorithm == Algorithm::kPlain) {
        draw_plain(state);
        state.info.algorithm = "plain";
    } else {
        draw_rejection(state, find_table(filter_tables(), options.isa));
        state.info.algorithm = "rejection";
    }
    if (options.potential) state.info.potential = state.tree.total();
    return {std::move(state.chosen), state.info};
}

template Seeding kmeans_plusplus<float>(const Rows<float>&, const Options&);
template Seeding kmeans_plusplus<double>(const Rows<double>&, const Options&);

Algorithm choose_algorithm(std::int64_t rows, std::int64_t numbers, std::int64_t k, bool factored) {
    if (numbers == 1 && !factored) return k < 64 ? Algorithm::kPlain : Algorithm::kSorted;
    const double work = static_cast<double>(rows) * static_cast<double>(k) * static_cast<double>(numbers);
    return work < 65536.0 || k < 4 ? Algorithm::kPlain : Algorithm::kRejection;
}

std::vector<std::string> built_isas() {
    std::vector<std::string> names;
    for (const auto* table : pass_tables()) names.emplace_back(table->isa);
    return names;
}

std::vector<std::string> usable_isas() {
    std::vector<std::string> names;
    for (const auto* table : pass_tables())
        if (cpu_runs(table->isa)) names.emplace_back(table->isa);
    return names;
}

}  // namespace saal
