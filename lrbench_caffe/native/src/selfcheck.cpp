#include "selfcheck.h"

#include <cmath>
#include <cstdint>
#include <memory>
#include <sstream>

#include "caffe/sgd_solvers.hpp"
#include "caffe/util/math_functions.hpp"
#include "google/protobuf/text_format.h"

namespace lrbench {
namespace {

constexpr float kTolerance = 1e-4f;  // of the largest value; a wrong kernel is wrong by much more

// Not Caffe's generator, whose state belongs to the training.
class Numbers {
 public:
  void fill(float* values, int count) {
    for (int i = 0; i < count; i++) values[i] = next();
  }

 private:
  float next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return float(int32_t(state_ >> 32)) / 2147483648.f;
  }
  std::uint64_t state_ = 1;
};

// One layer with its blobs, after a forward and a backward pass.
struct Pass {
  Pass(caffe::LayerRegistry<float>::Creator create, const LayerParameter& parameter, int bottoms,
       const std::vector<int>& shape)
      : layer(create(parameter)), bottom(bottoms), top(new Blob<float>()) {
    for (auto& blob : bottom) {
      blob.reset(new Blob<float>(shape));
      inputs.push_back(blob.get());
    }
    outputs.push_back(top.get());
    Numbers numbers;
    for (Blob<float>* blob : inputs) numbers.fill(blob->mutable_cpu_data(), blob->count());
    layer->SetUp(inputs, outputs);
    const bool statistics = parameter.type() == "BatchNorm";
    for (auto& blob : layer->blobs()) {
      if (!statistics) numbers.fill(blob->mutable_cpu_data(), blob->count());
      numbers.fill(blob->mutable_cpu_diff(), blob->count());
    }
    layer->Forward(inputs, outputs);
    numbers.fill(top->mutable_cpu_diff(), top->count());
    layer->Backward(outputs, std::vector<bool>(inputs.size(), true), inputs);
  }

  LayerPointer layer;
  std::vector<boost::shared_ptr<Blob<float>>> bottom;
  boost::shared_ptr<Blob<float>> top;
  Blobs inputs, outputs;
};

float difference(const float* a, const float* b, int count) {
  float largest = 1e-20f, difference = 0;
  for (int i = 0; i < count; i++) {
    largest = std::fmax(largest, std::fabs(a[i]));
    const float d = std::fabs(a[i] - b[i]);
    if (!(d <= difference)) difference = d;
  }
  return difference / largest;
}

}  // namespace

std::string compare_layer(const LayerParameter& parameter,
                          caffe::LayerRegistry<float>::Creator stock,
                          caffe::LayerRegistry<float>::Creator fast,
                          const std::vector<int>& shape) {
  const int bottoms = parameter.type() == "Eltwise" ? 2 : 1;
  Pass is(fast, parameter, bottoms, shape), should(stock, parameter, bottoms, shape);
  std::ostringstream text;
  const auto check = [&](const char* what, const float* a, const float* b, int count) {
    const float d = difference(a, b, count);
    if (text.str().empty() && !(d <= kTolerance)) {
      text << "the fast " << parameter.type() << " layer's " << what << " differs from Caffe's by "
           << d;
    }
  };
  if (is.top->shape() != should.top->shape())
    return parameter.type() + ": other output shape than Caffe's";
  check("output", should.top->cpu_data(), is.top->cpu_data(), is.top->count());
  for (std::size_t i = 0; i < is.bottom.size(); i++) {
    check("gradient", should.bottom[i]->cpu_diff(), is.bottom[i]->cpu_diff(),
          is.bottom[i]->count());
  }
  for (std::size_t i = 0; i < is.layer->blobs().size(); i++) {
    const auto &a = should.layer->blobs()[i], &b = is.layer->blobs()[i];
    check("parameter", a->cpu_data(), b->cpu_data(), a->count());
    check("parameter's gradient", a->cpu_diff(), b->cpu_diff(), a->count());
  }
  return text.str();
}

