// The Gram matrix of convolution patches from that of pixels: sums along diagonals, one for each offset of
// the kernel. Compiled once per instruction set (diagonal_sums.cpp), chosen at run time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace saal {

/// A convolution over images of height x width, stride 1. `pad_*` zeros stand before the first row and
/// column.
struct Window {
    std::int64_t height, width;          // of the images
    std::int64_t out_height, out_width;  // of the convolution's output: T = out_height * out_width positions
    std::int64_t kernel_y, kernel_x, pad_y, pad_x, dilation_y, dilation_x;
};

/// out[n, t, t'] = Σ_k pixels[n, t + k, t' + k] over the kernel's offsets k, with zeros outside of the
/// images. pixels [batch, S, S] with S = height * width, out [batch, T, T]; both contiguous. `isa` "" is the
/// fastest one.
template <class T>
void diagonal_sums(const T* pixels, T* out, std::int64_t batch, const Window& window, int threads,
                   const std::string& isa);

template <class T>
using DiagonalSums = void (*)(const T* pixels, T* out, const Window& window, std::int64_t begin,
                              std::int64_t end);

/// The functions of one instruction set, each over output rows [begin, end) of [batch * T].
struct DiagonalTable {
    const char* isa;
    DiagonalSums<float> f32;
    DiagonalSums<double> f64;
};

extern const DiagonalTable diagonal_table_baseline;
extern const DiagonalTable diagonal_table_avx2;    // linked only where built: SAAL_HAVE_AVX2
extern const DiagonalTable diagonal_table_avx512;  // SAAL_HAVE_AVX512

}  // namespace saal
