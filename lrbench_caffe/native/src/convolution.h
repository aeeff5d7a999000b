// Direct 2-d convolution of NCHW float32 images, without im2col.
//
// Everything is a *correlation with stride 1*. A source image is copied into a buffer with zeros
// around it and, where there are strides, split into planes: one for each remainder of row and
// column. Seen so, each weight is a *tap*: a constant offset in the buffer,
//
//     out[o][i][j] = start[o] + sum over taps t and channels c of  w[o][c][t] * plane_t[c][i +
//     dh_t][j + dw_t]
//
// for any kernel, stride, padding and dilation. Forward, taps read the planes of the image and
// there is one output. Backward to data, the source is the output's gradient, weights are used the
// other way round, and each remainder of the image's rows and columns is an output of its own with
// its own taps.
//
// Inner loop (tile): V vectors of eight neighbouring pixels times O outputs stay in registers for
// the whole sum, V <= 3 and V * O <= 12; each step loads V vectors, broadcasts O weights and does V
// * O multiply-adds. Weights are packed so that the O weights of a step lie together. Taps are
// sorted by row, so that those that only meet zeros for a tile's rows are at the ends and left out.
//
// Backward to weights (Gradient) sums over pixels instead: lanes are output channels, whose
// gradient is transposed first; a tile is V vectors of them times T taps. Images are taken in
// groups that fit into the second-level cache. Odd widths waste nothing.
//
// Sums run in a fixed order that depends on shapes only, so equal calls give equal bits.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "convolution_tiles.h"
#include "costs.h"
#include "product_convolution.h"
#include "winograd_channels.h"
#include "winograd_images.h"

namespace lrbench {

// ---------------------------------------------------------------------------------------------------------
// Source images in a zero-padded buffer, split by remainders of rows and columns.

struct Source {
  int channels, height, width;  // of one image
  int step_h, step_w;           // rows and columns are split by their remainders of these
  int low_h, low_w;             // the buffer's first row and column; may be negative
  int rows, pitch;              // of a plane of one channel

  int planes() const { return step_h * step_w; }
  std::size_t plane_size() const { return std::size_t(channels) * rows * pitch; }
  std::size_t size() const { return planes() * plane_size(); }
  // Of an element whose row is step_h * (low_h + row) + remainder and whose column likewise.
  std::size_t at(int plane, int channel, int row, int column) const {
    return plane * plane_size() + (std::size_t(channel) * rows + row) * pitch + column;
  }

  // Copies one image into a buffer that was zero at first; the zeros around the image stay.
  void copy(const float* image, float* buffer) const {
    each_row([&](std::size_t in_image, std::size_t in_buffer, int count) {
      copy_row(image + in_image, buffer + in_buffer, count, step_w);
    });
  }

  // The way back: from the buffer to an image. Elements that the buffer does not reach stay.
  void extract(const float* buffer, float* image) const {
    each_row([&](std::size_t in_image, std::size_t in_buffer, int count) {
      const float* from = buffer + in_buffer;
      float* to = image + in_image;
      if (step_w == 1) return copy_row(from, to, count, 1);
      for (int i = 0; i < count; i++) to[std::size_t(i) * step_w] = from[i];
    });
  }

 private:
  // visit(offset in the image, offset in the buffer, elements) for the rows that both have, by
  // plane.
  template <class Visit>
  void each_row(Visit visit) const {
    for (int fh = 0; fh < step_h; fh++) {
      for (int fw = 0; fw < step_w; fw++) {
        // Rows r of the buffer with 0 <= step_h * (low_h + r) + fh < height, and columns likewise.
        const int r0 = std::max(0, ceil_to(-fh, step_h) - low_h);
        const int r1 = std::min(rows, ceil_to(height - fh, step_h) - low_h);
        const int q0 = std::max(0, ceil_to(-fw, step_w) - low_w);
        const int q1 = std::min(pitch, ceil_to(width - fw, step_w) - low_w);
        if (q1 <= q0) continue;
        for (int c = 0; c < channels; c++) {
          for (int r = r0; r < r1; r++) {
            const int y = step_h * (low_h + r) + fh, x = step_w * (low_w + q0) + fw;
            visit((std::size_t(c) * height + y) * width + x, at(fh * step_w + fw, c, r, q0),
                  q1 - q0);
          }
        }
      }
    }
  }

  // The smallest n with n * step >= a.
  static int ceil_to(int a, int step) { return -floor_div(-a, step); }

  static void copy_row(const float* from, float* to, int count, int step) {
    int i = 0;
    if (step == 1) {
      for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
      for (; i < count; i++) to[i] = from[i];
    } else {
      if (step == 2) {  // the sixteen floats read must not go beyond the last one copied
        for (; i + kLanes < count; i += kLanes) store(to + i, every_second(from + 2 * i));
      }
      for (; i < count; i++) to[i] = from[std::size_t(i) * step];
    }
  }
};

// One weight of a kernel, as the sum sees it.
struct Tap {
  int dh, dw;  // offset in its plane, in rows and columns of the plane
  int plane;
  int weight;  // kh * kernel_w + kw