namespace {

constexpr int kChannels = 6, kRows = 11, kColumns = 13;  // of the examples' input

// A few uses of a type, with the parameters that take different ways through its code.
std::vector<LayerParameter> examples(const std::string& type) {
  LayerParameter plain, other;
  plain.set_type(type);
  plain.set_phase(caffe::TRAIN);
  other = plain;
  if (type == "Convolution") {
    auto& p = *plain.mutable_convolution_param();
    p.set_num_output(10);
    p.add_kernel_size(3);
    p.add_pad(1);
    auto& o = *other.mutable_convolution_param();
    o.set_num_output(7);
    o.add_kernel_size(3);
    o.add_stride(2);
    o.add_pad(2);
    o.add_dilation(2);
    LayerParameter large = plain;
    large.mutable_convolution_param()->set_num_output(24);
    large.mutable_convolution_param()->set_kernel_size(0, 5);
    LayerParameter groups = plain, depthwise = plain, depthwise_other = other;
    groups.mutable_convolution_param()->set_group(2);
    depthwise.mutable_convolution_param()->set_group(kChannels);
    depthwise.mutable_convolution_param()->set_num_output(2 * kChannels);
    depthwise_other.mutable_convolution_param()->set_group(kChannels);
    depthwise_other.mutable_convolution_param()->set_num_output(kChannels);
    depthwise_other.mutable_convolution_param()->clear_dilation();
    LayerParameter point = plain;
    point.mutable_convolution_param()->set_kernel_size(0, 1);
    point.mutable_convolution_param()->clear_pad();
    LayerParameter point_strided = point, whole = point;
    point_strided.mutable_convolution_param()->add_stride(2);
    whole.mutable_convolution_param()->clear_kernel_size();
    whole.mutable_convolution_param()->set_kernel_h(kRows);
    whole.mutable_convolution_param()->set_kernel_w(kColumns);
    return {plain, other, large, groups, depthwise, depthwise_other, point, point_strided, whole};
  } else if (type == "Pooling") {
    auto& p = *plain.mutable_pooling_param();
    p.set_kernel_size(3);
    p.set_stride(2);
    other = plain;
    other.mutable_pooling_param()->set_pool(caffe::PoolingParameter_PoolMethod_AVE);
    other.mutable_pooling_param()->set_pad(1);
  } else if (type == "LRN") {
    plain.mutable_lrn_param()->set_local_size(3);
    plain.mutable_lrn_param()->set_alpha(0.5f);
    other = plain;
    other.mutable_lrn_param()->set_norm_region(caffe::LRNParameter_NormRegion_WITHIN_CHANNEL);
  } else if (type == "InnerProduct") {
    plain.mutable_inner_product_param()->set_num_output(20);
    other.mutable_inner_product_param()->set_num_output(7);
    other.mutable_inner_product_param()->set_bias_term(false);
  } else if (type == "ReLU") {
    other.mutable_relu_param()->set_negative_slope(0.1f);
  } else if (type == "Scale") {
    other.mutable_scale_param()->set_bias_term(true);
  } else {
    return {plain};
  }
  return {plain, other};
}

// A residual block, whose layers are fused, in the training net and in the test net. No bias before
// BatchNorm: its gradient would be rounding alone.
const char* const kSolver = R"(
base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 random_seed: 1 max_iter: 2 type: "SGD"
solver_mode: CPU snapshot_after_train: false test_iter: 1 test_interval: 100 test_initialization: false
net_param {
  layer {
    name: "data" type: "DummyData" top: "data" top: "label"
    dummy_data_param {
      shape { dim: 8 dim: 3 dim: 9 dim: 9 } data_filler { type: "gaussian" }
      shape { dim: 8 } data_filler { type: "constant" value: 1 }
    }
  }
  layer {
    name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
    convolution_param { num_output: 12 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } }
  }
  layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
  layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
  layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
  layer {
    name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
    convolution_param { num_output: 12 kernel_size: 5 pad: 2 bias_term: false weight_filler { type: "msra" } }
  }
  layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "conv2" }
  layer { name: "scale2" type: "Scale" bottom: "conv2" top: "conv2" scale_param { bias_term: true } }
  layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "conv2" top: "sum" }
  layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
  layer {
    name: "conv3" type: "Convolution" bottom: "sum" top: "conv3"
    convolution_param { num_output: 24 kernel_size: 3 pad: 1 weight_filler { type: "msra" } }
  }
  layer { name: "relu4" type: "ReLU" bottom: "conv3" top: "conv3" }
  layer { name: "pool" type: "Pooling" bottom: "conv3" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
  layer { name: "relu3" type: "ReLU" bottom: "pool" top: "pool" }
  layer {
    name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
  }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
}
)";

struct Trained {
  std::unique_ptr<caffe::Solver<float>> solver;
  std::vector<float> scores;  // of the test net, after the first update and after the second
};

Trained trained(const caffe::SolverParameter& parameter) {
  Trained trained;
  trained.solver.reset(caffe::SolverRegistry<float>::CreateSolver(parameter));
  caffe::Net<float>& test = *trained.solver->test_nets()[0];
  for (int update = 0; update < 2; update++) {
    trained.solver->Step(1);
    test.ShareTrainedLayersWith(trained.solver->net().get());
    test.Forward();
    for (const char* name : {"conv2", "sum", "conv3", "ip"}) {
      const Blob<float>& blob = *test.blob_by_name(name);
      trained.scores.insert(trained.scores.end(), blob.cpu_data(), blob.cpu_data() + blob.count());
    }
  }
  return trained;
}

}  // namespace

