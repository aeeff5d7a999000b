// Winograd's convolution with channels as lanes, for one image as well as for many: each of the 36
// values of all tiles is a matrix, tiles x channels, to be multiplied by that value of all kernels,
// channels x outputs.
//
// A block of tiles is transformed at once, so that its values and sums are in a cache. Few kernels
// are transformed before all blocks. Of many, a part that fits into the second-level cache is
// transformed, used for the whole block, and forgotten: all kernels' values are four times what the
// kernels are, and reading them again takes longer than computing them. The weights' gradient
// likewise has no sum of its own for all kernels, where they are many: each block's is transformed
// back, and added.
#pragma once

#include <type_traits>

#include "product.h"
#include "winograd.h"

namespace lrbench {

// A rectangle of the pixels of images, channels x height x width, and of what is around them.
struct Window {
  int channels, height, width;
  int top, left, rows, columns;  // of the rectangle; beyond the image are zeros

  std::size_t size() const { return at(rows, 0); }
  std::size_t at(int row, int column) const {
    return (std::size_t(row) * columns + column) * kLanes;
  }

  // Where the channels of an image's vector are, the last one for lanes beyond them.
  template <class Float>
  void find_planes(Float* image, int channel, Float* (&planes)[kLanes]) const {
    for (int lane = 0; lane < kLanes; lane++)
      planes[lane] = image + plane() * std::min(channel + lane, channels - 1);
  }

  // Rows [begin, end), pixel by pixel, channels as lanes.
  void load(const float* const (&planes)[kLanes], int begin, int end, float* to) const {
    const int first = first_column(), last = last_column();
    for (int row = begin; row < end; row++, to += at(1, 0)) {
      const int y = top + row;
      if (y < 0 || y >= height || first == last) {
        clear(to, 0, columns);
        continue;
      }
      clear(to, 0, first);
      const std::ptrdiff_t offset = std::ptrdiff_t(y) * width + left;
      each_piece(first, last, [&](int j, int count, auto pixels) {
        load_pixels<decltype(pixels)::value>(planes, offset + j, count, to + at(0, j));
      });
      clear(to, last, columns);
    }
  }

  // The way back, of what is in the image, of a window that begins in it.
  void store_to(float* image, int channel, const float* from) const {
    const int used = std::min(kLanes, channels - channel);
    float* planes[kLanes];
    find_planes(image, channel, planes);
    const int first = first_column(), last = last_column();
    for (int row = 0; row < std::min(rows, height - top); row++, from += at(1, 0)) {
      const int y = top + row;
      const std::ptrdiff_t offset = std::ptrdiff_t(y) * width + left;
      each_piece(first, last, [&](int j, int count, auto pixels) {
        constexpr int N = decltype(pixels)::value;
        count == N&& used == kLanes
            ? store_pixels<N>(from + at(0, j), planes, offset + j, N, kLanes)
            : store_pixels<N>(from + at(0, j), planes, offset + j, count, used);
      });
    }
  }

 private:
  std::size_t plane() const { return std::size_t(height) * width; }
  int first_column() const { return std::min(columns, std::max(0, -left)); }
  int last_column() const { return std::max(first_column(), std::min(columns, width - left)); }
  // visit(column, count, most): pieces of as many pixels as there are lanes, or of eight
  template <class Visit>
  static void each_piece(int first, int last, Visit visit) {
    int j = first;
    for (; j + kLanes <= last; j += kLanes) visit(j, kLanes, std::integral_constant<int, kLanes>());
    if (last - j > 8)
      visit(j, last - j, std::integral_constant<int, kLanes>());
    else if (last > j)
      visit(j, last - j, std::integral_constant<int, 8>());
  }
  // Compilers make calls of memcpy and memset from loops of so few vectors; unrolled, or with a
  // statement that they cannot move, they do not.
  template <int N>
  static inline __attribute__((always_inline)) void load_pixels(const float* const* planes,
                                                                std::ptrdiff_t offset, int count,
                                                                float* to) {
    Vec v[N];
    count == N ? load_columns(planes, offset, N, v) : load_columns(planes, offset, count, v);
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      if (i < count) store(to + std::size_t(i) * kLanes, v[i]);
    }
  }
  template <int N>
  static inline __attribute__((always_inline)) void store_pixels(const float* from,
                                                                 float* const* planes,
                                                                 std::ptrdiff_t offset, int count,
                                                                 int used) {
    Vec v[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; i++)
      v[i] = i < count ? lrbench::load(from + std::size_t(i) * kLanes) : zero();
    store_columns(v, planes, offset, count, used);
  }
  static void clear(float* to, int begin, int end) {
    for (int j = begin; j < end; j++) {
      store(to + std::size_t(j) * kLanes, zero());
      __asm__ volatile("");
    }
  }
};