  bool operator<(const Tap& other) const {
    return dh != other.dh ? dh < other.dh : weight < other.weight;
  }
};

// Taps sorted by row, all channels: term k of the sum reads source[offset[k] + i * pitch + j].
struct Terms {
  std::vector<int> offset;         // in the source's buffer
  std::vector<int> weight;         // in the weights of one output
  std::vector<int> rows, columns;  // the tap's dh and dw; rows are ascending

  // The source's low_h, low_w, rows and pitch become such that every tap of an out_h x out_w output
  // fits.
  void set(std::vector<Tap> taps, Source& source, int out_h, int out_w, int channel_stride) {
    std::sort(taps.begin(), taps.end());
    int high_h = taps[0].dh, high_w = taps[0].dw;
    source.low_h = taps[0].dh;
    source.low_w = taps[0].dw;
    for (const Tap& tap : taps) {
      source.low_h = std::min(source.low_h, tap.dh);
      source.low_w = std::min(source.low_w, tap.dw);
      high_h = std::max(high_h, tap.dh);
      high_w = std::max(high_w, tap.dw);
    }
    source.rows = high_h - source.low_h + out_h;
    source.pitch = high_w - source.low_w + out_w;
    for (std::size_t first = 0, last; first < taps.size(); first = last) {
      for (last = first; last < taps.size() && taps[last].dh == taps[first].dh;) last++;
      for (int c = 0; c < source.channels; c++) {
        for (std::size_t t = first; t < last; t++) add(taps[t], c, source, channel_stride);
      }
    }
  }

  // The same terms, those of one tap together.
  Terms by_tap() const {
    std::vector<int> order(offset.size());
    for (std::size_t k = 0; k < order.size(); k++) order[k] = int(k);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return std::make_pair(rows[a], columns[a]) < std::make_pair(rows[b], columns[b]);
    });
    Terms terms;
    for (int k : order) {
      terms.offset.push_back(offset[k]);
      terms.weight.push_back(weight[k]);
      terms.rows.push_back(rows[k]);
      terms.columns.push_back(columns[k]);
    }
    return terms;
  }

  int count() const { return int(offset.size()); }

  // The terms [first, second) that meet more than zeros in output rows [row0, row1].
  std::pair<int, int> useful(int row0, int row1, int source_rows) const {
    const auto first = std::lower_bound(rows.begin(), rows.end(), -row1);
    const auto last = std::upper_bound(first, rows.end(), source_rows - 1 - row0);
    return {int(first - rows.begin()), int(last - rows.begin())};
  }

 private:
  void add(const Tap& tap, int channel, const Source& source, int channel_stride) {
    offset.push_back(
        int(source.at(tap.plane, channel, tap.dh - source.low_h, tap.dw - source.low_w)));
    weight.push_back(channel * channel_stride + tap.weight);
    rows.push_back(tap.dh);
    columns.push_back(tap.dw);
  }
};

// ---------------------------------------------------------------------------------------------------------
// One output of `outputs` channels from one source.
class Correlation {
 public:
  Correlation(const Source& source, const std::vector<Tap>& taps, int outputs, int out_h, int out_w,
              int output_stride, int channel_stride)
      : source_(source),
        outputs_(outputs),
        out_h_(out_h),
        out_w_(out_w),
        output_stride_(output_stride) {
    terms_.set(taps, source_, out_h, out_w, channel_stride);
    place_vectors();
    choose_tiles();
    choose_block();
  }

  const Source& source() const { return source_; }
  const Terms& terms() const { return terms_; }
  std::size_t buffer_size() const {
    return source_.size() + kLanes;
  }  // a vector may begin at the last element
  double cycles() const { return cycles_ + double(source_.size()) / 4; }

  // Rearranges the weights for the tiles: of each panel of O outputs, term by term.
  void pack(const float* weights) {
    if (packed_.data() == nullptr) {
      buffer_.resize(buffer_size());
      packed_.resize(std::size_t(outputs_) * terms_.count());
    }
    float* to = packed_.data();
    int first = 0;
    for (int size : panels_) {
      const float* from = weights + std::size_t(first) * output_stride_;
      for (int k = 0; k < terms_.count(); k++) {
        for (int o = 0; o < size; o++)
          *to++ = from[std::size_t(o) * output_stride_ + terms_.weight[k]];
      }
      first += size;
    }
  }

  // One image; `start` has a value for each output, or is null.
  void run(const float* image, const float* start, float* output) {
    source_.copy(image, buffer_.data());
    TileTask task;
    task.source = buffer_.data();
    task.offset = terms_.offset.data();
    task.out_stride = std::size_t(out_h_) * out_w_;
    task.lanes = out_w_;
    const int all = int(groups_.size());
    for (int begin = 0; begin < all; begin += block_) {
      task.weights = packed_.data();
      int first = 0;
      for (int size : panels_) {
        task.output = output + first * task.out_stride;
        task.start = start ? start + first : nullptr;
        for (int g = begin; g < std::min(all, begin + block_); g++) {
          const Group& group = groups_[g];
          task.first = group.first;
          task.last = group.last;
          task.in = in_.data() + group.vector * kPieces;
          task.out = out_.data() + group.vector * kPieces;
          group_function(group, size)(task);
        }
        task.weights += std::size_t(size) * terms_.count();
        first += size;
      }
    }
  }

