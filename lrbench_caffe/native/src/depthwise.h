// Depthwise 2-d convolution: an output channel is made of one input channel, as in MobileNet. There
// is nothing to multiply as matrices; what counts is to read and write each image once.
//
// One channel of an image is copied into a frame: zeros around it, and split by the remainders of
// the strides. In a frame, each weight (tap) is a constant offset, and neighbouring outputs are
// neighbours: a stencil. The gradient of the data is made of stencils, too, one for each remainder,
// over the frame of the output's gradient. Lanes are pixels of a row; a few rows are done at once,
// so that a vector that was loaded serves all of them. Windows of the usual sizes are unrolled.
//
// Channels have nothing to do with each other: threads share them out, so that results do not
// depend on how many there are. Sums run in a fixed order that depends on shapes only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "convolution_tiles.h"
#include "costs.h"
#include "threads.h"
#include "vec.h"

namespace lrbench {

// A channel of an image with `pad` zeros before it (some are cut off where that is negative). Row y
// of what results, the image's row y - pad, is row y / step of the planes with remainder y % step;
// columns likewise. The image's first column is aligned.
class Frame {
 public:
  Frame() = default;
  // Of an image of height x width; planes have so many rows and columns.
  Frame(int height, int width, int pad_h, int pad_w, int step_h, int step_w, int rows, int columns)
      : height_(height),
        width_(width),
        pad_h_(pad_h),
        pad_w_(pad_w),
        step_h_(step_h),
        step_w_(step_w),
        rows_(rows),
        columns_(columns),
        pitch_(ceil_div(columns, kLanes) * kLanes),
        lead_(kLanes - 1 - (std::max(pad_w, 0) / step_w + kLanes - 1) % kLanes) {}

  int rows() const { return rows_; }
  int columns() const { return columns_; }
  int pitch() const { return pitch_; }
  // Vectors may begin at a plane's last element.
  int plane() const { return (rows_ + 2) * pitch_; }
  std::size_t size() const { return std::size_t(step_h_) * step_w_ * plane(); }
  std::size_t at(int y, int x) const {
    return std::size_t(y % step_h_ * step_w_ + x % step_w_) * plane() + y / step_h_ * pitch_ +
           x / step_w_ + lead_;
  }

  // Into a buffer that was zero at first; the zeros around the image stay. (Whole vectors are
  // stored: behind a row they are zero, or the next row comes later.)
  void copy(const float* image, float* buffer) const {
    const int first = std::max(0, -pad_w_);
    const int count = std::min(width_, columns_ * step_w_ - pad_w_) - first;
    const std::size_t even = at(0, first + pad_w_), odd = at(0, first + pad_w_ + 1);
    image += first;
    if (step_w_ == 1) {
      const int whole = std::max(0, count) / kLanes * kLanes;
      const Mask rest = lane_mask(count - whole);
      each_row([&](int y, std::size_t row) {
        const float* const from = image + std::ptrdiff_t(y) * width_;
        float* const to = buffer + row + even;
        for (int i = 0; i < whole; i += kLanes) store(to + i, load(from + i));
        if (whole < count) store(to + whole, load(from + whole, rest));
      });
    } else if (step_w_ == 2) {
      const int whole = std::max(0, count) / (2 * kLanes) * (2 * kLanes);
      const Mask rest = lane_mask(count - whole), beyond = lane_mask(count - whole - kLanes);
      each_row([&](int y, std::size_t row) {
        const float* const from = image + std::ptrdiff_t(y) * width_;
        float *const to = buffer + row + even, *const next = buffer + row + odd;
        const auto split = [&](int i, Vec a, Vec b) {
          store(to + i / 2, every_second<0>(a, b));
          store(next + i / 2, every_second<1>(a, b));
        };
        for (int i = 0; i < whole; i += 2 * kLanes) {
          split(i, load(from + i), load(from + i + kLanes));
        }
        if (whole < count) {
          split(whole, load(from + whole, rest), load(from + whole + kLanes, beyond));
        }
      });
    } else {
      each_row([&](int y, std::size_t row) {
        const float* const from = image + std::ptrdiff_t(y) * width_;
        for (int i = 0; i < count; i++) buffer[row + at(0, first + pad_w_ + i)] = from[i];
      });
    }
  }

