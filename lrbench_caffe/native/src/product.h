// Products of matrices, c = a * b or c += a * b, from panels that are packed for it (Goto and van
// de Geijn 2008, Van Zee and van de Geijn 2015).
//
// The innermost loop (panel_product) keeps a tile of c in registers: R rows by V vectors. Each of
// its steps loads V vectors of b, broadcasts R numbers of a and does V * R multiply-adds. So that
// it reads both in order, a is packed into panels of R rows, step by step, and b into panels of V
// vectors. Around it, the sums are cut into blocks of steps and the columns of b into blocks: those
// panels of b stay in the second-level cache while all of a goes by, one panel at a time in the
// first-level cache. Whoever wants a product says how panels are packed and where tiles go, so that
// neither operand has to exist as a matrix: a convolution's columns, for example, do not.
//
// Sums run in a fixed order that depends on the sizes only, so that equal calls give equal bits.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "convolution_tiles.h"
#include "vec.h"

namespace lrbench {

// ---------------------------------------------------------------------------------------------------------
// The innermost loop.

struct PanelTask {
  const float* a;
  std::ptrdiff_t a_row, a_step;  // between rows and between steps: 1 and R of a packed panel
  const float* b;                // of each step V vectors
  std::ptrdiff_t b_stride;       // between steps
  int steps;
  float* c;
  std::ptrdiff_t c_stride;  // between rows
  bool add;                 // to what c has
  const float* start;       // R numbers to add to the rows, or null
};

// An address for every three rows: with the distance of two, they are in the registers.
template <int V, int R, std::size_t... A, std::size_t... X, std::size_t... P>
inline __attribute__((always_inline)) void panel_product_with(const PanelTask& task,
                                                              std::index_sequence<A...>,
                                                              std::index_sequence<X...>,
                                                              std::index_sequence<P...>) {
  Vec sums[V * R];
  ((sums[A] = zero()), ...);
  const std::ptrdiff_t a_row = task.a_row, a_step = task.a_step;
  const float* a[sizeof...(P)] = {(task.a + 3 * std::ptrdiff_t(P) * a_row)...};
  const float* b = task.b;
  const std::ptrdiff_t b_stride = task.b_stride, c_stride = task.c_stride;
  float* const c = task.c;
  if (task.steps > 32)
    (__builtin_prefetch(c + c_stride * std::ptrdiff_t(A / V) + A % V * kLanes, 1), ...);
  for (int k = task.steps; k > 0; k--, b += b_stride) {
    const Vec x[V] = {load(b + X * kLanes)...};
    ((sums[A] = fma(broadcast(a[A / V / 3] + A / V % 3 * a_row), x[A % V], sums[A])), ...);
    ((a[P] += a_step), ...);
  }
  if (task.start != nullptr) ((sums[A] = add(sums[A], broadcast(task.start + A / V))), ...);
  float* const to[V * R] = {(c + c_stride * std::ptrdiff_t(A / V) + A % V * kLanes)...};
  if (task.add) ((sums[A] = add(sums[A], load(to[A]))), ...);
  (store(to[A], sums[A]), ...);
}

template <int V, int R>
void panel_product(const PanelTask& task) {
  panel_product_with<V, R>(task, std::make_index_sequence<V * R>(), std::make_index_sequence<V>(),
                           std::make_index_sequence<(R + 2) / 3>());
}

using PanelFunction = void (*)(const PanelTask&);

// A panel of b has at most two vectors. AVX2 has sixteen registers, AVX-512 has 32.
constexpr int kPanelVectors = 2, kPanelLanes = kPanelVectors * kLanes;
constexpr int kPanelRows = kWide ? 14 : 6;

template <int V, std::size_t... R>
PanelFunction panel_function_of(int rows, std::index_sequence<R...>) {
  static constexpr PanelFunction functions[] = {panel_product<V, int(R) + 1>...};
  return functions[rows - 1];
}

// For tiles of 1 to kPanelRows rows and 1 or 2 vectors.
inline PanelFunction panel_function(int vectors, int rows) {
  return vectors == 1 ? panel_function_of<1>(rows, std::make_index_sequence<kPanelRows>())
                      : panel_function_of<2>(rows, std::make_index_sequence<kPanelRows>());
}

// ---------------------------------------------------------------------------------------------------------
// Packing. Panels are `width` numbers for each step, one step after the other; a pack may write up
// to a vector beyond its panel.

// Of rows whose steps lie side by side, `stride` apart from each other: a transpose. Lanes from
// `rows` to `width` become zero.
inline void pack_turned(const float* from, std::ptrdiff_t stride, int rows, int steps, float* to,
                        int width) {
  int k = 0;
  for (; k + kPiece <= steps; k += kPiece) {
    for (int first = 0; first < width; first += kPiece) {
      // The last eight rows overlap the eight before them; of fewer than eight, what is written
      // beyond a step is overwritten by the next one.
      const int row = std::max(0, std::min(first, width - kPiece));
      Piece lines[kPiece];
      for (int i = 0; i < kPiece; i++)
        lines[i] = row + i < rows ? load_piece(from + (row + i) * stride + k) : Piece();
      transpose(lines);
      for (int i = 0; i < kPiece; i++)
        store_piece(to + std::ptrdiff_t(k + i) * width + row, lines[i]);
    }
  }
  for (; k < steps; k++) {
    for (int row = 0; row < width; row++)
      to[std::ptrdiff_t(k) * width + row] = row < rows ? from[row * stride + k] : 0.f;
  }
}

// Of steps whose rows lie side by side: a copy.
inline void pack_straight(const float* from, std::ptrdiff_t stride, int rows, int steps, float* to,
                          int width) {
  for (int k = 0; k < steps; k++, from += stride, to += width) {
    for (int row = 0; row < width; row += kLanes)
      store(to + row, load_first(from + row, rows - row));
  }
}

// ---------------------------------------------------------------------------------------------------------
// The loops around it.

// What a thread's products use one after the other, so that it stays in the caches.
inline float* panel_memory(std::size_t count) {
  thread_local Buffer buffer;
  thread_local std::size_t size = 0;
  if (size < count) {
    buffer.resize(count);
    size = count;
  }
  return buffer.data();
}

constexpr int kBlockSteps = 320;  // at most, in a block

// Of packed b, in a block, about: half of the second-level cache. Results do not depend on it.
inline int block_floats() {
  static const int floats = [] {
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE) / 2;
    return int(std::min(1L << 20, std::max(128L << 10, bytes)) / long(sizeof(float)));
  }();
  return floats;
}

