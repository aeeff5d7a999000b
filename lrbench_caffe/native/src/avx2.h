// Eight floats at a time: the operations of vec.h with AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstring>

#include "pieces.h"

namespace lrbench {

using Vec = __m256;
constexpr int kLanes = 8;

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec set1(float value) { return _mm256_set1_ps(value); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec sqrt(Vec v) { return _mm256_sqrt_ps(v); }
// The second operand where one of them is NaN, or both are zeros.
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec either(Vec a, Vec b) { return _mm256_or_ps(a, b); }  // bit by bit
// a * b + c in one rounding.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

// Some of the lanes.
using Mask = __m256i;
inline Mask lane_mask(int count) { return piece_mask(count); }
// The lanes [first, last).
inline Mask lane_range(int first, int last) {
  return _mm256_andnot_si256(lane_mask(first), lane_mask(last));
}
inline Mask either(Mask a, Mask b) { return _mm256_or_si256(a, b); }
inline Mask greater(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
inline Mask less(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
inline Mask no_greater(Vec a, Vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LE_OQ));
}
inline Mask even_lanes() { return _mm256_setr_epi32(-1, 0, -1, 0, -1, 0, -1, 0); }
inline Mask both(Mask a, Mask b) { return _mm256_and_si256(a, b); }
// Zero outside of the mask, and within it.
inline Vec keep(Vec v, Mask mask) { return _mm256_and_ps(v, _mm256_castsi256_ps(mask)); }
inline Vec drop(Vec v, Mask mask) { return _mm256_andnot_ps(_mm256_castsi256_ps(mask), v); }
// b within the mask, a outside of it.
inline Vec select(Vec a, Vec b, Mask mask) {
  return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(mask));
}
inline void store(float* p, Vec v, Mask mask) { _mm256_maskstore_ps(p, mask, v); }
inline Vec load(const float* p, Mask mask) { return _mm256_maskload_ps(p, mask); }
// `v` where the mask is not set; there it must be zero where it is.
inline Vec load_more(Vec v, const float* p, Mask mask) { return _mm256_or_ps(v, load(p, mask)); }
inline Vec load_first(const float* p, int count) { return load_piece_first(p, count); }
inline void store_first(float* p, Vec v, int count) { store_piece_first(p, v, count); }

// Eight whole numbers.
using Ints = __m256i;
inline Ints ints(int value) { return _mm256_set1_epi32(value); }
// 0, step, 2 * step, ...
inline Ints steps(int step) {
  return _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), ints(step));
}
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints min(Ints a, Ints b) { return _mm256_min_epi32(a, b); }
inline Ints select(Ints a, Ints b, Mask mask) { return _mm256_blendv_epi8(a, b, mask); }
inline Vec floats(Ints v) { return _mm256_cvtepi32_ps(v); }
// Whole numbers as floats to the bits of ints.
inline Vec bits_of_ints(Vec v) { return _mm256_castsi256_ps(_mm256_cvttps_epi32(v)); }
inline void store_first(int* p, Ints v, int count) {
  if (count >= kLanes)
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);  // may alias anything
  int values[kLanes];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(values), v);
  if (count > 0) std::memcpy(p, values, sizeof(int) * count);
}

// A vector is one piece of eight lanes here; see avx512.h.
constexpr int kPieces = 1;
inline Vec load_pieces(const float* const* from, std::ptrdiff_t offset) {
  return load(from[0] + offset);
}
template <int>
inline Piece piece(Vec v) {
  return v;
}

// Of the sixteen floats of two vectors, the first (or the second) of each pair.
template <int Which>
inline Vec every_second(Vec a, Vec b) {
  const Vec mixed = _mm256_shuffle_ps(a, b, Which == 0 ? 0x88 : 0xdd);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
// Lanes of both in turn: a0, b0, a1, b1, ...; the first half of them, and the second.
inline Vec interleave_low(Vec a, Vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
inline Vec interleave_high(Vec a, Vec b) {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}

// Floats at these distances.
inline Vec gather(const float* p, Ints distance) { return _mm256_i32gather_ps(p, distance, 4); }

// The first `count` columns of eight rows, eight at most, to vectors of a column each.
inline void load_columns(const float* const* rows, std::ptrdiff_t offset, int count, Vec (&v)[8]) {
  for (int i = 0; i < 8; i++) v[i] = load_piece_first(rows[i] + offset, count);
  transpose(v);
}
// The way back, of the first `used` rows. The vectors are lost.
inline void store_columns(Vec (&v)[8], float* const* rows, std::ptrdiff_t offset, int count,
                          int used) {
  transpose(v);
  for (int i = 0; i < used; i++) store_piece_first(rows[i] + offset, v[i], count);
}

// The sum of the lanes, always in the same order.
inline float sum(Vec v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

}  // namespace lrbench
