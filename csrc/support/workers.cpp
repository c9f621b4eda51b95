#include "support/workers.h"

#include <algorithm>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>
#endif

namespace saal {
namespace {

/// What GCC's OpenMP runtime and LLVM's both offer.
struct OpenMp {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;
    int (*in_parallel)() = nullptr;
    long process = -1;  // its threads don't follow into a fork
};

OpenMp openmp;

#if defined(__linux__)

int collect(dl_phdr_info* info, std::size_t /*size*/, void* to) {
    const std::string path = info->dlpi_name == nullptr ? "" : info->dlpi_name;
    const std::string name = path.substr(path.rfind('/') + 1);
    for (const char* runtime : {"libgomp", "libomp", "libiomp5"})
        if (name.rfind(runtime, 0) == 0) static_cast<std::vector<std::string>*>(to)->push_back(path);
    return 0;
}

template <class Function>
bool find(void* library, const char* name, Function& to) {
    to = reinterpret_cast<Function>(dlsym(library, name));
    return to != nullptr;
}

bool load(const std::string& path) {
    void* const library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    OpenMp found;
    if (library == nullptr || !find(library, "GOMP_parallel", found.parallel) ||
        !find(library, "omp_get_thread_num", found.thread) ||
        !find(library, "omp_get_num_threads", found.threads) ||
        !find(library, "omp_in_parallel", found.in_parallel))
        return false;
    found.process = getpid();
    openmp = found;
    return true;
}

bool usable() {
    return openmp.parallel != nullptr && openmp.process == getpid() && openmp.in_parallel() == 0;
}

#else

bool usable() {
    return false;
}

#endif

struct Shares {
    std::int64_t count, size;
    const std::function<void(std::int64_t, std::int64_t)>& work;
};

void serve(void* given) {
    const Shares& shares = *static_cast<const Shares*>(given);
    const std::int64_t threads = openmp.threads();
    for (std::int64_t part = openmp.thread(); part < shares.size; part += threads) {
        const std::int64_t begin = shares.count * part / shares.size;
        const std::int64_t end = shares.count * (part + 1) / shares.size;
        if (begin < end) shares.work(begin, end);
    }
}

}  // namespace

bool use_openmp_of([[maybe_unused]] const std::string& folder) {
#if defined(__linux__)
    std::vector<std::string> loaded;
    dl_iterate_phdr(collect, &loaded);
    for (const std::string& path : loaded)
        if (path.rfind(folder, 0) == 0) return load(path);
    return loaded.size() == 1 && load(loaded.front());
#else
    return false;
#endif
}

Workers::Workers(int size) : size_(std::max(size, 1)) {
    if (size_ > 1 && !usable()) team_.emplace(size_);
}

void Workers::run(std::int64_t count, const std::function<void(std::int64_t, std::int64_t)>& work) {
    if (team_.has_value()) return team_->run(count, work);
    if (size_ == 1) {
        if (count > 0) work(0, count);
        return;
    }
    Shares shares{count, size_, work};
    openmp.parallel(serve, &shares, 0, 0);  // 0: of as many threads as torch uses, which are there already
}

}  // namespace saal
