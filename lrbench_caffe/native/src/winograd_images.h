// Winograd's convolution with images as lanes: eight or sixteen of them lie pixel by pixel side by
// side (Stack), so that any size of image, any number of channels and any tile wastes nothing. Only
// the weights' gradient has output channels as lanes of dy.
#pragma once

#include "winograd.h"

namespace lrbench {

// As many images as there are lanes, pixel by pixel: lane n of pixel (c, row, column) is that of
// image n. `rows` and `pitch` reach beyond the image, whose first pixel is at (top, left), which
// may be negative; around it are zeros.
//
// Of fewer images, each is cut into bands, one below the other, `band` rows apart: lane b * images
// + n has band b of image n, and rows that it shares with the next one.
struct Stack {
  int channels, height, width, top, left, rows, pitch;
  int bands, band;

  int images() const { return kLanes / bands; }

  std::size_t size() const { return std::size_t(channels) * rows * pitch * kLanes; }
  std::size_t at(int channel, int row, int column) const {
    return ((std::size_t(channel) * rows + row) * pitch + column) * kLanes;
  }

  void copy(const float* images, int count, float* buffer) const {
    const int first = std::max(0, left), last = std::max(first, std::min(pitch, left + width));
    const ImageLanes lanes(*this, count);
    for (int c = 0; c < channels; c++) {
      for (int row = 0; row < rows; row++) {
        float* to = buffer + at(c, row, 0);
        if (bands == 1 && (row < top || row >= top + height)) {
          std::memset(to, 0, sizeof(float) * pitch * kLanes);
          continue;
        }
        std::memset(to, 0, sizeof(float) * first * kLanes);
        std::memset(to + last * kLanes, 0, sizeof(float) * (pitch - last) * kLanes);
        for (int lane = 0; lane < kLanes; lane += kPiece) {
          const float* from[kPiece];
          const bool all = lanes.rows(images + (first - left), lane, c, row - top, from);
          float* const pixels = to + first * kLanes + lane;
          all ? copy_row<true>(from, last - first, pixels)
              : copy_row<false>(from, last - first, pixels);
        }
      }
    }
  }

  // The way back.
  void extract(const float* buffer, int count, float* images) const {
    const ImageLanes lanes(*this, count);
    for (int c = 0; c < channels; c++) {
      for (int row = 0; row < std::min(band, height); row++) {
        const float* from = buffer + at(c, row + top, left);
        for (int lane = 0; lane < kLanes; lane += kPiece) {
          float* to[kPiece];
          lanes.rows(images, lane, c, row, to) ? extract_row<true>(from + lane, to)
                                               : extract_row<false>(from + lane, to);
        }
      }
    }
  }

 private:
  // Which images the lanes have, and which bands of them.
  class ImageLanes {
   public:
    ImageLanes(const Stack& stack, int count)
        : s_(stack), simple_(stack.bands == 1 && count == kLanes) {
      const std::size_t size = std::size_t(s_.channels) * s_.height * s_.width;
      for (int lane = 0; lane < kLanes; lane++) {
        const int n = lane % s_.images();
        const int down = lane / s_.images() * s_.band;
        lanes_[lane] = {n < count, std::ptrdiff_t(n * size) + std::ptrdiff_t(down) * s_.width,
                        down};
      }
    }

    // A row of a channel for each lane of a piece, null where a lane has none; whether all have
    // one.
    template <class Float>
    bool rows(Float* images, int first, int channel, int row, Float* (&rows)[kPiece]) const {
      const std::ptrdiff_t at = (std::ptrdiff_t(channel) * s_.height + row) * s_.width;
      if (simple_) {
        for (int i = 0; i < kPiece; i++) rows[i] = images + (lanes_[first + i].start + at);
        return true;
      }
      bool all = true;
      for (int i = 0; i < kPiece; i++) {
        const Lane& lane = lanes_[first + i];
        const int y = row + lane.down;
        const bool has = lane.used && y >= 0 && y < s_.height;
        rows[i] = has ? images + (lane.start + at) : nullptr;
        all = all && has;
      }
      return all;
    }

