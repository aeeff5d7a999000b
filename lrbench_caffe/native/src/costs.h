// Which kernels a convolution is to use: direct ones, Winograd's, or products of matrices.
// Everything is estimated in cycles for all images of a call, as sums of a few counts, each
// times what one of it costs. The factors are least-squares fits to the times of 53 shapes, from
// LeNet's to ResNet-50's and VGG's (AMD Zen 4, OpenBLAS 0.3.13); estimates are within 10 to 20 % of
// most of these. Products have factors of their own for both widths, by 50 shapes, and so has, with
// AVX-512, a cycle of Winograd's, by ten shapes of the paper's nets; Winograd's with channels as
// lanes have theirs from 22 shapes in both widths (Intel Xeon). Which kernel is used depends on
// nothing but shapes, the number of threads and the width of the vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "vec.h"

namespace lrbench {

// Channels and weights are those of one group, of which images have one or more.
struct ConvShape {
  int images;
  int in_channels, in_h, in_w;
  int out_channels, out_h, out_w;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int groups = 1;

  int kernel() const { return kernel_h * kernel_w; }
  std::size_t in_size() const { return std::size_t(in_channels) * in_h * in_w; }
  std::size_t out_size() const { return std::size_t(out_channels) * out_h * out_w; }
  // From an image to the next one.
  std::size_t in_stride() const { return groups * in_size(); }
  std::size_t out_stride() const { return groups * out_size(); }
  std::size_t weights() const { return std::size_t(out_channels) * in_channels * kernel(); }

  // Whether the only output sees all of the image, and nothing else.
  bool is_dense() const {
    return out_h * out_w == 1 && kernel_h == in_h && kernel_w == in_w && pad_h == 0 && pad_w == 0;
  }