  // The way back.
  void extract(const float* buffer, float* image) const {
    const std::size_t even = at(0, pad_w_), odd = at(0, pad_w_ + 1);
    each_row([&](int y, std::size_t row) {
      float* const to = image + std::ptrdiff_t(y) * width_;
      const float *const from = buffer + row + even, *const next = buffer + row + odd;
      if (step_w_ == 1) {
        for (int x = 0; x < width_; x += kLanes) store_first(to + x, load(from + x), width_ - x);
      } else if (step_w_ == 2) {
        for (int x = 0; x < width_; x += 2 * kLanes) {
          const Vec a = load(from + x / 2), b = load(next + x / 2);
          store_first(to + x, interleave_low(a, b), width_ - x);
          const int rest = width_ - x - kLanes;
          if (rest > 0) store_first(to + x + kLanes, interleave_high(a, b), rest);
        }
      } else {
        for (int x = 0; x < width_; x++) to[x] = buffer[row + at(0, x + pad_w_)];
      }
    });
  }

 private:
  // visit(row of the image, its offset in the buffer). Without divisions, which take longer than
  // copying a short row.
  template <class Visit>
  void each_row(Visit visit) const {
    const int first = std::max(0, -pad_h_), last = std::min(height_, rows_ * step_h_ - pad_h_);
    int remainder = (first + pad_h_) % step_h_;
    std::size_t row = std::size_t((first + pad_h_) / step_h_) * pitch_;
    for (int y = first; y < last; y++) {
      visit(y, row + std::size_t(remainder) * step_w_ * plane());
      if (++remainder == step_h_) {
        remainder = 0;
        row += pitch_;
      }
    }
  }

  int height_, width_, pad_h_, pad_w_, step_h_, step_w_;
  int rows_, columns_;  // of a plane
  int pitch_, lead_;    // of a plane's row; what is before the first one
};

// What a stencil reads and writes: out[i][j] = start + sum over taps of weight * source[offset + i
// * pitch + j].
struct StencilTask {
  const float* source;
  const int* offset;     // of each tap
  const float* weights;  // of each tap
  int taps;
  int pitch, plane;  // of the source
  int rows, columns;
  float* out;
  int out_pitch;
  float start;
  bool add;  // to what is there, instead of to `start`
};

constexpr int kRowsAtOnce = 4;

// Calls work.template operator()<R>(row) for all rows, R of them at a time.
template <class Work>
inline void by_rows(int rows, Work work) {
  int row = 0;
  for (; row + kRowsAtOnce <= rows; row += kRowsAtOnce) {
    work(std::integral_constant<int, kRowsAtOnce>(), row);
  }
  switch (rows - row) {
    case 3:
      return work(std::integral_constant<int, 3>(), row);
    case 2:
      return work(std::integral_constant<int, 2>(), row);
    case 1:
      return work(std::integral_constant<int, 1>(), row);
  }
}

// R rows of a vector at a column, from what they begin with and back.
template <int R>
struct Rows {
  Vec sums[R];

  Rows(const StencilTask& t, int row, int column) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      sums[r] =
          t.add ? load_first(at(t, row + r, column), t.columns - column) : broadcast(&t.start);
    }
  }
  void put(const StencilTask& t, int row, int column) const {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) store_first(at(t, row + r, column), sums[r], t.columns - column);
  }

 private:
  static float* at(const StencilTask& t, int row, int column) {
    return t.out + std::ptrdiff_t(row) * t.out_pitch + column;
  }
};

// Any taps.
inline void run_taps(const StencilTask& task) {
  const StencilTask t = task;
  by_rows(t.rows, [&](auto count, int row) {
    constexpr int R = decltype(count)::value;
    for (int column = 0; column < t.columns; column += kLanes) {
      Rows<R> rows(t, row, column);
      const float* const source = t.source + std::ptrdiff_t(row) * t.pitch + column;
      for (int k = 0; k < t.taps; k++) {
        const Vec weight = broadcast(t.weights + k);
        const float* const from = source + t.offset[k];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
          rows.sums[r] = fma(weight, load(from + std::ptrdiff_t(r) * t.pitch), rows.sums[r]);
        }
      }
      rows.put(t, row, column);
    }
  });
}

