// The library's C interface: install the fast layers in the Caffe of this process, once they were
// found to compute what Caffe's own do.
//
// Caffe makes layers through a map from type names to functions. Installing overwrites entries of
// that map; names, prototxts, weights and snapshots stay what they are.
#include <map>
#include <string>

#include "layers.h"
#include "selfcheck.h"
#include "solver.h"
#include "threads.h"

namespace {

using Registry = caffe::LayerRegistry<float>;

const std::map<std::string, Registry::Creator>& fast_creators() {
  static const std::map<std::string, Registry::Creator> creators = {
      {"BatchNorm", lrbench::create_batch_norm},
      {"Convolution", lrbench::create_convolution},
      {"Eltwise", lrbench::create_eltwise},
      {"InnerProduct", lrbench::create_inner_product},
      {"LRN", lrbench::create_lrn},
      {"Pooling", lrbench::create_pooling},
      {"ReLU", lrbench::create_relu},
      {"Scale", lrbench::create_scale},
      {"Split", lrbench::create_split},
  };
  return creators;
}

// What the registry held before the first change.
const std::map<std::string, Registry::Creator>& stock_creators() {
  static const std::map<std::string, Registry::Creator> creators = [] {
    std::map<std::string, Registry::Creator> found;
    for (const auto& entry : fast_creators()) {
      const auto stock = Registry::Registry().find(entry.first);
      if (stock != Registry::Registry().end()) found[entry.first] = stock->second;
    }
    return found;
  }();
  return creators;
}

using Solvers = caffe::SolverRegistry<float>;

const std::map<std::string, Solvers::Creator>& fast_solvers() {
  static const std::map<std::string, Solvers::Creator> creators = {
      {"Nesterov", lrbench::create_nesterov}, {"SGD", lrbench::create_sgd}};
  return creators;
}

// What the registry held before the first change.
const Solvers::CreatorRegistry& stock_solvers() {
  static const Solvers::CreatorRegistry creators = Solvers::Registry();
  return creators;
}

}  // namespace

extern "C" {

// The layer types that are replaced, separated by blanks.
const char* lrbench_layer_types() {
  static std::string text;
  text.clear();
  for (const auto& entry : fast_creators()) text += (text.empty() ? "" : " ") + entry.first;
  return text.c_str();
}

void lrbench_use_layers(int fast);

// For tests: by which kernels convolutions work that are planned from now on, a number of `Way`.
void lrbench_use_convolution(int way) { lrbench::use_convolution(lrbench::Way(way)); }

// Compares Caffe's products of matrices, which are the BLAS's, with plain sums. Returns an empty
// text, or what is wrong.
const char* lrbench_check_products() {
  static std::string text;
  return (text = lrbench::compare_products()).c_str();
}

// Compares each fast layer with Caffe's own on a small example, forward and backward, and a small
// training with test passes with both. Returns an empty text, or what is wrong. Caffe's random
// numbers are others afterwards.
const char* lrbench_check_layers() {
  static std::string text;
  text.clear();
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return (text = "this CPU has no AVX2 and FMA").c_str();
  }
  for (const auto& entry : fast_creators()) {
    const auto stock = stock_creators().find(entry.first);
    if (stock == stock_creators().end()) {
      text = "this Caffe has no layer type " + entry.first;
    } else {
      text = lrbench::compare_layers(entry.first, stock->second, entry.second);
    }
    if (!text.empty()) break;
  }
  lrbench_use_layers(0);
  if (text.empty()) {
    text = lrbench::compare_trainings([] { lrbench_use_layers(1); });
  }
  lrbench_use_layers(0);
  return text.c_str();
}

// From now on, new layers and solvers are fast ones (1) or Caffe's own (0).
void lrbench_use_layers(int fast) {
  for (const auto& entry : stock_creators()) {
    Registry::Registry()[entry.first] = fast ? fast_creators().at(entry.first) : entry.second;
  }
  for (const auto& entry : fast_solvers()) {
    const auto stock = stock_solvers().find(entry.first);
    if (stock != stock_solvers().end()) {
      Solvers::Registry()[entry.first] = fast ? entry.second : stock->second;
    }
  }
}

// Bits of a vector.
int lrbench_width() { return 32 * lrbench::kLanes; }

// How many threads the layers work on, the caller's among them.
void lrbench_set_threads(int count) { lrbench::set_threads(count); }

}  // extern "C"
