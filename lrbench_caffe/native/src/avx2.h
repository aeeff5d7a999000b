// Eight floats at a time: the operations of vec.h with AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstring>

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
// a * b + c in one rounding.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

// Some of the lanes.
using Mask = __m256i;
// The first `count` lanes; none for less than one, all for eight and more.
inline Mask lane_mask(int count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}
inline Mask greater(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
inline Mask less(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
inline Mask no_greater(Vec a, Vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LE_OQ));
}
inline Mask both(Mask a, Mask b) { return _mm256_and_si256(a, b); }
// Zero outside of the mask, and within it.
inline Vec keep(Vec v, Mask mask) { return _mm256_and_ps(v, _mm256_castsi256_ps(mask)); }
inline Vec drop(Vec v, Mask mask) { return _mm256_andnot_ps(_mm256_castsi256_ps(mask), v); }
// b within the mask, a outside of it.
inline Vec select(Vec a, Vec b, Mask mask) {
  return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(mask));
}
inline Vec load(const float* p, Mask mask) { return _mm256_maskload_ps(p, mask); }
// The first `count` lanes, all for 8 and more; the others are zero.
inline Vec load_first(const float* p, int count) {
  return count >= kLanes ? load(p) : load(p, lane_mask(count));
}
// Stores the first `count` lanes, all for 8 and more. (A masked store takes a dozen cycles on some
// CPUs.)
inline void store_first(float* p, Vec v, int count) {
  if (count >= kLanes) return store(p, v);
  __m128 rest = _mm256_castps256_ps128(v);
  if (count & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (count & 1) _mm_store_ss(p, rest);
}

// Eight whole numbers.
using Ints = __m256i;
inline Ints ints(int value) { return _mm256_set1_epi32(value); }
// 0, step, 2 * step, ...
inline Ints steps(int step) {
  return _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), ints(step));
}
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints select(Ints a, Ints b, Mask mask) { return _mm256_blendv_epi8(a, b, mask); }
inline Vec floats(Ints v) { return _mm256_cvtepi32_ps(v); }
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
inline __m256 piece(Vec v) {
  return v;
}
inline void store_piece_first(float* p, __m256 v, int count) { store_first(p, v, count); }

// The first, third, ... of sixteen floats.
inline Vec every_second(const float* p) {
  const Vec mixed = _mm256_shuffle_ps(load(p), load(p + kLanes), 0x88);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}

// The sum of the lanes, always in the same order.
inline float sum(Vec v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

// Transposes eight rows of eight floats in registers.
inline void transpose(Vec (&r)[8]) {
  const Vec a0 = _mm256_unpacklo_ps(r[0], r[1]), a1 = _mm256_unpackhi_ps(r[0], r[1]);
  const Vec a2 = _mm256_unpacklo_ps(r[2], r[3]), a3 = _mm256_unpackhi_ps(r[2], r[3]);
  const Vec a4 = _mm256_unpacklo_ps(r[4], r[5]), a5 = _mm256_unpackhi_ps(r[4], r[5]);
  const Vec a6 = _mm256_unpacklo_ps(r[6], r[7]), a7 = _mm256_unpackhi_ps(r[6], r[7]);
  const Vec b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
  const Vec b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
  const Vec b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
  const Vec b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
  r[0] = _mm256_permute2f128_ps(b0, b4, 0x20);
  r[1] = _mm256_permute2f128_ps(b1, b5, 0x20);
  r[2] = _mm256_permute2f128_ps(b2, b6, 0x20);
  r[3] = _mm256_permute2f128_ps(b3, b7, 0x20);
  r[4] = _mm256_permute2f128_ps(b0, b4, 0x31);
  r[5] = _mm256_permute2f128_ps(b1, b5, 0x31);
  r[6] = _mm256_permute2f128_ps(b2, b6, 0x31);
  r[7] = _mm256_permute2f128_ps(b3, b7, 0x31);
}

}  // namespace lrbench