// A window of A x B taps in a frame with the same step S for rows and columns: the vector at row y
// and column b of the window is loaded once for all of the R rows that need it.
template <int A, int B, int S, int R, class Visit>
inline __attribute__((always_inline)) void each_in_window(const float* source, int pitch, int plane,
                                                          Visit visit) {
#pragma GCC unroll 32
  for (int y = 0; y < S * (R - 1) + A; y++) {
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) {
      const Vec x = in_register(load(source + std::ptrdiff_t(y % S * S + b % S) * plane +
                                     std::ptrdiff_t(y / S) * pitch + b / S));
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        if (y >= S * r && y - S * r < A) visit(r, (y - S * r) * B + b, x);
      }
    }
  }
}

template <int A, int B, int S>
void run_window(const StencilTask& task) {
  const StencilTask t = task;
  Vec weights[A * B];
  for (int k = 0; k < A * B; k++) weights[k] = broadcast(t.weights + k);
  by_rows(t.rows, [&](auto count, int row) {
    constexpr int R = decltype(count)::value;
    for (int column = 0; column < t.columns; column += kLanes) {
      Rows<R> rows(t, row, column);
      each_in_window<A, B, S, R>(
          t.source + t.offset[0] + std::ptrdiff_t(row) * t.pitch + column, t.pitch, t.plane,
          [&](int r, int k, Vec x) { rows.sums[r] = fma(weights[k], x, rows.sums[r]); });
      rows.put(t, row, column);
    }
  });
}

// The other way round: sums[k] += the products of a tap's inputs with the outputs' gradients, a
// vector for each tap.
struct TapGradientTask {
  const float* source;
  const int* offset;
  int taps;
  int pitch, plane;
  const float* gradient;  // rows x columns
  int rows, columns;
  float* sums;  // taps x lanes
};

inline void gradient_of_taps(const TapGradientTask& t) {
  for (int k = 0; k < t.taps; k++) {
    Vec sums[2] = {zero(), zero()};
    for (int row = 0; row < t.rows; row++) {
      const float* const from = t.source + t.offset[k] + std::ptrdiff_t(row) * t.pitch;
      const float* const gradient = t.gradient + std::ptrdiff_t(row) * t.columns;
      for (int column = 0; column < t.columns; column += kLanes) {
        const Vec g = load_first(gradient + column, t.columns - column);
        sums[row % 2] = fma(g, load(from + column), sums[row % 2]);
      }
    }
    float* const to = t.sums + k * kLanes;
    store(to, add(load(to), add(sums[0], sums[1])));
  }
}

// Rows `First` to `Last` of a window of B columns.
template <int First, int Last, int B, int S>
void gradient_of_rows(const TapGradientTask& task) {
  const TapGradientTask t = task;
  constexpr int kTaps = (Last - First) * B;
  Vec sums[kTaps];
#pragma GCC unroll 32
  for (int k = 0; k < kTaps; k++) sums[k] = zero();
  const float* const source = t.source + t.offset[First * B];
  // Where the frame is split, an odd first row is in other planes.
  static_assert(First % S == 0, "the first row has no remainder");
  by_rows(t.rows, [&](auto count, int row) {
    constexpr int R = decltype(count)::value;
    for (int column = 0; column < t.columns; column += kLanes) {
      Vec g[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        g[r] = load_first(t.gradient + std::ptrdiff_t(row + r) * t.columns + column,
                          t.columns - column);
      }
      each_in_window<Last - First, B, S, R>(
          source + std::ptrdiff_t(row) * t.pitch + column, t.pitch, t.plane,
          [&](int r, int k, Vec x) { sums[k] = fma(g[r], x, sums[k]); });
    }
  });
#pragma GCC unroll 32
  for (int k = 0; k < kTaps; k++) {
    float* const to = t.sums + (First * B + k) * kLanes;
    store(to, add(load(to), sums[k]));
  }
}

// As many taps at once as there are registers for.
template <int K, int S>
void gradient_of_window(const TapGradientTask& t) {
  if constexpr (K == 3 || kWide) {
    gradient_of_rows<0, K, K, S>(t);
  } else {
    gradient_of_rows<0, 2, K, S>(t);
    gradient_of_rows<2, 4, K, S>(t);
    gradient_of_rows<4, 5, K, S>(t);
  }
}

