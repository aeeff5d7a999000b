// What this core can do: for tools/bench_layers to compare the layers with, and to find out whether
// its wide vectors are worth it.
#include <algorithm>
#include <chrono>

#include "vec.h"

namespace lrbench {
namespace {

inline __m256 half_of(__m256) { return _mm256_set1_ps(0.5f); }
inline __m256 multiply_add(__m256 a, __m256 b) { return _mm256_fmadd_ps(a, b, b); }
#ifdef __AVX512F__
inline __m512 half_of(__m512) { return _mm512_set1_ps(0.5f); }
inline __m512 multiply_add(__m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, b); }
#endif

// Float multiply-adds in a second, of a short run.
template <class V>
double rate(int steps) {
  using Clock = std::chrono::steady_clock;
  const V half = half_of(V());
  V a = half, b = half, c = half, d = half, e = half, f = half, g = half, h = half, i = half,
    j = half;
  const auto began = Clock::now();
  for (int step = 0; step < steps; step++) {
    for (V* v : {&a, &b, &c, &d, &e, &f, &g, &h, &i, &j}) *v = multiply_add(*v, half);
    // Or the compiler would see that all are the same.
    __asm__ volatile(""
                     : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h),
                       "+v"(i), "+v"(j));
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  return 10.0 * (sizeof(V) / sizeof(float)) * steps / seconds;
}

}  // namespace
}  // namespace lrbench

extern "C" {

// Float multiply-adds in a second of one thread, the best of a few short runs.
double lrbench_peak() {
  double best = 0;
  for (int run = 0; run < 20; run++) best = std::max(best, lrbench::rate<lrbench::Vec>(200000));
  return best;
}

// Whether this library's vectors are faster than those of 256 bits (1). A CPU with one wide unit,
// or which splits wide operations, is as fast with both; one with two is almost twice as fast.
int lrbench_width_pays() {
  if (!lrbench::kWide) return 1;
  double wide = 0, narrow = 0;
  for (int run = 0; run < 40; run++) {
    wide = std::max(wide, lrbench::rate<lrbench::Vec>(5000));
    narrow = std::max(narrow, lrbench::rate<__m256>(5000));
  }
  return wide > 1.25 * narrow;
}

}  // extern "C"
