// Pieces of vectors: eight floats at a time, whatever the width of the vectors.
#pragma once

#include <immintrin.h>

namespace lrbench {

using Piece = __m256;

inline Piece load_piece(const float* p) { return _mm256_loadu_ps(p); }
inline void store_piece(float* p, Piece v) { _mm256_storeu_ps(p, v); }
// The first `count` lanes; none for less than one, all for eight and more.
inline __m256i piece_mask(int count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}
// The first `count` lanes, all for 8 and more; the others are zero.
inline Piece load_piece_first(const float* p, int count) {
  return count >= 8 ? load_piece(p) : _mm256_maskload_ps(p, piece_mask(count));
}
// Stores the first `count` lanes, none for less than one, all for 8 and more. (AVX2's masked store
// takes a dozen cycles on some CPUs.)
inline void store_piece_first(float* p, Piece v, int count) {
  if (count >= 8) return store_piece(p, v);
  if (count <= 0) return;
#ifdef __AVX512VL__
  _mm256_mask_storeu_ps(p, __mmask8((1 << count) - 1), v);
#else
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
#endif
}

// Transposes eight rows of eight floats in registers.
inline void transpose(Piece (&r)[8]) {
  const Piece a0 = _mm256_unpacklo_ps(r[0], r[1]), a1 = _mm256_unpackhi_ps(r[0], r[1]);
  const Piece a2 = _mm256_unpacklo_ps(r[2], r[3]), a3 = _mm256_unpackhi_ps(r[2], r[3]);
  const Piece a4 = _mm256_unpacklo_ps(r[4], r[5]), a5 = _mm256_unpackhi_ps(r[4], r[5]);
  const Piece a6 = _mm256_unpacklo_ps(r[6], r[7]), a7 = _mm256_unpackhi_ps(r[6], r[7]);
  const Piece b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
  const Piece b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
  const Piece b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
  const Piece b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
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
