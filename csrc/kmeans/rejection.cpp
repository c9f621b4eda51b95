// D² sampling by rejection. A weight is exact for the centres folded into it and, since D² only falls, an
// upper bound with the pending ones. So a row drawn by the stale weights w and accepted with probability D²/w
// is drawn in proportion to D². Related work: RS-k-means++ (arXiv:2502.02085), whose proposal stays fixed;
// Cohen-Addad et al., "Fast and accurate k-means++ via rejection sampling" (NeurIPS 2020); Raff, "Exact
// acceleration of k-means++ and k-means||" (IJCAI 2021).
//
// Candidates are drawn ahead in batches and compared with the pending centres by bounds (bounds.h). Only a
// pair whose bound leaves the answer open is computed exactly, in tests of candidates and in refreshes. So
// every decision is the one of a sampler that tests one candidate after the other in double.
#include <algorithm>
#include <vector>

#include "kmeans/algorithms.h"
#include "kmeans/bounds.h"
#include "kmeans/triangle_filter.h"

namespace saal {
namespace {

constexpr std::int64_t kBatchCandidates = 64;
constexpr std::int64_t kProductsTogether = 1 << 25;  // fewer multiply-adds end before another thread wakes up

template <class T>
class Rejection {
  public:
    Rejection(State<T>& state, const FilterTable& filter)
        : state_(state),
          line_(!state.x.factored() && state.x.x.dim == 1),
          bounds_(state.x, filter),
          scratch_(static_cast<std::size_t>(state.team.size())),
          refresh_{state.x.count(), state.x.width(), state.options.refresh_every},
          filter_(bounds_, state.x.count(), !line_ && !state.x.factored()),
          tile_(bounds_.pad_centres(1)) {}

    void run() {
        const auto& initial = state_.options.initial;
        if (initial.size() > 1) {
            state_.fold(initial[0]);
            centres_.push_back(initial[0]);
            folded_ = 1;
            for (std::size_t i = 1; i < initial.size(); ++i) add_row(initial[i]);
            refresh();
        } else {
            state_.start();
            centres_.push_back(initial.empty() ? state_.chosen[0] : initial[0]);
            folded_ = 1;
        }
        while (state_.remaining() > 0) {
            if (state_.tree.total() == 0.0) {
                state_.fill(2 * number_ + 1);
                break;
            }
            state_.options.between();
            batch();
        }
        if (state_.options.potential && refresh_.pending > 0) refresh();
    }

  private:
    using Scratch = typename Bounds<T>::Scratch;

    /// Draws candidates, and scans them in order until one makes a refresh due.
    void batch() {
        const auto done = static_cast<std::int64_t>(state_.chosen.size());
        const std::int64_t count = std::min({kBatchCandidates, 2 * done + 1, 2 * state_.remaining() + 6});
        rows_.resize(static_cast<std::size_t>(count));
        for (std::int64_t b = 0; b < count; ++b)
            rows_[static_cast<std::size_t>(b)] =
                state_.tree.draw(state_.options.uniforms(2 * (number_ + b) + 1));
        if (!line_) compare();
        fresh_.clear();
        for (std::int64_t b = 0; b < count && state_.remaining() > 0; ++b) {
            const std::int64_t row = rows_[static_cast<std::size_t>(b)];
            const double u = state_.options.uniforms(2 * number_ + 2);
            ++number_;
            ++state_.info.candidates;
            state_.info.distances += refresh_.pending;
            if (accepts(b, row, u * state_.tree.rows()[row])) {
                state_.chosen.push_back(row);
                ++state_.info.accepted;
                add_candidate(b, row);
            } else {
                refresh_.reject();
            }
            if (refresh_.due(state_.remaining())) {
                refresh();
                return;
            }
        }
    }

    /// Computes the candidates' products with the pending centres and with each other.
    void compare() {
        const auto count = static_cast<std::int64_t>(rows_.size());
        bounds_.pack(count, [this](std::int64_t b) { return rows_[static_cast<std::size_t>(b)]; }, packed_);
        bounds_.clear(mutual_);
        for (std::int64_t b = 0; b < count; ++b) bounds_.add(packed_, b, mutual_);
        before_ = panels_.count;
        stride_ = bounds_.pad_centres(before_);
        mutual_stride_ = bounds_.pad_centres(count);
        const std::int64_t padded = bounds_.pad_rows(count);
        dots_.resize(static_cast<std::size_t>(padded * stride_));
        mutual_dots_.resize(static_cast<std::size_t>(padded * mutual_stride_));
        hits_.resize(static_cast<std::size_t>(std::max(before_, count)));
        const std::int64_t strip = bounds_.pad_rows(1);
        const auto work = [&](std::int64_t member, std::int64_t begin, std::int64_t end) {
            auto& left_dots = scratch_[static_cast<std::size_t>(member)].left_dots;
            if (before_ > 0)
                bounds_.dots(packed_, begin * strip, end * strip, panels_, 0, before_, dots_.data(), stride_,
                             left_dots);
            bounds_.dots(packed_, begin * strip, end * strip, mutual_, 0, count, mutual_dots_.data(),
                         mutual_stride_, left_dots);
        };
        if ((before_ + count) * count * state_.x.width() < kProductsTogether)
            work(0, 0, padded / strip);
        else
            state_.by_member(padded / strip, work);
    }