// Some vectors of channels.
struct ChannelBlock {
  int first, count;  // channels
  int vectors() const { return ceil_div(count, kLanes); }
  int padded() const { return vectors() * kLanes; }
};

inline std::vector<ChannelBlock> channel_blocks(int channels, int most_vectors) {
  std::vector<ChannelBlock> blocks;
  int first = 0;
  for (int vectors : even_split(ceil_div(channels, kLanes), most_vectors)) {
    blocks.push_back({first, std::min(vectors * kLanes, channels - first)});
    first += vectors * kLanes;
  }
  return blocks;
}

inline int padded_channels(int channels) { return ceil_div(channels, kLanes) * kLanes; }

// A matrix whose element (i, j) is at i * row + j * column.
struct Matrix {
  const float* data;
  int row, column;
};

// A product of a block's, sums = or += a * b: a of rows x terms, b of terms x one or two vectors.
inline void multiply(const Matrix& a, int rows, int terms, const float* b, int vectors, float* sums,
                     bool add) {
  PanelTask task;
  task.a_row = a.row;
  task.a_step = a.column;
  task.b = b;
  task.b_stride = task.c_stride = vectors * kLanes;
  task.steps = terms;
  task.add = add;
  task.start = nullptr;
  int row = 0;
  for (int groups = ceil_div(rows, kPanelRows); groups > 0; groups--) {
    const int height = ceil_div(rows - row, groups);
    task.a = a.data + std::size_t(row) * a.row;
    task.c = sums + std::size_t(row) * task.c_stride;
    panel_function(vectors, height)(task);
    row += height;
  }
}

// The kernels of a convolution as weights have them, and as values.
template <int R>
struct Kernels {
  int outputs, output_stride, channel_stride;
  bool turned;  // they are read from their ends

  // G g Gt of blocks of outputs and channels: to[value][channel][output]
  void to_values(const float* weights, const ChannelBlock& output, const ChannelBlock& channel,
                 float* to, std::size_t plane) const {
    static const WeightMatrix<R> g;
    for (int o = 0; o < output.count; o += kLanes) {
      const float* rows[kLanes];
      find_rows(weights, output.first + o, rows);
      const Ints distance = min(steps(output_stride), ints((output.count - o - 1) * output_stride));
      for (int c = 0; c < channel.count; c++) {
        const std::ptrdiff_t offset = std::ptrdiff_t(channel.first + c) * channel_stride;
        prefetch(rows[0] + offset + 4 * std::ptrdiff_t(channel_stride));
        Vec kernel[R * R];
        for (int i = 0; i + 8 < R * R; i += 8) {
          Vec v[8];
          load_columns(rows, offset + i, 8, v);
          for (int j = 0; j < 8; j++) kernel[at(i + j)] = v[j];
        }
        kernel[at(R * R - 1)] = gather(rows[0] + offset + R * R - 1, distance);
        kernel_values(g, kernel, to + std::size_t(c) * output.padded() + o, plane);
      }
    }
  }

  // weights += Gt values G, of the blocks
  void add_from_values(const float* values, std::size_t plane, const ChannelBlock& output,
                       const ChannelBlock& channel, float* weights) const {
    static const WeightMatrix<R> g;
    for (int o = 0; o < output.count; o += kLanes) {
      float* rows[kLanes];
      find_rows(weights, output.first + o, rows);
      const int used = std::min(kLanes, output.count - o);
      for (int c = 0; c < channel.count; c++) {
        const std::ptrdiff_t offset = std::ptrdiff_t(channel.first + c) * channel_stride;
        Vec kernel[R * R];
        values_kernel(g, values + std::size_t(c) * output.padded() + o, plane, kernel);
        for (int i = 0; i + 8 < R * R; i += 8) {
          Vec v[8];
          load_columns(rows, offset + i, 8, v);
          for (int j = 0; j < 8; j++) v[j] = add(v[j], kernel[i + j]);
          store_columns(v, rows, offset + i, 8, used);
        }
        float last[kLanes];
        store(last, kernel[R * R - 1]);
        for (int lane = 0; lane < used; lane++) rows[lane][offset + R * R - 1] += last[lane];
      }
    }
  }

