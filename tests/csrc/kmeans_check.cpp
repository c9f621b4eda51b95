// Runs the C++ core ("core") or the CUDA kernels on host threads ("kernels") over the cases on standard
// input, and writes the rows chosen. The tests build it with sanitizers. A case: int64 is_double, rows, dim,
// k, argmax, algorithm, columns of the left factor; k doubles, the first uniforms; the left factor's values;
// rows * dim values. Its answer: k int64.
#include "cuda_on_host.h"
// (the kernels need the names above)
#include <cstring>
#include <iostream>
#include <limits>
#include <string>

#include "cuda/kmeans_kernels.cuh"
#include "kmeans.h"
#include "kmeans_host.h"

namespace {

/// What kmeans_cuda.cu does around the same `enqueue_draws`, on host memory.
template <class T>
std::vector<std::int64_t> with_kernels(const saal::Matrix<T>& x, std::int64_t k, saal::First first,
                                       const std::vector<double>& uniforms) {
    constexpr double kNaN =
        std::numeric_limits<double>::quiet_NaN();  // whoever reads it before writing is caught
    saal::Problem<T> problem{};
    problem.x = x.data;
    problem.rows = x.rows;
    problem.dim = x.dim;
    problem.row_stride = x.row_stride;
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(k));
    std::vector<double> weights(static_cast<std::size_t>(x.rows), kNaN);
    std::vector<double> blocks(static_cast<std::size_t>(problem.blocks()), kNaN);
    std::vector<double> groups(static_cast<std::size_t>(problem.groups()), kNaN);
    problem.uniforms = uniforms.data();
    problem.chosen = chosen.data();
    problem.weights = weights.data();
    problem.block_sums = blocks.data();
    problem.group_sums = groups.data();
    const auto launch = [](auto kernel, std::int64_t grid, auto... arguments) {
        on_host::launch(kernel, grid, arguments...);
    };

    launch(saal::distance_kernel<T>, problem.blocks(), problem, static_cast<const std::int64_t*>(nullptr),
           true);
    const auto largest = saal::check_norms(weights.data(), x.rows, [&](std::int64_t row) {
        return std::vector<T>(x.data + row * x.dim, x.data + (row + 1) * x.dim);
    });
    chosen[0] = first == saal::First::kArgmax ? largest : saal::uniform_index(uniforms[0], x.rows);
    saal::enqueue_draws(problem, 1, k, launch);
    for (std::size_t t = 0; t < chosen.size(); ++t)
        if (chosen[t] == saal::kNoWeightLeft) {
            saal::fill_unchosen(chosen, t, x.rows, uniforms);
            break;
        }
    return chosen;
}

template <class V>
bool read(std::vector<V>& values) {
    const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(V));
    return static_cast<bool>(std::cin.read(reinterpret_cast<char*>(values.data()), bytes));
}

template <class T>
bool answer(bool kernels, const std::vector<std::int64_t>& head) {
    std::vector<double> uniforms(static_cast<std::size_t>(head[3]));
    std::vector<T> left(static_cast<std::size_t>(head[1] * head[6]));
    std::vector<T> values(static_cast<std::size_t>(head[1] * head[2]));
    if (!read(uniforms) || !read(left) || !read(values)) return false;
    const saal::Matrix<T> x{values.data(), head[1], head[2], head[2]};
    const auto first = head[4] != 0 ? saal::First::kArgmax : saal::First::kRandom;
    std::vector<std::int64_t> rows;
    if (kernels) {
        rows = with_kernels(x, head[3], first, uniforms);
    } else {
        saal::Options options;
        options.k = head[3];
        options.first = first;
        options.algorithm = static_cast<saal::Algorithm>(head[5]);
        options.uniforms = {0, uniforms.data(), head[3]};
        options.threads = 3;
        options.potential = true;
        rows = saal::kmeans_plusplus(saal::Rows<T>{x, {left.data(), head[1], head[6], head[6]}, nullptr},
                                     options)
                   .rows;
    }
    std::cout.write(reinterpret_cast<const char*>(rows.data()),
                    static_cast<std::streamsize>(rows.size() * sizeof(rows[0])));
    return true;
}

}  // namespace

int main(int count, char** arguments) {
    const bool kernels = count == 2 && std::strcmp(arguments[1], "kernels") == 0;
    std::vector<std::int64_t> head(7);
    while (read(head))
        if (!(head[0] != 0 ? answer<double>(kernels, head) : answer<float>(kernels, head))) {
            std::cerr << "a case breaks off\n";
            return 2;
        }
    return std::cout.flush() ? 0 : 1;
}