   private:
    struct Lane {
      bool used;
      std::ptrdiff_t start;  // of the band in the first channel
      int down;              // rows above the band
    };
    const Stack& s_;
    bool simple_;  // every lane has a whole image
    Lane lanes_[kLanes];
  };

  template <bool All>
  static void copy_row(const float* const (&from)[kPiece], int pixels, float* to) {
    for (int j = 0; j < pixels; j += kPiece) {
      Piece v[kPiece];
      const int lanes = std::min(kPiece, pixels - j);
      for (int n = 0; n < kPiece; n++)
        v[n] = All || from[n] ? load_piece_first(from[n] + j, lanes) : Piece();
      transpose(v);
      for (int i = 0; i < lanes; i++) store_piece(to + (j + i) * kLanes, v[i]);
    }
  }

  template <bool All>
  void extract_row(const float* from, float* const (&to)[kPiece]) const {
    for (int j = 0; j < width; j += kPiece) {
      Piece v[kPiece];
      const int lanes = std::min(kPiece, width - j);
      for (int i = 0; i < kPiece; i++)
        v[i] = i < lanes ? load_piece(from + (j + i) * kLanes) : Piece();
      transpose(v);
      for (int n = 0; n < kPiece; n++) {
        if (All || to[n]) store_piece_first(to[n] + j, v[n], lanes);
      }
    }
  }
};

// What forward and gradient have in common: tiles and the transform of the image.
template <int M>
class WinogradTiles {
 public:
  static constexpr int R = kTile + 1 - M;

  explicit WinogradTiles(const WinogradShape& s, int other_channels)
      : s_(s), down_(ceil_div(ceil_div(s.out_h, M), s.bands)), across_(ceil_div(s.out_w, M)) {
    image_ = Stack{s.channels,          s.height, s.width,  s.pad_h, s.pad_w, down_ * M + R - 1,
                   across_ * M + R - 1, s.bands,  down_ * M};
    const std::size_t bytes = sizeof(float) * kLanes * kValues * (s.channels + other_channels);
    const int most = int(std::max<std::size_t>(4, kBlockBytes / bytes));
    for (int size : even_split(tiles(), most)) blocks_.push_back(size);
    block_ = blocks_[0];
    plane_ = std::size_t(s.channels) * block_ * kLanes + kApart;
  }

  int tiles() const { return down_ * across_; }

 protected:
  // Cycles of the image's way to values, for all lanes.
  double image_cycles() const {
    return double(s_.channels) * (tiles() * 160.0 + 4.0 * image_.rows * image_.pitch);
  }

  // Bt d B of tiles [first, first + count).
  void image_values(const float* images, int first, int count, float* values) const {
    for (int c = 0; c < s_.channels; c++) {
      for (int t = 0; t < count; t++) {
        const int tile = first + t;
        const float* from = images + image_.at(c, tile / across_ * M, tile % across_ * M);
        float* to = values + (std::size_t(c) * block_ + t) * kLanes;
        image_to_values(from, std::size_t(image_.pitch) * kLanes, to, plane_);
      }
    }
  }

  static constexpr std::size_t kBlockBytes = 320 * 1024;
  static constexpr std::size_t kApart =
      16;  // planes a multiple of 4 KB apart would share their cache lines

  WinogradShape s_;
  int down_, across_;  // tiles of a band
  Stack image_;
  std::vector<int> blocks_;  // tiles that are done at once, the larger ones first
  int block_;
  std::size_t plane_;  // between two of the 36 values
};

template <int M>
class WinogradForwardOf : public WinogradForward, WinogradTiles<M> {
  using Base = WinogradTiles<M>;
  using Base::R, Base::s_, Base::image_, Base::block_, Base::blocks_, Base::plane_, Base::down_,
      Base::across_;

