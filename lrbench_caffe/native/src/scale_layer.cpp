// Scale by learned factors, with or without bias, channel by channel in one pass each way.
#include "caffe/layers/scale_layer.hpp"

#include "fusion.h"
#include "layers.h"
#include "sums.h"

namespace lrbench {
namespace {

class FastScale : public caffe::ScaleLayer<float>, public ScaleFollower {
 public:
  using ScaleLayer::ScaleLayer;

  bool can_follow(const Blobs& bottom) const override {
    return applies(bottom) && axis_ == 1 && scale_dim_ == bottom[0]->shape(1);
  }
  bool can_fold(const Blobs& bottom) const override {
    return bottom.size() == 1 && axis_ == 1 && bottom[0]->num_axes() > 1 &&
           scale_dim_ == bottom[0]->shape(1);
  }
  void continue_lines(std::vector<ChannelLine>& lines) const override {
    const float *factors = this->factors(), *biases = this->biases();
    for (int c = 0; c < scale_dim_; c++) {
      lines[c].factor *= factors[c];
      lines[c].shift = lines[c].shift * factors[c] + (biases ? biases[c] : 0.f);
    }
  }
  const float* factors() const override { return blobs_[0]->cpu_data(); }
  const float* biases() const override {
    return bias_layer_ ? blobs_[bias_param_id_]->cpu_data() : nullptr;
  }
  float* factor_gradients() override {
    return param_propagate_down_[0] ? blobs_[0]->mutable_cpu_diff() : nullptr;
  }
  float* bias_gradients() override {
    const bool wanted = bias_layer_ && param_propagate_down_[param_propagate_down_.size() - 1];
    return wanted ? blobs_[bias_param_id_]->mutable_cpu_diff() : nullptr;
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (done_forward()) return;
    if (!applies(bottom)) return ScaleLayer::Forward_cpu(bottom, top);
    const bool in_place = bottom[0] == top[0];
    const float* factors = this->factors();
    const float* biases = this->biases();
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    float* kept = in_place ? temp_.mutable_cpu_data() : nullptr;
    for (int c = 0; c < scale_dim_; c++) {
      const std::size_t start = std::size_t(c) * inner_dim_;
      const Vec factor = set1(factors[c]), bias = set1(biases ? biases[c] : 0.f);
      slices().each([&](std::size_t at, auto get, auto put) {
        const Vec value = get(x + start + at);
        if (kept) put(kept + start + at, value);
        // Two roundings, as Caffe's two layers.
        const Vec scaled = mul(value, factor);
        put(y + start + at, biases ? add(scaled, bias) : scaled);
      });
    }
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (done()) return;
    if (!applies(bottom)) return ScaleLayer::Backward_cpu(top, propagate_down, bottom);
    const bool in_place = bottom[0] == top[0];
    const float* factors = this->factors();
    float* factor_diff = factor_gradients();
    float* bias_diff = bias_gradients();
    const float* x = in_place ? temp_.cpu_data() : bottom[0]->cpu_data();
    const float* dy = top[0]->cpu_diff();
    float* dx = propagate_down[0] ? bottom[0]->mutable_cpu_diff() : nullptr;
    for (int c = 0; c < scale_dim_; c++) {
      const std::size_t start = std::size_t(c) * inner_dim_;
      if (bias_diff || factor_diff) {
        const auto sums = slices().two_sums([&](std::size_t at, auto get) {
          const Vec gradient = get(dy + start + at);
          return std::make_pair(gradient, mul(gradient, get(x + start + at)));
        });
        if (bias_diff) bias_diff[c] += sums.first;
        if (factor_diff) factor_diff[c] += sums.second;
      }
      if (dx) {
        const Vec factor = set1(factors[c]);
        slices().each([&](std::size_t at, auto get, auto put) {
          put(dx + start + at, mul(get(dy + start + at), factor));
        });
      }
    }
  }

 private:
  // Short runs are not worth it, with two bottoms the factors are not learned, and for a batch of
  // one Caffe does not add up the gradients of several passes.
  bool applies(const Blobs& bottom) const {
    return bottom.size() == 1 && outer_dim_ > 1 && inner_dim_ >= kLanes;
  }

  Slices slices() const {
    Slices slices;
    slices.outer = outer_dim_;
    slices.inner = inner_dim_;
    slices.stride = std::size_t(scale_dim_) * inner_dim_;
    return slices;
  }
};

}  // namespace

LayerPointer create_scale(const LayerParameter& parameter) {
  return LayerPointer(new FastScale(parameter));
}

}  // namespace lrbench
