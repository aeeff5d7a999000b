// Convolution by the kernels of convolution.h and winograd.h, for 2-d images without groups; by
// Caffe's where these are expected to be faster (costs.h). Depthwise convolution by those of
// depthwise.h.
#include <memory>

#include "caffe/layers/conv_layer.hpp"
#include "convolution.h"
#include "depthwise.h"
#include "layers.h"
#include "threads.h"

namespace lrbench {
namespace {

// A convolution whose images are shared out among the threads, the same ones to the same thread
// every time. The gradients of the weights are added up in the order of the threads, so that they
// depend on nothing but how many there are.
class SharedConvolution {
 public:
  explicit SharedConvolution(const ConvShape& shape) : s_(shape) {
    const int threads = std::max(1, std::min(thread_count(), shape.images));
    int first = 0;
    for (int images : even_split(shape.images, ceil_div(shape.images, threads))) {
      ConvShape share = shape;
      share.images = images;
      parts_.push_back({first, std::make_unique<Convolution>(share), {}, {}});
      first += images;
    }
  }

  void forward(const float* x, const float* w, const float* bias, float* y) {
    run_parts(int(parts_.size()), [&](int i) {
      const Part& part = parts_[i];
      part.convolution->forward(x + part.first * s_.in_size(), w, bias,
                                y + part.first * s_.out_size());
    });
  }

  // An estimate of what a pass takes, that is its longest part.
  double cycles(Direction direction) { return parts_[0].convolution->cycles(direction); }

  // As Convolution's; any of the three gradients may be null.
  void backward(const float* x, const float* w, const float* dy, float* dw, float* db, float* dx) {
    run_parts(int(parts_.size()), [&](int i) {
      Part& part = parts_[i];
      float* to_weights = i == 0 || dw == nullptr ? dw : zeros(part.weights, s_.weights());
      float* to_bias = i == 0 || db == nullptr ? db : zeros(part.bias, s_.out_channels);
      const float* gradient = dy + part.first * s_.out_size();
      if (to_bias != nullptr) part.convolution->backward_bias(gradient, to_bias);
      if (dw == nullptr && dx == nullptr) return;
      part.convolution->backward(x + part.first * s_.in_size(), w, gradient, to_weights,
                                 dx != nullptr ? dx + part.first * s_.in_size() : nullptr);
    });
    for (std::size_t i = 1; i < parts_.size(); i++) {
      if (dw != nullptr) add(parts_[i].weights, dw);
      if (db != nullptr) add(parts_[i].bias, db);
    }
  }

 private:
  struct Part {
    int first;  // image
    std::unique_ptr<Convolution> convolution;
    std::vector<float> weights, bias;  // their gradients, where the thread is not the first
  };

  static float* zeros(std::vector<float>& values, std::size_t count) {
    values.assign(count, 0.f);
    return values.data();
  }

  static void add(const std::vector<float>& values, float* to) {
    for (std::size_t i = 0; i < values.size(); i++) to[i] += values[i];
  }

  ConvShape s_;
  std::vector<Part> parts_;
};

bool only_own = false;  // where they are possible, even if Caffe's are expected to be faster

class FastConvolution : public caffe::ConvolutionLayer<float> {
 public:
  using ConvolutionLayer::ConvolutionLayer;

  void Reshape(const Blobs& bottom, const Blobs& top) override {
    ConvolutionLayer::Reshape(bottom, top);
    if ((covered() || depthwise()) && bottom[0]->shape() != planned_) {
      planned_ = bottom[0]->shape();
      depthwise_.reset();
      convolution_.reset();  // made anew when first used: a net that only tests needs no second one
      for (Choice& choice : choices_) choice = Choice::kNotMade;
    }
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (depthwise()) return forward_depthwise(bottom, top);
    if (!pays(Direction::kForward)) return ConvolutionLayer::Forward_cpu(bottom, top);
    const float* bias = bias_term_ ? blobs_[1]->cpu_data() : nullptr;
    for (std::size_t i = 0; i < bottom.size(); i++) {
      convolution().forward(bottom[i]->cpu_data(), blobs_[0]->cpu_data(), bias,
                            top[i]->mutable_cpu_data());
    }
  }