// The product of m x k by k x n numbers.
//
// left.pack(row, rows, step, steps, to): a panel of `rows` rows of a.
// right.pack(column, columns, step, steps, to): columns of b as panels of kPanelLanes lanes one
// after
//     the other, zeros in lanes without a column.
// result.row_stride(): between rows of c.
// result.place(row, column, lanes): where a tile with so many columns is, if they lie side by side;
//     else null, and
// result.put(row, rows, column, columns, tile, add) is called: rows of a tile are kPanelLanes
// apart. result.start(row): for each row from there on what it begins with, or null for zeros.
// result.adds(): whether c += a * b.
template <class Left, class Right, class Result>
void product(int m, int n, int k, const Left& left, const Right& right, const Result& result) {
  const std::vector<int> row_panels = even_split(m, kPanelRows);
  const std::vector<int> step_blocks = even_split(k, kBlockSteps);
  const int most_steps = step_blocks[0];
  const int block_panels = std::max(1, block_floats() / (most_steps * kPanelLanes));
  const std::vector<int> column_blocks = even_split(ceil_div(n, kPanelLanes), block_panels);
  const std::size_t b_floats = std::size_t(most_steps) * column_blocks[0] * kPanelLanes + kLanes;
  float* const packed_b = panel_memory(b_floats + std::size_t(most_steps) * kPanelRows + kLanes +
                                       kPanelRows * kPanelLanes);
  float* const tile = packed_b + b_floats;  // for what cannot be written where it belongs
  float* const packed_a = tile + kPanelRows * kPanelLanes;
  PanelTask task;
  task.a = packed_a;
  task.a_row = 1;
  task.b_stride = kPanelLanes;
  int first_column = 0;
  for (int panels : column_blocks) {
    const int columns = std::min(panels * kPanelLanes, n - first_column);
    int step = 0;
    for (int steps : step_blocks) {
      right.pack(first_column, columns, step, steps, packed_b);
      task.steps = steps;
      const bool add = step > 0 || result.adds();
      int row = 0;
      for (int rows : row_panels) {
        left.pack(row, rows, step, steps, packed_a);
        task.a_step = rows;
        task.start = step > 0 ? nullptr : result.start(row);
        for (int panel = 0; panel < panels; panel++) {
          const int column = panel * kPanelLanes, lanes = std::min(kPanelLanes, columns - column);
          const int vectors = ceil_div(lanes, kLanes);
          float* const place = result.place(row, first_column + column, lanes);
          const bool direct = place != nullptr && lanes == vectors * kLanes;
          task.b = packed_b + std::size_t(panel) * steps * kPanelLanes;
          task.c = direct ? place : tile;
          task.c_stride = direct ? result.row_stride() : kPanelLanes;
          task.add = direct && add;
          panel_function(vectors, rows)(task);
          if (!direct) result.put(row, rows, first_column + column, lanes, tile, add);
        }
        row += rows;
      }
      step += steps;
    }
    first_column += columns;
  }
}

