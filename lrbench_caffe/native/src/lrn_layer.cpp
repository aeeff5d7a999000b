// Local response normalization, across and within channels, without Caffe's nets of small layers:
//
//     s = shift + alpha / n * (sum of x^2 over the neighbourhood),    y = x * s^-beta
//     dx = dy * s^-beta - 2 alpha beta / n * x * (sum of dy * y / s over the neighbourhood)
//
// n is the neighbourhood's size: `size` channels, or size x size pixels, of which those outside
// count as zeros. Both neighbourhoods are symmetric, for Caffe wants an odd size.
#include "caffe/layers/lrn_layer.hpp"

#include <cmath>
#include <cstring>

#include "fusion.h"
#include "layers.h"
#include "memory.h"
#include "vec.h"

namespace lrbench {
namespace {

// s^-beta for s > 0; the usual betas take no more than two square roots.
inline Vec power(Vec s, float beta) {
  if (beta == 0.75f) {
    const Vec root = sqrt(s);
    return div(set1(1), mul(root, sqrt(root)));
  }
  if (beta == 0.5f) return div(set1(1), sqrt(s));
  if (beta == 1) return div(set1(1), s);
  float values[kLanes];
  store(values, s);
  for (float& value : values) value = std::pow(value, -beta);
  return load(values);
}

class FastLRN : public caffe::LRNLayer<float>, public TestLayer, public HasBlobs {
 public:
  using LRNLayer::LRNLayer;

  Blobs own_blobs() override { return {&scale_}; }

  bool leads_relu() const override { return false; }

  void Reshape(const Blobs& bottom, const Blobs& top) override {
    LRNLayer::Reshape(bottom, top);
    if (bottom[0]->shape() == planned_) return;  // Caffe reshapes before every pass
    planned_ = bottom[0]->shape();
    scale_.ReshapeLike(*bottom[0]);
    if (across()) {
      columns_.resize(std::size_t(channels_ + size_) * kLanes);
    } else {
      pitch_ = (width_ + kLanes - 1) / kLanes * kLanes + size_ - 1 + kLanes;
      padded_.resize(std::size_t(height_) * pitch_ + kLanes);
      sums_.resize(std::size_t(height_ + size_ - 1) * pitch_ + kLanes);
    }
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    float* s = only_test_ ? nullptr : scale_.mutable_cpu_data();
    const int pixels = height_ * width_;
    const auto kept = [&](std::size_t at) { return s ? s + at : nullptr; };
    if (across()) {
      for (int n = 0; n < num_; n++) {
        const std::size_t image = std::size_t(n) * channels_ * pixels;
        for (int i = 0; i < pixels; i += kLanes) {
          across_forward(x + image + i, y + image + i, kept(image + i), pixels - i, pixels);
        }
      }
    } else {
      for (int n = 0; n < num_ * channels_; n++) {
        const std::size_t at = std::size_t(n) * pixels;
        within_forward(x + at, y + at, kept(at));
      }
    }
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    check_backward();
    const float* x = bottom[0]->cpu_data();
    const float* y = top[0]->cpu_data();
    const float* s = scale_.cpu_data();
    const float* dy = top[0]->cpu_diff();
    float* dx = bottom[0]->mutable_cpu_diff();
    const int pixels = height_ * width_;
    if (across()) {
      for (int n = 0; n < num_; n++) {
        const std::size_t image = std::size_t(n) * channels_ * pixels;
        for (int i = 0; i < pixels; i += kLanes) {
          const std::size_t at = image + i;
          across_backward(x + at, y + at, s + at, dy + at, dx + at, pixels - i, pixels);
        }
      }
    } else {
      for (int n = 0; n < num_ * channels_; n++) {
        const std::size_t at = std::size_t(n) * pixels;
        within_backward(x + at, y + at, s + at, dy + at, dx + at);
      }
    }
  }

 private:
  bool across() const {
    return layer_param_.lrn_param().norm_region() == caffe::LRNParameter_NormRegion_ACROSS_CHANNELS;
  }

  // A vector of pixels, all channels; s may be null. columns_ holds pre_pad_ zeros, then a value
  // for each channel, then zeros.
  void across_forward(const float* x, float* y, float* s, int lanes, int pixels) {
    float* const values = columns_.data() + pre_pad_ * kLanes;
    for (int c = 0; c < channels_; c++) {
      const Vec v = load_first(x + std::size_t(c) * pixels, lanes);
      store(values + c * kLanes, mul(v, v));
    }
    const Vec factor = set1(alpha_ / size_);
    for (int c = 0; c < channels_; c++) {
      const Vec scale = fma(factor, window(c), set1(k_));
      if (s) store_first(s + std::size_t(c) * pixels, scale, lanes);
      store_first(y + std::size_t(c) * pixels,
                  mul(load_first(x + std::size_t(c) * pixels, lanes), power(scale, beta_)), lanes);
    }
  }