 private:
  struct Group {
    int vector, vectors;  // which vectors
    int first, last;      // the terms that they need
    bool apart;           // whether a vector's pieces do not all lie side by side
  };

  TileFunction group_function(const Group& group, int outputs) const {
    if (out_w_ < kPiece) return tile_function<Put::kStoreFirst, kWide>(group.vectors, outputs);
    return group.apart ? tile_function<Put::kStore, kWide>(group.vectors, outputs)
                       : tile_function<Put::kStore>(group.vectors, outputs);
  }

  // Pieces cover each output row; the last of a row ends with it and may overlap the one before it.
  // The last vector may do one of them twice.
  void place_vectors() {
    for (int i = 0; i < out_h_; i++) {
      for (int j = 0; j < out_w_; j += kPiece) {
        const int column = std::max(0, std::min(j, out_w_ - kPiece));
        in_.push_back(i * source_.pitch + column);
        out_.push_back(i * out_w_ + column);
        row_.push_back(i);
      }
    }
    while (in_.size() % kPieces != 0) {
      for (std::vector<int>* places : {&in_, &out_, &row_}) places->push_back(places->back());
    }
  }

  bool lies_apart(int vector, int vectors) const {
    for (int first = vector * kPieces; first < (vector + vectors) * kPieces; first += kPieces) {
      for (int i = first + 1; i < first + kPieces; i++) {
        if (in_[i] != in_[i - 1] + kPiece || out_[i] != out_[i - 1] + kPiece) return true;
      }
    }
    return false;
  }

  // Tiles of at most so many vectors. Either each row is split evenly, or tiles go on from row to
  // row.
  std::vector<Group> group_by(int most, bool by_row) const {
    std::vector<Group> groups;
    int vector = 0;
    const int all = int(in_.size()) / kPieces;
    for (int part = 0; part < (by_row ? out_h_ : 1); part++) {
      for (int size : even_split(by_row ? all / out_h_ : all, most)) {
        const int row0 = row_[vector * kPieces], row1 = row_[(vector + size) * kPieces - 1];
        const auto terms = terms_.useful(row0, row1, ceil_div(source_.height, source_.step_h));
        groups.push_back({vector, size, terms.first, terms.second, lies_apart(vector, size)});
        vector += size;
      }
    }
    return groups;
  }

  void choose_tiles() {
    const bool whole_rows = ceil_div(out_w_, kPiece) % kPieces == 0;  // no vector is in two of them
    for (int vectors = 1; vectors <= kMostVectors; vectors++) {
      for (bool by_row : {true, false}) {
        if (by_row && !whole_rows) continue;
        const std::vector<Group> groups = group_by(vectors, by_row);
        const std::vector<int> panels = even_split(outputs_, most_outputs(vectors));
        double cycles = 0;
        for (const Group& group : groups) {
          for (int size : panels)
            cycles += tile_cycles(group.last - group.first, group.vectors, size, 1);
        }
        if (groups_.empty() || cycles < cycles_) {
          cycles_ = cycles;
          groups_ = groups;
          panels_ = panels;
        }
      }
    }
  }

  // All of the image for a panel of weights, then the next panel? Or all weights for a part of the
  // image that stays in the first-level cache, then the next part? Whichever reads less from the
  // second level.
  void choose_block() {
    const double image = sizeof(float) * double(source_.size());
    const double weights = sizeof(float) * double(outputs_) * terms_.count();
    const double blocks = std::ceil(image / (12 * 1024));
    const double whole = image > 24 * 1024 ? image * panels_.size() : image;
    block_ = int(groups_.size());
    if (blocks * weights + image < whole + weights)
      block_ = std::max(1, int(std::ceil(block_ / blocks)));
  }

  Source source_;
  int outputs_, out_h_, out_w_, output_stride_;
  Terms terms_;
  std::vector<int> in_, out_, row_;  // of each piece
  double cycles_ = 0;                // estimated, for one image
  std::vector<Group> groups_;
  std::vector<int> panels_;
  int block_;  // groups that are done for all panels before the next ones
  Buffer buffer_, packed_;
};

// ---------------------------------------------------------------------------------------------------------
// The gradient of the data the other way: every output's gradient is multiplied with the weights
// and added where it came from. Without padding that is fewer operations than a correlation, whose
// taps reach out of the outputs everywhere along the border.
class Scatter {
 public:
  // `source` and `terms`: of the forward pass; `weights_stride`: between outputs.
  Scatter(const Source& source, const Terms& terms, int outputs, int out_h, int out_w,
          int weights_stride)
      : image_(source), terms_(terms.by_tap()), outputs_(outputs), weights_stride_(weights_stride) {
    const int in_row = ceil_div(out_w, kPiece);
    const bool odd = out_h * in_row % kPieces != 0;  // then the last vector's last piece is zeros
    gradient_ = Source{outputs, out_h, out_w, 1, 1, 0, 0, out_h + odd, in_row * kPiece};
    for (int o = 0; o < outputs; o++) offset_.push_back(int(gradient_.at(0, o, 0, 0)));
    for (int i = 0; i < out_h; i++) {
      for (int j = 0; j < out_w; j += kPiece) {
        in_.push_back(i * gradient_.pitch + j);
        out_.push_back(i * image_.pitch + j);
      }
    }
    if (odd) {
      in_.push_back(out_h * gradient_.pitch);
      out_.push_back(out_.back());
    }
    choose_tiles();
  }

