// Random numbers of the tests of single kernels.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

namespace {

std::mt19937 random_bits;

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_bits); }

// On the heap and of the exact size, for AddressSanitizer to see every step beyond it.
std::vector<float> draw_floats(std::size_t count) {
  std::uniform_real_distribution<float> value(-1, 1);
  std::vector<float> values(count);
  for (float& v : values) v = value(random_bits);
  return values;
}

}  // namespace
