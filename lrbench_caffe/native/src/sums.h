// Passes over what belongs to one channel: `outer` runs of `inner` floats, `stride` apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "vec.h"

namespace lrbench {

// Reads and writes whole vectors, or the lanes of a mask; a value that is a vector already only
// gets masked, so that lanes without an element are zero in every sum.
struct Whole {
  Vec operator()(const float* p) const { return load(p); }
  Vec operator()(Vec v) const { return v; }
  void operator()(float* p, Vec v) const { store(p, v); }
};

struct Masked {
  int count;
  Mask mask;
  Vec operator()(const float* p) const { return load(p, mask); }
  Vec operator()(Vec v) const { return keep(v, mask); }
  void operator()(float* p, Vec v) const { store_first(p, v, count); }
};

struct Slices {
  int outer, inner;
  std::size_t stride;

  // visit(offset, get, put) for each vector.
  template <class Visit>
  void each(Visit visit) const {
    const int whole = inner / kLanes * kLanes;
    const Masked masked{inner - whole, lane_mask(inner - whole)};
    for (int n = 0; n < outer; n++) {
      const std::size_t start = n * stride;
      for (int i = 0; i < whole; i += kLanes) visit(start + i, Whole(), Whole());
      if (whole < inner) visit(start + whole, masked, masked);
    }
  }

  // The sum of what term(offset, get) gives. Each run is summed by itself, which keeps rounding
  // small.
  template <class Term>
  float sum(Term term) const {
    return two_sums([&](std::size_t at, auto get) { return std::make_pair(term(at, get), zero()); })
        .first;
  }

  // The same for two sums at once.
  template <class Term>
  std::pair<float, float> two_sums(Term term) const {
    const int whole = inner / kLanes * kLanes;
    const Masked masked{inner - whole, lane_mask(inner - whole)};
    Vec first = zero(), second = zero();
    for (int n = 0; n < outer; n++) {
      const std::size_t start = n * stride;
      Vec a[4] = {zero(), zero(), zero(), zero()}, b[4] = {zero(), zero(), zero(), zero()};
      const auto accumulate = [&](int lane, std::size_t at, auto get) {
        const auto terms = term(at, get);
        a[lane] = add(a[lane], terms.first);
        b[lane] = add(b[lane], terms.second);
      };
      int i = 0;
      for (; i + 4 * kLanes <= whole; i += 4 * kLanes) {
        accumulate(0, start + i, Whole());
        accumulate(1, start + i + kLanes, Whole());
        accumulate(2, start + i + 2 * kLanes, Whole());
        accumulate(3, start + i + 3 * kLanes, Whole());
      }
      for (; i < whole; i += kLanes) accumulate(0, start + i, Whole());
      if (whole < inner) accumulate(1, start + whole, masked);
      first = add(first, add(add(a[0], a[1]), add(a[2], a[3])));
      second = add(second, add(add(b[0], b[1]), add(b[2], b[3])));
    }
    return {lrbench::sum(first), lrbench::sum(second)};
  }

  // The mean and the variance of all. In blocks that stay in the first-level cache while they are
  // read twice: the deviations from a block's own mean are small. (Chan et al., 1979, for two
  // samples.)
  std::pair<float, float> mean_and_variance(const float* from) const {
    const int runs = std::max(1, kBlock / inner);
    double mean = 0, squares = 0, seen = 0;
    for (int n = 0; n < outer; n += runs) {
      for (int i = 0; i < inner; i += kBlock) {
        const Slices block = {std::min(runs, outer - n), std::min(kBlock, inner - i), stride};
        const float* const p = from + n * stride + i;
        const double count = double(block.outer) * block.inner;
        const float own = float(block.sum([&](auto at, auto get) { return get(p + at); }) / count);
        const float deviations = block.sum([&](auto at, auto get) {
          const Vec d = sub(get(p + at), get(set1(own)));
          return mul(d, d);
        });
        const double step = own - mean, all = seen + count;
        mean += step * count / all;
        squares += deviations + step * step * seen * count / all;
        seen = all;
      }
    }
    return {float(mean), float(squares / seen)};
  }

 private:
  static constexpr int kBlock = 2048;  // floats
};

}  // namespace lrbench
