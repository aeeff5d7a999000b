// What each layer's file gives to library.cpp: the creator of its fast class. Creators have the
// signature of Caffe's registry. A fast class derives from Caffe's own and leaves to it whatever it
// does not cover.
#pragma once

#include <vector>

#include "caffe/layer.hpp"
#include "caffe/net.hpp"

namespace lrbench {

using caffe::Blob;
using caffe::Layer;
using caffe::LayerParameter;
using Blobs = std::vector<Blob<float>*>;
using LayerPointer = boost::shared_ptr<Layer<float>>;

LayerPointer create_batch_norm(const LayerParameter& parameter);
LayerPointer create_convolution(const LayerParameter& parameter);
LayerPointer create_eltwise(const LayerParameter& parameter);
LayerPointer create_lrn(const LayerParameter& parameter);
LayerPointer create_pooling(const LayerParameter& parameter);
LayerPointer create_relu(const LayerParameter& parameter);
LayerPointer create_scale(const LayerParameter& parameter);

// Whether new convolutions use no kernels of Caffe's where they have their own, to check these.
void use_only_own_kernels(bool only);

}  // namespace lrbench