  // Whether all offsets in one image, with what is put around it, and the pixels of all images fit
  // into an int with much to spare.
  bool fits() const {
    const double reach_h = double(dilation_h) * kernel_h, reach_w = double(dilation_w) * kernel_w;
    const double in = in_channels * (in_h + 2. * pad_h + reach_h + stride_h) *
                      (in_w + 2. * pad_w + reach_w + stride_w);
    const double out = (out_channels + 8.) * (out_h + 2 * reach_h + 8) * (out_w + 2 * reach_w + 8);
    const double pixels = double(images) * std::max(double(in_h) * in_w, double(out_h) * out_w);
    return std::max(in, out) < double(1 << 28) && double(weights()) * 4 < double(1 << 30) &&
           pixels < double(1 << 30);
  }
};

// By which kernels: for each direction those that are expected to be faster, or always the same
// (for checks; direct ones where there are no Winograd's).
enum class Way { kFaster, kDirect, kWinogradImages, kWinogradChannels, kProduct };

// One of the three: forward, the gradient of the weights, that of the data.
enum class Direction { kForward, kWeights, kData };

// The direct kernels, by the inner loops' cycles for an image.
inline double direct_cycles(const ConvShape& s, Direction direction, double cycles) {
  // Of such a cycle, a weight (once), a weight (for each image) and an element that is copied; what
  // is added to the first and the last where the source is not in the second-level cache.
  static constexpr double kFactors[3][6] = {
      {1.14, 4, 0.3, 1.65, 0.9, 0}, {1, 4.8, 0.8, 0.4, 0, 3.3}, {1.17, 4.3, 0.25, 1.05, 1.15, 0}};
  const double* const f = kFactors[int(direction)];
  const double in = double(s.in_size()), out = double(s.out_size()), weights = double(s.weights());
  double source = out, copied = out * s.stride_h * s.stride_w;  // anew for each remainder
  if (direction == Direction::kForward) source = copied = in;
  if (direction == Direction::kWeights) copied = in + out;
  // Rearranging weights that are in no cache is as slow as with AVX2, and more of it is waiting.
  const double once = kWide && direction == Direction::kData ? 2 * f[1] : f[1];
  const double far = std::min(1., std::max(0., (sizeof(float) * source - (1 << 19)) / (1 << 20)));
  return s.images * ((f[0] + f[4] * far) * cycles + f[2] * weights + (f[3] + f[5] * far) * copied) +
         once * weights;
}

// Winograd's with images as lanes, by the cycles and the blocks of tiles for the images that are
// done at once.
inline double winograd_images_cycles(const ConvShape& s, Direction direction, double cycles,
                                     int blocks, int at_once) {
  // Of such a cycle, a kernel (once) and a kernel (for each block; less where all of them stay in a
  // cache).
  static constexpr double kFactors[3][3] = {{1.17, 158, 61}, {1.11, 144, 182}, {1.07, 168, 71}};
  const double* const f = kFactors[int(direction)];
  const double kernel = kWide && direction == Direction::kWeights ? f[2] / 2 : f[2];
  const double cycle = kWide ? 1.2 * f[0] : f[0];  // the second-level cache is no wider
  const double kernels = double(s.out_channels) * s.in_channels,
               far = std::min(1., kernels / 65536);
  // Images that are too large for the second-level cache wait for the next one.
  const double bytes = sizeof(float) * double(at_once) * std::max(s.in_size(), s.out_size());
  const double wait = 0.3 * std::min(1., std::max(0., bytes / (1 << 20) - 1) / 4);
  return (s.images + at_once - 1) / at_once *
             ((1 + wait) * cycle * cycles + kernel * far * blocks * kernels) +
         f[1] * kernels;
}

// The same where channels are lanes, and `blocks` is how often all kernels are transformed, or 0 if
// they are once for all images. One factor serves all directions and widths.
inline double winograd_channels_cycles(const ConvShape& s, double cycles, int blocks, int at_once) {
  constexpr double kCycle = 1.25, kKernel = 20;
  const int groups = (s.images + at_once - 1) / at_once;
  const double kernels = double(s.out_channels) * s.in_channels;
  return groups * kCycle * cycles + std::max(1, groups * blocks) * kKernel * kernels;
}

// That of products, by their sizes: m x k by k x n.
inline double product_cycles(const ConvShape& s, Direction direction) {
  // Of two multiply-adds of vectors, a vector of a tile that is written for a block of steps, a
  // number of the left operand that is packed, a vector of the right one, and a weight.
  static constexpr double kNarrow[3][5] = {
      {0.97, 9.7, 2.3, 6.3, 0}, {0.98, 4.9, 2.3, 7.2, 0}, {1.14, 2.75, 0, 6.3, 1}};
  static constexpr double kAvx512[3][5] = {
      {1.1, 10.8, 1.7, 9.4, 0.8}, {1.06, 9.7, 2, 16.8, 0}, {1.37, 4.1, 0, 9.3, 0.7}};
  static constexpr double kElement = 4;  // that is packed by itself
  static constexpr double kPlace = 60;   // of a vector of pixels for a tap, whatever the channels
  static constexpr double kSteps = 320, kColumns = 400;  // of a block
  const double* const f = (kWide ? kAvx512 : kNarrow)[int(direction)];
  const bool data = direction == Direction::kData;
  const double pixels = double(s.out_h) * s.out_w;
  double m = data ? s.in_channels : s.out_channels, phases = 1;
  double k = double(s.kernel()) * (data ? s.out_channels : s.in_channels), n = s.images * pixels;
  if (direction == Direction::kWeights) std::swap(k, n);
  if (data) {  // a product for each remainder, with its share of the kernel
    phases = std::min(s.stride_h, s.in_h) * std::min(s.stride_w, s.in_w);
    n = s.images * double(s.in_h) * s.in_w / phases;
    k /= s.stride_h * s.stride_w;
  }
  const double vectors = std::ceil(n / kLanes);
  double right = f[3] / kLanes;
  if (!data && s.stride_w > 2) right += kElement;
  if (s.kernel() > 1) right += kPlace / kLanes / (data ? s.out_channels : s.in_channels);
  return phases * (f[0] * m * k * vectors / 2 + f[1] * m * vectors * std::ceil(k / kSteps) +
                   f[2] * m * k * std::ceil(n / kColumns) + right * k * n) +
         f[4] * double(s.weights());
}

}  // namespace lrbench