 private:
  static_assert(R * R % 8 == 1, "all but one of a kernel's weights are in eights");

  // The kernels of a later channel, where they are one piece, far from those of the next channel.
  void prefetch(const float* kernels) const {
    if (channel_stride < output_stride) return;
    for (int i = 0; i < kLanes * R * R; i += 16) __builtin_prefetch(kernels + i);
  }

  int at(int i) const { return turned ? R * R - 1 - i : i; }

  // The weights of each lane's output, the last one's for lanes without any.
  template <class Float>
  void find_rows(Float* weights, int output, Float* (&rows)[kLanes]) const {
    for (int lane = 0; lane < kLanes; lane++)
      rows[lane] = weights + std::size_t(std::min(output + lane, outputs - 1)) * output_stride;
  }

  static void kernel_values(const WeightMatrix<R>& g, const Vec* kernel, float* to,
                            std::size_t plane) {
    Vec half[kTile][R];
#pragma GCC unroll 5
    for (int j = 0; j < R; j++) {
      half[0][j] = kernel[j];
      half[kTile - 1][j] = kernel[(R - 1) * R + j];
#pragma GCC unroll 4
      for (int i = 1; i < kTile - 1; i++) {
        Vec sum = mul(set1(g.at[i][0]), kernel[j]);
#pragma GCC unroll 5
        for (int k = 1; k < R; k++) sum = times(g.at[i][k], kernel[k * R + j], sum);
        half[i][j] = sum;
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++) {
      store(to + i * kTile * plane, half[i][0]);
      store(to + (i * kTile + kTile - 1) * plane, half[i][R - 1]);
#pragma GCC unroll 4
      for (int j = 1; j < kTile - 1; j++) {
        Vec sum = mul(set1(g.at[j][0]), half[i][0]);
#pragma GCC unroll 5
        for (int k = 1; k < R; k++) sum = times(g.at[j][k], half[i][k], sum);
        store(to + (i * kTile + j) * plane, sum);
      }
    }
  }

  static void values_kernel(const WeightMatrix<R>& g, const float* from, std::size_t plane,
                            Vec* kernel) {
    Vec half[kTile][R];
#pragma GCC unroll 6
    for (int i = 0; i < kTile; i++) {
      Vec line[kTile];
#pragma GCC unroll 6
      for (int j = 0; j < kTile; j++) line[j] = load(from + (i * kTile + j) * plane);
      transposed_line(g, line, 1, half[i], 1);
    }
#pragma GCC unroll 5
    for (int j = 0; j < R; j++) transposed_line(g, &half[0][j], R, kernel + j, R);
  }

  // Gt of a line of values
  static void transposed_line(const WeightMatrix<R>& g, const Vec* v, int v_step, Vec* to,
                              int to_step) {
#pragma GCC unroll 5
    for (int k = 0; k < R; k++) {
      Vec sum = mul(set1(g.at[1][k]), v[v_step]);
#pragma GCC unroll 3
      for (int i = 2; i < kTile - 1; i++) sum = times(g.at[i][k], v[i * v_step], sum);
      to[k * to_step] = sum;
    }
    to[0] = add(to[0], v[0]);
    to[(R - 1) * to_step] = add(to[(R - 1) * to_step], v[(kTile - 1) * v_step]);
  }
};

// Tiles that are done at once: a rectangle of them, of some images.
struct TileBlock {
  int image, images;
  int row, column, rows, columns;
  int tiles() const { return rows * columns; }  // of an image
  int count() const { return images * tiles(); }
};

// What forward and gradient have in common: blocks of tiles, and their transforms.
template <int M>
class ChannelTiles {
 public:
  static constexpr int R = kTile + 1 - M;

  // `bytes_of_tile`: what a block needs for each; `most_bytes`: for all.
  ChannelTiles(const WinogradShape& s, std::size_t bytes_of_tile, std::size_t most_bytes) : s_(s) {
    const int down = ceil_div(s.out_h, M), across = ceil_div(s.out_w, M);
    const int most = int(std::min<std::size_t>(
        kMostTiles, std::max<std::size_t>(kFewestTiles, most_bytes / bytes_of_tile)));
    at_once_ = even_split(s.images, std::max(1, most / (down * across)))[0];
    int row = 0;
    for (int rows : even_split(down, std::max(1, most / across))) {
      int column = 0;
      for (int columns : even_split(across, most)) {
        parts_.push_back({row, column, rows, columns});
        column += columns;
      }
      row += rows;
    }
    most_tiles_ = at_once_ * parts_[0].rows * parts_[0].columns;
  }

