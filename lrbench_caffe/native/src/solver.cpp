// SGD and Nesterov: regularization and momentum in one pass over the parameters, as Caffe's own up
// to rounding. Snapshots, history and learning rates are the base class's. The nets' layers
// are fused (fusion.h).
#include "solver.h"

#include "caffe/sgd_solvers.hpp"
#include "fusion.h"
#include "memory.h"
#include "vec.h"

namespace lrbench {
namespace {

// What one parameter's update needs beside the parameter.
struct Update {
  float normalize;  // 1 / iter_size
  float decay, rate, momentum;
  bool l1, nesterov;
};

// Reads and writes n floats of each, a vector at a time: the same operations in the same order as
// Caffe's calls of BLAS, whose sums are fused multiply-adds.
inline void step(const Update& u, int n, const float* weights, float* gradients, float* history) {
  const Vec w = load_first(weights, n);
  Vec g = mul(load_first(gradients, n), set1(u.normalize));
  Vec pull = w;
  if (u.l1) {
    const Vec positive = keep(set1(1), greater(w, zero()));
    const Vec negative = keep(set1(1), less(w, zero()));
    pull = sub(positive, negative);
  }
  if (u.decay != 0) g = fma(set1(u.decay), pull, g);
  const Vec old = load_first(history, n);
  const Vec next = fma(set1(u.rate), g, mul(set1(u.momentum), old));
  store_first(history, next, n);
  // Nesterov steps back by the old history and forward by the new one.
  const Vec update =
      u.nesterov ? fma(set1(1 + u.momentum), next, mul(set1(-u.momentum), old)) : next;
  store_first(gradients, update, n);
}

template <class Base>
class FastSolver : public Base {
 public:
  explicit FastSolver(const caffe::SolverParameter& parameter) : Base(parameter) {
    place_in_large_pages(*this->net_, this->test_nets_, this->history_);
    // debug_info prints what is between the layers.
    if (parameter.debug_info()) return;
    fuse_layers(*this->net_);
    for (const auto& net : this->test_nets_) fuse_test_layers(*net);
  }

 protected:
  // Both are part of ComputeUpdateValue.
  void Normalize(int) override {}
  void Regularize(int) override {}

  void ComputeUpdateValue(int id, float rate) override {
    const caffe::SolverParameter& p = this->param_;
    if (p.regularization_type() != "L1" && p.regularization_type() != "L2") {
      Base::Regularize(id);  // says so and ends the process, unless there is no weight decay
    }
    Update update;
    update.normalize = p.iter_size() == 1 ? 1.f : 1.f / p.iter_size();
    update.decay = p.weight_decay() * this->net_->params_weight_decay()[id];
    update.rate = rate * this->net_->params_lr()[id];
    update.momentum = p.momentum();
    update.l1 = p.regularization_type() == "L1";
    update.nesterov = std::string(this->type()) == "Nesterov";
    Blob<float>& blob = *this->net_->learnable_params()[id];
    const float* weights = blob.cpu_data();
    float* gradients = blob.mutable_cpu_diff();
    float* history = this->history_[id]->mutable_cpu_data();
    for (int i = 0; i < blob.count(); i += kLanes) {
      step(update, blob.count() - i, weights + i, gradients + i, history + i);
    }
  }
};

}  // namespace

caffe::Solver<float>* create_sgd(const caffe::SolverParameter& parameter) {
  return new FastSolver<caffe::SGDSolver<float>>(parameter);
}

caffe::Solver<float>* create_nesterov(const caffe::SolverParameter& parameter) {
  return new FastSolver<caffe::NesterovSolver<float>>(parameter);
}

}  // namespace lrbench