// ---------------------------------------------------------------------------------------------------------
// Plain matrices, lying row by row or, `turned`, column by column.

struct LeftMatrix {
  const float* data;
  std::ptrdiff_t stride;  // between rows, or columns
  bool turned;

  void pack(int row, int rows, int step, int steps, float* to) const {
    turned ? pack_straight(data + step * stride + row, stride, rows, steps, to, rows)
           : pack_turned(data + row * stride + step, stride, rows, steps, to, rows);
  }
};

struct RightMatrix {
  const float* data;
  std::ptrdiff_t stride;
  bool turned;

  void pack(int column, int columns, int step, int steps, float* to) const {
    const std::size_t panel = std::size_t(steps) * kPanelLanes;
    if (turned) {
      for (int i = 0; i < columns; i += kPanelLanes, to += panel) {
        pack_turned(data + (column + i) * stride + step, stride, std::min(kPanelLanes, columns - i),
                    steps, to, kPanelLanes);
      }
      return;
    }
    for (int k = 0; k < steps; k++) {  // row by row, as they lie in the memory
      const float* const from = data + (step + k) * stride + column;
      float* line = to + std::size_t(k) * kPanelLanes;
      for (int i = 0; i < columns; i += kPanelLanes, line += panel) {
        for (int j = 0; j < kPanelLanes; j += kLanes)
          store(line + j, load_first(from + i + j, columns - i - j));
      }
    }
  }
};

struct ResultMatrix {
  float* data;
  std::ptrdiff_t stride;
  bool add;

  std::ptrdiff_t row_stride() const { return stride; }
  bool adds() const { return add; }
  const float* start(int) const { return nullptr; }
  float* place(int row, int column, int) const { return data + row * stride + column; }
  void put(int row, int rows, int column, int columns, const float* tile, bool add_tile) const {
    for (int i = 0; i < rows; i++)
      put_row(tile + i * kPanelLanes, columns, place(row + i, column, columns), add_tile);
  }

  // Numbers of a tile to where they belong.
  static void put_row(const float* from, int count, float* to, bool add_row) {
    for (int j = 0; j < count; j += kLanes) {
      const Vec v = load(from + j);
      store_first(to + j, add_row ? lrbench::add(v, load_first(to + j, count - j)) : v, count - j);
    }
  }
};

// ---------------------------------------------------------------------------------------------------------
// c = a * b for a few rows of a and a large b, both with their steps side by side: c's numbers are
// dot products, whose lanes are steps. b is read once, as it lies, and not packed.

constexpr int kFewRows = kWide ? 8 : 4, kFewColumns = kWide ? 3 : 2;  // of a tile