 protected:
  struct Part {
    int row, column, rows, columns;
  };

  int blocks() const { return int(parts_.size()); }  // of at_once_ images

  // Cycles for at_once_ images, with full registers.
  double tiles() const { return double(at_once_) * ceil_div(s_.out_h, M) * ceil_div(s_.out_w, M); }
  double products_cycles(int terms) const {
    const int vectors = ceil_div(s_.outputs, kLanes);
    // Of two multiply-adds in a cycle; a single vector takes as many loads.
    const double of_term = vectors / 2.0 + vectors % 2 * 0.1;
    return kValues * tiles() * terms * of_term * 1.15;
  }
  double image_cycles() const {
    const double pixels = double(at_once_) * s_.height * s_.width;
    return ceil_div(s_.channels, kLanes) * (tiles() * 160 + pixels * 4);
  }
  double output_cycles(double of_tile) const {
    const double pixels = double(at_once_) * s_.out_h * s_.out_w;
    return ceil_div(s_.outputs, kLanes) * (tiles() * of_tile + pixels * 4);
  }

  // visit(block) for all tiles of the images
  template <class Visit>
  void each_block(int images, Visit visit) const {
    for (int n = 0; n < images; n += at_once_) {
      for (const Part& p : parts_)
        visit(TileBlock{n, std::min(at_once_, images - n), p.row, p.column, p.rows, p.columns});
    }
  }

  // Values of a block of channels: value x tile x channel.
  struct Values {
    float* data;
    int row;
    std::size_t plane;
    float* at(int value, int tile, int channel) const {
      return data + value * plane + std::size_t(tile) * row + channel;
    }
  };

  // Of the blocks' block number b.
  Values values(Scratch which, const std::vector<ChannelBlock>& blocks, std::size_t b) const {
    const std::size_t tiles = most_tiles_, apart = 16, end = blocks.back().first;
    float* data =
        scratch(which, kValues * (tiles * (end + blocks.back().padded()) + apart * blocks.size()));
    const int row = blocks[b].padded();
    return {data + kValues * (tiles * blocks[b].first + apart * b), row, tiles * row + apart};
  }

  // Bt d B
  void image_values(const float* x, const TileBlock& block,
                    const std::vector<ChannelBlock>& channels) const {
    const Window window{s_.channels,
                        s_.height,
                        s_.width,
                        block.row * M - s_.pad_h,
                        block.column * M - s_.pad_w,
                        block.rows * M + R - 1,
                        block.columns * M + R - 1};
    const std::size_t row = std::size_t(window.columns) * kLanes;
    transform(x + block.image * s_.image_stride, s_.image_stride, window, block, Scratch::kValues,
              channels, [row](const float* pixels, float* to, std::size_t plane) {
                image_to_values(pixels, row, to, plane);
              });
  }

  // one(pixels, to, plane) for each tile of the images and each vector of channels
  template <class One>
  void transform(const float* images, std::size_t stride, const Window& window,
                 const TileBlock& block, Scratch which, const std::vector<ChannelBlock>& channels,
                 One one) const {
    float* pixels = scratch(Scratch::kImages, window.size());
    const int depth = window.rows - (block.rows - 1) * M;  // rows of a tile
    for (std::size_t b = 0; b < channels.size(); b++) {
      const Values to = values(which, channels, b);
      for (int c = 0; c < channels[b].count; c += kLanes) {
        int tile = 0;
        for (int n = 0; n < block.images; n++) {
          const float* planes[kLanes];
          window.find_planes(images + n * stride, channels[b].first + c, planes);
          int loaded = 0;
          for (int i = 0; i < block.rows; i++) {
            const int needed = i * M + depth;
            window.load(planes, loaded, needed, pixels + window.at(loaded, 0));
            loaded = needed;
            for (int j = 0; j < block.columns; j++)
              one(pixels + window.at(i * M, j * M), to.at(0, tile++, c), to.plane);
          }
        }
      }
    }
  }

  // The output's pixels that a block of tiles has.
  Window output_window(const TileBlock& block) const {
    return {s_.outputs,       s_.out_h,       s_.out_w,         block.row * M,
            block.column * M, block.rows * M, block.columns * M};
  }

  // Bytes of the values of so many channels of a tile.
  static std::size_t bytes(int channels) {
    return sizeof(float) * kValues * padded_channels(channels);
  }

  static constexpr int kMostTiles = 128, kFewestTiles = 8;

