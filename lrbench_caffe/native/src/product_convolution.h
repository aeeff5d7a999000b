// Convolution as products of matrices, without the matrix of columns that im2col would make.
//
//     y  = w * columns(x)               output channels x taps of all channels x pixels
//     dw = dy * columns(x) transposed   output channels x pixels x taps of all channels
//     dx = w turned * columns(dy)       channels x taps of all output channels x pixels
//
// The pixels are those of all images, one after the other. `Columns` packs panels of such a matrix
// from the images themselves: a vector of eight or sixteen neighbouring pixels is put together from
// the rows that it touches, by masked loads that leave zeros for what is outside of the image. With
// strides, dx has an own product for each remainder of row and column, in which the stride is one.
#pragma once

#include <cstring>
#include <vector>

#include "costs.h"
#include "dense.h"
#include "product.h"

namespace lrbench {

// Pixels of some images, of which each row and column `step` apart is one: pixel i * columns + j of
// an image is at (i * step_h, j * step_w).
struct Grid {
  std::size_t image_stride;
  int rows, columns, step_h, step_w;

  // A part of a row.
  struct Run {
    std::size_t image;  // where it begins
    int row, column, lane, length;
  };

  // visit(run) for each row of the pixels [first, first + count).
  template <class Visit>
  void each_run(int first, int count, Visit visit) const {
    const int pixels = rows * columns;
    int image = first / pixels, row = first % pixels / columns, column = first % columns;
    for (int lane = 0; lane < count;) {
      const int length = std::min(count - lane, columns - column);
      visit(Run{image * image_stride, row, column, lane, length});
      lane += length;
      column = 0;
      if (++row == rows) row = 0, image++;
    }
  }
};

// Where the lanes of a vector are in a channel: in each of a few places the lanes of a mask, all
// others are zero. With a step of two a place has a mask for each of the vectors that it reads.
template <int Step>
class Places {
 public:
  void clear() { count_ = 0; }

  // Lanes [first, last), the lane n at offset + n * Step.
  void add(std::ptrdiff_t offset, int first, int last) {
    const Mask low = lane_range(Step * first, Step * last - (Step - 1));
    const Mask high = lane_range(Step * first - kLanes, Step * last - (Step - 1) - kLanes);
    if (count_ > 0 && places_[count_ - 1].offset == offset) {
      Place& place = places_[count_ - 1];
      place.low = either(place.low, low), place.high = either(place.high, high);
    } else {
      places_[count_++] = {offset, low, high};
    }
  }

  // The vector for each of some channels.
  void gather(const float* from, std::ptrdiff_t from_stride, int channels, float* to,
              std::ptrdiff_t to_stride) const {
    switch (count_) {
      case 0:
        return each(from, from_stride, channels, to, to_stride,
                    [](const float*) { return zero(); });
      case 1:
        return each(from, from_stride, channels, to, to_stride,
                    [this](const float* p) { return one(p, 0, zero()); });
      case 2:
        return each(from, from_stride, channels, to, to_stride,
                    [this](const float* p) { return one(p, 1, one(p, 0, zero())); });
      default:
        return each(from, from_stride, channels, to, to_stride, [this](const float* p) {
          Vec v = one(p, 0, zero());
          for (int i = 1; i < count_; i++) v = one(p, i, v);
          return v;
        });
    }
  }

 private:
  struct Place {
    std::ptrdiff_t offset;
    Mask low, high;
  };

  Vec one(const float* p, int i, Vec v) const {
    const Place& place = places_[i];
    p += place.offset;
    if (Step == 1) return load_more(v, p, place.low);
    return either(v, every_second<0>(load(p, place.low), load(p + kLanes, place.high)));
  }

  template <class Load>
  static void each(const float* from, std::ptrdiff_t from_stride, int channels, float* to,
                   std::ptrdiff_t to_stride, Load load_one) {
    for (int c = 0; c < channels; c++, from += from_stride, to += to_stride)
      store(to, load_one(from));
  }

  int count_ = 0;
  Place places_[kLanes];
};

// The same for any other step, number by number.
template <>
class Places<0> {
 public:
  explicit Places(int step) : step_(step) {}
  void clear() { count_ = 0; }

