// InnerProduct by the products of product.h. Threads share out the outputs and, for the gradient of
// the data, the inputs: no sum depends on how many there are.
#include "caffe/layers/inner_product_layer.hpp"

#include "dense.h"
#include "layers.h"
#include "threads.h"

namespace lrbench {
namespace {

class FastInnerProduct : public caffe::InnerProductLayer<float> {
 public:
  using InnerProductLayer::InnerProductLayer;

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (!covered()) return InnerProductLayer::Forward_cpu(bottom, top);
    const float *x = bottom[0]->cpu_data(), *w = blobs_[0]->cpu_data();
    const float* bias = bias_term_ ? blobs_[1]->cpu_data() : nullptr;
    float* y = top[0]->mutable_cpu_data();
    shared(N_, [&](int first, int count) { dense().forward(x, w, bias, y, first, count); });
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (!covered()) return InnerProductLayer::Backward_cpu(top, propagate_down, bottom);
    const float* dy = top[0]->cpu_diff();
    if (param_propagate_down_[0]) {
      const float* x = bottom[0]->cpu_data();
      float* dw = blobs_[0]->mutable_cpu_diff();
      shared(N_, [&](int first, int count) { dense().backward_weights(x, dy, dw, first, count); });
    }
    if (bias_term_ && param_propagate_down_[1])
      dense().backward_bias(dy, blobs_[1]->mutable_cpu_diff());
    if (propagate_down[0]) {
      const float* w = blobs_[0]->cpu_data();
      float* dx = bottom[0]->mutable_cpu_diff();
      shared(K_, [&](int first, int count) { dense().backward_data(w, dy, dx, first, count); });
    }
  }

 private:
  bool covered() const { return !transpose_ && M_ > 0; }

  Dense dense() const { return {M_, K_, N_, K_, N_}; }

  // work(first, number) for each thread's share of so many numbers.
  template <class Work>
  static void shared(int count, Work work) {
    const int most = ceil_div(count, std::min(count, thread_count()));
    const std::vector<int> shares = even_split(count, most);
    run_parts(int(shares.size()), [&](int part) {
      int first = 0;
      for (int i = 0; i < part; i++) first += shares[i];
      work(first, shares[part]);
    });
  }
};

}  // namespace

LayerPointer create_inner_product(const LayerParameter& parameter) {
  return LayerPointer(new FastInnerProduct(parameter));
}

}  // namespace lrbench