    /// Whether sample · ‖row − c‖² > threshold for all pending centres c.
    bool accepts(std::int64_t b, std::int64_t row, double threshold) {
        const double sample = state_.sample(row);
        if (line_)
            return values_.empty() ||
                   threshold < sample * state_.table.nearest(values_.data(),
                                                             static_cast<std::int64_t>(values_.size()),
                                                             static_cast<double>(*state_.x.x.row(row)));
        const auto open = [&](std::int64_t centre) {
            return !(threshold < sample * state_.pass.distance(state_.x, row, centre));
        };
        const float norm = packed_.norms[static_cast<std::size_t>(b)];
        const double squared = threshold / sample;
        std::int64_t found = bounds_.below(dots_.data() + b * stride_, panels_.norms.data(), before_, norm,
                                           squared, hits_.data());
        for (std::int64_t h = 0; h < found; ++h)
            if (open(pending(hits_[static_cast<std::size_t>(h)]))) return false;
        for (const std::int64_t f : fresh_) {
            found = bounds_.below(mutual_dots_.data() + b * mutual_stride_ + f, mutual_.norms.data() + f, 1,
                                  norm, squared, hits_.data());
            if (found > 0 && open(rows_[static_cast<std::size_t>(f)])) return false;
        }
        return true;
    }

    void add_candidate(std::int64_t b, std::int64_t row) {
        refresh_.accept();
        centres_.push_back(row);
        if (line_) {
            values_.push_back(static_cast<double>(*state_.x.x.row(row)));
        } else {
            fresh_.push_back(b);
            bounds_.add(packed_, b, panels_);
        }
    }

    void add_row(std::int64_t row) {
        if (!line_) bounds_.pack(1, [row](std::int64_t) { return row; }, packed_);
        add_candidate(0, row);
    }

    /// Folds the pending centres into the weights.
    void refresh() {
        filter_.prepare(centres_, panels_, tile_, scratch_,
                        [this](std::int64_t count, std::int64_t numbers, const auto& work) {
                            state_.over(count, numbers * state_.x.width(), work);
                        });
        state_.over_blocks(state_.x.width() * refresh_.pending,
                           [&](std::int64_t member, std::int64_t begin, std::int64_t end) {
                               for (std::int64_t block = begin; block < end; ++block)
                                   if (line_)
                                       update_line_block(block);
                                   else
                                       update_block(block, scratch_[static_cast<std::size_t>(member)]);
                           });
        state_.info.distances += state_.x.count() * refresh_.pending;
        ++state_.info.refreshes;
        state_.sum_up();
        folded_ = centres_.size();
        values_.clear();
        fresh_.clear();
        bounds_.clear(panels_);
        refresh_.done();
    }

    /// Folds the pending centres into one block's weights; for rows of one number.
    void update_line_block(std::int64_t block) {
        for (const double& value : values_)
            state_.pass.fold(state_.x, state_.options.weights, &value, 0.0, block, block + 1,
                             state_.tree.rows(), state_.tree.block_sums());
    }

    /// The same for other rows, of which the triangle filter spares some.
    void update_block(std::int64_t block, Scratch& scratch) {
        std::int64_t within[kFan];
        std::int64_t open = 0;
        const std::int64_t end = std::min((block + 1) * kFan, state_.x.count());
        for (std::int64_t row = block * kFan; row < end; ++row)
            if (is_open(row, 0)) within[open++] = row;
        const std::int64_t strip = bounds_.pad_rows(1);
        const std::int64_t fit = (1 << 15) / state_.x.width() / strip * strip;  // rows of 128 KiB
        const std::int64_t step = std::clamp<std::int64_t>(fit, strip, 64);
        for (std::int64_t first = 0; first < open; first += step)
            update_rows(within + first, std::min(step, open - first),
                        std::max(open - first - step, std::int64_t{0}), scratch);
        if (open > 0) state_.tree.sum_blocks(block, block + 1);
    }

    /// Whether a pending centre of `tile` or of a later one may be nearest to a row.
    bool is_open(std::int64_t row, std::int64_t tile) {
        const double weight = state_.tree.rows()[row];
        return weight > 0.0 && !filter_.spares(row, tile, weight / state_.sample(row));
    }