  double cycles() const { return cycles_ + double(image_.size()) / 2; }

  void pack(const float* weights) {
    if (buffer_.data() == nullptr) {
      buffer_.resize(gradient_.size());
      sums_.resize(image_.size() + kLanes);
      packed_.resize(std::size_t(outputs_) * terms_.count());
    }
    float* to = packed_.data();
    int first = 0;
    for (int size : panels_) {
      for (int o = 0; o < outputs_; o++) {
        for (int k = first; k < first + size; k++) {
          *to++ = weights[std::size_t(o) * weights_stride_ + terms_.weight[k]];
        }
      }
      first += size;
    }
  }

  // One image. What no weight reaches becomes zero.
  void run(const float* gradient, float* image) {
    gradient_.copy(gradient, buffer_.data());
    std::memset(sums_.data(), 0, sizeof(float) * image_.size());
    TileTask task;
    task.source = buffer_.data();
    task.offset = offset_.data();
    task.weights = packed_.data();
    task.first = 0;
    task.last = outputs_;
    task.output = sums_.data();
    task.start = nullptr;
    int first = 0;
    for (int size : panels_) {
      task.out_offset = terms_.offset.data() + first;
      int vector = 0;
      for (int vectors : groups_) {
        task.in = in_.data() + vector * kPieces;
        task.out = out_.data() + vector * kPieces;
        tile_function<Put::kAdd, kWide>(vectors, size)(task);
        vector += vectors;
      }
      task.weights += std::size_t(size) * outputs_;
      first += size;
    }
    std::memset(image, 0, sizeof(float) * image_.channels * image_.height * image_.width);
    image_.extract(sums_.data(), image);
  }

 private:
  void choose_tiles() {
    for (int vectors = 1; vectors <= kMostVectors; vectors++) {
      const std::vector<int> groups = even_split(int(in_.size()) / kPieces, vectors);
      const std::vector<int> panels = even_split(terms_.count(), most_outputs(vectors));
      double cycles = 0;
      for (int group : groups) {
        for (int size : panels) cycles += tile_cycles(outputs_, group, size, 2);
      }
      if (groups_.empty() || cycles < cycles_) {
        cycles_ = cycles;
        groups_ = groups;
        panels_ = panels;
      }
    }
  }

  Source image_, gradient_;
  Terms terms_;  // those of one tap together: what a tile adds to does not overlap
  int outputs_, weights_stride_;
  std::vector<int> offset_, in_, out_;
  double cycles_ = 0;
  std::vector<int> groups_, panels_;
  Buffer buffer_, sums_, packed_;
};

// ---------------------------------------------------------------------------------------------------------

// What a test net's forward passes do beside the convolution, and what they leave out.
struct Finish {
  float lowest = kNoLimit;    // no output is less: zero for a ReLU
  bool same_weights = false;  // as in the pass before: they are packed already
};

// A convolution of one shape. Not to be used by two threads at once.
class Convolution {
 public:
  explicit Convolution(const ConvShape& shape, Way way = Way::kFaster)
      : s_(shape), way_(way), product_(shape) {
    plan_forward();
  }

  // An estimate of what a pass takes for all images.
  double cycles(Direction direction) {
    if (by_product(direction)) return product_cycles(s_, direction);
    return cycles_of_others(direction);
  }

  // Whether a forward pass can use the weights that the one before it packed.
  bool stays_packed() {
    return !by_product(Direction::kForward) && (!fast_forward_ || fast_forward_->stays_packed());
  }

  // y = x * w + bias; `bias` may be null.
  void forward(const float* x, const float* w, const float* bias, float* y,
               const Finish& finish = {}) {
    if (by_product(Direction::kForward)) {
      product_.forward(x, w, bias, y);
      for (int n = 0; n < s_.images; n++)
        raise_to(finish.lowest, y + n * s_.out_stride(), s_.out_size());
      return;
    }
    if (fast_forward_) {
      if (!finish.same_weights || !fast_forward_->stays_packed()) fast_forward_->pack(w);
      each_group(fast_forward_->at_once(), [&](int n, int images) {
        fast_forward_->run(x + n * s_.in_stride(), images, bias, finish.lowest,
                           y + n * s_.out_stride());
      });
      return;
    }
    Correlation& forward = forward_[0];
    if (!finish.same_weights) forward.pack(w);
    for (int n = 0; n < s_.images; n++) {
      forward.run(x + n * s_.in_stride(), bias, y + n * s_.out_stride());
      raise_to(finish.lowest, y + n * s_.out_stride(), s_.out_size());
    }
  }

