// Large pages for large arrays: to look up the addresses of many small pages takes a good part of
// the time of a pass over memory. Where the system gives large pages to those who ask (Linux's
// usual setting), this asks.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace lrbench {

constexpr std::size_t kLargePage = 2 << 20;  // bytes

// For memory that is not used yet: the whole large pages in it.
inline void prefer_large_pages(void* memory, std::size_t bytes) {
  const std::uintptr_t at = std::uintptr_t(memory);
  const std::uintptr_t begin = (at + kLargePage - 1) / kLargePage * kLargePage,
                       end = (at + bytes) / kLargePage * kLargePage;
  // It is advice: without large pages, all works as well.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

// Zeros for many arrays side by side, so that they have no small pages at their ends. They take no
// memory until they are used.
class Region {
 public:
  explicit Region(std::size_t bytes) : bytes_(bytes + 2 * kLargePage) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    prefer_large_pages(memory_, bytes_);
    next_ = (std::uintptr_t(memory_) + kLargePage - 1) / kLargePage * kLargePage;
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { munmap(memory_, bytes_); }

  // The next so many bytes, aligned to a cache line: as many in all as the region was made for.
  void* take(std::size_t bytes) {
    void* const taken = reinterpret_cast<void*>(next_);
    next_ += rounded(bytes);
    return taken;
  }
  static std::size_t rounded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  std::size_t bytes_;
  void* memory_;
  std::uintptr_t next_;
};

}  // namespace lrbench
