// BatchNorm by the statistics of the batch, channel by channel, so that what is read twice is in
// the cache. Where they are fused, Scale and ReLU are done at once:  y = max(0, factor * x_norm +
// bias);  going back, the sums that the gradients of factor and bias need are those that BatchNorm
// needs. A shortcut can be added before the ReLU.
//
// Passes wait for memory. Caffe writes x_norm beside y, to have it for the gradients. Where the
// layer works in place on a blob of its own, x is kept instead: y is written to the memory of
// x_norm, and the two change places. With a shortcut, x stays where it is, and y is the sum's.
//
// In a test net it is a line for each channel, by the moving averages: of a convolution's weights
// before it, or in one pass with Scale and ReLU. Otherwise Caffe's own code runs by them.
#include "caffe/layers/batch_norm_layer.hpp"

#include <cmath>

#include "fusion.h"
#include "layers.h"
#include "memory.h"
#include "sums.h"
#include "threads.h"

namespace lrbench {
namespace {

// What follows in the same pass.
enum class Then { kNothing, kScale, kScaleAndReLU, kScaleAndSum, kScaleSumAndReLU };

constexpr bool adds(Then next) {
  return next == Then::kScaleAndSum || next == Then::kScaleSumAndReLU;
}

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
                      public TestLayer,
                      public HasBlobs {
 public:
  using BatchNormLayer::BatchNormLayer;

  bool can_lead() const override { return !use_global_stats_; }
  bool takes_scale() const override { return true; }
  Blobs own_blobs() override { return {&x_norm_}; }

  bool can_follow(const Blobs&) const override { return false; }
  bool can_fold(const Blobs& bottom) const override { return is_line(*bottom[0]); }
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
    keeps_x_ = sum_ || (owns_input_ && bottom[0] == top[0] &&
                        bottom[0]->data()->size() == x_norm_.data()->size());
    with_next([&](auto next) { forward<decltype(next)::value>(bottom, top); });
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    check_backward();
    if (!applies(*bottom[0])) return BatchNormLayer::Backward_cpu(top, propagate_down, bottom);
    with_next([&](auto next) {
      keeps_x_ ? backward<decltype(next)::value, true>(top, bottom)
               : backward<decltype(next)::value, false>(top, bottom);
    });
  }

 private:
  // Calls work with what follows, as a type.
  template <class Work>
  void with_next(Work work) const {
    using std::integral_constant;
    if (!scale_) return work(integral_constant<Then, Then::kNothing>());
    if (sum_) {
      relu_ ? work(integral_constant<Then, Then::kScaleSumAndReLU>())
            : work(integral_constant<Then, Then::kScaleAndSum>());
    } else {
      relu_ ? work(integral_constant<Then, Then::kScaleAndReLU>())
            : work(integral_constant<Then, Then::kScale>());
    }
  }

  // Channels of one pixel, as behind InnerProduct, are vectors of one lane here; Caffe's products
  // are faster.
  bool applies(const Blob<float>& bottom) const {
    return !use_global_stats_ && (scale_ != nullptr || slices_of(bottom).inner > 1);
  }

  bool is_line(const Blob<float>& bottom) const {
    return use_global_stats_ && bottom.num_axes() > 1;
  }