  // The gradients: dx = that of x, dw += that of the weights. Either may be null. Both are computed
  // for a group of images before the next one, while its data is in the cache, if their kernels
  // take the same number of images.
  void backward(const float* x, const float* w, const float* dy, float* dw, float* dx) {
    if (dx != nullptr && by_product(Direction::kData)) {
      product_.backward_data(w, dy, dx);
      dx = nullptr;
    }
    if (dw != nullptr && by_product(Direction::kWeights)) {
      product_.backward_weights(x, dy, dw);
      dw = nullptr;
    }
    if (dw == nullptr && dx == nullptr) return;
    if (dx != nullptr) begin_data(w);
    if (dw != nullptr) begin_weights();
    const auto go = [&](bool weights, bool data) {
      each_group(backward_group(weights, data), [&](int n, int images) {
        const float* gradient = dy + n * s_.out_stride();
        if (weights) group_weights(x + n * s_.in_stride(), gradient, images, dw);
        if (data) group_data(gradient, dx + n * s_.in_stride(), images);
      });
    };
    if (dw != nullptr && dx != nullptr && !same_groups()) {
      go(true, false);
      go(false, true);
    } else {
      go(dw != nullptr, dx != nullptr);
    }
    if (dw != nullptr) finish_weights(dw);
  }

  // db += the gradient of the bias.
  void backward_bias(const float* dy, float* db) const {
    const int pixels = s_.out_h * s_.out_w;
    for (int o = 0; o < s_.out_channels; o++) {
      Vec sums = zero();
      float rest = 0;
      for (int n = 0; n < s_.images; n++) {
        const float* from = dy + n * s_.out_stride() + std::size_t(o) * pixels;
        int i = 0;
        for (; i + kLanes <= pixels; i += kLanes) sums = add(sums, load(from + i));
        for (; i < pixels; i++) rest += from[i];
      }
      db[o] += sum(sums) + rest;
    }
  }

 private:
  // The rows and columns of the image with these remainders, and what computes their gradient.
  struct Phase {
    int remainder_h, remainder_w, rows, columns;
    std::vector<Correlation> correlation;  // one, or none where no weight reaches them
  };

  // Of the direct or Winograd's kernels.
  double cycles_of_others(Direction direction) {
    if (direction == Direction::kWeights) plan_gradient();
    if (direction == Direction::kData) plan_backward();
    return cycles_[int(direction)];
  }

  // Whether a pass, which is planned first, is one of products.
  bool by_product(Direction direction) {
    if (way_ != Way::kFaster) return way_ == Way::kProduct;
    if (s_.is_dense()) return true;
    const double others = cycles_of_others(direction);
    return product_cycles(s_, direction) < others;
  }

  // visit(first image, number of images)
  template <class Visit>
  void each_group(int most, Visit visit) const {
    for (int n = 0; n < s_.images; n += most) visit(n, std::min(most, s_.images - n));
  }

  // Whether both gradients can be computed for the same images at once without loss.
  bool same_groups() const {
    return !fast_weights_ || !fast_data_ || fast_weights_->at_once() == fast_data_->at_once();
  }

  // Images at once: as many as the pickier of the fast kernels takes.
  int backward_group(bool weights, bool data) const {
    int images = s_.images;
    if (weights && fast_weights_) images = std::min(images, fast_weights_->at_once());
    if (data && fast_data_) images = std::min(images, fast_data_->at_once());
    if ((weights && fast_weights_) || (data && fast_data_)) return images;
    return weights ? group_ : 1;
  }

  void begin_data(const float* w) {
    plan_backward();
    if (fast_data_) return fast_data_->pack(w);
    for (Scatter& scatter : scatter_) scatter.pack(w);
    for (Phase& phase : backward_) {
      for (Correlation& correlation : phase.correlation) correlation.pack(w);
    }
  }

  void group_data(const float* gradient, float* image, int images) {
    if (fast_data_) return fast_data_->run(gradient, images, nullptr, kNoLimit, image);
    for (int i = 0; i < images; i++)
      image_data(gradient + i * s_.out_stride(), image + i * s_.in_stride());
  }

  // The gradient of one image.
  void image_data(const float* gradient, float* image) {
    if (!scatter_.empty()) return scatter_[0].run(gradient, image);
    if (backward_.size() == 1 && !backward_[0].correlation.empty()) {
      return backward_[0].correlation[0].run(gradient, nullptr, image);
    }
    if (scratch_.data() == nullptr) scratch_.resize(s_.in_size());
    for (Phase& phase : backward_) {
      if (!phase.correlation.empty()) phase.correlation[0].run(gradient, nullptr, scratch_.data());
      spread(phase, image);
    }
  }

  void begin_weights() {
    plan_gradient();
    if (fast_weights_) return fast_weights_->begin();
    if (sums_.data() == nullptr) {
      const std::size_t pixels = std::size_t(s_.out_h) * s_.out_w;
      sources_.resize(group_ * forward_[0].buffer_size());
      gradients_.resize(group_ * pixels * padded_);
      sums_.resize(std::size_t(gradient_terms_.count()) * padded_);
    }
    std::memset(sums_.data(), 0, sizeof(float) * gradient_terms_.count() * padded_);
  }

