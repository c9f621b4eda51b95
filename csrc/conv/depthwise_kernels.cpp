// See depthwise_kernels.h. CMake compiles this file once per instruction set. Include no header with inline
// code here but those with internal linkage: the linker could choose a copy of it that only newer CPUs can
// run.
//
// A row of the kernel at a time, a vector of channels at a time: the row's weights, or its sums, stay in
// registers while the outputs of a row pass by.
#include "conv/depthwise_kernels.h"

#include "support/vector.h"

namespace saal {
namespace {

struct Span {
    std::int64_t begin, end;
};

/// The outputs of [0, outputs) for which place `at` of the kernel reads inside of [0, size).
SAAL_INLINE Span reading(std::int64_t outputs, std::int64_t size, std::int64_t stride, std::int64_t before,
                         std::int64_t at) {
    const std::int64_t shift = before - at;  // an output reads at output * stride - shift
    const std::int64_t begin = shift > 0 ? (shift + stride - 1) / stride : 0;
    const std::int64_t end = size + shift > 0 ? (size + shift - 1) / stride + 1 : 0;
    return {begin, end < outputs ? end : outputs};
}

/// The outputs of a row for which every place of the kernel's row reads inside of it; the rest lies around.
SAAL_INLINE Span inside(const Depthwise& d) {
    const Span first = reading(d.out_width, d.width, d.stride[1], d.before[1], 0);
    const Span last =
        reading(d.out_width, d.width, d.stride[1], d.before[1], (d.kernel[1] - 1) * d.dilation[1]);
    const std::int64_t begin = first.begin > last.begin ? first.begin : last.begin;
    const std::int64_t end = first.end < last.end ? first.end : last.end;
    return begin < end ? Span{begin, end} : Span{d.out_width, d.out_width};
}

/// The columns of the kernel that output `w` reads inside of the image's row.
SAAL_INLINE bool reads(const Depthwise& d, std::int64_t w, std::int64_t k) {
    const std::int64_t at = w * d.stride[1] - d.before[1] + k * d.dilation[1];
    return at >= 0 && at < d.width;
}

/// A vector of numbers, or one.
template <class T, bool kWhole>
struct Lane;
template <class T>
struct Lane<T, true> {
    typedef Vector<T> type;
    __attribute__((always_inline)) static type get(const T* from) { return load<T>(from); }
    __attribute__((always_inline)) static void put(T* to, type v) { store<T>(to, v); }
    __attribute__((always_inline)) static type none() { return zero<T>(); }
};
template <class T>
struct Lane<T, false> {
    typedef T type;
    __attribute__((always_inline)) static type get(const T* from) { return *from; }
    __attribute__((always_inline)) static void put(T* to, type v) { *to = v; }
    __attribute__((always_inline)) static type none() { return T{0}; }
};

/// One row of the kernel on one row of outputs, for the channels at `x`, `out`. kAcross is the kernel's
/// width.
template <class T, bool kWhole, int kAcross>
SAAL_INLINE void apply_row(const T* x, const T* weight, const Depthwise& d, const Span& whole, bool first,
                           T* out) {
    using L = Lane<T, kWhole>;
    typename L::type by[kAcross];
    for (int k = 0; k < kAcross; ++k) by[k] = L::get(weight + k * d.channels);
    const std::int64_t step = d.dilation[1] * d.channels;
    const auto start = [&](std::int64_t w) { return first ? L::none() : L::get(out + w * d.channels); };
    const auto edge = [&](std::int64_t w) {
        typename L::type sum = start(w);
        const std::int64_t left = w * d.stride[1] - d.before[1];
        for (int k = 0; k < kAcross; ++k)
            if (reads(d, w, k)) sum += by[k] * L::get(x + (left + k * d.dilation[1]) * d.channels);
        L::put(out + w * d.channels, sum);
    };
    for (std::int64_t w = 0; w < whole.begin; ++w) edge(w);
    for (std::int64_t w = whole.begin; w < whole.end; ++w) {
        const T* const at = x + (w * d.stride[1] - d.before[1]) * d.channels;
        typename L::type sum = start(w);
        for (int k = 0; k < kAcross; ++k) sum += by[k] * L::get(at + k * step);
        L::put(out + w * d.channels, sum);
    }
    for (std::int64_t w = whole.end; w < d.out_width; ++w) edge(w);
}

template <class T, bool kWhole, int kAcross>
SAAL_INLINE void gradient_row(const T* x, const T* g, const Depthwise& d, const Span& whole, T* sums) {
    using L = Lane<T, kWhole>;
    typename L::type total[kAcross];
    for (int k = 0; k < kAcross; ++k) total[k] = L::none();
    const std::int64_t step = d.dilation[1] * d.channels;
    const auto edge = [&](std::int64_t w) {
        const std::int64_t left = w * d.stride[1] - d.before[1];
        const typename L::type at = L::get(g + w * d.channels);
        for (int k = 0; k < kAcross; ++k)
            if (reads(d, w, k)) total[k] += at * L::get(x + (left + k * d.dilation[1]) * d.channels);
    };
    for (std::int64_t w = 0; w < whole.begin; ++w) edge(w);
    for (std::int64_t w = whole.begin; w < whole.end; ++w) {
        const T* const from = x + (w * d.stride[1] - d.before[1]) * d.channels;
        const typename L::type at = L::get(g + w * d.channels);
        for (int k = 0; k < kAcross; ++k) total[k] += at * L::get(from + k * step);
    }
    for (std::int64_t w = whole.end; w < d.out_width; ++w) edge(w);
    for (int k = 0; k < kAcross; ++k) L::put(sums + k * d.channels, L::get(sums + k * d.channels) + total[k]);
}

/// use(c, whole) for vectors of channels, then for single ones.
template <class T, class Whole, class Rest>
SAAL_INLINE void over_channels(std::int64_t channels, const Whole& whole, const Rest& rest) {
    std::int64_t c = 0;
    for (; c + kLanesOf<T> <= channels; c += kLanesOf<T>) whole(c);
    for (; c < channels; ++c) rest(c);
}

/// use(h, row, k): each row h of outputs with each row of the image that row k of the kernel reads for it.
template <class Use>
SAAL_INLINE void over_rows(const Depthwise& d, const Use& use) {
    for (std::int64_t h = 0; h < d.out_height; ++h)
        for (std::int64_t k = 0; k < d.kernel[0]; ++k) {
            const std::int64_t row = h * d.stride[0] - d.before[0] + k * d.dilation[0];
            if (row >= 0 && row < d.height) use(h, row, k);
        }
}

template <class T, int kAcross>
void apply_of(const T* x, const T* weight, const Depthwise& d, T* out) {
    const Span whole = inside(d);
    const std::int64_t each = d.out_width * d.channels;
    std::int64_t begun = 0;  // rows of outputs that something was written to
    const auto clear_to = [&](std::int64_t h) {
        for (; begun < h; ++begun)
            for (std::int64_t i = 0; i < each; ++i) out[begun * each + i] = T{0};
    };
    over_rows(d, [&](std::int64_t h, std::int64_t row, std::int64_t k) {
        clear_to(h);
        const bool first = begun == h;
        begun = h + 1;
        const T* const from = x + row * d.width * d.channels;
        const T* const by = weight + k * kAcross * d.channels;
        over_channels<T>(
            d.channels,
            [&](std::int64_t c) {
                apply_row<T, true, kAcross>(from + c, by + c, d, whole, first, out + h * each + c);
            },
            [&](std::int64_t c) {
                apply_row<T, false, kAcross>(from + c, by + c, d, whole, first, out + h * each + c);
            });
    });
    clear_to(d.out_height);
}

template <class T, int kAcross>
void gradient_of(const T* x, const T* g, const Depthwise& d, T* sums) {
    const Span whole = inside(d);
    over_rows(d, [&](std::int64_t h, std::int64_t row, std::int64_t k) {
        const T* const from = x + row * d.width * d.channels;
        const T* const at = g + h * d.out_width * d.channels;
        T* const to = sums + k * kAcross * d.channels;
        over_channels<T>(
            d.channels,
            [&](std::int64_t c) { gradient_row<T, true, kAcross>(from + c, at + c, d, whole, to + c); },
            [&](std::int64_t c) { gradient_row<T, false, kAcross>(from + c, at + c, d, whole, to + c); });
    });
}

/// use(Across<kernel width>{}), with the width known to the compiler.
template <int kWidth>
struct Across {
    static constexpr int value = kWidth;
};

template <class Use>
SAAL_INLINE void by_width(std::int64_t width, const Use& use) {
    if (width == 1) use(Across<1>{});
    if (width == 2) use(Across<2>{});
    if (width == 3) use(Across<3>{});
    if (width == 4) use(Across<4>{});
    if (width == 5) use(Across<5>{});
    if (width == 7) use(Across<7>{});
    if (width == 9) use(Across<9>{});
    if (width == 11) use(Across<11>{});
}

template <class T>
void apply(const T* x, const T* weight, const Depthwise& d, T* out) {
    by_width(d.kernel[1], [&](auto across) { apply_of<T, across.value>(x, weight, d, out); });
}

template <class T>
void gradient(const T* x, const T* g, const Depthwise& d, T* sums) {
    by_width(d.kernel[1], [&](auto across) { gradient_of<T, across.value>(x, g, d, sums); });
}

template <class T>
constexpr DepthwiseKernels<T> kKernels{apply<T>, gradient<T>};

}  // namespace

SAAL_DEFINE_TABLE(DepthwiseTable, depthwise_table, kKernels<float>, kKernels<double>);

}  // namespace saal
