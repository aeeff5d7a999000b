// Eltwise: the sum of two inputs without coefficients in one pass, bit for bit as Caffe's; with a
// ReLU after it, if that is fused; or done by the BatchNorm before it.
#include "caffe/layers/eltwise_layer.hpp"

#include <algorithm>

#include "fusion.h"
#include "layers.h"
#include "vec.h"

namespace lrbench {
namespace {

class FastEltwise : public caffe::EltwiseLayer<float>,
                    public Leader,
                    public SumFollower,
                    public TestLayer {
 public:
  using EltwiseLayer::EltwiseLayer;

  bool takes_scale() const override { return false; }
  bool leads_relu() const override { return plain_sum(); }
  bool can_lead() const override { return !done() && plain_sum(); }
  bool can_follow(const Blobs& bottom) const override {
    return plain_sum() && bottom[0] != bottom[1] && layer_param_.loss_weight_size() == 0;
  }
  void reshape(const Blobs& bottom, const Blobs& top) override { Reshape(bottom, top); }

  void LayerSetUp(const Blobs& bottom, const Blobs& top) override {
    EltwiseLayer::LayerSetUp(bottom, top);
    inputs_ = int(bottom.size());
    if (bottom[0] == top[0] || bottom[1] == top[0]) inputs_ = 0;  // in place
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (done_forward()) return;
    if (!plain_sum()) return EltwiseLayer::Forward_cpu(bottom, top);
    relu_ || test_followers_.relu ? add<true>(bottom, top) : add<false>(bottom, top);
    test_followers_.be_done_once();
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    check_backward();
    if (done()) return;
    if (!relu_) return EltwiseLayer::Backward_cpu(top, propagate_down, bottom);
    const float* y = top[0]->cpu_data();
    const float* dy = top[0]->cpu_diff();
    float* a = bottom[0]->mutable_cpu_diff();
    float* b = bottom[1]->mutable_cpu_diff();
    const int count = top[0]->count();
    for (int i = 0; i < count; i += kLanes) {
      const int lanes = count - i;
      const Vec gradient = only_where_positive(load_first(y + i, lanes), load_first(dy + i, lanes));
      store_first(a + i, gradient, lanes);
      store_first(b + i, gradient, lanes);
    }
  }

 private:
  bool plain_sum() const {
    const bool plain = std::all_of(coeffs_.begin(), coeffs_.end(), [](float c) { return c == 1; });
    return op_ == caffe::EltwiseParameter_EltwiseOp_SUM && plain && inputs_ == 2;
  }

  template <bool Positive>
  void add(const Blobs& bottom, const Blobs& top) const {
    const float* a = bottom[0]->cpu_data();
    const float* b = bottom[1]->cpu_data();
    float* sum = top[0]->mutable_cpu_data();
    const int count = top[0]->count();
    for (int i = 0; i < count; i += kLanes) {
      const int lanes = count - i;
      // Caffe adds to zero, which makes -0 + -0 be +0.
      const Vec value =
          lrbench::add(lrbench::add(zero(), load_first(a + i, lanes)), load_first(b + i, lanes));
      store_first(sum + i, Positive ? max(zero(), value) : value, lanes);
    }
  }

  int inputs_ = 0;
};

}  // namespace

LayerPointer create_eltwise(const LayerParameter& parameter) {
  return LayerPointer(new FastEltwise(parameter));
}

}  // namespace lrbench