  void add(std::ptrdiff_t offset, int first, int last) {
    for (int lane = first; lane < last; lane++, count_++) {
      lanes_[count_] = lane;
      offsets_[count_] = offset + std::ptrdiff_t(lane) * step_;
    }
  }

  void gather(const float* from, std::ptrdiff_t from_stride, int channels, float* to,
              std::ptrdiff_t to_stride) const {
    for (int c = 0; c < channels; c++, from += from_stride, to += to_stride) {
      store(to, zero());
      for (int i = 0; i < count_; i++) to[lanes_[i]] = from[offsets_[i]];
    }
  }

 private:
  int step_, count_ = 0, lanes_[kLanes];
  std::ptrdiff_t offsets_[kLanes];
};

// A matrix with a row for each tap of each channel, tap by tap, and a column for each pixel of a
// grid: what the tap sees in the images.
class Columns {
 public:
  struct Tap {
    int h, w;  // what it sees from the image's first pixel
  };

  Columns(int channels, int height, int width, const Grid& grid, std::vector<Tap> taps)
      : channels_(channels),
        height_(height),
        width_(width),
        grid_(grid),
        taps_(std::move(taps)),
        channel_stride_(std::ptrdiff_t(height) * width) {
    whole_ = grid_.step_h == 1 && grid_.step_w == 1 && grid_.rows == height &&
             grid_.columns == width && taps_.size() == 1 && taps_[0].h == 0 && taps_[0].w == 0;
    if (whole_) {  // one long row
      grid_.columns *= grid_.rows;
      width_ *= height_;
      grid_.rows = height_ = 1;
    }
  }

  int steps() const { return channels_ * int(taps_.size()); }

  // As a right operand: panels of pixels.
  void pack(const float* images, int first, int count, int step, int steps, float* to) const {
    const std::size_t panel = std::size_t(steps) * kPanelLanes;
    std::vector<std::pair<const float*, float*>> copies;
    for (int i = 0; i < count; i += kLanes) {
      float* const vector = to + i / kPanelLanes * panel + i % kPanelLanes;
      const int image = (first + i) / grid_.columns, pixel = (first + i) % grid_.columns;
      if (whole_ && i + kLanes <= count && pixel + kLanes <= grid_.columns) {
        copies.emplace_back(images + image * grid_.image_stride + step * channel_stride_ + pixel,
                            vector);
      } else {
        gather(images, first + i, std::min(kLanes, count - i), step, steps, vector, kPanelLanes);
      }
    }
    for (int k = 0; k < steps; k++) {  // as they lie in the memory
      for (const auto& copy : copies)
        store(copy.second + k * kPanelLanes, load(copy.first + k * channel_stride_));
    }
  }

  // As a right operand that is turned: panels of rows.
  void pack_turned(const float* images, int row, int rows, int first, int count, float* to) const {
    if (whole_) return turn(images, row, rows, first, count, to);
    alignas(64) float lines[kTurned * kLanes];
    const std::size_t panel = std::size_t(count) * kPanelLanes;
    for (int r = 0; r < rows; r += kTurned) {
      const int some = std::min(kTurned, rows - r);
      for (int i = 0; i < count; i += kLanes) {
        const int pixels = std::min(kLanes, count - i);
        gather(images, first + i, pixels, row + r, some, lines, kLanes);
        for (int j = 0; j < some; j += kPanelLanes) {
          float* const part = to + (r + j) / kPanelLanes * panel + std::size_t(i) * kPanelLanes;
          lrbench::pack_turned(lines + j * kLanes, kLanes, std::min(kPanelLanes, some - j), pixels,
                               part, kPanelLanes);
        }
      }
    }
  }

 private:
  static constexpr int kTurned = 16 * kPanelLanes;  // rows

  // pack_turned() where every pixel sees itself alone.
  void turn(const float* images, int row, int rows, int first, int count, float* to) const {
    const std::size_t panel = std::size_t(count) * kPanelLanes;
    for (int r = 0; r < rows; r += kPanelLanes, to += panel) {
      grid_.each_run(first, count, [&](const Grid::Run& run) {
        const float* const from = images + run.image + (row + r) * channel_stride_ + run.column;
        lrbench::pack_turned(from, channel_stride_, std::min(kPanelLanes, rows - r), run.length,
                             to + std::size_t(run.lane) * kPanelLanes, kPanelLanes);
      });
    }
  }

