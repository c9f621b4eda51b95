// Vectors of as many numbers as a register holds, by the vector extensions of GCC and Clang. All functions
// have internal linkage: each instruction set has its own.
#pragma once

#include <cstdint>

#if !defined(__GNUC__)
#error "expected GCC or Clang: saal_fast needs their vector extensions"
#endif
#define SAAL_INLINE static inline __attribute__((always_inline))
#define SAAL_UNROLL _Pragma("GCC unroll 8")

namespace saal {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorRegisters = 16;
#endif

template <class T>
constexpr int kLanesOf = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float type __attribute__((vector_size(kVectorBytes)));
    typedef std::int32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
    typedef double type __attribute__((vector_size(kVectorBytes)));
    typedef std::int64_t bits __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
using Bits = typename VectorOf<T>::bits;

template <class T>
SAAL_INLINE Vector<T> load(const T* from) {
    Vector<T> v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class T>
SAAL_INLINE void store(T* to, const Vector<T>& v) {
    __builtin_memcpy(to, &v, sizeof v);
}

template <class T>
SAAL_INLINE Vector<T> zero() {
    return Vector<T>{};
}

template <class T>
SAAL_INLINE Vector<T> absolute(Vector<T> m) {
    return m < T{0} ? -m : m;
}

template <class T>
SAAL_INLINE Vector<T> sign(Vector<T> m) {
    const Vector<T> one = zero<T>() + T{1};
    return m > T{0} ? one : (m < T{0} ? -one : zero<T>());
}

/// x^q for x >= 0, q > 0, to about 3e-7 relative, as 2^(q log2 x): the exponent's whole part goes into the
/// bits.
SAAL_INLINE Vector<float> power(Vector<float> x, double q) {
    using V = Vector<float>;
    using B = Bits<float>;
    constexpr float kSmallest = 1.17549435e-38F;  // of the normal numbers
    const B subnormal = x < kSmallest;
    const V scaled = subnormal ? x * 16777216.0F : x;
    // x = 2^whole m, m in [√½, √2): log2 m by the series of artanh
    B whole = ((B)scaled >> 23) - 127 + (subnormal & -24);
    V m = (V)(((B)scaled & 0x7fffff) | 0x3f800000);
    const B large = m > 1.41421356F;
    m = large ? m * 0.5F : m;
    whole -= large;  // a true comparison is -1
    const V s = (m - 1.0F) / (m + 1.0F);
    const V z = s * s;
    const V log2m =
        s * (2.88539008F + z * (0.961796694F + z * (0.577078016F + z * (0.412198583F + z * 0.320598898F))));
    // q = high + low, high of 12 bits: high * whole is exact
    const float rounded = static_cast<float>(q);
    std::uint32_t bits;
    __builtin_memcpy(&bits, &rounded, sizeof bits);
    bits &= 0xfffff000U;
    float high;
    __builtin_memcpy(&high, &bits, sizeof high);
    const auto low = static_cast<float>(q - static_cast<double>(high));
    const V exact = high * __builtin_convertvector(whole, V);
    const V rest = low * __builtin_convertvector(whole, V) + rounded * log2m;
    V y = exact + rest;
    y = y > 252.0F ? zero<float>() + 252.0F : (y < -252.0F ? zero<float>() - 252.0F : y);
    const B power_of_two =
        __builtin_convertvector(y + (y < 0.0F ? zero<float>() - 0.5F : zero<float>() + 0.5F), B);
    V f = (exact - __builtin_convertvector(power_of_two, V)) + rest;
    f = f > 1.0F ? zero<float>() + 1.0F : (f < -1.0F ? zero<float>() - 1.0F : f);  // y was clamped
    f *= 0.693147181F;
    constexpr float k3 = 1.0F / 6, k4 = 1.0F / 24, k5 = 1.0F / 120, k6 = 1.0F / 720, k7 = 1.0F / 5040;
    const V exponential = 1.0F + f * (1.0F + f * (0.5F + f * (k3 + f * (k4 + f * (k5 + f * (k6 + f * k7))))));
    const B half = power_of_two >> 1;
    const V result = exponential * (V)((half + 127) << 23) * (V)((power_of_two - half + 127) << 23);
    return x > 0.0F && x < __builtin_inff() ? result : x;  // 0, inf and NaN as they are
}

/// x^q for x >= 0, q > 0.
SAAL_INLINE Vector<double> power(Vector<double> x, double q) {
    for (int lane = 0; lane < kLanesOf<double>; ++lane) x[lane] = __builtin_pow(x[lane], q);
    return x;
}

}  // namespace
}  // namespace saal