 public:
  WinogradForwardOf(const WinogradShape& s, int output_stride, int channel_stride, bool turned)
      : Base(s, s.outputs),
        output_stride_(output_stride),
        channel_stride_(channel_stride),
        turned_(turned) {
    output_ = Stack{s.outputs, s.out_h, s.out_w, 0, 0, down_ * M, across_ * M, s.bands, down_ * M};
    sums_plane_ = std::size_t(s.outputs) * block_ * kLanes + Base::kApart;
    weights_plane_ = std::size_t(s.outputs) * s.channels + Base::kApart;
    panels_ = even_split(s.outputs, most_outputs(kVectors));
    for (int c = 0; c < s.channels; c++) offset_.push_back(c * block_ * kLanes);
    for (int t = 0; t < block_ * kPieces; t++) place_.push_back(t * kPiece);
  }

  int at_once() const override { return image_.images(); }
  Lanes lanes() const override { return Lanes::kImages; }
  int blocks() const override { return int(blocks_.size()); }

  double cycles() const override {
    double products = 0;
    for (int block : blocks_) {
      for (int size : even_split(block, kVectors)) {
        for (int outputs : panels_)
          products += kValues * tile_cycles(s_.channels, size, outputs, 1);
      }
    }
    const double output = Base::tiles() * (M == 2 ? 80.0 : 120.0) + 4.0 * s_.out_h * s_.out_w;
    return products + Base::image_cycles() + s_.outputs * output;
  }

  void pack(const float* weights) override {
    if (packed_.data() == nullptr) packed_.resize(weights_plane_ * kValues);
    static const WeightMatrix<R> g;
    int first = 0;
    for (int size : panels_) {
      for (int c = 0; c < s_.channels; c++) {
        for (int o = 0; o < size; o++) {
          const float* from =
              weights + std::size_t(first + o) * output_stride_ + std::size_t(c) * channel_stride_;
          float* to = packed_.data() + std::size_t(first) * s_.channels + std::size_t(c) * size + o;
          pack_kernel(g, from, to);
        }
      }
      first += size;
    }
  }

  bool stays_packed() const override { return true; }

  void run(const float* x, int images, const float* start, float lowest, float* y) const override {
    float* source = scratch(Scratch::kImages, image_.size());
    float* values = scratch(Scratch::kValues, plane_ * kValues);
    float* sums = scratch(Scratch::kSums, sums_plane_ * kValues);
    float* output = scratch(Scratch::kOutput, output_.size());
    image_.copy(x, images, source);
    int first = 0;
    for (int count : blocks_) {
      Base::image_values(source, first, count, values);
      multiply(values, count, sums);
      for (int o = 0; o < s_.outputs; o++)
        output_pixels(sums, o, first, count, start ? start[o] : 0.f, lowest, output);
      first += count;
    }
    output_.extract(output, images, y);
  }

 private:
  static constexpr int kVectors = 2;  // of a tile of sums; with six outputs the fewest loads

  // G g Gt
  void pack_kernel(const WeightMatrix<R>& g, const float* from, float* to) const {
    float half[kTile][R];
    for (int i = 0; i < kTile; i++) {
      for (int j = 0; j < R; j++) {
        float sum = 0;
        for (int k = 0; k < R; k++)
          sum += g.at[i][k] * from[turned_ ? R * R - 1 - (k * R + j) : k * R + j];
        half[i][j] = sum;
      }
    }
    for (int i = 0; i < kTile; i++) {
      for (int j = 0; j < kTile; j++) {
        float sum = 0;
        for (int k = 0; k < R; k++) sum += half[i][k] * g.at[j][k];
        to[(i * kTile + j) * weights_plane_] = sum;
      }
    }
  }