  // `count` pixels, at most a vector, in each of the rows [step, step + steps).
  void gather(const float* images, int first, int count, int step, int steps, float* to,
              std::ptrdiff_t stride) const {
    if (grid_.step_w == 1) {
      Places<1> places;
      gather_with(places, images, first, count, step, steps, to, stride);
    } else if (grid_.step_w == 2) {
      Places<2> places;
      gather_with(places, images, first, count, step, steps, to, stride);
    } else {
      Places<0> places(grid_.step_w);
      gather_with(places, images, first, count, step, steps, to, stride);
    }
  }

  template <class P>
  void gather_with(P& places, const float* images, int first, int count, int step, int steps,
                   float* to, std::ptrdiff_t stride) const {
    Grid::Run runs[kLanes];
    int used = 0;
    grid_.each_run(first, count, [&](const Grid::Run& run) { runs[used++] = run; });
    const int taps = int(taps_.size());
    for (int t = 0; t < taps; t++) {
      // Channels c with step <= c * taps + t < step + steps.
      const int begin = ceil_div(std::max(0, step - t), taps);
      const int end = step + steps > t ? ceil_div(step + steps - t, taps) : 0;
      if (begin >= end) continue;
      places.clear();
      for (int i = 0; i < used; i++) place(places, runs[i], taps_[t]);
      places.gather(images + begin * channel_stride_, channel_stride_, end - begin,
                    to + (std::ptrdiff_t(begin) * taps + t - step) * stride, taps * stride);
    }
  }

  // What a tap sees of a run.
  template <class P>
  void place(P& places, const Grid::Run& run, const Tap& tap) const {
    const int row = run.row * grid_.step_h + tap.h, column = run.column * grid_.step_w + tap.w;
    if (row < 0 || row >= height_) return;
    const int begin = column < 0 ? ceil_div(-column, grid_.step_w) : 0;
    const int end =
        std::min(run.length, column < width_ ? ceil_div(width_ - column, grid_.step_w) : 0);
    if (begin >= end) return;
    const std::ptrdiff_t offset =
        std::ptrdiff_t(run.image) + std::ptrdiff_t(row) * width_ + column - run.lane * grid_.step_w;
    places.add(offset, run.lane + begin, run.lane + end);
  }

  int channels_, height_, width_;
  Grid grid_;
  std::vector<Tap> taps_;
  std::ptrdiff_t channel_stride_;
  bool whole_;  // whether every pixel sees itself alone
};

// c = rows of channels x the pixels of a grid.
class Pixels {
 public:
  // `width`: of a row of the image; `start`: a value for each channel, or null.
  Pixels(float* data, const Grid& grid, std::ptrdiff_t channel_stride, int width,
         const float* start)
      : data_(data), grid_(grid), channel_stride_(channel_stride), width_(width), start_(start) {
    whole_ = grid.step_h == 1 && grid.step_w == 1 && grid.columns == width;
    if (whole_) {
      grid_.columns *= grid_.rows;
      grid_.rows = 1;
    }
  }

  std::ptrdiff_t row_stride() const { return channel_stride_; }
  bool adds() const { return false; }
  const float* start(int row) const { return start_ != nullptr ? start_ + row : nullptr; }

  float* place(int row, int column, int lanes) const {
    const int image = column / grid_.columns, pixel = column % grid_.columns;
    if (!whole_ || pixel + lanes > grid_.columns) return nullptr;
    return data_ + image * grid_.image_stride + row * channel_stride_ + pixel;
  }

