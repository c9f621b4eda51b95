// The inner loops of diagonal sums; compiled once per instruction set with SAAL_ISA its name.
#include <algorithm>

#include "diagonal_sums.h"

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

template <class T>
void sum_rows(const T* pixels, T* out, const Window& w, std::int64_t begin, std::int64_t end) {
    const std::int64_t space = w.height * w.width, positions = w.out_height * w.out_width;
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
                const T* source = pixels + (sample * space + (y + dy) * w.width + x + dx) * space;
                add_shifted(source, target, w, dy, dx);
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
