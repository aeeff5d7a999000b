// Layers that follow each other in place are done in one pass over the memory by the first of them,
// their leader. The others then do nothing when the net calls them; their parameters and gradients
// are where they always are. What cannot be seen any more is the blob between two of them, which
// the next one would overwrite anyway.
//
// A solver's training net: BatchNorm, Scale and ReLU, or Eltwise and ReLU; BatchNorm and Scale also
// with the Eltwise that adds a shortcut to them, and its ReLU. Its layers always run all, one after
// the other, so leader and followers are so once and for all. Gradients of which one is needed only
// before the other are in the same memory.
//
// A solver's test nets: BatchNorm by its moving averages and Scale, which multiply each channel by
// a factor and add a shift, are part of the convolution's weights before them; a ReLU is done with
// what is before it. No weights that are shared with the training net are changed: what is folded
// is computed anew in each forward pass, of the weights as they are then. A follower is left out
// only after its leader has said so, in this pass; if the leader did not run, it does its own work.
// These nets do not go back, so nothing is kept for that.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "convolution_tiles.h"
#include "layers.h"

namespace lrbench {

// A layer that can be done by the one before it.
class Follower {
 public:
  virtual ~Follower() = default;
  virtual bool can_follow(const Blobs& bottom) const = 0;  // in a training net
  void be_done_by_leader() { done_ = true; }
  void be_done_once() { done_once_ = true; }

 protected:
  bool done() const { return done_; }
  // To be asked once in a forward pass.
  bool done_forward() { return done_ || std::exchange(done_once_, false); }

 private:
  bool done_ = false, done_once_ = false;
};

// y = factor * x + shift, for each channel.
struct ChannelLine {
  double factor = 1, shift = 0;
};

// A layer whose forward pass is such a line, of which there may be several one after the other.
class ChannelFollower : public Follower {
 public:
  virtual bool can_fold(const Blobs& bottom) const = 0;
  // Continues the lines of what is before it.
  virtual void continue_lines(std::vector<ChannelLine>& lines) const = 0;
};

class ScaleFollower : public ChannelFollower {
 public:
  virtual const float* factors() const = 0;
  virtual const float* biases() const = 0;  // null where there are none
  virtual float* factor_gradients() = 0;    // null where they are not wanted; added to
  virtual float* bias_gradients() = 0;
};

class ReLUFollower : public Follower {};  // without a slope for what is negative

// The sum of two blobs, of which the leader makes one.
class SumFollower : public Follower {
 public:
  // Shapes the sum, which the leader fills before the net calls the follower.
  virtual void reshape(const Blobs& bottom, const Blobs& top) = 0;
};

// A SumFollower with the blobs that the net gives to it.
struct Sum {
  SumFollower* follower;
  Blobs bottom, top;
};

// A layer that can do those after it.
class Leader {
 public:
  virtual ~Leader() = default;
  virtual bool can_lead() const = 0;
  virtual bool takes_scale() const = 0;
  void lead(ScaleFollower* scale, ReLUFollower* relu) { scale_ = scale, relu_ = relu; }
  void lead(const Sum& sum) { sum_ = std::make_unique<Sum>(sum); }
  // The layer works in place on a blob that no other has part of.
  void own_input() { owns_input_ = true; }

 protected:
  ScaleFollower* scale_ = nullptr;
  ReLUFollower* relu_ = nullptr;
  std::unique_ptr<Sum> sum_;  // between the two
  bool owns_input_ = false;
};

// A layer that passes the sum of its outputs' gradients on.
class GradientSum {
 public:
  virtual ~GradientSum() = default;
  // This output's gradient is written anew in each pass, so that the sum can be in its memory.
  virtual void sum_in(std::size_t top) = 0;
};

// Those that a layer of a test net does, in this order.
struct TestFollowers {
  std::vector<ChannelFollower*> channels;
  ReLUFollower* relu = nullptr;

  bool any() const { return relu != nullptr || !channels.empty(); }
  float lowest() const { return relu ? 0.f : kNoLimit; }  // which no output is less than
  void continue_lines(std::vector<ChannelLine>& lines) const {
    for (const ChannelFollower* channel : channels) channel->continue_lines(lines);
  }
  void be_done_once() const {
    for (ChannelFollower* channel : channels) channel->be_done_once();
    if (relu) relu->be_done_once();
  }
};

// A layer that does less, or more, in a test net.
class TestLayer {
 public:
  virtual ~TestLayer() = default;
  virtual bool leads_channels() const { return false; }
  virtual bool leads_relu() const { return true; }
  void only_test(const TestFollowers& followers) { only_test_ = true, test_followers_ = followers; }

 protected:
  void check_backward() const {
    CHECK(!only_test_) << "a solver's test net keeps nothing for a backward pass";
  }

  bool only_test_ = false;
  TestFollowers test_followers_;
};

// Makes leaders and followers of the layers of a net wherever that can be.
void fuse_layers(caffe::Net<float>& net);
void fuse_test_layers(caffe::Net<float>& net);

}  // namespace lrbench
