// See diagonal_sums_kernels.h. CMake compiles this file once per instruction set. Include no header with
// inline code here: the linker could choose a copy of it that only newer CPUs can run.
#include "conv/diagonal_sums_kernels.h"

namespace saal {
namespace {

struct Range {
    std::int64_t begin, end;
};

/// The positions of an output of `out_size` that read inside of an input of `size`, `shift` further on.
Range inside(std::int64_t out_size, std::int64_t size, std::int64_t shift) {
    return {shift < 0 ? -shift : 0, out_size < size - shift ? out_size : size - shift};
}

/// Adds `source` [height, width], shifted by (dy, dx), to `target` [out_height, out_width].
template <class T>
void add_shifted(const T* source, T* target, const Window& w, std::int64_t dy, std::int64_t dx) {
    const Range rows = inside(w.out_height, w.height, dy), columns = inside(w.out_width, w.width, dx);
    for (std::int64_t y = rows.begin; y < rows.end; ++y) {
        const T* __restrict from = source + (y + dy) * w.width + dx;
        T* __restrict to = target + y * w.out_width;
        for (std::int64_t x = columns.begin; x < columns.end; ++x) to[x] += from[x];
    }
}

/// The same where both are kWidth wide, by a loop of fixed length. A shift carries numbers over the edge of a
/// row, from the row before or after; they are multiplied by zero. The caller keeps such reads within the
/// array.
template <std::int64_t kWidth, class T>
void add_shifted_rows(const T* source, T* target, const Window& w, std::int64_t dy, std::int64_t dx) {
    const Range rows = inside(w.out_height, w.height, dy);
    T mask[kWidth];
    for (std::int64_t x = 0; x < kWidth; ++x) mask[x] = x + dx >= 0 && x + dx < kWidth ? T(1) : T(0);
    for (std::int64_t y = rows.begin; y < rows.end; ++y) {
        const T* __restrict from = source + (y + dy) * kWidth + dx;
        T* __restrict to = target + y * kWidth;
        for (std::int64_t x = 0; x < kWidth; ++x) to[x] += from[x] * mask[x];
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
        for (std::int64_t i = 0; i < positions; ++i) target[i] = T(0);
        for (std::int64_t ky = 0; ky < w.kernel_y; ++ky) {
            const std::int64_t dy = ky * w.dilation_y - w.pad_y;
            if (y + dy < 0 || y + dy >= w.height) continue;
            for (std::int64_t kx = 0; kx < w.kernel_x; ++kx) {
                const std::int64_t dx = kx * w.dilation_x - w.pad_x;
                if (x + dx < 0 || x + dx >= w.width) continue;
                const std::int64_t pixel = (y + dy) * w.width + x + dx;
                const bool at_an_end = pixel == 0 || pixel == space - 1;  // the array may begin or end there
                const Add<T> add = at_an_end ? add_shifted<T> : add_inside;
                add(pixels + (sample * space + pixel) * space, target, w, dy, dx);
            }
        }
    }
}

}  // namespace

SAAL_DEFINE_TABLE(DiagonalTable, diagonal_table, sum_rows<float>, sum_rows<double>);

}  // namespace saal
