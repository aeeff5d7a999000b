// What each layer's file gives to library.cpp: the creator of its fast class. Creators have the
// signature of Caffe's registry. A fast class derives from Caffe's own and leaves to it whatever it
// does not cover.
#pragma once

#include <vector>

#include "caffe/layer.hpp"
#include "caffe/net.hpp"
#include "costs.h"

namespace lrbench {

using caffe::Blob;
using caffe::Layer;
using caffe::LayerParameter;
using Blobs = std::vector<Blob<float>*>;
using LayerPointer = boost::shared_ptr<Layer<float>>;

LayerPointer create_batch_norm(const LayerParameter& parameter);
LayerPointer create_convolution(const LayerParameter& parameter);
LayerPointer create_eltwise(const LayerParameter& parameter);
LayerPointer create_inner_product(const LayerParameter& parameter);
LayerPointer create_lrn(const LayerParameter& parameter);
LayerPointer create_pooling(const LayerParameter& parameter);
LayerPointer create_relu(const LayerParameter& parameter);
LayerPointer create_scale(const LayerParameter& parameter);
LayerPointer create_split(const LayerParameter& parameter);

// By which kernels convolutions work that are planned from now on, to check these.
void use_convolution(Way way);

}  // namespace lrbench
