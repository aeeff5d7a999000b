// Full connections, y = x * w transposed + bias: an InnerProduct layer, and a convolution whose
// window is the whole image. With a few rows of x, all of the time is reading the weights.
#pragma once

#include "product.h"

namespace lrbench {

struct Dense {
  int rows, inputs, outputs;          // x is rows x inputs, y rows x outputs, w outputs x inputs
  std::ptrdiff_t x_stride, y_stride;  // between rows

  // Outputs [first, first + count); `bias` may be null.
  void forward(const float* x, const float* w, const float* bias, float* y, int first,
               int count) const {
    w += std::ptrdiff_t(first) * inputs;
    y += first;
    if (bias != nullptr) bias += first;
    if (rows <= kFew) {
      return product_of_few_rows(rows, count, inputs, x, x_stride, w, inputs, bias, y, y_stride);
    }
    product(rows, count, inputs, LeftMatrix{x, x_stride, false}, RightMatrix{w, inputs, true},
            ResultMatrix{y, y_stride, false});
    if (bias == nullptr) return;
    for (int i = 0; i < rows; i++) {
      for (int j = 0; j < count; j++) y[i * y_stride + j] += bias[j];
    }
  }

  // dw += the gradient, of outputs [first, first + count).
  void backward_weights(const float* x, const float* dy, float* dw, int first, int count) const {
    product(count, inputs, rows, LeftMatrix{dy + first, y_stride, true},
            RightMatrix{x, x_stride, false},
            ResultMatrix{dw + std::ptrdiff_t(first) * inputs, inputs, true});
  }

  // Of inputs [first, first + count).
  void backward_data(const float* w, const float* dy, float* dx, int first, int count) const {
    product(rows, count, outputs, LeftMatrix{dy, y_stride, false},
            RightMatrix{w + first, inputs, false}, ResultMatrix{dx + first, x_stride, false});
  }

  // db += the gradient.
  void backward_bias(const float* dy, float* db) const {
    for (int i = 0; i < rows; i++) {
      for (int j = 0; j < outputs; j++) db[j] += dy[i * y_stride + j];
    }
  }

 private:
  static constexpr int kFew = 16;
};

}  // namespace lrbench
