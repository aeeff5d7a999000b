// BatchNorm by the statistics of the batch, channel by channel, so that what is read twice is in
// the cache. Where they are fused, Scale and ReLU are done at once:  y = max(0, factor * x_norm +
// bias);  going back, the sums that the gradients of factor and bias need are those that BatchNorm
// needs.
//
// In a test net it is a line for each channel, by the moving averages: of a convolution's weights
// before it, or in one pass with Scale and ReLU. Otherwise Caffe's own code runs by them.
#include "caffe/layers/batch_norm_layer.hpp"

#include <cmath>

#include "fusion.h"
#include "layers.h"
#include "sums.h"
#include "threads.h"

namespace lrbench {
namespace {

// What follows in the same pass.
enum class Then { kNothing, kScale, kScaleAndReLU };

// A channel's values on their way through Scale and ReLU.
template <Then Next>
struct Path {
  Vec factor, bias;

  Vec scaled(Vec x) const {
    return Next == Then::kNothing ? x : lrbench::add(mul(x, factor), bias);
  }
  Vec forward(Vec x) const {
    return Next == Then::kScaleAndReLU ? max(zero(), scaled(x)) : scaled(x);
  }
  // The gradient behind the scale, from that of the output.
  Vec back(Vec x, Vec gradient) const {
    return Next == Then::kScaleAndReLU ? only_where_positive(scaled(x), gradient) : gradient;
  }
};

class FastBatchNorm : public caffe::BatchNormLayer<float>,
                      public Leader,
                      public ChannelFollower,
                      public TestLayer {
 public:
  using BatchNormLayer::BatchNormLayer;

  bool can_lead() const override { return !use_global_stats_; }
  bool takes_scale() const override { return true; }

  bool can_follow(const Blobs&) const override { return false; }
  bool can_fold(const Blobs& bottom) const override {
    return use_global_stats_ && bottom[0]->num_axes() > 1;
  }
  bool leads_channels() const override { return use_global_stats_; }
  bool leads_relu() const override { return use_global_stats_; }

  void continue_lines(std::vector<ChannelLine>& lines) const override {
    const Averages averages(*this);
    for (int c = 0; c < channels_; c++) {
      const double inverse = 1 / averages.deviation(c);
      lines[c].factor *= inverse;
      lines[c].shift = (lines[c].shift - averages.mean(c)) * inverse;
    }
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (done_forward()) return;
    if (tests(*bottom[0])) return test(bottom, top);
    if (!applies(*bottom[0])) return BatchNormLayer::Forward_cpu(bottom, top);
    if (relu_) return forward<Then::kScaleAndReLU>(bottom, top);
    scale_ ? forward<Then::kScale>(bottom, top) : forward<Then::kNothing>(bottom, top);
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    check_backward();
    if (!applies(*bottom[0])) return BatchNormLayer::Backward_cpu(top, propagate_down, bottom);
    if (relu_) return backward<Then::kScaleAndReLU>(top, bottom);
    scale_ ? backward<Then::kScale>(top, bottom) : backward<Then::kNothing>(top, bottom);
  }

 private:
  // Channels of one pixel, as behind InnerProduct, are vectors of one lane here; Caffe's products
  // are faster.
  bool applies(const Blob<float>& bottom) const {
    return !use_global_stats_ && (scale_ != nullptr || slices_of(bottom).inner > 1);
  }

  // Without followers, channels of one pixel are left to Caffe, as above.
  bool tests(const Blob<float>& bottom) const {
    return only_test_ && can_fold({const_cast<Blob<float>*>(&bottom)}) &&
           (test_followers_.any() || slices_of(bottom).inner > 1);
  }

  // By which a test net normalizes.
  class Averages {
   public:
    explicit Averages(const FastBatchNorm& layer)
        : means_(layer.blobs_[0]->cpu_data()),
          variances_(layer.blobs_[1]->cpu_data()),
          eps_(layer.eps_) {
      const double weight = layer.blobs_[2]->cpu_data()[0];
      factor_ = weight == 0 ? 0 : 1 / weight;
    }
    double mean(int channel) const { return factor_ * means_[channel]; }
    double deviation(int channel) const { return std::sqrt(factor_ * variances_[channel] + eps_); }

   private:
    const float *means_, *variances_;
    double eps_, factor_;
  };

  void test(const Blobs& bottom, const Blobs& top) {
    const Slices slices = slices_of(*bottom[0]);
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    const Averages averages(*this);
    std::vector<ChannelLine> lines(channels_);
    for (int c = 0; c < channels_; c++) lines[c].factor = 1 / averages.deviation(c);
    test_followers_.continue_lines(lines);
    const Vec lowest = set1(test_followers_.lowest());
    each_channel([&](int c) {
      const std::size_t start = std::size_t(c) * slices.inner;
      // The mean is not part of the shift, which would round more where it is large.
      const Vec mean = set1(float(averages.mean(c))), factor = set1(float(lines[c].factor)),
                shift = set1(float(lines[c].shift));
      slices.each([&](std::size_t at, auto get, auto put) {
        put(y + start + at, max(lowest, fma(sub(get(x + start + at), mean), factor, shift)));
      });
    });
    test_followers_.be_done_once();
  }

  // Of a Scale layer that follows.
  struct Scaling {
    const float *factors, *biases;
    float *factor_gradients, *bias_gradients;

    template <Then Next>
    Path<Next> path(int channel) const {
      if (Next == Then::kNothing) return {set1(1), zero()};
      return {set1(factors[channel]), set1(biases ? biases[channel] : 0.f)};
    }
  };

  Scaling scaling() {
    if (!scale_) return {};
    return {scale_->factors(), scale_->biases(), scale_->factor_gradients(),
            scale_->bias_gradients()};
  }

  template <Then Next>
  void forward(const Blobs& bottom, const Blobs& top) {
    const Slices slices = slices_of(*bottom[0]);
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    float* normalized = x_norm_.mutable_cpu_data();
    float* mean = mean_.mutable_cpu_data();
    float* deviation = variance_.mutable_cpu_data();
    const Scaling scaling = this->scaling();
    float* means = blobs_[0]->mutable_cpu_data();
    float* variances = blobs_[1]->mutable_cpu_data();
    float& weight = blobs_[2]->mutable_cpu_data()[0];
    weight = weight * moving_average_fraction_ + 1;
    const int m = bottom[0]->count() / channels_;
    const float correction = m > 1 ? float(m) / (m - 1) : 1;
    each_channel([&](int c) {
      const float* from = x + std::size_t(c) * slices.inner;
      mean[c] = slices.sum([&](std::size_t at, auto get) { return get(from + at); }) / m;
      const Vec center = set1(mean[c]);
      const float variance = slices.sum([&](std::size_t at, auto get) {
        const Vec d = sub(get(from + at), get(center));
        return mul(d, d);
      }) / m;
      means[c] = mean[c] + moving_average_fraction_ * means[c];
      variances[c] = correction * variance + moving_average_fraction_ * variances[c];
      deviation[c] = std::sqrt(variance + eps_);
      const Vec inverse = set1(1 / deviation[c]);
      const auto after = scaling.template path<Next>(c);
      float* to = y + std::size_t(c) * slices.inner;
      float* kept = normalized + std::size_t(c) * slices.inner;
      slices.each([&](std::size_t at, auto get, auto put) {
        const Vec value = mul(sub(get(from + at), center), inverse);
        put(to + at, after.forward(value));
        put(kept + at, value);
      });
    });
  }

  template <Then Next>
  void backward(const Blobs& top, const Blobs& bottom) {
    const Slices slices = slices_of(*bottom[0]);
    const float* dy = top[0]->cpu_diff();
    const float* y = x_norm_.cpu_data();
    float* dx = bottom[0]->mutable_cpu_diff();
    const float* deviation = variance_.cpu_data();
    const Scaling scaling = this->scaling();
    const int m = bottom[0]->count() / channels_;
    each_channel([&](int c) {
      const std::size_t start = std::size_t(c) * slices.inner;
      const float* g = dy + start;
      const float* v = y + start;
      float* to = dx + start;
      const auto after = scaling.template path<Next>(c);
      const auto sums = slices.two_sums([&](std::size_t at, auto get) {
        const Vec value = get(v + at), gradient = after.back(value, get(g + at));
        return std::make_pair(gradient, mul(gradient, value));
      });
      float inverse_deviation = 1 / deviation[c];
      if (Next != Then::kNothing) {
        if (scaling.bias_gradients) scaling.bias_gradients[c] += sums.first;
        if (scaling.factor_gradients) scaling.factor_gradients[c] += sums.second;
        inverse_deviation *= scaling.factors[c];
      }
      const Vec mean = set1(sums.first / m), slope = set1(sums.second / m),
                inverse = set1(inverse_deviation);
      slices.each([&](std::size_t at, auto get, auto put) {
        const Vec value = get(v + at);
        const Vec centered = sub(after.back(value, get(g + at)), fma(slope, value, mean));
        put(to + at, mul(centered, inverse));
      });
    });
  }

  // On all threads: channels have nothing to do with each other.
  template <class Visit>
  void each_channel(Visit visit) const {
    const int parts = std::max(1, std::min(thread_count(), channels_));
    run_parts(parts, [&](int part) {
      for (int c = part * channels_ / parts; c < (part + 1) * channels_ / parts; c++) visit(c);
    });
  }

  Slices slices_of(const Blob<float>& blob) const {
    Slices slices;
    slices.outer = blob.shape(0);
    slices.inner = blob.count() / (blob.shape(0) * channels_);
    slices.stride = std::size_t(channels_) * slices.inner;
    return slices;
  }
};

}  // namespace

LayerPointer create_batch_norm(const LayerParameter& parameter) {
  return LayerPointer(new FastBatchNorm(parameter));
}

}  // namespace lrbench
