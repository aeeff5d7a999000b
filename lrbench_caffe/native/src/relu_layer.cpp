// ReLU, bit for bit as Caffe's.
#include "caffe/layers/relu_layer.hpp"

#include "fusion.h"
#include "layers.h"
#include "vec.h"

namespace lrbench {
namespace {

// With NaN and signed zeros, the second operand is what std::max(x, 0) and std::min(x, 0) give.
inline Vec forward(Vec x, Vec slope) { return add(max(zero(), x), mul(slope, min(zero(), x))); }

inline Vec backward(Vec x, Vec gradient, Vec slope) {
  const Vec positive = keep(set1(1), greater(x, zero()));
  const Vec other = keep(slope, no_greater(x, zero()));
  return mul(gradient, add(positive, other));
}

class FastReLU : public caffe::ReLULayer<float>, public ReLUFollower {
 public:
  using ReLULayer::ReLULayer;

  bool can_follow(const Blobs&) const override {
    return layer_param_.relu_param().negative_slope() == 0;
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (done_forward()) return;
    const Vec slope = set1(layer_param_.relu_param().negative_slope());
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    const int count = bottom[0]->count();
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) store(y + i, forward(load(x + i), slope));
    store_first(y + i, forward(load_first(x + i, count - i), slope), count - i);
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (done() || !propagate_down[0]) return;
    const Vec slope = set1(layer_param_.relu_param().negative_slope());
    const float* x = bottom[0]->cpu_data();
    const float* dy = top[0]->cpu_diff();
    float* dx = bottom[0]->mutable_cpu_diff();
    const int count = bottom[0]->count();
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      store(dx + i, backward(load(x + i), load(dy + i), slope));
    }
    const Vec rest = backward(load_first(x + i, count - i), load_first(dy + i, count - i), slope);
    store_first(dx + i, rest, count - i);
  }
};

}  // namespace

LayerPointer create_relu(const LayerParameter& parameter) {
  return LayerPointer(new FastReLU(parameter));
}

}  // namespace lrbench
