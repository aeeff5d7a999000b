// Eltwise: the sum of inputs without coefficients in one pass, bit for bit as Caffe's.
#include "caffe/layers/eltwise_layer.hpp"

#include <algorithm>

#include "layers.h"
#include "vec.h"

namespace lrbench {
namespace {

class FastEltwise : public caffe::EltwiseLayer<float> {
 public:
  using EltwiseLayer::EltwiseLayer;

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    const bool plain = std::all_of(coeffs_.begin(), coeffs_.end(), [](float c) { return c == 1; });
    if (op_ != caffe::EltwiseParameter_EltwiseOp_SUM || !plain || bottom.size() != 2 ||
        bottom[0]->cpu_data() == top[0]->cpu_data() || bottom[1]->cpu_data() == top[0]->cpu_data()) {
      return EltwiseLayer::Forward_cpu(bottom, top);
    }
    const float* a = bottom[0]->cpu_data();
    const float* b = bottom[1]->cpu_data();
    float* sum = top[0]->mutable_cpu_data();
    const int count = top[0]->count();
    int i = 0;
    // Caffe adds to zero, which makes -0 + -0 be +0.
    for (; i + kLanes <= count; i += kLanes) {
      store(sum + i, _mm256_add_ps(_mm256_add_ps(zero(), load(a + i)), load(b + i)));
    }
    for (; i < count; i++) sum[i] = (0.f + a[i]) + b[i];
  }
};

}  // namespace

LayerPointer create_eltwise(const LayerParameter& parameter) {
  return LayerPointer(new FastEltwise(parameter));
}

}  // namespace lrbench
