#include "kmeans/kmeans.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kmeans/algorithms.h"
#include "kmeans/filter.h"
#include "support/isa.h"

namespace saal {
namespace {

std::vector<const PassTable*> pass_tables() {
    return SAAL_BUILT_TABLES(pass_table);
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
        algorithm = choose_algorithm(x.count(), x.width(), options.k, x.factored());
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
        draw_rejection(state, find_table<FilterTable>(SAAL_BUILT_TABLES(filter_table), options.isa));
        state.info.algorithm = "rejection";
    }
    if (options.potential) state.info.potential = state.tree.total();
    return {std::move(state.chosen), state.info};
}

template Seeding kmeans_plusplus<float>(const Rows<float>&, const Options&);
template Seeding kmeans_plusplus<double>(const Rows<double>&, const Options&);

Algorithm choose_algorithm(std::int64_t rows, std::int64_t width, std::int64_t k, bool factored) {
    if (width == 1 && !factored) return k < 64 ? Algorithm::kPlain : Algorithm::kSorted;
    const double work = static_cast<double>(rows) * static_cast<double>(k) * static_cast<double>(width);
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