  WinogradShape s_;
  std::vector<Part> parts_;  // of an image, the largest one first
  int at_once_, most_tiles_;
};

// Which kernels are done at once.
struct KernelBlocks {
  std::vector<ChannelBlock> outputs, channels;
  bool kept;  // all of them, and no block of channels is in parts

  static constexpr std::size_t kKeptBytes = 768 * 1024, kBlockBytes = 640 * 1024;

  KernelBlocks(int output_count, int channel_count) {
    const std::size_t one = sizeof(float) * kValues;
    kept = one * padded_channels(output_count) * channel_count <= kKeptBytes;
    outputs = channel_blocks(output_count, kPanelVectors);
    const std::size_t row = one * outputs[0].padded() * kLanes;
    channels = channel_blocks(
        channel_count, kept ? channel_count : int(std::max<std::size_t>(1, kBlockBytes / row)));
  }

  // Between the values of a block, and between blocks that are kept.
  std::size_t plane() const { return std::size_t(outputs[0].padded()) * channels[0].count + 16; }
  std::size_t size() const { return plane() * kValues; }

  // The values of an output block's kernels.
  float* values(Scratch which, std::size_t output_block) const {
    float* const all = scratch(which, kept ? size() * outputs.size() : size());
    return all + (kept ? output_block * size() : 0);
  }
};

template <int M>
class WinogradForwardByChannels : public WinogradForward, ChannelTiles<M> {
  using Base = ChannelTiles<M>;
  using Base::R, Base::s_, Base::at_once_;
  using typename Base::Values;

 public:
  WinogradForwardByChannels(const WinogradShape& s, int output_stride, int channel_stride,
                            bool turned)
      : WinogradForwardByChannels(s, {s.outputs, output_stride, channel_stride, turned},
                                  KernelBlocks(s.outputs, s.channels)) {}

  int at_once() const override { return at_once_; }
  Lanes lanes() const override { return Lanes::kChannels; }
  int blocks() const override { return blocks_.kept ? 0 : Base::blocks(); }
  double cycles() const override {
    return Base::products_cycles(s_.channels) + Base::image_cycles() +
           Base::output_cycles(M == 2 ? 80 : 120);
  }

  void pack(const float* weights) override {
    weights_ = weights;
    if (!blocks_.kept) return;
    for (std::size_t o = 0; o < blocks_.outputs.size(); o++) pack_block(o, blocks_.channels[0]);
  }

  // They are in a buffer that the thread's convolutions share.
  bool stays_packed() const override { return false; }

  void run(const float* x, int images, const float* start, float lowest, float* y) const override {
    Base::each_block(images, [&](const TileBlock& block) {
      Base::image_values(x, block, blocks_.channels);
      for (std::size_t o = 0; o < blocks_.outputs.size(); o++) {
        for (std::size_t c = 0; c < blocks_.channels.size(); c++) {
          if (!blocks_.kept) pack_block(o, blocks_.channels[c]);
          multiply_block(block, o, c);
        }
        store_outputs(block, blocks_.outputs[o], start, lowest, y);
      }
    });
  }

 private:
  WinogradForwardByChannels(const WinogradShape& s, const Kernels<R>& kernels,
                            const KernelBlocks& blocks)
      : Base(s, Base::bytes(s.channels) + (blocks.kept ? Base::bytes(blocks.outputs[0].count) : 0),
             blocks.kept ? 512 * 1024 : 5 * 1024 * 1024),
        kernels_(kernels),
        blocks_(blocks) {}

  void pack_block(std::size_t o, const ChannelBlock& channel) const {
    kernels_.to_values(weights_, blocks_.outputs[o], channel, blocks_.values(Scratch::kWeights, o),
                       blocks_.plane());
  }

  // The sums of a block of outputs.
  Values sums(const ChannelBlock& output) const {
    return Base::values(Scratch::kSums, {{0, output.count}}, 0);
  }

  void multiply_block(const TileBlock& block, std::size_t o, std::size_t c) const {
    const ChannelBlock &output = blocks_.outputs[o], &channel = blocks_.channels[c];
    const Values values = Base::values(Scratch::kValues, blocks_.channels, c), to = sums(output);
    const float* kernels = blocks_.values(Scratch::kWeights, o);
    for (int k = 0; k < kValues; k++) {
      multiply({values.at(k, 0, 0), values.row, 1}, block.count(), channel.count,
               kernels + k * blocks_.plane(), output.vectors(), to.at(k, 0, 0), c > 0);
    }
  }