  void multiply(const float* values, int count, float* sums) const {
    TileTask task;
    task.offset = offset_.data();
    task.first = 0;
    task.last = s_.channels;
    task.out_stride = std::size_t(block_) * kLanes;
    task.out_offset = nullptr;
    task.start = nullptr;
    task.lanes = kLanes;
    const std::vector<int> groups = even_split(count, kVectors);
    for (int k = 0; k < kValues; k++) {
      task.source = values + k * plane_;
      int first = 0;
      for (int size : panels_) {
        task.weights = packed_.data() + k * weights_plane_ + std::size_t(first) * s_.channels;
        task.output = sums + k * sums_plane_ + first * task.out_stride;
        int vector = 0;
        for (int vectors : groups) {
          task.in = task.out = place_.data() + vector * kPieces;
          tile_function<Put::kStore>(vectors, size)(task);
          vector += vectors;
        }
        first += size;
      }
    }
  }

  // At m A, of one output
  void output_pixels(const float* sums, int output, int first, int count, float start, float lowest,
                     float* to) const {
    for (int t = 0; t < count; t++) {
      const int tile = first + t;
      const float* from = sums + (std::size_t(output) * block_ + t) * kLanes;
      float* pixels = to + output_.at(output, tile / across_ * M, tile % across_ * M);
      values_to_output<M>(from, sums_plane_, set1(start), set1(lowest), pixels,
                          std::size_t(output_.pitch) * kLanes);
    }
  }

  int output_stride_, channel_stride_;
  bool turned_;
  Stack output_;
  std::size_t sums_plane_, weights_plane_;
  std::vector<int> panels_, offset_, place_;
  Buffer packed_;
};

template <int M>
class WinogradGradientOf : public WinogradGradient, WinogradTiles<M> {
  using Base = WinogradTiles<M>;
  using Base::R, Base::s_, Base::image_, Base::block_, Base::blocks_, Base::plane_, Base::down_,
      Base::across_;

 public:
  explicit WinogradGradientOf(const WinogradShape& s)
      : Base(s, ceil_div(s.outputs, kLanes) * kLanes) {
    padded_ = ceil_div(s.outputs, kLanes) * kLanes;
    gradient_plane_ = std::size_t(block_) * kLanes * padded_ + Base::kApart;
    for (int vectors : channel_vectors(padded_ / kLanes)) {
      panels_.push_back({vectors, even_split(s.channels, most_terms(vectors))});
    }
    for (int c = 0; c < s.channels; c++) offset_.push_back(c * block_ * kLanes);
  }

  int at_once() const override { return image_.images(); }
  Lanes lanes() const override { return Lanes::kImages; }
  int blocks() const override { return int(blocks_.size()); }

  double cycles() const override {
    const double products =
        double(Base::tiles()) * kLanes * kValues * s_.channels * (padded_ / kLanes) / 2 * 1.2;
    return products + Base::image_cycles() +
           padded_ * (Base::tiles() * (M == 2 ? 100.0 : 140.0) + 4.0 * s_.out_h * s_.out_w);
  }

  void begin() const override {
    std::memset(totals(), 0, sizeof(float) * kValues * s_.channels * padded_);
  }

  void add_images(const float* x, const float* dy, int images, float*) const override {
    float* source = scratch(Scratch::kImages, image_.size());
    float* values = scratch(Scratch::kValues, plane_ * kValues);
    float* gradients = scratch(Scratch::kSums, gradient_plane_ * kValues);
    float* pixels = scratch(Scratch::kOutput, kLanes * gradient_size());
    image_.copy(x, images, source);
    std::memset(pixels, 0, sizeof(float) * kLanes * gradient_size());
    for (int lane = 0; lane < kLanes; lane++) {
      const int n = lane % image_.images(), band = lane / image_.images();
      if (n >= images) continue;
      const float* gradient = dy + std::size_t(n) * s_.outputs * s_.out_h * s_.out_w;
      for (int o = 0; o < s_.outputs; o += kPiece)
        copy_gradient(gradient, o, band, pixels + lane * gradient_size());
    }
    int first = 0;
    for (int count : blocks_) {
      Base::image_values(source, first, count, values);
      for (int t = 0; t < count; t++) {
        for (int n = 0; n < kLanes; n++) {
          gradient_values(pixels + n * gradient_size(), first + t,
                          gradients + std::size_t(t * kLanes + n) * padded_);
        }
      }
      multiply(values, gradients, count * kLanes);
      first += count;
    }
  }

