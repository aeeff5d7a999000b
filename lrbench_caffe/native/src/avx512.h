// Sixteen floats at a time: the operations of vec.h with AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "pieces.h"

namespace lrbench {

using Vec = __m512;
constexpr int kLanes = 16;

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec set1(float value) { return _mm512_set1_ps(value); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec sqrt(Vec v) { return _mm512_sqrt_ps(v); }
// The second operand where one of them is NaN, or both are zeros.
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec either(Vec a, Vec b) { return _mm512_or_ps(a, b); }  // bit by bit
// a * b + c in one rounding.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

// Some of the lanes.
using Mask = __mmask16;
// The first `count` lanes; none for less than one, all for sixteen and more.
inline Mask lane_mask(int count) {
  return count >= kLanes ? 0xffff : count <= 0 ? 0 : Mask((1u << count) - 1);
}
// The lanes [first, last).
inline Mask lane_range(int first, int last) { return lane_mask(last) & ~lane_mask(first); }
inline Mask either(Mask a, Mask b) { return a | b; }
inline Mask greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Mask no_greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
inline Mask even_lanes() { return 0x5555; }
inline Mask both(Mask a, Mask b) { return a & b; }
// Zero outside of the mask, and within it.
inline Vec keep(Vec v, Mask mask) { return _mm512_maskz_mov_ps(mask, v); }
inline Vec drop(Vec v, Mask mask) { return _mm512_maskz_mov_ps(Mask(~mask), v); }
// b within the mask, a outside of it.
inline Vec select(Vec a, Vec b, Mask mask) { return _mm512_mask_mov_ps(a, mask, b); }
inline void store(float* p, Vec v, Mask mask) { _mm512_mask_storeu_ps(p, mask, v); }
inline Vec load(const float* p, Mask mask) { return _mm512_maskz_loadu_ps(mask, p); }
// `v` where the mask is not set; there it must be zero where it is.
inline Vec load_more(Vec v, const float* p, Mask mask) { return _mm512_mask_loadu_ps(v, mask, p); }
// The first `count` lanes, all for 16 and more; the others are zero.
inline Vec load_first(const float* p, int count) {
  return count >= kLanes ? load(p) : load(p, lane_mask(count));
}
// Stores the first `count` lanes, all for 16 and more.
inline void store_first(float* p, Vec v, int count) {
  if (count >= kLanes) return store(p, v);
  _mm512_mask_storeu_ps(p, lane_mask(count), v);
}

// Sixteen whole numbers.
using Ints = __m512i;
inline Ints ints(int value) { return _mm512_set1_epi32(value); }
// 0, step, 2 * step, ...
inline Ints steps(int step) {
  const Ints lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_mullo_epi32(lanes, ints(step));
}
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints min(Ints a, Ints b) { return _mm512_min_epi32(a, b); }
inline Ints select(Ints a, Ints b, Mask mask) { return _mm512_mask_mov_epi32(a, mask, b); }
inline Vec floats(Ints v) { return _mm512_cvtepi32_ps(v); }
// Whole numbers as floats to the bits of ints.
inline Vec bits_of_ints(Vec v) { return _mm512_castsi512_ps(_mm512_cvttps_epi32(v)); }
inline void store_first(int* p, Ints v, int count) {
  _mm512_mask_storeu_epi32(p, lane_mask(count), v);
}

// A vector of two pieces of eight lanes, which may lie apart: rows of fewer than sixteen pixels
// fill vectors, too.
constexpr int kPieces = 2;
inline Vec load_pieces(const float* const* from, std::ptrdiff_t offset) {
  const Vec low = _mm512_castps256_ps512(_mm256_loadu_ps(from[0] + offset));
  return _mm512_insertf32x8(low, _mm256_loadu_ps(from[1] + offset), 1);
}
template <int Index>
inline Piece piece(Vec v) {
  return Index == 0 ? _mm512_castps512_ps256(v) : _mm512_extractf32x8_ps(v, 1);
}
// Of the 32 floats of two vectors, the first (or the second) of each pair.
template <int Which>
inline Vec every_second(Vec a, Vec b) {
  const Ints even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(Which)), b);
}
// Lanes of both in turn: a0, b0, a1, b1, ...; the first half of them, and the second.
inline Vec interleave_low(Vec a, Vec b) {
  const Ints turns = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return _mm512_permutex2var_ps(a, turns, b);
}
inline Vec interleave_high(Vec a, Vec b) {
  const Ints turns =
      _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return _mm512_permutex2var_ps(a, turns, b);
}