  // At m A
  void store_outputs(const TileBlock& block, const ChannelBlock& output, const float* start,
                     float lowest, float* y) const {
    const Values from = sums(output);
    const Window window = Base::output_window(block);
    float* pixels = scratch(Scratch::kOutput, window.size());
    for (int o = 0; o < output.count; o += kLanes) {
      const Vec first = start ? load_first(start + output.first + o, output.count - o) : zero();
      int tile = 0;
      for (int n = 0; n < block.images; n++) {
        for (int i = 0; i < block.rows; i++) {
          for (int j = 0; j < block.columns; j++) {
            values_to_output<M>(from.at(0, tile++, o), from.plane, first, set1(lowest),
                                pixels + window.at(i * M, j * M), window.at(1, 0));
          }
        }
        window.store_to(y + (block.image + n) * s_.output_stride, output.first + o, pixels);
      }
    }
  }

  Kernels<R> kernels_;
  KernelBlocks blocks_;
  const float* weights_ = nullptr;
};

template <int M>
class WinogradGradientByChannels : public WinogradGradient, ChannelTiles<M> {
  using Base = ChannelTiles<M>;
  using Base::R, Base::s_, Base::at_once_;
  using typename Base::Values;

 public:
  explicit WinogradGradientByChannels(const WinogradShape& s)
      : WinogradGradientByChannels(s, KernelBlocks(s.outputs, s.channels)) {}

  int at_once() const override { return at_once_; }
  Lanes lanes() const override { return Lanes::kChannels; }
  int blocks() const override { return blocks_.kept ? 0 : Base::blocks(); }
  double cycles() const override {
    return Base::products_cycles(s_.channels) + Base::image_cycles() +
           Base::output_cycles(M == 2 ? 100 : 140);
  }

  void begin() const override {
    if (!blocks_.kept) return;
    std::memset(totals(0), 0, sizeof(float) * blocks_.size() * blocks_.outputs.size());
  }

  void add_images(const float* x, const float* dy, int images, float* dw) const override {
    Base::each_block(images, [&](const TileBlock& block) {
      Base::image_values(x, block, blocks_.channels);
      gradient_values(dy, block);
      for (std::size_t c = 0; c < blocks_.channels.size(); c++) {
        for (std::size_t o = 0; o < blocks_.outputs.size(); o++) {
          multiply_block(block, o, c);
          if (!blocks_.kept) finish_block(o, blocks_.channels[c], dw);
        }
      }
    });
  }

  void finish(float* dw) const override {
    if (!blocks_.kept) return;
    for (std::size_t o = 0; o < blocks_.outputs.size(); o++)
      finish_block(o, blocks_.channels[0], dw);
  }

 private:
  WinogradGradientByChannels(const WinogradShape& s, const KernelBlocks& blocks)
      : Base(s, Base::bytes(s.channels) + Base::bytes(s.outputs),
             blocks.kept ? 512 * 1024 : 10 * 1024 * 1024),
        kernels_{s.outputs, s.channels * R * R, R * R, false},
        blocks_(blocks) {}

  float* totals(std::size_t output_block) const {
    return blocks_.values(Scratch::kTotals, output_block);
  }

  // A dy At
  void gradient_values(const float* dy, const TileBlock& block) const {
    const Window window = Base::output_window(block);
    const std::size_t row = window.at(1, 0);
    Base::transform(dy + block.image * s_.output_stride, s_.output_stride, window, block,
                    Scratch::kSums, blocks_.outputs,
                    [row](const float* pixels, float* to, std::size_t plane) {
                      gradient_to_values<M>(pixels, row, kLanes, to, plane);
                    });
  }

  void multiply_block(const TileBlock& block, std::size_t o, std::size_t c) const {
    const Values values = Base::values(Scratch::kValues, blocks_.channels, c),
                 gradients = Base::values(Scratch::kSums, blocks_.outputs, o);
    for (int k = 0; k < kValues; k++) {
      multiply({values.at(k, 0, 0), 1, values.row}, blocks_.channels[c].count, block.count(),
               gradients.at(k, 0, 0), blocks_.outputs[o].vectors(), totals(o) + k * blocks_.plane(),
               blocks_.kept);
    }
  }

  void finish_block(std::size_t o, const ChannelBlock& channel, float* dw) const {
    kernels_.add_from_values(totals(o), blocks_.plane(), blocks_.outputs[o], channel, dw);
  }

  Kernels<R> kernels_;
  KernelBlocks blocks_;
};

}  // namespace lrbench
