// Convolution by the direct kernel of convolution.h, for 2-d images without groups.
#include "caffe/layers/conv_layer.hpp"

#include <memory>

#include "convolution.h"
#include "layers.h"

namespace lrbench {
namespace {

class FastConvolution : public caffe::ConvolutionLayer<float> {
 public:
  using ConvolutionLayer::ConvolutionLayer;

  void Reshape(const Blobs& bottom, const Blobs& top) override {
    ConvolutionLayer::Reshape(bottom, top);
    if (applies() && bottom[0]->shape() != planned_) {
      planned_ = bottom[0]->shape();
      convolution_.reset();  // made anew when first used: a net that only tests needs no second one
    }
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (!applies()) return ConvolutionLayer::Forward_cpu(bottom, top);
    const float* bias = bias_term_ ? blobs_[1]->cpu_data() : nullptr;
    for (std::size_t i = 0; i < bottom.size(); i++) {
      convolution().forward(bottom[i]->cpu_data(), blobs_[0]->cpu_data(), bias, top[i]->mutable_cpu_data());
    }
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    if (!applies()) return ConvolutionLayer::Backward_cpu(top, propagate_down, bottom);
    for (std::size_t i = 0; i < top.size(); i++) {
      const float* gradient = top[i]->cpu_diff();
      if (bias_term_ && param_propagate_down_[1]) {
        convolution().backward_bias(gradient, blobs_[1]->mutable_cpu_diff());
      }
      float* dw = param_propagate_down_[0] ? blobs_[0]->mutable_cpu_diff() : nullptr;
      float* dx = propagate_down[i] ? bottom[i]->mutable_cpu_diff() : nullptr;
      convolution().backward(bottom[i]->cpu_data(), blobs_[0]->cpu_data(), gradient, dw, dx);
    }
  }

 private:
  bool applies() const { return num_spatial_axes_ == 2 && group_ == 1 && !force_nd_im2col_; }

  Convolution& convolution() {
    if (!convolution_) {
      ConvShape s;
      s.images = num_;
      s.in_channels = channels_;
      s.in_h = planned_[channel_axis_ + 1];
      s.in_w = planned_[channel_axis_ + 2];
      s.out_channels = num_output_;
      s.out_h = output_shape_[0];
      s.out_w = output_shape_[1];
      s.kernel_h = kernel_shape_.cpu_data()[0], s.kernel_w = kernel_shape_.cpu_data()[1];
      s.stride_h = stride_.cpu_data()[0], s.stride_w = stride_.cpu_data()[1];
      s.pad_h = pad_.cpu_data()[0], s.pad_w = pad_.cpu_data()[1];
      s.dilation_h = dilation_.cpu_data()[0], s.dilation_w = dilation_.cpu_data()[1];
      convolution_ = std::make_unique<Convolution>(s);
    }
    return *convolution_;
  }

  std::vector<int> planned_;  // the shape of the input that convolution_ is for
  std::unique_ptr<Convolution> convolution_;
};

}  // namespace

LayerPointer create_convolution(const LayerParameter& parameter) {
  return LayerPointer(new FastConvolution(parameter));
}

}  // namespace lrbench
