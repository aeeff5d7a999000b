// The inner loops of all convolutions: sums of products that stay in registers, by tiles of V x O
// vectors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "vec.h"

namespace lrbench {

inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// `count` things in pieces of at most `most`, as equal as can be: sizes, the larger ones first.
inline std::vector<int> even_split(int count, int most) {
  const int pieces = ceil_div(count, most);
  std::vector<int> sizes(pieces, count / pieces);
  for (int i = 0; i < count % pieces; i++) sizes[i]++;
  return sizes;
}

// Lanes are pixels (or images).

// What a tile writes, and where from.
struct TileTask {
  const float* source;
  const int* offset;       // of each term
  const float* weights;    // terms x O
  int first, last;         // terms
  const int* in;           // positions in the source, of each piece of V vectors
  const int* out;          // likewise, in an output plane
  float* output;           // of the tile's first output
  std::size_t out_stride;  // between outputs
  const int* out_offset;   // of each output, where they are added and not stored
  const float* start;      // O values, or null for zeros
  int lanes;               // of a piece, to store, where not all
};

enum class Put { kStore, kStoreFirst, kAdd };

// No element becomes less than `lowest`, zero for a ReLU. (The larger one of this and a NaN is the
// NaN.) For outputs that are in the cache.
constexpr float kNoLimit = -std::numeric_limits<float>::infinity();

inline void raise_to(float lowest, float* y, std::size_t count) {
  if (lowest == kNoLimit) return;
  const Vec low = set1(lowest);
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, max(low, load(y + i)));
  const int rest = int(count - i);
  store_first(y + i, max(low, load_first(y + i, rest)), rest);
}

inline void add_to(float* p, Vec v) { store(p, add(load(p), v)); }

// One vector's pieces, one after the other: they may overlap.
template <Put How, std::size_t... P>
inline void put_pieces(const TileTask& task, std::size_t output, const int* out, Vec v,
                       std::index_sequence<P...>) {
  if (How == Put::kStoreFirst) {
    (store_piece_first(task.output + task.out_stride * output + out[P], piece<int(P)>(v),
                       task.lanes),
     ...);
  } else if (How == Put::kStore) {
    (store_piece(task.output + task.out_stride * output + out[P], piece<int(P)>(v)), ...);
  } else {
    float* const to = task.output + task.out_offset[output];
    (store_piece(to + out[P], _mm256_add_ps(load_piece(to + out[P]), piece<int(P)>(v))), ...);
  }
}

// Constant indices throughout (the packs are expanded by the compiler's front end), so that the
// accumulators are registers. `Apart`: a vector's pieces do not lie side by side.
template <int V, int O, Put How, bool Apart, std::size_t... A, std::size_t... X, std::size_t... P>
inline __attribute__((always_inline)) void tile_with(const TileTask& task,
                                                     std::index_sequence<A...>,
                                                     std::index_sequence<X...>,
                                                     std::index_sequence<P...>) {
  Vec sums[V * O];
  ((sums[A] = task.start ? broadcast(task.start + A / V) : zero()), ...);
  const float* const base[V * kPieces] = {(task.source + task.in[P])...};
  const float* weights = task.weights + std::size_t(task.first) * O;
  for (int k = task.first; k < task.last; k++, weights += O) {
    const std::ptrdiff_t offset = task.offset[k];
    Vec x[V];
    ((x[X] = Apart ? load_pieces(base + X * kPieces, offset) : load(base[X * kPieces] + offset)),
     ...);
    ((sums[A] = fma(broadcast(weights + A / V), x[A % V], sums[A])), ...);
  }
  if (Apart) {
    (put_pieces<How>(task, A / V, task.out + A % V * kPieces, sums[A],
                     std::make_index_sequence<kPieces>()),
     ...);
  } else if (How == Put::kStoreFirst) {
    (store_first(task.output + task.out_stride * (A / V) + task.out[A % V], sums[A], task.lanes),
     ...);
  } else if (How == Put::kStore) {
    (store(task.output + task.out_stride * (A / V) + task.out[A % V * kPieces], sums[A]), ...);
  } else {
    (add_to(task.output + task.out_offset[A / V] + task.out[A % V * kPieces], sums[A]), ...);
  }
}

template <int V, int O, Put How, bool Apart>
void tile(const TileTask& task) {
  tile_with<V, O, How, Apart>(task, std::make_index_sequence<V * O>(),
                              std::make_index_sequence<V>(),
                              std::make_index_sequence<V * kPieces>());
}

using TileFunction = void (*)(const TileTask&);

// AVX2 has sixteen registers: four vectors, their twelve sums and a weight would be more. AVX-512
// has 32, and its multiply-adds read the weights from the memory.
constexpr int kMostVectors = 3, kMostSums = kWide ? 24 : 12;
constexpr int most_outputs(int vectors) {
  return vectors == 1 ? (kWide ? 12 : 8) : kMostSums / vectors;
}

