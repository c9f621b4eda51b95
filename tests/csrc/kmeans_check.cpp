// Runs the C++ core ("core") or the CUDA kernels on host threads ("kernels") over the cases on standard
// input, and writes the rows chosen. The tests build it with sanitizers. "kernels FILE LINE" leaves out the
// __syncthreads of that line. A case: int64 is_double, rows, dim, k, argmax, algorithm, columns of the left
// factor, refresh_every, uniforms, weights, initial rows; then uniforms, weights (none, or one a row) and
// initial rows; the left factor's values; rows * dim values. Its answer: k int64, and the potential.
#include "cuda_on_host.h"
// (the kernels need the names above)
#include <cstring>
#include <iostream>
#include <limits>
#include <string>

#include "cuda/kmeans_search.h"
#include "kmeans/kmeans.h"

namespace {

/// The device that `DeviceSearch` is given: host memory, and kernels on host threads.
struct HostThreads {
    template <class Kernel, class... Arguments>
    void launch(Kernel kernel, std::int64_t grid, int threads, Arguments... arguments) {
        on_host::launch(kernel, grid, threads, arguments...);
    }
    template <class V>
    void upload(V* there, const V* here, std::int64_t count) {
        std::copy(here, here + count, there);
    }
    template <class V>
    void download(V* here, const V* there, std::int64_t count) {
        std::copy(there, there + count, here);
    }
    template <class V>
    void download_rows(V* here, const V* there, std::int64_t rows, std::int64_t numbers,
                       std::int64_t stride) {
        for (std::int64_t row = 0; row < rows; ++row)
            download(here + row * numbers, there + row * stride, numbers);
    }
};

/// The search of cuda/kmeans.cu, on host memory.
template <class T>
saal::Seeding with_kernels(const saal::Rows<T>& x, const saal::Options& options) {
    const std::int64_t bytes = saal::workspace_bytes(
        x, options.k, static_cast<std::int64_t>(options.initial.size()), options.weights != nullptr);
    // of NaN, which shows in the result where a kernel reads before it writes
    std::vector<double> workspace(static_cast<std::size_t>(bytes) / sizeof(double),
                                  std::numeric_limits<double>::quiet_NaN());
    HostThreads device;
    return saal::DeviceSearch<T, HostThreads>(device, x, options, workspace.data()).run();
}

template <class V>
bool read(std::vector<V>& values) {
    const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(V));
    return static_cast<bool>(std::cin.read(reinterpret_cast<char*>(values.data()), bytes));
}

template <class V>
void write(const V* values, std::size_t count) {
    std::cout.write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(count * sizeof(V)));
}

template <class T>
bool answer(bool kernels, const std::vector<std::int64_t>& head) {
    const auto sized = [&](std::size_t at) { return static_cast<std::size_t>(head[at]); };
    std::vector<double> uniforms(sized(8)), weights(sized(9));
    std::vector<std::int64_t> initial(sized(10));
    std::vector<T> left(sized(1) * sized(6));
    std::vector<T> values(sized(1) * sized(2));
    if (!read(uniforms) || !read(weights) || !read(initial) || !read(left) || !read(values)) return false;
    const saal::Rows<T> x{
        {values.data(), head[1], head[2], head[2]}, {left.data(), head[1], head[6], head[6]}, nullptr};
    saal::Options options;
    options.k = head[3];
    options.first = head[4] != 0 ? saal::First::kArgmax : saal::First::kRandom;
    options.algorithm = static_cast<saal::Algorithm>(head[5]);
    options.uniforms = {0, uniforms.data(), head[8]};
    options.refresh_every = head[7];
    if (!weights.empty()) options.weights = weights.data();
    options.initial = initial;
    options.threads = 3;
    options.potential = true;
    const saal::Seeding seeding = kernels ? with_kernels(x, options) : saal::kmeans_plusplus(x, options);
    write(seeding.rows.data(), seeding.rows.size());
    write(&seeding.info.potential, 1);
    return true;
}

}  // namespace

int main(int count, char** arguments) {
    const bool kernels = count >= 2 && std::strcmp(arguments[1], "kernels") == 0;
    if (count == 4) {
        on_host::without_file = arguments[2];
        on_host::without_line = std::stoi(arguments[3]);
    }
    std::vector<std::int64_t> head(11);
    try {
        while (read(head))
            if (!(head[0] != 0 ? answer<double>(kernels, head) : answer<float>(kernels, head))) {
                std::cerr << "a case breaks off\n";
                return 2;
            }
    } catch (const std::invalid_argument& error) {
        std::cerr << error.what() << "\n";
        return 3;
    }
    return std::cout.flush() ? 0 : 1;
}
