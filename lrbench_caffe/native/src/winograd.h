// Winograd's convolution (Lavin and Gray 2015): 5 x 5 and 3 x 3 kernels with stride 1, by fewer
// multiplications.
//
// An output tile of M x M pixels is computed from 6 x 6 values of each channel, M = 2 for R = 5 and
// M = 4 for R = 3. With d a tile of the image and g a kernel,
//
//     output = At [ sum over channels of (G g Gt) * (Bt d B) ] A        (* element by element)
//
// takes 36 multiplications a channel in place of 100 and 144. The matrices are those of the points
// 0, 1, -1, 2, -1/2 and infinity, which keep rounding about that of the direct sum (with -2 for
// -1/2 it is three times more). The 36 sums over channels are products of matrices, done by the
// tiles of convolution_tiles.h. The gradient of the data is the same with the kernel turned round;
// that of the weights is the transpose of every step:
//
//     dg = Gt [ sum over tiles and images of (A dy At) * (Bt d B) ] G
//
// There are two arrangements of these steps, winograd_images.h and winograd_channels.h.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "convolution_tiles.h"

namespace lrbench {

constexpr int kTile = 6, kValues = kTile * kTile;

inline Vec times(float factor, Vec v, Vec to) { return fma(set1(factor), v, to); }

// The transforms of one line of a tile, with a step between its elements.

// v = Bt d
inline void transform_image(const Vec* d, Vec* v, int step) {
  const Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step],
            d5 = d[5 * step];
  const Vec even = times(-1.5f, d3, sub(d4, d2)), odd = times(-1.5f, d2, sub(d3, d1));
  const Vec wide = sub(d4, d2), narrow = sub(d3, d1);
  v[0] = add(even, times(1.5f, d1, sub(d0, d2)));
  v[step] = add(even, odd);
  v[2 * step] = sub(even, odd);
  v[3 * step] = times(0.5f, narrow, wide);
  v[4 * step] = times(-2, narrow, wide);
  v[5 * step] = sub(times(-1.5f, d4, sub(d5, d3)), odd);
}

// y = At m, M values; m and y have steps of their own.
template <int M>
inline void transform_output(const Vec* m, int m_step, Vec* y, int y_step) {
  const Vec m1 = m[m_step], m2 = m[2 * m_step], m3 = m[3 * m_step], m4 = m[4 * m_step],
            m5 = m[5 * m_step];
  const Vec plus = add(m1, m2), minus = sub(m1, m2);
  y[0] = add(add(m[0], plus), add(m3, m4));
  const Vec first = times(-0.5f, m4, times(2, m3, minus));
  if (M == 2) {
    y[y_step] = add(first, m5);
  } else {
    y[y_step] = first;
    y[2 * y_step] = times(0.25f, m4, times(4, m3, plus));
    y[3 * y_step] = add(times(-0.125f, m4, times(8, m3, minus)), m5);
  }
}

// m = A y, from M values
template <int M>
inline void transform_gradient(const Vec* y, int y_step, Vec* m, int m_step) {
  const Vec y0 = y[0], y1 = y[y_step];
  Vec even = y0, odd = y1, two = times(2, y1, y0), half = times(-0.5f, y1, y0);
  if (M == 4) {
    const Vec y2 = y[2 * y_step], y3 = y[3 * y_step];
    even = add(even, y2);
    odd = add(odd, y3);
    two = times(8, y3, times(4, y2, two));
    half = times(-0.125f, y3, times(0.25f, y2, half));
  }
  m[0] = y0;
  m[m_step] = add(even, odd);
  m[2 * m_step] = sub(even, odd);
  m[3 * m_step] = two;
  m[4 * m_step] = half;
  m[5 * m_step] = y[(M - 1) * y_step];
}

// G: the powers of each point over its differences from the other points.
template <int R>
struct WeightMatrix {
  float at[kTile][R];

  WeightMatrix() {
    const double points[] = {0, 1, -1, 2, -0.5}, divisors[] = {1, -3, 3, 15, -0.9375};
    for (int i = 0; i < kTile - 1; i++) {
      double power = 1 / divisors[i];
      for (int j = 0; j < R; j++, power *= points[i]) at[i][j] = float(power);
    }
    for (int j = 0; j < R; j++) at[kTile - 1][j] = j == R - 1 ? 1.f : 0.f;
  }
};

// The transforms of whole tiles. `row` and `pixel`: between the rows and columns of a tile of
// pixels; `plane`: between its 36 values.