  // Each gradient by the kernels that are expected to be faster for it, Caffe's or the others.
  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (depthwise()) return backward_depthwise(top, propagate_down, bottom);
    if (!covered()) return ConvolutionLayer::Backward_cpu(top, propagate_down, bottom);
    float* dw = param_propagate_down_[0] ? blobs_[0]->mutable_cpu_diff() : nullptr;
    float* db = bias_term_ && param_propagate_down_[1] ? blobs_[1]->mutable_cpu_diff() : nullptr;
    const float* w = blobs_[0]->cpu_data();
    for (std::size_t i = 0; i < top.size(); i++) {
      float* dx = propagate_down[i] ? bottom[i]->mutable_cpu_diff() : nullptr;
      const bool own_weights = dw != nullptr && pays(Direction::kWeights),
                 own_data = dx != nullptr && pays(Direction::kData);
      const float *x = bottom[i]->cpu_data(), *dy = top[i]->cpu_diff();
      if (own_weights || own_data) {
        convolution().backward(x, w, dy, own_weights ? dw : nullptr, db, own_data ? dx : nullptr);
      } else if (db != nullptr) {
        for (int n = 0; n < num_; n++) backward_cpu_bias(db, dy + std::size_t(n) * top_dim_);
      }
      for (int n = 0; n < num_; n++) {
        const std::size_t in = std::size_t(n) * bottom_dim_, out = std::size_t(n) * top_dim_;
        if (dw != nullptr && !own_weights) weight_cpu_gemm(x + in, dy + out, dw);
        if (dx != nullptr && !own_data) backward_cpu_gemm(dy + out, w, dx + in);
      }
    }
  }

 private:
  enum class Choice { kNotMade, kOwn, kCaffe };

  bool covered() const {
    return num_spatial_axes_ == 2 && group_ == 1 && !force_nd_im2col_ && num_ > 0;
  }

  // A group for each input channel. (With a single one, the other kernels serve as well.)
  bool depthwise() const {
    return num_spatial_axes_ == 2 && group_ > 1 && group_ == channels_ && !force_nd_im2col_ &&
           num_ > 0 && DepthwiseConvolution::fits(shape());
  }

  void forward_depthwise(const Blobs& bottom, const Blobs& top) {
    const float* bias = bias_term_ ? blobs_[1]->cpu_data() : nullptr;
    for (std::size_t i = 0; i < bottom.size(); i++) {
      depthwise_convolution().forward(bottom[i]->cpu_data(), blobs_[0]->cpu_data(), bias,
                                      top[i]->mutable_cpu_data());
    }
  }

  void backward_depthwise(const Blobs& top, const std::vector<bool>& propagate_down,
                          const Blobs& bottom) {
    float* dw = param_propagate_down_[0] ? blobs_[0]->mutable_cpu_diff() : nullptr;
    float* db = bias_term_ && param_propagate_down_[1] ? blobs_[1]->mutable_cpu_diff() : nullptr;
    for (std::size_t i = 0; i < top.size(); i++) {
      float* dx = propagate_down[i] ? bottom[i]->mutable_cpu_diff() : nullptr;
      depthwise_convolution().backward(bottom[i]->cpu_data(), blobs_[0]->cpu_data(),
                                       top[i]->cpu_diff(), dw, db, dx);
    }
  }

  DepthwiseConvolution& depthwise_convolution() {
    if (!depthwise_) depthwise_ = std::make_unique<DepthwiseConvolution>(shape());
    return *depthwise_;
  }

  // Whether a pass is to be done by the kernels here.
  bool pays(Direction direction) {
    if (!covered()) return false;
    Choice& choice = choices_[int(direction)];
    if (choice == Choice::kNotMade) choice = expected(direction) ? Choice::kOwn : Choice::kCaffe;
    return choice == Choice::kOwn;
  }

  bool expected(Direction direction) {
    const ConvShape s = shape();
    if (!s.fits()) return false;
    if (only_own) return true;
    if (s.kernel() == 1) return false;  // a product of matrices as it is
    return kMargin * convolution().cycles(direction) < stock_cycles(s, direction);
  }

  ConvShape shape() const {
    ConvShape s;
    s.images = num_;
    s.in_channels = channels_;
    s.in_h = (*bottom_shape_)[channel_axis_ + 1];
    s.in_w = (*bottom_shape_)[channel_axis_ + 2];
    s.out_channels = num_output_;
    s.out_h = output_shape_[0];
    s.out_w = output_shape_[1];
    s.kernel_h = kernel_shape_.cpu_data()[0], s.kernel_w = kernel_shape_.cpu_data()[1];
    s.stride_h = stride_.cpu_data()[0], s.stride_w = stride_.cpu_data()[1];
    s.pad_h = pad_.cpu_data()[0], s.pad_w = pad_.cpu_data()[1];
    s.dilation_h = dilation_.cpu_data()[0], s.dilation_w = dilation_.cpu_data()[1];
    return s;
  }

  SharedConvolution& convolution() {
    if (!convolution_) convolution_ = std::make_unique<SharedConvolution>(shape());
    return *convolution_;
  }

  std::vector<int> planned_;  // the shape of the input that everything below is for
  std::unique_ptr<DepthwiseConvolution> depthwise_;
  std::unique_ptr<SharedConvolution> convolution_;
  Choice choices_[3] = {Choice::kNotMade, Choice::kNotMade, Choice::kNotMade};
};

}  // namespace

LayerPointer create_convolution(const LayerParameter& parameter) {
  return LayerPointer(new FastConvolution(parameter));
}

void use_only_own_kernels(bool only) { only_own = only; }

}  // namespace lrbench
