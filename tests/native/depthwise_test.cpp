// The depthwise convolution by itself, against plain loops in double precision, on random shapes.
// It needs no Caffe, so that it can be built with sanitizers:  depthwise_test SHAPES SEED
#include "depthwise.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "drawing.h"
#include "threads.cpp"

using lrbench::ConvShape;

namespace {

ConvShape draw_shape() {
  for (;;) {
    ConvShape s;
    s.images = draw(1, 5);
    s.in_channels = draw(1, 40);
    s.out_channels = s.in_channels * (draw(0, 2) ? 1 : draw(2, 3));
    s.in_h = draw(1, 30);
    s.in_w = draw(1, 40);
    s.kernel_h = draw(1, 7);
    s.kernel_w = draw(1, 7);
    s.stride_h = draw(1, 3);
    s.stride_w = draw(1, 3);
    s.pad_h = draw(0, 8);  // more than a kernel's reach, too
    s.pad_w = draw(0, 8);
    s.dilation_h = draw(1, 3);
    s.dilation_w = draw(1, 3);
    if (draw(0, 1)) {  // one whose window is unrolled
      s.kernel_h = s.kernel_w = draw(0, 1) ? 3 : 5;
      s.stride_h = s.stride_w = draw(1, 2);
      s.dilation_h = s.dilation_w = 1;
    }
    const int h = s.in_h + 2 * s.pad_h - (s.dilation_h * (s.kernel_h - 1) + 1);
    const int w = s.in_w + 2 * s.pad_w - (s.dilation_w * (s.kernel_w - 1) + 1);
    if (h < 0 || w < 0) continue;
    s.out_h = h / s.stride_h + 1;
    s.out_w = w / s.stride_w + 1;
    return s;
  }
}

// Calls visit(x index, w index, y index) for each product of the convolution.
template <class Visit>
void each_product(const ConvShape& s, Visit visit) {
  const int multiplier = s.out_channels / s.in_channels;
  for (int n = 0; n < s.images; n++)
    for (int o = 0; o < s.out_channels; o++)
      for (int i = 0; i < s.out_h; i++)
        for (int j = 0; j < s.out_w; j++)
          for (int kh = 0; kh < s.kernel_h; kh++)
            for (int kw = 0; kw < s.kernel_w; kw++) {
              const int c = o / multiplier, y = i * s.stride_h - s.pad_h + kh * s.dilation_h,
                        x = j * s.stride_w - s.pad_w + kw * s.dilation_w;
              if (y < 0 || y >= s.in_h || x < 0 || x >= s.in_w) continue;
              visit(((std::size_t(n) * s.in_channels + c) * s.in_h + y) * s.in_w + x,
                    (std::size_t(o) * s.kernel_h + kh) * s.kernel_w + kw,
                    ((std::size_t(n) * s.out_channels + o) * s.out_h + i) * s.out_w + j);
            }
}

// The largest difference, relative to the largest value.
double difference(const std::vector<float>& is, const std::vector<double>& should) {
  double largest = 1e-30, difference = 0;
  for (std::size_t i = 0; i < is.size(); i++) {
    largest = std::max(largest, std::fabs(should[i]));
    const double d = std::fabs(is[i] - should[i]);
    if (!(d <= difference)) difference = d;  // NaN, too
  }
  return difference / largest;
}

double try_shape(const ConvShape& s) {
  const std::vector<float> x = draw_floats(s.images * s.in_size()),
                           dy = draw_floats(s.images * s.out_size());
  const std::vector<float> w = draw_floats(std::size_t(s.out_channels) * s.kernel());
  const std::vector<float> bias = draw_floats(s.out_channels);
  std::vector<double> y0(dy.size()), dx0(x.size()), dw0(w.size(), 1.), db0(bias.size(), 1.);
  for (std::size_t i = 0; i < dy.size(); i++) {
    const std::size_t channel = i / (std::size_t(s.out_h) * s.out_w) % s.out_channels;
    y0[i] = bias[channel];
    db0[channel] += dy[i];
  }
  each_product(s, [&](std::size_t ix, std::size_t iw, std::size_t iy) {
    y0[iy] += double(x[ix]) * w[iw];
    dx0[ix] += double(dy[iy]) * w[iw];
    dw0[iw] += double(dy[iy]) * x[ix];
  });
  lrbench::DepthwiseConvolution convolution(s);
  double worst = 0;
  for (int round = 0; round < 2; round++) {  // the second time, buffers are used ones
    std::vector<float> y(dy.size(), NAN), dx(x.size(), NAN), dw(w.size(), 1.f),
        db(bias.size(), 1.f);
    convolution.forward(x.data(), w.data(), bias.data(), y.data());
    convolution.backward(x.data(), w.data(), dy.data(), dw.data(), db.data(), dx.data());
    for (double d :
         {difference(y, y0), difference(dx, dx0), difference(dw, dw0), difference(db, db0)}) {
      if (!(d <= worst)) worst = d;
    }
    // With a ReLU: the same bits, but none below zero.
    std::vector<float> positive(dy.size(), NAN);
    convolution.forward(x.data(), w.data(), bias.data(), positive.data(), 0);
    for (std::size_t i = 0; i < y.size(); i++) {
      if (positive[i] != std::max(0.f, y[i])) return NAN;
    }
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const int shapes = argc > 1 ? std::atoi(argv[1]) : 200;
  random_bits.seed(argc > 2 ? std::atoi(argv[2]) : 1);
  lrbench::set_threads(2);
  double worst = 0;
  for (int i = 0; i < shapes; i++) {
    const ConvShape s = draw_shape();
    const double d = try_shape(s);
    if (!(d <= 1e-5)) {
      std::printf(
          "%d images, %d x %d x %d to %d channels, kernel %d x %d, stride %d x %d, pad %d x %d, "
          "dilation %d x %d: difference %g\n",
          s.images, s.in_channels, s.in_h, s.in_w, s.out_channels, s.kernel_h, s.kernel_w,
          s.stride_h, s.stride_w, s.pad_h, s.pad_w, s.dilation_h, s.dilation_w, d);
      return 1;
    }
    worst = std::max(worst, d);
  }
  std::printf("%d shapes, worst difference %.2g\n", shapes, worst);
  return 0;
}
