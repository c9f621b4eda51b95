#include "conv/depthwise.h"

#include <algorithm>
#include <stdexcept>

#include "support/isa.h"
#include "support/limits.h"
#include "support/workers.h"

namespace saal {
namespace {

template <class T>
const DepthwiseKernels<T>& kernels_for(const std::string& isa) {
    return of_type<T>(find_table<DepthwiseTable>(SAAL_BUILT_TABLES(depthwise_table), isa));
}

std::int64_t taps(const Depthwise& layer) {
    return layer.kernel[0] * layer.kernel[1];
}

Workers workers_for(std::int64_t count, const Depthwise& layer, int threads) {
    const double work = static_cast<double>(count) * static_cast<double>(layer.out_height) *
                        static_cast<double>(layer.out_width) * static_cast<double>(layer.channels) *
                        static_cast<double>(taps(layer));
    return Workers(useful_threads(work, threads));
}

void check(const Depthwise& d) {
    if (!depthwise_fits(d.kernel[1]))
        throw std::invalid_argument("expected a kernel of width 1 to 5, 7, 9 or 11, got " +
                                    std::to_string(d.kernel[1]));
    for (int side = 0; side < 2; ++side) {
        const double reach = static_cast<double>(side == 0 ? d.out_height : d.out_width) *
                                 static_cast<double>(d.stride[side]) +
                             static_cast<double>(d.kernel[side]) * static_cast<double>(d.dilation[side]) +
                             static_cast<double>(d.before[side]);
        if (d.kernel[side] < 1 || d.stride[side] < 1 || d.dilation[side] < 1 || d.before[side] < 0 ||
            !(reach < kMostNumbers))
            throw std::invalid_argument(
                "expected kernel, stride and dilation > 0, padding >= 0, that fit memory");
    }
}

}  // namespace

bool depthwise_fits(std::int64_t kernel_width) {
    return (kernel_width >= 1 && kernel_width <= 5) || kernel_width == 7 || kernel_width == 9 ||
           kernel_width == 11;
}

template <class T>
void depthwise_apply(const T* x, const T* weight, std::int64_t count, const Depthwise& layer, int threads,
                     const std::string& isa, T* out) {
    check(layer);
    const DepthwiseKernels<T>& kernels = kernels_for<T>(isa);
    const std::int64_t in = layer.height * layer.width * layer.channels;
    const std::int64_t to = layer.out_height * layer.out_width * layer.channels;
    workers_for(count, layer, threads).run(count, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n)
            kernels.apply(x + n * in, weight + n * taps(layer) * layer.channels, layer, out + n * to);
    });
}

template <class T>
void depthwise_gradient(const T* x, const T* g, std::int64_t count, const Depthwise& layer, int threads,
                        const std::string& isa, T* gradient) {
    check(layer);
    const DepthwiseKernels<T>& kernels = kernels_for<T>(isa);
    const std::int64_t in = layer.height * layer.width * layer.channels;
    const std::int64_t out = layer.out_height * layer.out_width * layer.channels;
    const std::int64_t size = taps(layer) * layer.channels;
    workers_for(count, layer, threads).run(count, [&](std::int64_t begin, std::int64_t end) {
        std::fill(gradient + begin * size, gradient + end * size, T{0});
        for (std::int64_t n = begin; n < end; ++n)
            kernels.gradient(x + n * in, g + n * out, layer, gradient + n * size);
    });
}

#define SAAL_INSTANTIATE(T)                                                                      \
    template void depthwise_apply<T>(const T*, const T*, std::int64_t, const Depthwise&, int,    \
                                     const std::string&, T*);                                    \
    template void depthwise_gradient<T>(const T*, const T*, std::int64_t, const Depthwise&, int, \
                                        const std::string&, T*)
SAAL_INSTANTIATE(float);
SAAL_INSTANTIATE(double);
#undef SAAL_INSTANTIATE

}  // namespace saal