  // Without followers, channels of one pixel are left to Caffe, as above.
  bool tests(const Blob<float>& bottom) const {
    return only_test_ && is_line(bottom) && (test_followers_.any() || slices_of(bottom).inner > 1);
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
    if (adds(Next)) sum_->follower->reshape(sum_->bottom, sum_->top);
    const float* shortcut = adds(Next) ? this->shortcut(top)->cpu_data() : nullptr;
    float* kept = keeps_x_ ? nullptr : x_norm_.mutable_cpu_data();
    float* y = adds(Next) ? sum_->top[0]->mutable_cpu_data()
               : keeps_x_ ? x_norm_.mutable_cpu_data()
                          : top[0]->mutable_cpu_data();
    float* means = mean_.mutable_cpu_data();
    float* deviations = variance_.mutable_cpu_data();
    float* const averages[] = {blobs_[0]->mutable_cpu_data(), blobs_[1]->mutable_cpu_data()};
    float& weight = blobs_[2]->mutable_cpu_data()[0];  // of the moving averages
    weight = weight * moving_average_fraction_ + 1;
    const int m = bottom[0]->count() / channels_;
    const float correction = m > 1 ? float(m) / (m - 1) : 1;
    const Scaling scaling = this->scaling();
    each_channel([&](int c) {
      const std::size_t start = std::size_t(c) * slices.inner;
      const auto moments = slices.mean_and_variance(x + start);
      averages[0][c] = moments.first + moving_average_fraction_ * averages[0][c];
      averages[1][c] = correction * moments.second + moving_average_fraction_ * averages[1][c];
      means[c] = moments.first;
      deviations[c] = std::sqrt(moments.second + eps_);
      const Vec center = set1(means[c]), inverse = set1(1 / deviations[c]);
      const auto after = scaling.template path<Next>(c);
      const auto write = [&](auto keep) {
        slices.each([&](std::size_t at, auto get, auto put) {
          const Vec value = mul(sub(get(x + start + at), center), inverse);
          if (decltype(keep)::value) put(kept + start + at, value);
          Vec result = after.forward(value);
          // As Eltwise: added to zero, which makes -0 + -0 be +0.
          if (adds(Next)) result = add(add(zero(), result), get(shortcut + start + at));
          put(y + start + at, Next == Then::kScaleSumAndReLU ? max(zero(), result) : result);
        });
      };
      kept ? write(std::true_type()) : write(std::false_type());
    });
    if (keeps_x_ && !adds(Next)) exchange(*bottom[0], x_norm_);
  }

  // Each gets the other's memory.
  void exchange(Blob<float>& a, Blob<float>& b) {
    spare_.ReshapeLike(a);
    spare_.ShareData(a);
    a.ShareData(b);
    b.ShareData(spare_);
  }

  Blob<float>* shortcut(const Blobs& top) const {
    return sum_->bottom[sum_->bottom[0] == top[0] ? 1 : 0];
  }

  // Where x is kept, it is in the memory of x_norm_ after the exchange; with a shortcut, in that of
  // the input.
  template <Then Next, bool KeepsX>
  void backward(const Blobs& top, const Blobs& bottom) {
    const Slices slices = slices_of(*bottom[0]);
    Blob<float>& output = adds(Next) ? *sum_->top[0] : *top[0];
    // The shortcut's gradient is the sum's, behind the ReLU; the sum's is not needed any more.
    if (adds(Next)) shortcut(top)->ShareDiff(output);
    float* dy = output.mutable_cpu_diff();
    const float* y = output.cpu_data();
    const float* kept = adds(Next) ? bottom[0]->cpu_data() : x_norm_.cpu_data();
    float* dx = bottom[0]->mutable_cpu_diff();
    const float* means = mean_.cpu_data();
    const float* deviations = variance_.cpu_data();
    const Scaling scaling = this->scaling();
    const int m = bottom[0]->count() / channels_;
    each_channel([&](int c) {
      const std::size_t start = std::size_t(c) * slices.inner;
      const Vec center = set1(means[c]), unit = set1(1 / deviations[c]);
      const auto normalized = [&](Vec v) { return KeepsX ? mul(sub(v, center), unit) : v; };
      const auto after = scaling.template path<Next>(c);
      const auto sums = slices.two_sums([&](std::size_t at, auto lanes) {
        const Vec value = normalized(lanes(kept + start + at));
        Vec gradient = after.back(value, lanes(dy + start + at));
        if (Next == Then::kScaleSumAndReLU) {
          gradient = only_where_positive(lanes(y + start + at), gradient);
          lanes(dy + start + at, gradient);
        }
        return std::make_pair(gradient, mul(gradient, value));
      });
      float slope_of_x = 1 / deviations[c];
      if (Next != Then::kNothing) {
        if (scaling.bias_gradients) scaling.bias_gradients[c] += sums.first;
        if (scaling.factor_gradients) scaling.factor_gradients[c] += sums.second;
        slope_of_x *= scaling.factors[c];
      }
      const Vec mean = set1(sums.first / m), slope = set1(sums.second / m),
                inverse = set1(slope_of_x);
      slices.each([&](std::size_t at, auto get, auto put) {
        const Vec value = normalized(get(kept + start + at));
        const Vec gradient = after.back(value, get(dy + start + at));
        put(dx + start + at, mul(sub(gradient, fma(slope, value, mean)), inverse));
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

  bool keeps_x_ = false;  // and not x_norm, for the gradients
  Blob<float> spare_;     // whose memory is another's
};

}  // namespace

LayerPointer create_batch_norm(const LayerParameter& parameter) {
  return LayerPointer(new FastBatchNorm(parameter));
}

}  // namespace lrbench