  void group_weights(const float* x, const float* dy, int images, float* dw) {
    if (fast_weights_) return fast_weights_->add_images(x, dy, images, dw);
    for (int i = 0; i < images; i += group_) {
      add_weights(x + i * s_.in_stride(), dy + i * s_.out_stride(), std::min(group_, images - i));
    }
  }

  // Adds a group of images to sums_.
  void add_weights(const float* x, const float* dy, int images) {
    const Correlation& forward = forward_[0];
    const std::size_t pixels = std::size_t(s_.out_h) * s_.out_w;
    for (int i = 0; i < images; i++) {
      forward.source().copy(x + i * s_.in_stride(), sources_.data() + i * forward.buffer_size());
      transpose_gradient(dy + i * s_.out_stride(), gradients_.data() + i * pixels * padded_);
    }
    add_group(images);
  }

  void finish_weights(float* dw) const {
    if (fast_weights_) return fast_weights_->finish(dw);
    const Terms& terms = gradient_terms_;
    for (int o = 0; o < s_.out_channels; o++) {
      float* to = dw + std::size_t(o) * s_.in_channels * s_.kernel();
      const float* from = sums_.data() + o;
      for (int k = 0; k < terms.count(); k++) to[terms.weight[k]] += from[std::size_t(k) * padded_];
    }
  }

  void plan_forward() {
    Source source{s_.in_channels, s_.in_h, s_.in_w, s_.stride_h, s_.stride_w, 0, 0, 0, 0};
    std::vector<Tap> taps;
    for (int kh = 0; kh < s_.kernel_h; kh++) {
      for (int kw = 0; kw < s_.kernel_w; kw++) {
        // Output row i reads image row i * stride + h.
        const int h = kh * s_.dilation_h - s_.pad_h, w = kw * s_.dilation_w - s_.pad_w;
        const int dh = floor_div(h, s_.stride_h), dw = floor_div(w, s_.stride_w);
        const int plane = (h - dh * s_.stride_h) * s_.stride_w + (w - dw * s_.stride_w);
        taps.push_back({dh, dw, plane, kh * s_.kernel_w + kw});
      }
    }
    forward_.emplace_back(source, taps, s_.out_channels, s_.out_h, s_.out_w,
                          s_.in_channels * s_.kernel(), s_.kernel());
    cycles_[int(Direction::kForward)] =
        direct_cycles(s_, Direction::kForward, forward_[0].cycles());
    if (has_winograd()) {
      const WinogradShape shape{s_.in_channels, s_.in_h,        s_.in_w,         s_.out_channels,
                                s_.out_h,       s_.out_w,       s_.pad_h,        s_.pad_w,
                                s_.images,      s_.in_stride(), s_.out_stride(), bands()};
      keep_forward(Direction::kForward, fast_forward_, shape, s_.in_channels * s_.kernel(),
                   s_.kernel(), false);
    }
  }

  // Into how many bands Winograd's kernels cut images, where there are fewer than lanes, or as many
  // would not stay in any cache.
  int bands() const {
    const int tile = s_.kernel_h == 5 ? 2 : 4, rows = ceil_div(std::min(s_.in_h, s_.out_h), tile);
    int bands = 1;
    while (2 * bands <= std::min(kLanes, rows) &&
           (2 * bands * s_.images <= kLanes || lanes_bytes(bands) > kWinogradBytes)) {
      bands *= 2;
    }
    return bands;
  }

  // What the images take that are done at once.
  std::size_t lanes_bytes(int bands) const {
    return sizeof(float) * kLanes / bands * std::max(s_.in_size(), s_.out_size());
  }

  bool has_winograd() const {
    const bool plain =
        s_.stride_h == 1 && s_.stride_w == 1 && s_.dilation_h == 1 && s_.dilation_w == 1;
    const bool square = s_.kernel_h == s_.kernel_w && (s_.kernel_h == 3 || s_.kernel_h == 5);
    return way_ != Way::kDirect && plain && square;
  }

  // Whether Winograd's kernels can have images as lanes.
  bool images_fit() const { return s_.groups == 1 && lanes_bytes(bands()) <= 2 * kWinogradBytes; }

  void keep_forward(Direction direction, std::unique_ptr<WinogradForward>& kept,
                    const WinogradShape& shape, int output_stride, int channel_stride,
                    bool turned) {
    if (way_ != Way::kWinogradChannels && images_fit()) {
      keep_faster(direction, kept,
                  make_winograd<WinogradForward, WinogradForwardOf>(
                      s_.kernel_h, shape, output_stride, channel_stride, turned));
    }
    if (way_ != Way::kWinogradImages) {
      keep_faster(direction, kept,
                  make_winograd<WinogradForward, WinogradForwardByChannels>(
                      s_.kernel_h, shape, output_stride, channel_stride, turned));
    }
  }