  void put(int row, int rows, int column, int columns, const float* tile, bool add_tile) const {
    grid_.each_run(column, columns, [&](const Grid::Run& run) {
      float* to = data_ + run.image + row * channel_stride_ +
                  std::ptrdiff_t(run.row) * grid_.step_h * width_ + run.column * grid_.step_w;
      const float* from = tile + run.lane;
      for (int i = 0; i < rows; i++, to += channel_stride_, from += kPanelLanes) {
        if (grid_.step_w == 1) {
          ResultMatrix::put_row(from, run.length, to, add_tile);
        } else if (grid_.step_w == 2) {
          put_every_second(from, run.length, to, add_tile);
        } else {
          for (int j = 0; j < run.length; j++) {
            float& value = to[std::ptrdiff_t(j) * grid_.step_w];
            value = add_tile ? value + from[j] : from[j];
          }
        }
      }
    });
  }

 private:
  static void put_every_second(const float* from, int count, float* to, bool add_row) {
    for (int j = 0; j < count; j += kLanes, from += kLanes, to += 2 * kLanes) {
      const int last = 2 * (count - j) - 1;
      const Vec v = load(from);
      put_even(interleave_low(v, v), lane_mask(last), to, add_row);
      put_even(interleave_high(v, v), lane_mask(last - kLanes), to + kLanes, add_row);
    }
  }

  static void put_even(Vec v, Mask used, float* to, bool add_row) {
    const Mask mask = both(even_lanes(), used);
    store(to, add_row ? add(v, load(to, mask)) : v, mask);
  }

  float* data_;
  Grid grid_;
  std::ptrdiff_t channel_stride_;
  int width_;
  const float* start_;
  bool whole_;
};

// Of one shape; of one group of channels where there are several.
class ProductConvolution {
 public:
  explicit ProductConvolution(const ConvShape& s) : s_(s), columns_(columns_of(s)) {}

  void forward(const float* x, const float* w, const float* bias, float* y) const {
    if (s_.is_dense()) return dense().forward(x, w, bias, y, 0, s_.out_channels);
    const int steps = columns_.steps();
    const Grid grid{s_.out_stride(), s_.out_h, s_.out_w, 1, 1};
    product(s_.out_channels, s_.images * out_pixels(), steps, LeftMatrix{w, steps, false},
            Straight{columns_, x}, Pixels(y, grid, out_pixels(), s_.out_w, bias));
  }

  // dw += the gradient.
  void backward_weights(const float* x, const float* dy, float* dw) const {
    if (s_.is_dense()) return dense().backward_weights(x, dy, dw, 0, s_.out_channels);
    const int steps = columns_.steps();
    product(s_.out_channels, steps, s_.images * out_pixels(),
            Gradient{dy, s_.out_stride(), out_pixels()}, Turned{columns_, x},
            ResultMatrix{dw, steps, true});
  }

  void backward_data(const float* w, const float* dy, float* dx) {
    if (s_.is_dense()) return dense().backward_data(w, dy, dx, 0, int(s_.in_size()));
    plan_phases();
    if (incomplete_) clear(dx);
    for (const Phase& phase : phases_) {
      const Grid grid{s_.in_stride(), phase.rows, phase.columns, s_.stride_h, s_.stride_w};
      float* const first = dx + std::ptrdiff_t(phase.remainder_h) * s_.in_w + phase.remainder_w;
      product(s_.in_channels, s_.images * phase.rows * phase.columns, phase.source.steps(),
              TurnedWeights{w, s_.in_channels, s_.kernel(), phase.weights},
              Straight{phase.source, dy},
              Pixels(first, grid, std::ptrdiff_t(s_.in_h) * s_.in_w, s_.in_w, nullptr));
    }
  }

 private:
  // Operands; see product().

  struct Straight {
    const Columns& columns;
    const float* images;
    void pack(int column, int count, int step, int steps, float* to) const {
      columns.pack(images, column, count, step, steps, to);
    }
  };

  struct Turned {
    const Columns& columns;
    const float* images;
    void pack(int column, int count, int step, int steps, float* to) const {
      columns.pack_turned(images, column, count, step, steps, to);
    }
  };

  // Output channels x the pixels of all images.
  struct Gradient {
    const float* dy;
    std::size_t image_stride;
    int pixels;

    void pack(int row, int rows, int step, int steps, float* to) const {
      while (steps > 0) {
        const int image = step / pixels, first = step % pixels;
        const int count = std::min(steps, pixels - first);
        pack_turned(dy + image * image_stride + std::ptrdiff_t(row) * pixels + first, pixels, rows,
                    count, to, rows);
        to += std::ptrdiff_t(count) * rows;
        step += count;
        steps -= count;
      }
    }
  };