// Floats at these distances.
inline Vec gather(const float* p, Ints distance) { return _mm512_i32gather_ps(distance, p, 4); }

// Within each four lanes, four rows of four floats are transposed.
inline void transpose_fours(Vec& r0, Vec& r1, Vec& r2, Vec& r3) {
  const Vec a0 = _mm512_unpacklo_ps(r0, r1), a1 = _mm512_unpackhi_ps(r0, r1);
  const Vec a2 = _mm512_unpacklo_ps(r2, r3), a3 = _mm512_unpackhi_ps(r2, r3);
  r0 = _mm512_shuffle_ps(a0, a2, 0x44), r1 = _mm512_shuffle_ps(a0, a2, 0xee);
  r2 = _mm512_shuffle_ps(a1, a3, 0x44), r3 = _mm512_shuffle_ps(a1, a3, 0xee);
}

// The first `count` columns of sixteen rows, N = 8 or 16 at most, to vectors of a column each. All
// columns of eight rows come first: of images, the rows are often a multiple of 4 KB apart, and the
// first-level cache has room for twelve of those.
template <int N>
inline void load_columns(const float* const* rows, std::ptrdiff_t offset, int count, Vec (&v)[N]) {
  for (int i = 0; i < 8; i++) {
    const float* const low = rows[i / 4 * 8 + i % 4] + offset;
    const float* const high = rows[i / 4 * 8 + i % 4 + 4] + offset;
    for (int j = 0; j < N; j += 8) {
      const Piece a = load_piece_first(low + j, count - j),
                  b = load_piece_first(high + j, count - j);
      v[j + i] = _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
    }
  }
  for (int j = 0; j < N; j += 8) {
    transpose_fours(v[j], v[j + 1], v[j + 2], v[j + 3]);
    transpose_fours(v[j + 4], v[j + 5], v[j + 6], v[j + 7]);
    for (int i = j; i < j + 4; i++) {
      const Vec low = v[i], high = v[i + 4];
      v[i] = _mm512_shuffle_f32x4(low, high, 0x88);
      v[i + 4] = _mm512_shuffle_f32x4(low, high, 0xdd);
    }
  }
}
// The way back, of the first `used` rows. The vectors are lost.
template <int N>
inline void store_columns(Vec (&v)[N], float* const* rows, std::ptrdiff_t offset, int count,
                          int used) {
  const Ints low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23),
             high = _mm512_add_epi32(low, ints(8));
  for (int j = 0; j < N; j += 8) {
    for (int i = j; i < j + 4; i++) {
      const Vec a = v[i], b = v[i + 4];
      v[i] = _mm512_permutex2var_ps(a, low, b);
      v[i + 4] = _mm512_permutex2var_ps(a, high, b);
    }
    transpose_fours(v[j], v[j + 1], v[j + 2], v[j + 3]);
    transpose_fours(v[j + 4], v[j + 5], v[j + 6], v[j + 7]);
  }
  if (N == 16 && count >= 16 && used == 16) {
    for (int i = 0; i < 8; i++) {
      const int row = i / 4 * 8 + i % 4;
      store(rows[row] + offset, _mm512_shuffle_f32x4(v[i], v[i + N - 8], 0x44));
      store(rows[row + 4] + offset, _mm512_shuffle_f32x4(v[i], v[i + N - 8], 0xee));
    }
    return;
  }
  for (int i = 0; i < 8; i++) {
    const int row = i / 4 * 8 + i % 4;
    for (int j = 0; j < N; j += 8) {
      if (row < used) store_piece_first(rows[row] + offset + j, piece<0>(v[j + i]), count - j);
    }
    for (int j = 0; j < N; j += 8) {
      if (row + 4 < used)
        store_piece_first(rows[row + 4] + offset + j, piece<1>(v[j + i]), count - j);
    }
  }
}

// The sum of the lanes, always in the same order.
inline float sum(Vec v) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

}  // namespace lrbench