  void keep_weights(const WinogradShape& shape) {
    if (way_ != Way::kWinogradChannels && images_fit()) {
      keep_faster(Direction::kWeights, fast_weights_,
                  make_winograd<WinogradGradient, WinogradGradientOf>(s_.kernel_h, shape));
    }
    if (way_ != Way::kWinogradImages) {
      keep_faster(Direction::kWeights, fast_weights_,
                  make_winograd<WinogradGradient, WinogradGradientByChannels>(s_.kernel_h, shape));
    }
  }

  // The Winograd kernel where it takes less than the direct one.
  template <class Kernel>
  void keep_faster(Direction direction, std::unique_ptr<Kernel>& kept,
                   std::unique_ptr<Kernel> kernel) {
    const double cycles =
        kernel->lanes() == Lanes::kImages
            ? winograd_images_cycles(s_, direction, kernel->cycles(), kernel->blocks(),
                                     kernel->at_once())
            : winograd_channels_cycles(s_, kernel->cycles(), kernel->blocks(), kernel->at_once());
    if (way_ == Way::kFaster && cycles >= cycles_[int(direction)]) return;
    cycles_[int(direction)] = cycles;
    kept = std::move(kernel);
  }

  void plan_backward() {
    if (!backward_.empty()) return;
    Source source{s_.out_channels, s_.out_h, s_.out_w, 1, 1, 0, 0, 0, 0};
    for (int fh = 0; fh < std::min(s_.stride_h, s_.in_h); fh++) {
      for (int fw = 0; fw < std::min(s_.stride_w, s_.in_w); fw++) {
        Phase phase{
            fh, fw, ceil_div(s_.in_h - fh, s_.stride_h), ceil_div(s_.in_w - fw, s_.stride_w), {}};
        std::vector<Tap> taps;
        for (int kh = 0; kh < s_.kernel_h; kh++) {
          for (int kw = 0; kw < s_.kernel_w; kw++) {
            // Image row fh + i * stride meets output row i + h / stride where that is whole.
            const int h = fh + s_.pad_h - kh * s_.dilation_h,
                      w = fw + s_.pad_w - kw * s_.dilation_w;
            if (h % s_.stride_h == 0 && w % s_.stride_w == 0) {
              taps.push_back({h / s_.stride_h, w / s_.stride_w, 0, kh * s_.kernel_w + kw});
            }
          }
        }
        if (!taps.empty()) {
          phase.correlation.emplace_back(source, taps, s_.in_channels, phase.rows, phase.columns,
                                         s_.kernel(), s_.in_channels * s_.kernel());
        }
        backward_.push_back(std::move(phase));
      }
    }
    double cycles = backward_.size() > 1 ? double(s_.in_size()) : 0;
    for (const Phase& phase : backward_) {
      for (const Correlation& correlation : phase.correlation) cycles += correlation.cycles();
    }
    const Correlation& forward = forward_[0];
    Scatter scatter(forward.source(), forward.terms(), s_.out_channels, s_.out_h, s_.out_w,
                    s_.in_channels * s_.kernel());
    cycles_[int(Direction::kData)] =
        direct_cycles(s_, Direction::kData, std::min(cycles, scatter.cycles()));
    if (scatter.cycles() < cycles) scatter_.push_back(std::move(scatter));
    if (has_winograd()) {
      const int reach = s_.kernel_h - 1;
      const WinogradShape shape{
          s_.out_channels,  s_.out_h,         s_.out_w,  s_.in_channels,  s_.in_h,        s_.in_w,
          reach - s_.pad_h, reach - s_.pad_w, s_.images, s_.out_stride(), s_.in_stride(), bands()};
      keep_forward(Direction::kData, fast_data_, shape, s_.kernel(), s_.in_channels * s_.kernel(),
                   true);
    }
    if (fast_data_) scatter_.clear();
    for (Phase& phase : backward_) {
      if (fast_data_ || !scatter_.empty()) phase.correlation.clear();
    }
  }

  // Puts a phase's gradient, which is in scratch_, into its place in the image.
  void spread(const Phase& phase, float* image) const {
    const float* from = scratch_.data();
    for (int c = 0; c < s_.in_channels; c++) {
      for (int i = 0; i < phase.rows; i++, from += phase.columns) {
        const int y = phase.remainder_h + i * s_.stride_h;
        float* to = image + (std::size_t(c) * s_.in_h + y) * s_.in_w + phase.remainder_w;
        const bool none = phase.correlation.empty();
        for (int j = 0; j < phase.columns; j++)
          to[std::size_t(j) * s_.stride_w] = none ? 0.f : from[j];
      }
    }
  }

