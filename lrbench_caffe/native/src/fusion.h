// Layers that follow each other in place are done in one pass over the memory by the first of them:
// BatchNorm, Scale and ReLU, or Eltwise and ReLU. The others then do nothing when the net calls
// them; their parameters and gradients are where they always are.
//
// Only a solver's training net is fused, whose layers always run all, one after the other. What
// cannot be seen any more is the blob between two of them, which the next one would overwrite
// anyway.
#pragma once

#include "layers.h"

namespace lrbench {

// A layer that can be done by the one before it.
class Follower {
 public:
  virtual ~Follower() = default;
  virtual bool can_follow(const Blobs& bottom) const = 0;
  void be_done_by_leader() { done_ = true; }

 protected:
  bool done() const { return done_; }

 private:
  bool done_ = false;
};

class ScaleFollower : public Follower {
 public:
  virtual const float* factors() const = 0;
  virtual const float* biases() const = 0;  // null where there are none
  virtual float* factor_gradients() = 0;    // null where they are not wanted; added to
  virtual float* bias_gradients() = 0;
};

class ReLUFollower : public Follower {};  // without a slope for what is negative

// A layer that can do those after it.
class Leader {
 public:
  virtual ~Leader() = default;
  virtual bool can_lead() const = 0;
  virtual bool takes_scale() const = 0;
  void lead(ScaleFollower* scale, ReLUFollower* relu) { scale_ = scale, relu_ = relu; }

 protected:
  ScaleFollower* scale_ = nullptr;
  ReLUFollower* relu_ = nullptr;
};

// Makes leaders and followers of the layers of a net wherever that can be.
void fuse_layers(caffe::Net<float>& net);

}  // namespace lrbench