// Taps and the function for them.
struct Stencil {
  std::vector<int> offset, weight;  // of each tap: in the frame, and in the channel's kernel
  void (*run)(const StencilTask&) = run_taps;
  void (*gradient)(const TapGradientTask&) = gradient_of_taps;

  void add(std::size_t in_frame, int in_kernel) {
    offset.push_back(int(in_frame));
    weight.push_back(in_kernel);
  }

  // The taps are a window without gaps, row by row.
  void be_window(int height, int width, int step) {
    const int form = 100 * step + 10 * height + width;
    if (std::max(height, width) >= 10) return;
    switch (form) {
      case 111:
        run = run_window<1, 1, 1>;
        break;
      case 112:
        run = run_window<1, 2, 1>;
        break;
      case 121:
        run = run_window<2, 1, 1>;
        break;
      case 122:
        run = run_window<2, 2, 1>;
        break;
      case 123:
        run = run_window<2, 3, 1>;
        break;
      case 132:
        run = run_window<3, 2, 1>;
        break;
      case 133:
        run = run_window<3, 3, 1>, gradient = gradient_of_window<3, 1>;
        break;
      case 155:
        run = run_window<5, 5, 1>, gradient = gradient_of_window<5, 1>;
        break;
      case 233:
        run = run_window<3, 3, 2>, gradient = gradient_of_window<3, 2>;
        break;
      case 255:
        run = run_window<5, 5, 2>, gradient = gradient_of_window<5, 2>;
        break;
    }
  }
};

// The convolution of `shape` with as many groups as input channels. Its weights are one kernel for
// each output channel; the output channels of an input channel follow each other.
class DepthwiseConvolution {
 public:
  explicit DepthwiseConvolution(const ConvShape& shape)
      : s_(shape), multiplier_(shape.out_channels / shape.in_channels) {
    plan_forward();
    plan_data();
    // What was just written cannot be read at once, if that is not done in the same pieces. So a
    // few small frames are made before the first one is used.
    const std::size_t bytes = std::max(in_.size(), out_.size() * multiplier_) * sizeof(float);
    group_ = std::max(1, std::min(kBlock, int(kGroupBytes / bytes)));
    const int parts = std::max(1, std::min(thread_count(), s_.in_channels));
    buffers_.resize(parts);
  }

  // Whether offsets in a frame fit into an int.
  static bool fits(ConvShape shape) {
    shape.in_channels = shape.out_channels = 1;
    return shape.fits();
  }

  // No output becomes less than `lowest`.
  void forward(const float* x, const float* w, const float* bias, float* y,
               float lowest = kNoLimit) {
    each_block([&](int first, int last, Buffers& buffers) {
      each_group(first, last, [&](int n, Group group) {
        copy_in(x + n * s_.in_size(), group, buffers);
        for (int o = group.first * multiplier_; o < group.last * multiplier_; o++) {
          const int channel = o / multiplier_;
          StencilTask task = this->task(forward_, in_, buffers.in, channel - group.first);
          task.rows = s_.out_h, task.columns = task.out_pitch = s_.out_w;
          task.weights = w + std::size_t(o) * s_.kernel();
          task.start = bias ? bias[o] : 0.f;
          task.out = y + n * s_.out_size() + o * out_pixels();
          forward_.run(task);
          raise_to(lowest, task.out, out_pixels());
        }
      });
    });
  }

  // Adds to dw and db, overwrites dx; each of them may be null.
  void backward(const float* x, const float* w, const float* dy, float* dw, float* db, float* dx) {
    each_block([&](int first, int last, Buffers& buffers) {
      std::fill_n(buffers.sums.data(), kBlock * sums_size(), 0.f);
      each_group(first, last, [&](int n, Group group) {
        const float* gradient = dy + n * s_.out_size();
        if (dw) copy_in(x + n * s_.in_size(), group, buffers);
        if (dx) copy_out(gradient, group, buffers);
        for (int c = group.first; c < group.last; c++) {
          const float* of_channel = gradient + c * multiplier_ * out_pixels();
          const int place = c - group.first;
          if (db) add_bias(of_channel, db + c * multiplier_);
          if (dw)
            add_weights(of_channel, place, buffers.sums.data() + (c - first) * sums_size(),
                        buffers);
          if (dx)
            put_data(w + c * weights(), dx + n * s_.in_size() + c * in_pixels(), place, buffers);
        }
      });
      if (!dw) return;
      for (std::size_t k = 0; k < (last - first) * weights(); k++) {
        dw[first * weights() + k] += sum(load(buffers.sums.data() + k * kLanes));
      }
    });
  }

