// The library with a fault, to see what its check and the trainings make of it. The variable
// LRBENCH_FAULT says which: "LRN", a layer whose output is wrong; "SGD", a solver that updates
// wrongly; "2 threads", a check that fails on so many threads; "SkylakeX products", products that
// are wrong with these kernels of OpenBLAS; or a number, a check that ends by this signal.
#define lrbench_check_layers check_of_the_library
#define lrbench_check_products check_of_the_products
#include "all.cpp"
#undef lrbench_check_products
#undef lrbench_check_layers

#include <csignal>
#include <cstdlib>

#include "caffe/layers/lrn_layer.hpp"
#include "caffe/sgd_solvers.hpp"

namespace {

class WrongLRN : public caffe::LRNLayer<float> {
 public:
  using LRNLayer::LRNLayer;

 protected:
  void Forward_cpu(const lrbench::Blobs& bottom, const lrbench::Blobs& top) override {
    LRNLayer::Forward_cpu(bottom, top);
    top[0]->mutable_cpu_data()[0] += 1;
  }
};

class WrongSGD : public caffe::SGDSolver<float> {
 public:
  using SGDSolver::SGDSolver;

 protected:
  void ApplyUpdate() override {
    SGDSolver::ApplyUpdate();
    net_->learnable_params()[0]->mutable_cpu_data()[0] += 1;
  }
};

lrbench::LayerPointer create_wrong_lrn(const caffe::LayerParameter& parameter) {
  return lrbench::LayerPointer(new WrongLRN(parameter));
}

caffe::Solver<float>* create_wrong_sgd(const caffe::SolverParameter& parameter) {
  return new WrongSGD(parameter);
}

// The library's own tables of what it installs, which are in this translation unit.
using Layers = std::map<std::string, Registry::Creator>;
using SolverTable = std::map<std::string, Solvers::Creator>;

std::string wanted_fault() {
  const char* text = std::getenv("LRBENCH_FAULT");
  return text == nullptr ? "" : text;
}

}  // namespace

extern "C" char* openblas_get_corename();

extern "C" const char* lrbench_check_products() {
  static std::string text;
  text = openblas_get_corename() + std::string(" products");
  return wanted_fault() == text ? text.c_str() : check_of_the_products();
}

extern "C" const char* lrbench_check_layers() {
  static std::string text;
  const std::string fault = wanted_fault();
  if (fault == "LRN") const_cast<Layers&>(fast_creators())["LRN"] = create_wrong_lrn;
  if (fault == "SGD") const_cast<SolverTable&>(fast_solvers())["SGD"] = create_wrong_sgd;
  if (fault == std::to_string(lrbench::thread_count()) + " threads") {
    return (text = "the fast layers work on " + fault).c_str();
  }
  if (fault.find_first_not_of("0123456789") == std::string::npos && !fault.empty()) {
    std::raise(std::stoi(fault));
  }
  return check_of_the_library();
}
