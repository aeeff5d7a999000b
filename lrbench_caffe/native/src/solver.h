// The creators of the fast solvers, with the signature of Caffe's registry.
#pragma once

#include "caffe/solver.hpp"

namespace lrbench {

caffe::Solver<float>* create_nesterov(const caffe::SolverParameter& parameter);
caffe::Solver<float>* create_sgd(const caffe::SolverParameter& parameter);

}  // namespace lrbench
