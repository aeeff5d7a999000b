// What this core can do, for tools/bench_layers to compare the layers with.
#include <chrono>

#include "vec.h"

extern "C" {

// Float multiply-adds in a second of one thread, the best of a few short runs.
double lrbench_peak() {
  using Clock = std::chrono::steady_clock;
  constexpr int kSteps = 200000;
  double best = 0;
  for (int run = 0; run < 20; run++) {
    const lrbench::Vec half = lrbench::set1(0.5f);
    lrbench::Vec a = half, b = half, c = half, d = half, e = half, f = half, g = half, h = half,
                 i = half, j = half;
    const auto began = Clock::now();
    for (int step = 0; step < kSteps; step++) {
      for (lrbench::Vec* v : {&a, &b, &c, &d, &e, &f, &g, &h, &i, &j})
        *v = lrbench::fma(*v, half, half);
      // Or the compiler would see that all are the same.
      __asm__ volatile(""
                       : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h),
                         "+x"(i), "+x"(j));
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    const double rate = 10.0 * lrbench::kLanes * kSteps / seconds;
    if (rate > best) best = rate;
  }
  return best;
}

}  // extern "C"