  void plan_gradient() {
    if (group_ != 0) return;
    const Correlation& forward = forward_[0];
    const std::size_t pixels = std::size_t(s_.out_h) * s_.out_w;
    padded_ = ceil_div(s_.out_channels, kLanes) * kLanes;
    const std::size_t image_bytes = sizeof(float) * (forward.buffer_size() + pixels * padded_);
    group_ =
        int(std::max<std::size_t>(1, std::min<std::size_t>(s_.images, kGroupBytes / image_bytes)));
    gradient_terms_ = forward.terms().by_tap();
    vectors_ = channel_vectors(padded_ / kLanes);
    const double products = double(pixels) * gradient_terms_.count() * padded_ / kLanes;
    const double copied = double(forward.source().size() + pixels * padded_);
    cycles_[int(Direction::kWeights)] =
        direct_cycles(s_, Direction::kWeights, products / 2 * 1.2 + copied / 4);
    if (has_winograd()) {
      const WinogradShape shape{s_.in_channels, s_.in_h,        s_.in_w,         s_.out_channels,
                                s_.out_h,       s_.out_w,       s_.pad_h,        s_.pad_w,
                                s_.images,      s_.in_stride(), s_.out_stride(), bands()};
      keep_weights(shape);
    }
  }

  // channels x pixels to pixels x padded channels; what is added is zero and stays so.
  void transpose_gradient(const float* from, float* to) const {
    const int pixels = s_.out_h * s_.out_w;
    for (int o = 0; o < s_.out_channels; o += kPiece) {
      const int channels = std::min(kPiece, s_.out_channels - o);
      int i = 0;
      for (; i + kPiece <= pixels; i += kPiece) {
        Piece rows[kPiece];
        for (int c = 0; c < kPiece; c++) {
          rows[c] = c < channels ? load_piece(from + std::size_t(o + c) * pixels + i) : Piece();
        }
        transpose(rows);
        for (int j = 0; j < kPiece; j++)
          store_piece(to + std::size_t(i + j) * padded_ + o, rows[j]);
      }
      for (; i < pixels; i++) {
        for (int c = 0; c < channels; c++) {
          to[std::size_t(i) * padded_ + o + c] = from[std::size_t(o + c) * pixels + i];
        }
      }
    }
  }

  void add_group(int images) {
    const Correlation& forward = forward_[0];
    GradientTask task;
    task.source = sources_.data();
    task.source_stride = forward.buffer_size();
    task.gradient_stride = std::size_t(s_.out_h) * s_.out_w * padded_;
    task.out_w = s_.out_w;
    task.pitch = forward.source().pitch;
    task.channels = padded_;
    int channel = 0;
    for (int vectors : vectors_) {
      const int row_bytes = s_.out_w * vectors * kLanes * int(sizeof(float));
      const int block = std::max(1, std::min(s_.out_h, kBlockBytes / row_bytes));
      // Large images by themselves, in blocks of rows; small ones all at once.
      if (block < s_.out_h) {
        for (int n = 0; n < images; n++) {
          for (int row = 0; row < s_.out_h; row += block) {
            add_rows(task, vectors, channel, n, 1, row, std::min(s_.out_h, row + block));
          }
        }
      } else {
        add_rows(task, vectors, channel, 0, images, 0, s_.out_h);
      }
      channel += vectors * kLanes;
    }
  }

  // Output rows [begin, end) of images [first, first + count) of the group, for all terms.
  void add_rows(GradientTask task, int vectors, int channel, int first, int count, int begin,
                int end) {
    const Terms& terms = gradient_terms_;
    const int source_rows = ceil_div(s_.in_h, s_.stride_h),
              source_columns = ceil_div(s_.in_w, s_.stride_w);
    task.source += first * task.source_stride;
    task.gradient = gradients_.data() + first * task.gradient_stride + channel;
    task.images = count;
    int k = 0;
    for (int size : even_split(terms.count(), most_terms(vectors))) {
      task.offset = terms.offset.data() + k;
      task.sums = sums_.data() + std::size_t(k) * padded_ + channel;
      // Rows and columns where at least one of the terms meets the image.
      const auto columns =
          std::minmax_element(terms.columns.begin() + k, terms.columns.begin() + k + size);
      task.row0 = std::max(begin, -terms.rows[k + size - 1]);
      task.row1 = std::min(end, source_rows - terms.rows[k]);
      task.column0 = std::max(0, -*columns.second);
      task.column1 = std::min(s_.out_w, source_columns - *columns.first);
      if (task.row0 < task.row1 && task.column0 < task.column1)
        gradient_function(vectors, size)(task);
      k += size;
    }
  }

  static constexpr int kBlockBytes = 16 * 1024;
  static constexpr std::size_t kGroupBytes = 192 * 1024;
  static constexpr std::size_t kWinogradBytes = 8 * 1024 * 1024;

  ConvShape s_;
  Way way_;
  ProductConvolution product_;
  double cycles_[3] = {};  // of each pass that is planned
  // Winograd's, where they are used.
  std::unique_ptr<WinogradForward> fast_forward_, fast_data_;
  std::unique_ptr<WinogradGradient> fast_weights_;
  std::vector<Correlation> forward_;  // one
  std::vector<Phase> backward_;       // planned when first needed
  std::vector<Scatter> scatter_;      // one, where it is faster than backward_
  Buffer scratch_;
  int group_ = 0, padded_ = 0;  // images in a group; channels up to a multiple of eight
  std::vector<int> vectors_;
  Terms gradient_terms_;
  Buffer sources_, gradients_, sums_;
};

}  // namespace lrbench
