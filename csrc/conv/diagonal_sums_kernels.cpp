// The inner loops of diagonal sums; compiled once per instruction set with SAAL_ISA its name.
#include <algorithm>

#include "conv/diagonal_sums.h"

namespace saal {
namespace {

/// Adds `source` [height, width], shifted by (dy, dx), to `target` [out_height, out_width].
template <class T>
void add_shifted(const T* source, T* target, const Window& w, std::int64_t dy, std::int64_t dx) {
    const std::int64_t y0 = std::max<std::int64_t>(0, -dy), y1 = std::min(w.out_height, w.height - dy);
    const std::int64_t x0 = std::max<std::int64_t>(0, -dx), x1 = std::min(w.out_width, w.width - dx);
    for (std::int64_t y = y0; y < y1; ++y) {
        const T* __restrict from = source + (y + dy) * w.width + dx;
        T* __restrict to = target + y * w.out_width;
        for (std::int64_t x = x0; x < x1; ++x) to[x] += from[x];
    }
}

/// The same where both are kWidth wide, by a loop of fixed length: what a shift carries over the edge of a
/// row, from the row before or after, is multiplied by zero. The caller sees to it that such reads stay
/// inside of the array.
template <std::int64_t kWidth, class T>
void add_shifted_rows(const T* source, T* target, const Window& w, std::int64_t dy, std::int64_t dx) {
    const std::int64_t y0 = std::max<std::int64_t>(0, -dy), y1 = std::min(w.out_height, w.height - dy);
    T inside[kWidth];
    for (std::int64_t x = 0; x < kWidth; ++x) inside[x] = x + dx >= 0 && x + dx < kWidth ? T(1) : T(0);
    for (std::int64_t y = y0; y < y1; ++y) {
        const T* __restrict from = source + (y + dy) * kWidth + dx;
        T* __restrict to = target + y * kWidth;
        for (std::int64_t x = 0; x < kWidth; ++x) to[x] += from[x] * inside[x];
    }
}

template <class T>
using Add = void (*)(const T* source, T* target, const Window& w, std::int64_t dy, std::int64_t dx);

template <class T>
Add<T> add_for(const Window& w) {
    if (w.width == w.out_width) {
        if (w.width == 4) return add_shifted_rows<4, T>;
        if (w.width == 8) return add_shifted_rows<8, T>;
        if (w.width == 16) return add_shifted_rows<16, T>;
        if (w.width == 32) return add_shifted_rows<32, T>;
    }
    return add_shifted<T>;
}

template <class T>
void sum_rows(const T* pixels, T* out, const Window& w, std::int64_t begin, std::int64_t end) {
    const std::int64_t space = w.height * w.width, positions = w.out_height * w.out_width;
    const Add<T> add_inside = add_for<T>(w);
    for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t sample = row / positions, y = row % positions / w.out_width, x = row % w.out_width;
        T* target = out + row * positions;
        std::fill(target, target + positions, T(0));
        for (std::int64_t ky = 0; ky < w.kernel_y; ++ky) {
            const std::int64_t dy = ky * w.dilation_y - w.pad_y;
            if (y + dy < 0 || y + dy >= w.height) continue;
            for (std::int64_t kx = 0; kx < w.kernel_x; ++kx) {
                const std::int64_t dx = kx * w.dilation_x - w.pad_x;
                if (x + dx < 0 || x + dx >= w.width) continue;
                const std::int64_t pixel = (y + dy) * w.width + x + dx;
                const bool at_an_end = pixel == 0 || pixel == space - 1;  // there the array may begin or end
                const Add<T> add = at_an_end ? add_shifted<T> : add_inside;
                add(pixels + (sample * space + pixel) * space, target, w, dy, dx);
            }
        }
    }
}

}  // namespace

#define SAAL_JOIN(a, b) a##b
#define SAAL_NAME(isa) SAAL_JOIN(diagonal_table_, isa)
#define SAAL_TEXT2(isa) #isa
#define SAAL_TEXT(isa) SAAL_TEXT2(isa)
extern const DiagonalTable SAAL_NAME(SAAL_ISA);
const DiagonalTable SAAL_NAME(SAAL_ISA) = {SAAL_TEXT(SAAL_ISA), &sum_rows<float>, &sum_rows<double>};

}  // namespace saal