 private:
  // Those of a thread.
  struct Buffers {
    Buffer in, out, phases, sums;
    std::vector<float> weights;
  };

  // Channels.
  struct Group {
    int first, last;
  };

  std::size_t weights() const { return std::size_t(multiplier_) * s_.kernel(); }  // of a channel
  std::size_t sums_size() const { return weights() * kLanes; }
  std::size_t in_pixels() const { return std::size_t(s_.in_h) * s_.in_w; }
  std::size_t out_pixels() const { return std::size_t(s_.out_h) * s_.out_w; }

  void plan_forward() {
    const int reach_h = (s_.kernel_h - 1) * s_.dilation_h,
              reach_w = (s_.kernel_w - 1) * s_.dilation_w;
    in_ = Frame(s_.in_h, s_.in_w, s_.pad_h, s_.pad_w, s_.stride_h, s_.stride_w,
                s_.out_h + reach_h / s_.stride_h, s_.out_w + reach_w / s_.stride_w);
    for (int kh = 0; kh < s_.kernel_h; kh++) {
      for (int kw = 0; kw < s_.kernel_w; kw++) {
        forward_.add(in_.at(kh * s_.dilation_h, kw * s_.dilation_w), kh * s_.kernel_w + kw);
      }
    }
    if (plain()) forward_.be_window(s_.kernel_h, s_.kernel_w, s_.stride_h);
  }

  // In the gradient of the data, row y - pad_h % stride_h of the image is row y / stride_h of the
  // phase y % stride_h, columns likewise: a frame. Kernel row kh brings to row p of its phase what
  // row p + pad_h / stride_h - kh * dilation_h / stride_h of the output's gradient has.
  void plan_data() {
    const int reach_h = (s_.kernel_h - 1) * s_.dilation_h / s_.stride_h,
              reach_w = (s_.kernel_w - 1) * s_.dilation_w / s_.stride_w;
    const int odd_h = s_.pad_h % s_.stride_h, odd_w = s_.pad_w % s_.stride_w;
    phases_ = Frame(s_.in_h, s_.in_w, odd_h, odd_w, s_.stride_h, s_.stride_w,
                    ceil_div(s_.in_h + odd_h, s_.stride_h), ceil_div(s_.in_w + odd_w, s_.stride_w));
    out_ = Frame(s_.out_h, s_.out_w, reach_h - s_.pad_h / s_.stride_h,
                 reach_w - s_.pad_w / s_.stride_w, 1, 1, phases_.rows() + reach_h,
                 phases_.columns() + reach_w);
    data_.resize(s_.stride_h * s_.stride_w);
    for (int kh = s_.kernel_h - 1; kh >= 0; kh--) {
      for (int kw = s_.kernel_w - 1; kw >= 0; kw--) {
        const int y = kh * s_.dilation_h, x = kw * s_.dilation_w;
        data_[y % s_.stride_h * s_.stride_w + x % s_.stride_w].add(
            out_.at(reach_h - y / s_.stride_h, reach_w - x / s_.stride_w), kh * s_.kernel_w + kw);
      }
    }
    if (!plain()) return;
    for (int fh = 0; fh < std::min(s_.stride_h, s_.kernel_h); fh++) {
      for (int fw = 0; fw < std::min(s_.stride_w, s_.kernel_w); fw++) {
        data_[fh * s_.stride_w + fw].be_window(ceil_div(s_.kernel_h - fh, s_.stride_h),
                                               ceil_div(s_.kernel_w - fw, s_.stride_w), 1);
      }
    }
  }

  bool plain() const {
    return s_.dilation_h == 1 && s_.dilation_w == 1 && s_.stride_h == s_.stride_w;
  }

  StencilTask task(const Stencil& stencil, const Frame& frame, const Buffer& frames,
                   int place) const {
    StencilTask task = {};
    task.source = frames.data() + place * frame.size();
    task.offset = stencil.offset.data();
    task.taps = int(stencil.offset.size());
    task.pitch = frame.pitch();
    task.plane = frame.plane();
    return task;
  }

