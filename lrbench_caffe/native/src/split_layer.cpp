// Split: the sum of its outputs' gradients in one pass, bit for bit as Caffe's. Where it can be
// (fusion.h), the sum is in the memory of one of them. What goes forward is shared by Caffe's own.
#include "caffe/layers/split_layer.hpp"

#include "fusion.h"
#include "layers.h"
#include "vec.h"

namespace lrbench {
namespace {

class FastSplit : public caffe::SplitLayer<float>, public GradientSum {
 public:
  using SplitLayer::SplitLayer;

  void sum_in(std::size_t top) override { shared_ = int(top); }

 protected:
  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    if (shared_ >= 0) bottom[0]->ShareDiff(*top[shared_]);
    if (top.size() == 1) return SplitLayer::Backward_cpu(top, propagate_down, bottom);
    std::vector<const float*> gradients;
    for (const Blob<float>* blob : top) gradients.push_back(blob->cpu_diff());
    float* sum = bottom[0]->mutable_cpu_diff();
    const int count = bottom[0]->count();
    for (int i = 0; i < count; i += kLanes) {
      const int lanes = count - i;
      Vec value = load_first(gradients[0] + i, lanes);
      for (std::size_t t = 1; t < gradients.size(); t++) {
        value = add(value, load_first(gradients[t] + i, lanes));
      }
      store_first(sum + i, value, lanes);
    }
  }

 private:
  int shared_ = -1;  // the output whose gradient's memory has the sum, or none
};

}  // namespace

LayerPointer create_split(const LayerParameter& parameter) {
  return LayerPointer(new FastSplit(parameter));
}

}  // namespace lrbench