  void across_backward(const float* x, const float* y, const float* s, const float* dy, float* dx,
                       int lanes, int pixels) {
    float* const values = columns_.data() + pre_pad_ * kLanes;
    // Where there is no pixel, 0 / 0 must not get in.
    const Vec one = drop(set1(1), lane_mask(lanes));
    for (int c = 0; c < channels_; c++) {
      const std::size_t at = std::size_t(c) * pixels;
      const Vec product = mul(load_first(dy + at, lanes), load_first(y + at, lanes));
      store(values + c * kLanes, div(product, add(load_first(s + at, lanes), one)));
    }
    const Vec factor = set1(2 * alpha_ * beta_ / size_);
    for (int c = 0; c < channels_; c++) {
      const std::size_t at = std::size_t(c) * pixels;
      const Vec direct = mul(load_first(dy + at, lanes), power(load_first(s + at, lanes), beta_));
      const Vec shared = mul(mul(factor, load_first(x + at, lanes)), window(c));
      store_first(dx + at, sub(direct, shared), lanes);
    }
  }

  Vec window(int channel) const {
    Vec sum = zero();
    for (int i = 0; i < size_; i++) sum = add(sum, load(columns_.data() + (channel + i) * kLanes));
    return sum;
  }

  // One plane; s may be null. padded_ holds rows with pre_pad_ zeros before them; sums_ has
  // pre_pad_ rows of zeros above and below those that box() makes.
  void within_forward(const float* x, float* y, float* s) {
    each_vector([&](int row, int column, int at, int lanes) {
      const Vec v = load_first(x + at, lanes);
      store(padded_.data() + row * pitch_ + pre_pad_ + column, mul(v, v));
    });
    box_rows();
    const Vec factor = set1(alpha_ / (size_ * size_));
    each_vector([&](int row, int column, int at, int lanes) {
      const Vec scale =
          fma(factor, box(row, column), set1(1));  // Caffe's shift is 1 here, whatever k is
      if (s) store_first(s + at, scale, lanes);
      store_first(y + at, mul(load_first(x + at, lanes), power(scale, beta_)), lanes);
    });
  }

  void within_backward(const float* x, const float* y, const float* s, const float* dy, float* dx) {
    each_vector([&](int row, int column, int at, int lanes) {
      const Vec one = drop(set1(1), lane_mask(lanes));
      const Vec product = mul(load_first(dy + at, lanes), load_first(y + at, lanes));
      store(padded_.data() + row * pitch_ + pre_pad_ + column,
            div(product, add(load_first(s + at, lanes), one)));
    });
    box_rows();
    const Vec factor = set1(2 * alpha_ * beta_ / (size_ * size_));
    each_vector([&](int row, int column, int at, int lanes) {
      const Vec direct = mul(load_first(dy + at, lanes), power(load_first(s + at, lanes), beta_));
      const Vec shared = mul(mul(factor, load_first(x + at, lanes)), box(row, column));
      store_first(dx + at, sub(direct, shared), lanes);
    });
  }

  template <class Visit>
  void each_vector(Visit visit) const {
    for (int row = 0; row < height_; row++) {
      for (int column = 0; column < width_; column += kLanes) {
        visit(row, column, row * width_ + column, width_ - column);
      }
    }
  }

  // Sums of `size` neighbours in each row of padded_.
  void box_rows() {
    for (int row = 0; row < height_; row++) {
      for (int column = 0; column < width_; column += kLanes) {
        const float* from = padded_.data() + row * pitch_ + column;
        Vec sum = load(from);
        for (int i = 1; i < size_; i++) sum = add(sum, load(from + i));
        store(sums_.data() + (row + pre_pad_) * pitch_ + column, sum);
      }
    }
  }

  Vec box(int row, int column) const {
    const float* from = sums_.data() + row * pitch_ + column;
    Vec sum = load(from);
    for (int i = 1; i < size_; i++) sum = add(sum, load(from + i * pitch_));
    return sum;
  }

  std::vector<int> planned_;  // the input's shape that the buffers are for
  Buffer columns_;            // across channels
  Buffer padded_, sums_;      // within channels
  std::ptrdiff_t pitch_ = 0;
};

}  // namespace

LayerPointer create_lrn(const LayerParameter& parameter) {
  return LayerPointer(new FastLRN(parameter));
}

}  // namespace lrbench
