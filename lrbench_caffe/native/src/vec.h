// The few vector operations that the kernels need, under readable names: eight or sixteen floats at
// a time. The library is compiled once for each width; nothing else in it depends on the width.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "pages.h"

#ifdef __AVX512F__
#include "avx512.h"
#else
#include "avx2.h"
#endif

namespace lrbench {

constexpr int kPiece = kLanes / kPieces;  // lanes
static_assert(kPiece == 8, "pieces are of eight lanes, whatever the width");

constexpr bool kWide = kPieces > 1;  // AVX-512

// The same value, which the compiler then has in a register. It would read a value that is in
// memory anew for each of two or three uses.
inline Vec in_register(Vec v) {
  asm("" : "+v"(v));
  return v;
}

// The first, third, ... of two vectors' floats.
inline Vec every_second(const float* p) { return every_second<0>(load(p), load(p + kLanes)); }

inline Vec only_where_positive(Vec x, Vec v) { return keep(v, greater(x, zero())); }

// Floats, aligned to a cache line and zero at first.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t count) { resize(count); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  ~Buffer() { std::free(data_); }

  // New contents, all zero.
  void resize(std::size_t count) {
    std::free(data_);
    const std::size_t bytes = (count * sizeof(float) + 63) / 64 * 64 + 64;
    data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    prefer_large_pages(data_, bytes);
    __builtin_memset(data_, 0, bytes);
  }
  float* data() { return data_; }
  const float* data() const { return data_; }

 private:
  float* data_ = nullptr;
};

}  // namespace lrbench