struct DotTask {
  const float *a, *b;
  std::ptrdiff_t a_stride, b_stride;  // between rows of a, and columns of b
  int steps;
  float* sums;  // R x C; added to
};

// One row of a's part of a step.
template <int C, std::size_t... X>
inline __attribute__((always_inline)) void dot_row(Vec a, const Vec* b, Vec* sums,
                                                   std::index_sequence<X...>) {
  a = in_register(a);
  ((sums[X] = fma(a, b[X], sums[X])), ...);
}

template <int R, int C, std::size_t... A, std::size_t... Y, std::size_t... X>
inline __attribute__((always_inline)) void dot_products_with(const DotTask& task,
                                                             std::index_sequence<A...>,
                                                             std::index_sequence<Y...>,
                                                             std::index_sequence<X...> columns) {
  Vec sums[R * C];
  ((sums[A] = zero()), ...);
  const std::ptrdiff_t a_stride = task.a_stride, b_stride = task.b_stride;
  int k = 0;
  for (; k + kLanes <= task.steps; k += kLanes) {
    const float *a = task.a + k, *b = task.b + k;
    // The next tile's columns, which are the next ones in memory.
    (__builtin_prefetch(b + (C + std::ptrdiff_t(X)) * b_stride), ...);
    const Vec y[C] = {load(b + std::ptrdiff_t(X) * b_stride)...};
    (dot_row<C>(load(a + std::ptrdiff_t(Y) * a_stride), y, sums + Y * C, columns), ...);
  }
  if (k < task.steps) {
    const Mask mask = lane_mask(task.steps - k);
    const float *a = task.a + k, *b = task.b + k;
    const Vec y[C] = {load(b + std::ptrdiff_t(X) * b_stride, mask)...};
    (dot_row<C>(load(a + std::ptrdiff_t(Y) * a_stride, mask), y, sums + Y * C, columns), ...);
  }
  ((task.sums[A] += sum(sums[A])), ...);
}

template <int R, int C>
void dot_products(const DotTask& task) {
  dot_products_with<R, C>(task, std::make_index_sequence<R * C>(), std::make_index_sequence<R>(),
                          std::make_index_sequence<C>());
}

using DotFunction = void (*)(const DotTask&);

template <int C, std::size_t... R>
DotFunction dot_function_of(int rows, std::index_sequence<R...>) {
  static constexpr DotFunction functions[] = {dot_products<int(R) + 1, C>...};
  return functions[rows - 1];
}

inline DotFunction dot_function(int rows, int columns) {
  return columns == kFewColumns
             ? dot_function_of<kFewColumns>(rows, std::make_index_sequence<kFewRows>())
             : dot_function_of<1>(rows, std::make_index_sequence<kFewRows>());
}

// `start`: a number for each column, or null. Columns of c lie side by side.
inline void product_of_few_rows(int m, int n, int k, const float* a, std::ptrdiff_t a_stride,
                                const float* b, std::ptrdiff_t b_stride, const float* start,
                                float* c, std::ptrdiff_t c_stride) {
  for (int i = 0; i < m; i++) {
    for (int j = 0; j < n; j++) c[i * c_stride + j] = start != nullptr ? start[j] : 0.f;
  }
  DotTask task{};
  task.a_stride = a_stride;
  task.b_stride = b_stride;
  int step = 0;
  for (int steps :
       even_split(k, std::max(256, 8192 / m))) {  // a's block is to stay in the first-level cache
    task.steps = steps;
    for (int column = 0; column < n;) {
      const int columns = n - column >= kFewColumns ? kFewColumns : 1;
      task.b = b + column * b_stride + step;
      int row = 0;
      for (int rows : even_split(m, kFewRows)) {
        float sums[kFewRows * kFewColumns] = {};
        task.a = a + row * a_stride + step;
        task.sums = sums;
        dot_function(rows, columns)(task);
        for (int i = 0; i < rows * columns; i++)
          c[(row + i / columns) * c_stride + column + i % columns] += sums[i];
        row += rows;
      }
      column += columns;
    }
    step += steps;
  }
}

}  // namespace lrbench
