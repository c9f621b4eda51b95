// Memory for vector registers.
#pragma once

#include <cstdint>
#include <new>
#include <utility>

namespace saal {

/// Memory aligned to cache lines, not initialised.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    /// Throws std::bad_alloc where there is no memory for `size` numbers.
    explicit Buffer(std::int64_t size) {
        if (size < 0 || static_cast<std::size_t>(size) > kMost) throw std::bad_alloc();
        data_ = static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), kAlign));
    }
    Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() {
        if (data_ != nullptr) ::operator delete(data_, kAlign);
    }
    T* get() const { return data_; }

  private:
    static constexpr std::align_val_t kAlign{64};
    static constexpr std::size_t kMost = PTRDIFF_MAX / sizeof(T);
    T* data_ = nullptr;
};

}  // namespace saal
