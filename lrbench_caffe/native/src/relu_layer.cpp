// ReLU, bit for bit as Caffe's.
#include "caffe/layers/relu_layer.hpp"

#include "layers.h"
#include "vec.h"

namespace lrbench {
namespace {

class FastReLU : public caffe::ReLULayer<float> {
 public:
  using ReLULayer::ReLULayer;

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    const float slope = layer_param_.relu_param().negative_slope();
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    const int count = bottom[0]->count();
    for (int i = 0; i < count; i += kLanes) {
      const bool whole = i + kLanes <= count;
      const __m256i mask = lane_mask(whole ? kLanes : count - i);
      const Vec v = whole ? load(x + i) : load(x + i, mask);
      // With NaN and signed zeros, the second operand is what std::max(x, 0) and std::min(x, 0) give.
      const Vec positive = _mm256_max_ps(zero(), v), negative = _mm256_min_ps(zero(), v);
      const Vec result = _mm256_add_ps(positive, _mm256_mul_ps(set1(slope), negative));
      whole ? store(y + i, result) : store(y + i, result, mask);
    }
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    const float slope = layer_param_.relu_param().negative_slope();
    const float* x = bottom[0]->cpu_data();
    const float* dy = top[0]->cpu_diff();
    float* dx = bottom[0]->mutable_cpu_diff();
    const int count = bottom[0]->count();
    for (int i = 0; i < count; i += kLanes) {
      const bool whole = i + kLanes <= count;
      const __m256i mask = lane_mask(whole ? kLanes : count - i);
      const Vec v = whole ? load(x + i) : load(x + i, mask), g = whole ? load(dy + i) : load(dy + i, mask);
      const Vec one = _mm256_and_ps(_mm256_cmp_ps(v, zero(), _CMP_GT_OQ), set1(1));
      const Vec other = _mm256_and_ps(_mm256_cmp_ps(v, zero(), _CMP_LE_OQ), set1(slope));
      const Vec result = _mm256_mul_ps(g, _mm256_add_ps(one, other));
      whole ? store(dx + i, result) : store(dx + i, result, mask);
    }
  }
};

}  // namespace

LayerPointer create_relu(const LayerParameter& parameter) { return LayerPointer(new FastReLU(parameter)); }

}  // namespace lrbench