template <int V, Put How, bool Apart, std::size_t... O>
TileFunction tile_of(int outputs, std::index_sequence<O...>) {
  static constexpr TileFunction functions[] = {tile<V, int(O) + 1, How, Apart>...};
  return functions[outputs - 1];
}

template <Put How, bool Apart = false>
TileFunction tile_function(int vectors, int outputs) {
  switch (vectors) {
    case 1:
      return tile_of<1, How, Apart>(outputs, std::make_index_sequence<most_outputs(1)>());
    case 2:
      return tile_of<2, How, Apart>(outputs, std::make_index_sequence<most_outputs(2)>());
    default:
      return tile_of<3, How, Apart>(outputs, std::make_index_sequence<most_outputs(3)>());
  }
}

// An estimate of a tile's cycles: two multiply-adds or loads in each (a vector that crosses cache
// lines is one and a half, of sixteen floats two), and in a step no less than the four that a
// multiply-add takes.
inline double tile_cycles(int terms, int vectors, int outputs, double put) {
  const double loads = (kWide ? 2 : 1.5) * vectors + outputs + 1;
  const double step = std::max({4.0, vectors * outputs / 2.0, loads / 2});
  return terms * step + put * vectors * outputs + 12;
}

// ---------------------------------------------------------------------------------------------------------
// The gradient of the weights: lanes are output channels.

struct GradientTask {
  const float* source;        // of the group's first image
  std::size_t source_stride;  // between images
  const float* gradient;      // transposed: pixels x padded channels, from the tile's first channel
  std::size_t gradient_stride;  // between images
  const int* offset;            // of the tile's terms
  int images, row0, row1, column0, column1, out_w, pitch, channels;
  float* sums;  // terms x padded channels; added to
};

template <int V, int T, std::size_t... A, std::size_t... X, std::size_t... Y>
inline __attribute__((always_inline)) void gradient_tile_with(const GradientTask& task,
                                                              std::index_sequence<A...>,
                                                              std::index_sequence<X...>,
                                                              std::index_sequence<Y...>) {
  Vec sums[V * T];
  ((sums[A] = zero()), ...);
  const std::ptrdiff_t channels = task.channels;
  for (int n = 0; n < task.images; n++) {
    const float* image = task.source + n * task.source_stride;
    for (int row = task.row0; row < task.row1; row++) {
      const float* gradient = task.gradient + n * task.gradient_stride +
                              (std::ptrdiff_t(row) * task.out_w + task.column0) * channels;
      const float* const start = image + std::ptrdiff_t(row) * task.pitch;
      const float* const x[T] = {(start + task.offset[Y])...};
      for (std::ptrdiff_t j = task.column0; j < task.column1; j++, gradient += channels) {
        Vec g[V];
        ((g[X] = load(gradient + X * kLanes)), ...);
        ((sums[A] = fma(broadcast(x[A / V] + j), g[A % V], sums[A])), ...);
      }
    }
  }
  // Added only now: many short sums round less than a long one.
  (add_to(task.sums + (A / V) * std::size_t(task.channels) + (A % V) * kLanes, sums[A]), ...);
}

template <int V, int T>
void gradient_tile(const GradientTask& task) {
  gradient_tile_with<V, T>(task, std::make_index_sequence<V * T>(), std::make_index_sequence<V>(),
                           std::make_index_sequence<T>());
}

using GradientFunction = void (*)(const GradientTask&);

constexpr int most_terms(int vectors) {
  if (kWide) return vectors == 3 ? 8 : 10;  // each term has an address, in one of sixteen registers
  return vectors == 1 ? 8 : 12 / vectors;
}

template <int V, std::size_t... T>
GradientFunction gradient_tile_of(int terms, std::index_sequence<T...>) {
  static constexpr GradientFunction functions[] = {gradient_tile<V, int(T) + 1>...};
  return functions[terms - 1];
}

inline GradientFunction gradient_function(int vectors, int terms) {
  switch (vectors) {
    case 1:
      return gradient_tile_of<1>(terms, std::make_index_sequence<most_terms(1)>());
    case 2:
      return gradient_tile_of<2>(terms, std::make_index_sequence<most_terms(2)>());
    default:
      return gradient_tile_of<3>(terms, std::make_index_sequence<most_terms(3)>());
  }
}

// Vectors of channels in threes, twos and ones; with three there are the fewest loads.
inline std::vector<int> channel_vectors(int vectors) {
  return even_split(vectors, vectors % 2 == 0 && vectors < 6 ? 2 : 3);
}

}  // namespace lrbench