std::string compare_trainings(void (*use_fast)()) {
  caffe::SolverParameter parameter;
  if (!google::protobuf::TextFormat::ParseFromString(kSolver, &parameter))
    return "the example cannot be read";
  const auto should = trained(parameter);
  use_fast();
  const auto is = trained(parameter);
  const auto &a = should.solver->net()->learnable_params(),
             &b = is.solver->net()->learnable_params();
  for (std::size_t i = 0; i < a.size(); i++) {
    const float d = difference(a[i]->cpu_data(), b[i]->cpu_data(), a[i]->count());
    if (!(d <= 10 * kTolerance)) {
      std::ostringstream text;
      text << "weights trained with the fast layers differ from Caffe's by " << d;
      return text.str();
    }
  }
  const int count = int(should.scores.size());
  const float d = difference(should.scores.data(), is.scores.data(), count);
  if (!(d <= 10 * kTolerance)) {
    std::ostringstream text;
    text << "a test pass with the fast layers differs from Caffe's by " << d;
    return text.str();
  }
  return "";
}

namespace {

// c = a * b, or added to c, as Caffe asks for it; m x k times k x n, either one lying transposed.
struct Product {
  int m, n, k;
  bool turn_a, turn_b, add;

  std::string compare() const {
    std::vector<float> a(std::size_t(m) * k), b(std::size_t(k) * n), c(std::size_t(m) * n);
    Numbers numbers;
    for (std::vector<float>* values : {&a, &b, &c}) numbers.fill(values->data(), values->size());
    const std::vector<float> should = plain(a, b, c);
    caffe::caffe_cpu_gemm<float>(turn_a ? CblasTrans : CblasNoTrans,
                                 turn_b ? CblasTrans : CblasNoTrans, m, n, k, 1, a.data(), b.data(),
                                 add ? 1 : 0, c.data());
    const float d = difference(should.data(), c.data(), int(c.size()));
    if (d <= kTolerance) return "";
    std::ostringstream text;
    text << "the BLAS's product of " << m << " x " << k << " and " << k << " x " << n
         << " differs from plain sums by " << d;
    return text.str();
  }

 private:
  std::vector<float> plain(const std::vector<float>& a, const std::vector<float>& b,
                           const std::vector<float>& c) const {
    std::vector<double> row(n);
    std::vector<float> product(c.size());
    for (int i = 0; i < m; i++) {
      for (int j = 0; j < n; j++) row[j] = add ? c[std::size_t(i) * n + j] : 0;
      for (int l = 0; l < k; l++) {
        const double factor = a[turn_a ? std::size_t(l) * m + i : std::size_t(i) * k + l];
        const float* from = b.data() + (turn_b ? l : std::size_t(l) * n);
        for (int j = 0; j < n; j++) row[j] += factor * from[turn_b ? std::size_t(j) * k : j];
      }
      for (int j = 0; j < n; j++) product[std::size_t(i) * n + j] = float(row[j]);
    }
    return product;
  }
};

}  // namespace

std::string compare_products() {
  // Odd sizes, which leave edges; a depth beyond one block of the kernels; a single image.
  const int sizes[][3] = {
      {10, 121, 27}, {50, 64, 500}, {33, 17, 1030}, {1, 37, 130}, {96, 100, 90}};
  for (const auto& size : sizes) {
    const int m = size[0], n = size[1], k = size[2];
    const Product products[] = {
        {m, n, k, false, false, false},  // a convolution's output, InnerProduct's data gradient
        {m, n, k, false, true, true},    // a convolution's weight gradient
        {m, n, k, false, true, false},   // InnerProduct's output
        {m, n, k, true, false, false},   // a convolution's data gradient
        {m, n, k, true, false, true},    // InnerProduct's weight gradient
        {m, n, 1, false, false, true},   // their biases
    };
    for (const Product& product : products) {
      const std::string text = product.compare();
      if (!text.empty()) return text;
    }
  }
  return "";
}

std::string compare_layers(const std::string& type, caffe::LayerRegistry<float>::Creator stock,
                           caffe::LayerRegistry<float>::Creator fast) {
  const bool convolution = type == "Convolution";
  // Few images, and more than Winograd's kernels do at once, and than are few rows of a product.
  // The training has eight, which are fewer than the lanes of AVX-512.
  std::vector<int> counts = {3};
  if (convolution || type == "InnerProduct") counts.push_back(17);
  for (const LayerParameter& parameter : examples(type)) {
    for (int images : counts) {
      for (Way way : {Way::kDirect, Way::kWinogradImages, Way::kWinogradChannels, Way::kProduct,
                      Way::kFaster}) {
        if (!convolution && way != Way::kFaster) continue;
        use_convolution(way);
        const std::string text =
            compare_layer(parameter, stock, fast, {images, kChannels, kRows, kColumns});
        use_convolution(Way::kFaster);
        if (!text.empty()) return text;
      }
    }
  }
  return "";
}

}  // namespace lrbench
