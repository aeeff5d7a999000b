// BatchNorm by the statistics of the batch, channel by channel, so that what is read twice is in the cache.
// By global statistics (testing) Caffe's own code runs.
#include "caffe/layers/batch_norm_layer.hpp"

#include <cmath>

#include "layers.h"
#include "sums.h"

namespace lrbench {
namespace {

class FastBatchNorm : public caffe::BatchNormLayer<float> {
 public:
  using BatchNormLayer::BatchNormLayer;

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (use_global_stats_) return BatchNormLayer::Forward_cpu(bottom, top);
    const Slices slices = slices_of(*bottom[0]);
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    float* normalized = x_norm_.mutable_cpu_data();
    float* mean = mean_.mutable_cpu_data();
    float* deviation = variance_.mutable_cpu_data();
    float* means = blobs_[0]->mutable_cpu_data();
    float* variances = blobs_[1]->mutable_cpu_data();
    float& weight = blobs_[2]->mutable_cpu_data()[0];
    weight = weight * moving_average_fraction_ + 1;
    const int m = bottom[0]->count() / channels_;
    const float correction = m > 1 ? float(m) / (m - 1) : 1;
    for (int c = 0; c < channels_; c++) {
      const float* from = x + std::size_t(c) * slices.inner;
      mean[c] = slices.sum([&](std::size_t at, auto get) { return get(from + at); }) / m;
      const Vec center = set1(mean[c]);
      const float variance = slices.sum([&](std::size_t at, auto get) {
        const Vec d = _mm256_sub_ps(get(from + at), get(center));
        return _mm256_mul_ps(d, d);
      }) / m;
      means[c] = mean[c] + moving_average_fraction_ * means[c];
      variances[c] = correction * variance + moving_average_fraction_ * variances[c];
      deviation[c] = std::sqrt(variance + eps_);
      const Vec inverse = set1(1 / deviation[c]);
      float* to = y + std::size_t(c) * slices.inner;
      float* kept = normalized + std::size_t(c) * slices.inner;
      slices.each([&](std::size_t at, auto get, auto put) {
        const Vec value = _mm256_mul_ps(_mm256_sub_ps(get(from + at), center), inverse);
        put(to + at, value);
        put(kept + at, value);
      });
    }
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (use_global_stats_) return BatchNormLayer::Backward_cpu(top, propagate_down, bottom);
    const Slices slices = slices_of(*bottom[0]);
    const float* dy = top[0]->cpu_diff();
    const float* y = x_norm_.cpu_data();
    float* dx = bottom[0]->mutable_cpu_diff();
    const float* deviation = variance_.cpu_data();
    const int m = bottom[0]->count() / channels_;
    for (int c = 0; c < channels_; c++) {
      const std::size_t start = std::size_t(c) * slices.inner;
      const float* g = dy + start;
      const float* v = y + start;
      float* to = dx + start;
      const auto sums = slices.two_sums([&](std::size_t at, auto get) {
        const Vec gradient = get(g + at);
        return std::make_pair(gradient, _mm256_mul_ps(gradient, get(v + at)));
      });
      const Vec mean = set1(sums.first / m), slope = set1(sums.second / m), inverse = set1(1 / deviation[c]);
      slices.each([&](std::size_t at, auto get, auto put) {
        const Vec centered = _mm256_sub_ps(get(g + at), fma(slope, get(v + at), mean));
        put(to + at, _mm256_mul_ps(centered, inverse));
      });
    }
  }

 private:
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