// Bt d B
inline void image_to_values(const float* from, std::size_t row, float* to, std::size_t plane) {
  Vec d[kValues];
#pragma GCC unroll 6
  for (int j = 0; j < kTile; j++) {
    Vec column[kTile];
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++) column[i] = load(from + i * row + std::size_t(j) * kLanes);
    transform_image(column, column, 1);
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++) d[i * kTile + j] = column[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < kTile; i++) {
    transform_image(d + i * kTile, d + i * kTile, 1);
#pragma GCC unroll 6
    for (int j = 0; j < kTile; j++) store(to + (i * kTile + j) * plane, d[i * kTile + j]);
  }
}

// At m A, with `start` added, and no less than `lowest`
template <int M>
inline void values_to_output(const float* from, std::size_t plane, Vec start, Vec lowest, float* to,
                             std::size_t row) {
  Vec half[M * kTile];
#pragma GCC unroll 6
  for (int j = 0; j < kTile; j++) {
    Vec column[kTile];
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++) column[i] = load(from + (i * kTile + j) * plane);
    transform_output<M>(column, 1, half + j, kTile);
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; i++) {
    Vec pixels[M];
    transform_output<M>(half + i * kTile, 1, pixels, 1);
#pragma GCC unroll 6
    for (int j = 0; j < M; j++)
      store(to + i * row + std::size_t(j) * kLanes, max(lowest, add(pixels[j], start)));
  }
}

// A dy At
template <int M>
inline void gradient_to_values(const float* from, std::size_t row, std::size_t pixel, float* to,
                               std::size_t plane) {
  Vec half[kTile * M];
#pragma GCC unroll 6
  for (int j = 0; j < M; j++) {
    Vec column[M];
#pragma GCC unroll 6
    for (int i = 0; i < M; i++) column[i] = load(from + i * row + j * pixel);
    transform_gradient<M>(column, 1, half + j, M);
  }
#pragma GCC unroll 6
  for (int i = 0; i < kTile; i++) {
    Vec values[kTile];
    transform_gradient<M>(half + i * M, 1, values, 1);
#pragma GCC unroll 6
    for (int j = 0; j < kTile; j++) store(to + (i * kTile + j) * plane, values[j]);
  }
}

// What all of a thread's convolutions use one after the other, so that it stays in the caches.
enum class Scratch { kImages, kValues, kSums, kOutput, kTotals, kWeights };
inline float* scratch(Scratch which, std::size_t count) {
  thread_local Buffer buffers[6];
  thread_local std::size_t sizes[6] = {};
  const int i = int(which);
  if (sizes[i] < count) {
    buffers[i].resize(count);
    sizes[i] = count;
  }
  return buffers[i].data();
}

// The size of a convolution with stride 1 and without dilation.
struct WinogradShape {
  int channels, height, width;  // of an image
  int outputs, out_h, out_w;
  int pad_h, pad_w;  // negative where the image's border is not used
  int images;
  std::size_t image_stride, output_stride;  // between images
  int bands;  // that each image is cut into, where lanes are images, so that all lanes are used
};

// What the lanes of a vector are.
enum class Lanes { kImages, kChannels };

// A correlation with all of a convolution's weights.
class WinogradForward {
 public:
  virtual ~WinogradForward() = default;
  virtual int at_once() const = 0;    // images, at most
  virtual double cycles() const = 0;  // of the arithmetic for so many, an estimate
  virtual Lanes lanes() const = 0;
  virtual int blocks() const = 0;  // of tiles, for each of which kernels are read or transformed
  virtual void pack(const float* weights) = 0;  // which stay where they are until the last run
  virtual bool stays_packed() const = 0;        // until others are packed
  // `start` has a value for each output, or is null. No output becomes less than `lowest`.
  virtual void run(const float* x, int images, const float* start, float lowest,
                   float* y) const = 0;
};

// The gradient of the weights.
class WinogradGradient {
 public:
  virtual ~WinogradGradient() = default;
  virtual int at_once() const = 0;
  virtual double cycles() const = 0;
  virtual Lanes lanes() const = 0;
  virtual int blocks() const = 0;  // of tiles, for each of which sums are read or transformed
  // dw += the gradient, by begin, add_images for all of them, and finish.
  virtual void begin() const = 0;
  virtual void add_images(const float* x, const float* dy, int images, float* dw) const = 0;
  virtual void finish(float* dw) const = 0;
};

// One of these kernels, for weights of 3 x 3 or 5 x 5.
template <class Kernel, template <int> class Arrangement, class... Arguments>
std::unique_ptr<Kernel> make_winograd(int kernel, const Arguments&... arguments) {
  if (kernel == 5) return std::make_unique<Arrangement<2>>(arguments...);
  return std::make_unique<Arrangement<4>>(arguments...);
}

}  // namespace lrbench