  // Gt totals G
  void finish(float* dw) const override {
    static const WeightMatrix<R> g;
    for (int c = 0; c < s_.channels; c++) {
      for (int o = 0; o < s_.outputs; o += kLanes) {
        Vec half[R][kTile];
        for (int r = 0; r < R; r++) {
          for (int j = 0; j < kTile; j++) {
            Vec sum = zero();
            for (int i = 0; i < kTile; i++)
              sum = times(g.at[i][r], load(total(i * kTile + j, c) + o), sum);
            half[r][j] = sum;
          }
        }
        for (int r = 0; r < R * R; r++) {
          Vec sum = zero();
          for (int j = 0; j < kTile; j++) sum = times(g.at[j][r % R], half[r / R][j], sum);
          float lanes[kLanes];
          store(lanes, sum);
          for (int lane = 0; lane < kLanes && o + lane < s_.outputs; lane++) {
            dw[(std::size_t(o + lane) * s_.channels + c) * R * R + r] += lanes[lane];
          }
        }
      }
    }
  }

 private:
  float* totals() const {
    return scratch(Scratch::kTotals, std::size_t(kValues) * s_.channels * padded_);
  }
  float* total(int value, int channel) const {
    return totals() + (std::size_t(value) * s_.channels + channel) * padded_;
  }
  std::size_t gradient_size() const { return std::size_t(down_ * M) * (across_ * M) * padded_; }

  // Eight output channels of a band of one image's gradient, which become lanes.
  void copy_gradient(const float* dy, int first, int band, float* to) const {
    const int channels = std::min(kPiece, s_.outputs - first);
    const int top = band * down_ * M;
    for (int y = top; y < std::min(s_.out_h, top + down_ * M); y++) {
      for (int x = 0; x < s_.out_w; x += kPiece) {
        Piece v[kPiece];
        const int lanes = std::min(kPiece, s_.out_w - x);
        for (int c = 0; c < kPiece; c++) {
          const float* from = dy + (std::size_t(first + c) * s_.out_h + y) * s_.out_w + x;
          v[c] = c < channels ? load_piece_first(from, lanes) : Piece();
        }
        transpose(v);
        float* pixels = to + (std::size_t(y - top) * across_ * M + x) * padded_ + first;
        for (int i = 0; i < lanes; i++) store_piece(pixels + std::size_t(i) * padded_, v[i]);
      }
    }
  }

  // A dy At of one tile of an image
  void gradient_values(const float* pixels, int tile, float* to) const {
    const std::size_t pitch = std::size_t(across_) * M * padded_;
    const float* from =
        pixels + (tile / across_ * M) * pitch + (tile % across_ * M) * std::size_t(padded_);
    for (int o = 0; o < padded_; o += kLanes) {
      gradient_to_values<M>(from + o, pitch, padded_, to + o, gradient_plane_);
    }
  }

  void multiply(const float* values, const float* gradients, int count) const {
    GradientTask task;
    task.source_stride = task.gradient_stride = 0;
    task.images = 1;
    task.row0 = 0, task.row1 = 1;
    task.column0 = 0, task.column1 = count;
    task.out_w = task.pitch = 0;
    task.channels = padded_;
    for (int k = 0; k < kValues; k++) {
      task.source = values + k * plane_;
      int channel = 0;
      for (const Panel& panel : panels_) {
        task.gradient = gradients + k * gradient_plane_ + channel;
        int first = 0;
        for (int size : panel.channels) {
          task.offset = offset_.data() + first;
          task.sums = total(k, first) + channel;
          gradient_function(panel.vectors, size)(task);
          first += size;
        }
        channel += panel.vectors * kLanes;
      }
    }
  }

  struct Panel {
    int vectors;                // of output channels
    std::vector<int> channels;  // of the image, in tiles
  };

  int padded_;
  std::size_t gradient_plane_;
  std::vector<Panel> panels_;
  std::vector<int> offset_;
};

}  // namespace lrbench
