// Is a fast layer what it replaces? A small forward and backward pass of both, compared.
#pragma once

#include <string>
#include <vector>

#include "layers.h"

namespace lrbench {

// Compares one layer with one or, for Eltwise, two inputs of this shape. Returns an empty text
// where all outputs and gradients agree up to rounding, else the difference.
std::string compare_layer(const LayerParameter& parameter,
                          caffe::LayerRegistry<float>::Creator stock,
                          caffe::LayerRegistry<float>::Creator fast, const std::vector<int>& shape);

// The same for a few uses of a layer type.
std::string compare_layers(const std::string& type, caffe::LayerRegistry<float>::Creator stock,
                           caffe::LayerRegistry<float>::Creator fast);

// The same for the weights after two updates of a small net, and for a test pass after each, with
// the layers and the solver that are registered now, and with those that `use_fast` registers.
std::string compare_trainings(void (*use_fast)());

// Are the BLAS's products of matrices what plain sums are? In the shapes and the ways in which
// convolutions and InnerProduct layers ask for them.
std::string compare_products();

}  // namespace lrbench