    /// Updates some rows, whose order it may change, and prefetches `more` that follow.
    void update_rows(std::int64_t* rows, std::int64_t count, std::int64_t more, Scratch& scratch) {
        const std::int64_t* next = rows + count;
        more = std::min(more, count);
        bounds_.pack(count, [rows](std::int64_t r) { return rows[r]; }, scratch.rows);
        scratch.hits.resize(static_cast<std::size_t>(tile_));
        scratch.dots.resize(static_cast<std::size_t>(bounds_.pad_rows(count) * tile_));
        for (std::int64_t c = 0; c < panels_.count; c += tile_) {
            const std::int64_t last = std::min(c + tile_, panels_.count);
            bounds_.dots(scratch.rows, 0, count, panels_, c, last, scratch.dots.data(), tile_,
                         scratch.left_dots);
            for (std::int64_t r = 0; r < count; ++r) {
                if (c == 0 && r < more) prefetch(next[r]);
                update_row(rows[r], scratch.rows.norms[static_cast<std::size_t>(r)],
                           scratch.dots.data() + r * tile_, c, last, scratch.hits.data());
            }
            if (last == panels_.count || state_.x.factored()) continue;
            std::int64_t kept = 0;
            for (std::int64_t r = 0; r < count; ++r) {
                if (!is_open(rows[r], c / tile_ + 1)) continue;
                if (kept < r) bounds_.move(scratch.rows, r, kept);
                rows[kept++] = rows[r];
            }
            count = kept;
        }
    }

    void update_row(std::int64_t row, float norm, const float* dots, std::int64_t first, std::int64_t last,
                    std::int32_t* hits) {
        double& weight = state_.tree.rows()[row];
        if (weight == 0.0) return;
        const double sample = state_.sample(row);
        const float* norms = panels_.norms.data() + first;
        std::int64_t found = bounds_.below(dots, norms, last - first, norm, weight / sample, hits);
        // The nearest centre first: it most often spares the others.
        std::int64_t nearest = 0;
        for (std::int64_t h = 1; h < found; ++h)
            if (norms[hits[h]] - 2.0F * dots[hits[h]] < norms[hits[nearest]] - 2.0F * dots[hits[nearest]])
                nearest = h;
        if (found > 0) std::swap(hits[0], hits[nearest]);
        for (std::int64_t h = 0; h < found; ++h) {
            std::int32_t still = 0;
            if (h > 0 &&
                bounds_.below(dots + hits[h], norms + hits[h], 1, norm, weight / sample, &still) == 0)
                continue;
            const std::int64_t centre = first + hits[h];
            const double lowered = sample * state_.pass.distance(state_.x, row, pending(centre));
            if (!(lowered < weight)) continue;
            weight = lowered;
            filter_.set_nearest(row, static_cast<std::int64_t>(folded_) + centre);
        }
    }

    void prefetch(std::int64_t row) const {
        constexpr std::int64_t kLine = 64 / sizeof(T);
        const T* numbers = state_.x.x.row(row);
        for (std::int64_t j = 0; j < state_.x.x.dim; j += kLine) __builtin_prefetch(numbers + j);
    }

    std::int64_t pending(std::int64_t number) const {
        return centres_[folded_ + static_cast<std::size_t>(number)];
    }

    State<T>& state_;
    const bool line_;  // rows are single numbers, which need no bounds
    Bounds<T> bounds_;
    std::vector<Scratch> scratch_;  // one for each thread
    Refresh refresh_;
    TriangleFilter<T> filter_;
    const std::int64_t tile_;            // how many centres a refresh multiplies at once
    std::int64_t number_ = 0;            // the next candidate's
    std::vector<std::int64_t> centres_;  // the folded ones, then the pending ones
    std::size_t folded_ = 0;             // how many are folded into the weights
    std::vector<double> values_;         // the pending centres' numbers, if line_
    typename Bounds<T>::Panels panels_;
    // the batch
    std::vector<std::int64_t> rows_;
    std::vector<std::int64_t> fresh_;  // candidates accepted from it
    std::int64_t before_ = 0;          // centres that were pending when it began
    std::int64_t stride_ = 0, mutual_stride_ = 0;
    typename Bounds<T>::Packed packed_;
    typename Bounds<T>::Panels mutual_;
    std::vector<float> dots_, mutual_dots_;
    std::vector<std::int32_t> hits_;
};

}  // namespace

template <class T>
void draw_rejection(State<T>& state, const FilterTable& filter) {
    Rejection<T>(state, filter).run();
}

template void draw_rejection<float>(State<float>&, const FilterTable&);
template void draw_rejection<double>(State<double>&, const FilterTable&);

}  // namespace saal