  // Frames of a group's inputs, of an image.
  void copy_in(const float* x, Group group, Buffers& buffers) const {
    for (int c = group.first; c < group.last; c++) {
      in_.copy(x + c * in_pixels(), buffers.in.data() + (c - group.first) * in_.size());
    }
  }

  // Likewise of their outputs' gradients.
  void copy_out(const float* gradient, Group group, Buffers& buffers) const {
    float* to = buffers.out.data();
    for (int o = group.first * multiplier_; o < group.last * multiplier_; o++, to += out_.size()) {
      out_.copy(gradient + o * out_pixels(), to);
    }
  }

  void add_bias(const float* gradient, float* db) const {
    for (int o = 0; o < multiplier_; o++, gradient += out_pixels()) {
      Vec sums = zero();
      const int count = int(out_pixels());
      for (int i = 0; i < count; i += kLanes) sums = add(sums, load_first(gradient + i, count - i));
      db[o] += sum(sums);
    }
  }

  void add_weights(const float* gradient, int place, float* sums, const Buffers& buffers) const {
    TapGradientTask task = {};
    task.source = buffers.in.data() + place * in_.size();
    task.offset = forward_.offset.data();
    task.taps = int(forward_.offset.size());
    task.pitch = in_.pitch(), task.plane = in_.plane();
    task.rows = s_.out_h, task.columns = s_.out_w;
    for (int o = 0; o < multiplier_; o++) {
      task.gradient = gradient + o * out_pixels();
      task.sums = sums + std::size_t(o) * s_.kernel() * kLanes;
      forward_.gradient(task);
    }
  }

  void put_data(const float* w, float* dx, int place, Buffers& buffers) const {
    const bool split = data_.size() > 1;
    float* const to = split ? buffers.phases.data() : dx;
    for (int o = 0; o < multiplier_; o++, w += s_.kernel()) {
      for (std::size_t phase = 0; phase < data_.size(); phase++) {
        const Stencil& stencil = data_[phase];
        StencilTask task = this->task(stencil, out_, buffers.out, place * multiplier_ + o);
        buffers.weights.clear();
        for (int at : stencil.weight) buffers.weights.push_back(w[at]);
        task.weights = buffers.weights.data();
        task.rows = phases_.rows();
        task.columns = phases_.columns();
        task.out_pitch = split ? phases_.pitch() : s_.in_w;
        task.out = split ? to + phases_.at(phase / s_.stride_w, phase % s_.stride_w) : to;
        task.add = o > 0;
        stencil.run(task);
      }
    }
    if (split) phases_.extract(to, dx);
  }

  // visit(first, last, buffers) for blocks of channels, on all threads, each with the same channels
  // every time.
  template <class Visit>
  void each_block(Visit visit) {
    const int parts = int(buffers_.size());
    run_parts(parts, [&](int part) {
      Buffers& buffers = buffers_[part];
      if (buffers.in.data() == nullptr) {
        buffers.in.resize(group_ * in_.size());
        buffers.out.resize(group_ * multiplier_ * out_.size());
        buffers.phases.resize(phases_.size());
        buffers.sums.resize(kBlock * sums_size());
      }
      const int end = int(long(part + 1) * s_.in_channels / parts);
      for (int c = int(long(part) * s_.in_channels / parts); c < end; c += kBlock) {
        visit(c, std::min(c + kBlock, end), buffers);
      }
    });
  }

  // visit(image, group): neighbours in memory one after the other.
  template <class Visit>
  void each_group(int first, int last, Visit visit) const {
    for (int n = 0; n < s_.images; n++) {
      for (int c = first; c < last; c += group_) visit(n, Group{c, std::min(c + group_, last)});
    }
  }

  static constexpr int kBlock = 16;  // channels
  static constexpr std::size_t kGroupBytes = 12 * 1024;

  ConvShape s_;
  int multiplier_;  // output channels of an input channel
  int group_;       // channels whose frames are made together
  Frame in_, out_, phases_;
  Stencil forward_;
  std::vector<Stencil> data_;  // of each phase
  std::vector<Buffers> buffers_;
};

}  // namespace lrbench
