// Products of matrices by themselves, against plain sums in double precision, on random sizes:
// product_test SIZES SEED
#include "product.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "drawing.h"

namespace {

struct Size {
  int m, n, k;
  bool turn_a, turn_b, add;
};

Size draw_size() {
  return {draw(1, 70),     draw(1, 200),    draw(1, draw(0, 3) ? 90 : 1300),
          draw(0, 1) == 1, draw(0, 1) == 1, draw(0, 1) == 1};
}

// The largest difference, relative to the largest value.
double try_size(const Size& s) {
  const std::vector<float> a = draw_floats(std::size_t(s.m) * s.k),
                           b = draw_floats(std::size_t(s.k) * s.n);
  std::vector<float> c = draw_floats(std::size_t(s.m) * s.n);
  std::vector<double> should(c.size());
  double largest = 1e-30;
  for (int i = 0; i < s.m; i++) {
    for (int j = 0; j < s.n; j++) {
      double& sum = should[std::size_t(i) * s.n + j];
      sum = s.add ? c[std::size_t(i) * s.n + j] : 0;
      for (int l = 0; l < s.k; l++) {
        sum += double(a[s.turn_a ? std::size_t(l) * s.m + i : std::size_t(i) * s.k + l]) *
               b[s.turn_b ? std::size_t(j) * s.k + l : std::size_t(l) * s.n + j];
      }
      largest = std::max(largest, std::fabs(sum));
    }
  }
  if (!s.add) std::fill(c.begin(), c.end(), NAN);
  lrbench::product(s.m, s.n, s.k, lrbench::LeftMatrix{a.data(), s.turn_a ? s.m : s.k, s.turn_a},
                   lrbench::RightMatrix{b.data(), s.turn_b ? s.k : s.n, s.turn_b},
                   lrbench::ResultMatrix{c.data(), s.n, s.add});
  double difference = 0;
  for (std::size_t i = 0; i < c.size(); i++) {
    const double d = std::fabs(c[i] - should[i]);
    if (!(d <= difference)) difference = d;  // NaN, too
  }
  return difference / largest;
}

}  // namespace

int main(int argc, char** argv) {
  const int sizes = argc > 1 ? std::atoi(argv[1]) : 500;
  random_bits.seed(argc > 2 ? std::atoi(argv[2]) : 1);
  double worst = 0;
  for (int i = 0; i < sizes; i++) {
    const Size s = draw_size();
    const double d = try_size(s);
    if (!(d <= 5e-6)) {
      std::printf("%d x %d by %d x %d, turned %d and %d, added %d: difference %g\n", s.m, s.k, s.k,
                  s.n, s.turn_a, s.turn_b, s.add, d);
      return 1;
    }
    worst = std::max(worst, d);
  }
  std::printf("%d sizes, worst difference %.2g\n", sizes, worst);
  return 0;
}
