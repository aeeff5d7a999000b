// Convolution of 2-d images by the kernels of convolution.h, winograd.h and product_convolution.h,
// whichever are expected to be faster (costs.h); depthwise convolution by those of depthwise.h.
#include <memory>

#include "caffe/layers/conv_layer.hpp"
#include "convolution.h"
#include "depthwise.h"
#include "fusion.h"
#include "layers.h"
#include "threads.h"

namespace lrbench {
namespace {

Way way = Way::kFaster;  // of the convolutions that are planned from now on

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
      parts_.push_back({first, std::make_unique<Convolution>(share, way), {}, {}});
      first += images;
    }
  }

  void forward(const float* x, const float* w, const float* bias, float* y, const Finish& finish) {
    run_parts(int(parts_.size()), [&](int i) {
      const Part& part = parts_[i];
      for (int g = 0; g < s_.groups; g++) {
        part.convolution->forward(x + input(part, g), w + g * s_.weights(),
                                  bias != nullptr ? bias + g * s_.out_channels : nullptr,
                                  y + output(part, g), finish);
      }
    });
  }

  // As Convolution's. Groups are done by one, which packs the weights of one after the other.
  bool stays_packed() { return s_.groups == 1 && parts_[0].convolution->stays_packed(); }

  // As Convolution's; any of the three gradients may be null.
  void backward(const float* x, const float* w, const float* dy, float* dw, float* db, float* dx) {
    run_parts(int(parts_.size()), [&](int i) {
      Part& part = parts_[i];
      float* to_weights = i == 0 || dw == nullptr ? dw : zeros(part.weights, weights());
      float* to_bias = i == 0 || db == nullptr ? db : zeros(part.bias, biases());
      for (int g = 0; g < s_.groups; g++) {
        const float* gradient = dy + output(part, g);
        if (db != nullptr) part.convolution->backward_bias(gradient, to_bias + g * s_.out_channels);
        if (dw == nullptr && dx == nullptr) continue;
        part.convolution->backward(x + input(part, g), w + g * s_.weights(), gradient,
                                   dw != nullptr ? to_weights + g * s_.weights() : nullptr,
                                   dx != nullptr ? dx + input(part, g) : nullptr);
      }
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

  // Where a group of a part's first image begins.
  std::size_t input(const Part& part, int group) const {
    return part.first * s_.in_stride() + group * s_.in_size();
  }
  std::size_t output(const Part& part, int group) const {
    return part.first * s_.out_stride() + group * s_.out_size();
  }

  // Of all groups.
  std::size_t weights() const { return s_.groups * s_.weights(); }
  std::size_t biases() const { return std::size_t(s_.groups) * s_.out_channels; }

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

class FastConvolution : public caffe::ConvolutionLayer<float>, public TestLayer {
 public:
  using ConvolutionLayer::ConvolutionLayer;

  bool leads_channels() const override { return channel_axis_ == 1; }

  void Reshape(const Blobs& bottom, const Blobs& top) override {
    ConvolutionLayer::Reshape(bottom, top);
    if (bottom[0]->shape() != planned_) {
      planned_ = bottom[0]->shape();
      depthwise_.reset();
      convolution_.reset();  // made anew when first used: a net that only tests needs no second one
      packed_.clear();
    }
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    const bool depthwise = this->depthwise(), own = !depthwise && covered();
    if (!own && !depthwise && !test_followers_.any()) {
      return ConvolutionLayer::Forward_cpu(bottom, top);
    }
    const Weights weights = this->weights();
    Finish finish;
    finish.lowest = test_followers_.lowest();
    finish.same_weights = own && packed(weights.kernels);
    for (std::size_t i = 0; i < bottom.size(); i++) {
      const float* x = bottom[i]->cpu_data();
      float* y = top[i]->mutable_cpu_data();
      if (depthwise) {
        depthwise_convolution().forward(x, weights.kernels, weights.bias, y, finish.lowest);
      } else if (own) {
        convolution().forward(x, weights.kernels, weights.bias, y, finish);
      } else {
        forward_by_caffe(x, weights, y, finish.lowest);
      }
    }
    test_followers_.be_done_once();
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    check_backward();
    if (depthwise()) return backward(depthwise_convolution(), top, propagate_down, bottom);
    if (covered()) return backward(convolution(), top, propagate_down, bottom);
    ConvolutionLayer::Backward_cpu(top, propagate_down, bottom);
  }

 private:
  struct Weights {
    const float *kernels, *bias;  // the latter may be null
  };

  template <class Kernels>
  void backward(Kernels& kernels, const Blobs& top, const std::vector<bool>& propagate_down,
                const Blobs& bottom) {
    float* dw = param_propagate_down_[0] ? blobs_[0]->mutable_cpu_diff() : nullptr;
    float* db = bias_term_ && param_propagate_down_[1] ? blobs_[1]->mutable_cpu_diff() : nullptr;
    for (std::size_t i = 0; i < top.size(); i++) {
      float* dx = propagate_down[i] ? bottom[i]->mutable_cpu_diff() : nullptr;
      if (dw == nullptr && db == nullptr && dx == nullptr) continue;
      kernels.backward(bottom[i]->cpu_data(), blobs_[0]->cpu_data(), top[i]->cpu_diff(), dw, db,
                       dx);
    }
  }

  // The layer's own, or with the followers folded into them, until the thread's next convolution.
  Weights weights() const {
    const float* own = blobs_[0]->cpu_data();
    const float* bias = bias_term_ ? blobs_[1]->cpu_data() : nullptr;
    if (test_followers_.channels.empty()) return {own, bias};
    std::vector<ChannelLine> lines(num_output_);
    for (int o = 0; bias && o < num_output_; o++) lines[o].shift = bias[o];
    test_followers_.continue_lines(lines);
    thread_local std::vector<float> kernels, shifts;
    const std::size_t size = blobs_[0]->count() / num_output_;
    kernels.resize(size * num_output_);
    shifts.resize(num_output_);
    for (int o = 0; o < num_output_; o++) {
      const float factor = float(lines[o].factor);
      for (std::size_t i = o * size; i < (o + 1) * size; i++) kernels[i] = own[i] * factor;
      shifts[o] = float(lines[o].shift);
    }
    return {kernels.data(), shifts.data()};
  }

  // Whether the kernels here have packed these weights already. In a test net, which has the same
  // in all batches of a pass, comparing them takes less than packing them again.
  bool packed(const float* weights) {
    if (!only_test_ || !convolution().stays_packed()) return false;
    const std::size_t count = blobs_[0]->count();
    if (packed_.size() == count &&
        std::memcmp(packed_.data(), weights, sizeof(float) * count) == 0) {
      return true;
    }
    packed_.assign(weights, weights + count);
    return false;
  }

  void forward_by_caffe(const float* x, const Weights& weights, float* y, float lowest) {
    for (int n = 0; n < num_; n++, x += bottom_dim_, y += top_dim_) {
      forward_cpu_gemm(x, weights.kernels, y);
      for (int o = 0; weights.bias && o < num_output_; o++) {
        float* plane = y + std::size_t(o) * out_spatial_dim_;
        for (int i = 0; i < out_spatial_dim_; i++) plane[i] += weights.bias[o];
      }
      raise_to(lowest, y, top_dim_);
    }
  }

  bool covered() const {
    return num_spatial_axes_ == 2 && !force_nd_im2col_ && num_ > 0 && shape().fits();
  }

  // A group for each input channel. (With a single one, the other kernels serve as well.)
  bool depthwise() const {
    return num_spatial_axes_ == 2 && group_ > 1 && group_ == channels_ && !force_nd_im2col_ &&
           num_ > 0 && DepthwiseConvolution::fits(whole());
  }

  DepthwiseConvolution& depthwise_convolution() {
    if (!depthwise_) depthwise_ = std::make_unique<DepthwiseConvolution>(whole());
    return *depthwise_;
  }

  // With all channels, whatever the groups.
  ConvShape whole() const {
    ConvShape s = shape();
    s.in_channels *= s.groups;
    s.out_channels *= s.groups;
    s.groups = 1;
    return s;
  }

  ConvShape shape() const {
    ConvShape s;
    s.images = num_;
    s.groups = group_;
    s.in_channels = channels_ / group_;
    s.in_h = (*bottom_shape_)[channel_axis_ + 1];
    s.in_w = (*bottom_shape_)[channel_axis_ + 2];
    s.out_channels = num_output_ / group_;
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
  std::vector<float> packed_;  // a test net's weights that convolution_ has
};

}  // namespace

LayerPointer create_convolution(const LayerParameter& parameter) {
  return LayerPointer(new FastConvolution(parameter));
}

void use_convolution(Way wanted) { way = wanted; }

}  // namespace lrbench
