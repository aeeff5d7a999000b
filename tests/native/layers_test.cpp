// All fast layers against Caffe's own on random shapes, and a small training, as one program with
// Caffe's library, so that it can be built with sanitizers:  layers_test TRIES SEED
#include <cstdio>
#include <random>

#include "all.cpp"

namespace {

std::mt19937 random_bits;

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_bits); }

caffe::LayerParameter draw_layer(const std::string& type, int channels) {
  caffe::LayerParameter layer;
  layer.set_type(type);
  layer.set_phase(caffe::TRAIN);
  if (type == "Convolution") {
    auto& p = *layer.mutable_convolution_param();
    p.set_num_output(draw(1, 20));
    p.add_kernel_size(draw(0, 1) ? 3 : draw(1, 5));
    p.add_stride(draw(1, 2));
    p.add_pad(draw(0, 2));
    p.set_bias_term(draw(0, 1));
    if (draw(0, 2) == 0) {  // depthwise
      p.set_group(channels);
      p.set_num_output(channels * draw(1, 2));
    }
  } else if (type == "Pooling") {
    auto& p = *layer.mutable_pooling_param();
    p.set_kernel_size(draw(2, 4));
    p.set_stride(draw(1, 2));
    p.set_pad(draw(0, 1));
    p.set_pool(draw(0, 1) ? caffe::PoolingParameter_PoolMethod_MAX
                          : caffe::PoolingParameter_PoolMethod_AVE);
  } else if (type == "LRN") {
    auto& p = *layer.mutable_lrn_param();
    p.set_local_size(2 * draw(0, 2) + 1);
    p.set_beta(draw(0, 1) ? 0.75f : 0.5f);
    if (draw(0, 1)) p.set_norm_region(caffe::LRNParameter_NormRegion_WITHIN_CHANNEL);
  } else if (type == "InnerProduct") {
    layer.mutable_inner_product_param()->set_num_output(draw(1, 40));
  } else if (type == "ReLU") {
    layer.mutable_relu_param()->set_negative_slope(draw(0, 1) ? 0.f : 0.1f);
  } else if (type == "Scale") {
    layer.mutable_scale_param()->set_bias_term(draw(0, 1));
  }
  return layer;
}

}  // namespace

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  const int tries = argc > 1 ? std::atoi(argv[1]) : 20;
  random_bits.seed(argc > 2 ? std::atoi(argv[2]) : 1);
  lrbench::set_threads(2);
  for (int i = 0; i < tries; i++) {
    lrbench::use_convolution(lrbench::Way(i % 4));
    for (const auto& entry : fast_creators()) {
      const std::vector<int> shape = {draw(2, 17), draw(1, 9), draw(5, 18), draw(5, 20)};
      const auto layer = draw_layer(entry.first, shape[1]);
      const std::string text =
          lrbench::compare_layer(layer, stock_creators().at(entry.first), entry.second, shape);
      if (!text.empty()) {
        std::printf("%s: %d x %d x %d x %d, %s\n", text.c_str(), shape[0], shape[1], shape[2],
                    shape[3], layer.ShortDebugString().c_str());
        return 1;
      }
    }
  }
  const char* text = lrbench_check_layers();
  std::printf("%s\n", *text ? text : "all agree");
  return *text != 0;
}