  // Channels x these weights of all output channels.
  struct TurnedWeights {
    const float* w;
    int channels, kernel;
    const std::vector<int>& weights;

    void pack(int row, int rows, int step, int steps, float* to) const {
      const int taps = int(weights.size());
      if (kernel == 1) {
        return pack_straight(w + std::ptrdiff_t(step) * channels + row, channels, rows, steps, to,
                             rows);
      }
      for (const int end = step + steps; step < end;) {
        const int output = step / taps, first = step % taps;
        const int count = std::min(end - step, taps - first);
        const float* const from = w + (std::ptrdiff_t(output) * channels + row) * kernel;
        if (taps == kernel) {
          pack_turned(from + first, kernel, rows, count, to, rows);
        } else {
          for (int k = 0; k < count; k++) {
            for (int i = 0; i < rows; i++)
              to[k * rows + i] = from[std::ptrdiff_t(i) * kernel + weights[first + k]];
          }
        }
        to += count * rows;
        step += count;
      }
    }
  };

  // The rows and columns of the image with these remainders, what they see of the outputs, and by
  // which weights.
  struct Phase {
    int remainder_h, remainder_w, rows, columns;
    std::vector<int> weights;
    Columns source;
  };

  Dense dense() const {
    return {s_.images, int(s_.in_size()), s_.out_channels, std::ptrdiff_t(s_.in_stride()),
            std::ptrdiff_t(s_.out_stride())};
  }

  static Columns columns_of(const ConvShape& s) {
    std::vector<Columns::Tap> taps;
    for (int h = 0; h < s.kernel_h; h++) {
      for (int w = 0; w < s.kernel_w; w++)
        taps.push_back({h * s.dilation_h - s.pad_h, w * s.dilation_w - s.pad_w});
    }
    const Grid grid{s.in_stride(), s.out_h, s.out_w, s.stride_h, s.stride_w};
    return Columns(s.in_channels, s.in_h, s.in_w, grid, std::move(taps));
  }

  int out_pixels() const { return s_.out_h * s_.out_w; }

  void plan_phases() {
    if (planned_) return;
    planned_ = true;
    for (int fh = 0; fh < std::min(s_.stride_h, s_.in_h); fh++) {
      for (int fw = 0; fw < std::min(s_.stride_w, s_.in_w); fw++) plan_phase(fh, fw);
    }
  }

  void plan_phase(int fh, int fw) {
    const int rows = ceil_div(s_.in_h - fh, s_.stride_h),
              columns = ceil_div(s_.in_w - fw, s_.stride_w);
    std::vector<Columns::Tap> taps;
    std::vector<int> weights;
    for (int kh = 0; kh < s_.kernel_h; kh++) {
      for (int kw = 0; kw < s_.kernel_w; kw++) {
        // Image row fh + i * stride meets output row i + h / stride where that is whole.
        const int h = fh + s_.pad_h - kh * s_.dilation_h, w = fw + s_.pad_w - kw * s_.dilation_w;
        if (h % s_.stride_h != 0 || w % s_.stride_w != 0) continue;
        taps.push_back({h / s_.stride_h, w / s_.stride_w});
        weights.push_back(kh * s_.kernel_w + kw);
      }
    }
    if (taps.empty()) {
      incomplete_ = true;
      return;
    }
    const Grid grid{s_.out_stride(), rows, columns, 1, 1};
    phases_.push_back({fh, fw, rows, columns, std::move(weights),
                       Columns(s_.out_channels, s_.out_h, s_.out_w, grid, std::move(taps))});
  }

  void clear(float* dx) const {
    for (int n = 0; n < s_.images; n++) {
      std::memset(dx + n * s_.in_stride(), 0, sizeof(float) * s_.in_size());
    }
  }

  ConvShape s_;
  Columns columns_;
  bool planned_ = false, incomplete_ = false;  // whether no weight reaches some of the image
  std::vector<Phase> phases_;
};

}  // namespace lrbench
