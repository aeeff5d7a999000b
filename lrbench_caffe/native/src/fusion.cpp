// Which layers of a net are done in one pass.
#include "fusion.h"

#include "caffe/net.hpp"

namespace lrbench {
namespace {

class Fusing {
 public:
  explicit Fusing(caffe::Net<float>& net) : net_(net) {}

  void train() {
    for (std::size_t i = 0; i < net_.layers().size(); i++) {
      auto* leader = dynamic_cast<Leader*>(net_.layers()[i].get());
      if (leader == nullptr || !leader->can_lead() || !wants_gradients(i)) continue;
      std::size_t next = i + 1;
      auto* scale = leader->takes_scale() ? follower<ScaleFollower>(i, next) : nullptr;
      if (scale) next++;
      auto* relu = scale || !leader->takes_scale() ? follower<ReLUFollower>(i, next) : nullptr;
      if (scale) scale->be_done_by_leader();
      if (relu) relu->be_done_by_leader();
      leader->lead(scale, relu);
    }
  }

  void test() {
    for (std::size_t i = 0; i < net_.layers().size(); i++) {
      auto* layer = dynamic_cast<TestLayer*>(net_.layers()[i].get());
      if (layer == nullptr) continue;
      TestFollowers followers;
      std::size_t next = i + 1;
      while (auto* channel = layer->leads_channels() ? folded(i, next) : nullptr) {
        followers.channels.push_back(channel);
        next++;
      }
      auto* relu = layer->leads_relu() ? in_place<ReLUFollower>(i, next) : nullptr;
      if (relu && relu->can_follow(net_.bottom_vecs()[next])) followers.relu = relu;
      layer->only_test(followers);
    }
  }

 private:
  bool wants_gradients(std::size_t layer) const {
    for (bool wanted : net_.bottom_need_backward()[layer]) {
      if (!wanted) return false;
    }
    return true;
  }

  // The layer's class, if that layer works in place on the leader's only output, which is no loss.
  template <class Kind>
  Kind* in_place(std::size_t leader, std::size_t layer) const {
    if (layer >= net_.layers().size()) return nullptr;
    const Blobs &bottom = net_.bottom_vecs()[layer], &output = net_.top_vecs()[leader];
    const bool in_place =
        output.size() == 1 && bottom == output && net_.top_vecs()[layer] == output;
    const bool loss = net_.layers()[leader]->loss(0) != 0 || net_.layers()[layer]->loss(0) != 0;
    return in_place && !loss ? dynamic_cast<Kind*>(net_.layers()[layer].get()) : nullptr;
  }

  template <class Kind>
  Kind* follower(std::size_t leader, std::size_t layer) const {
    auto* found = in_place<Kind>(leader, layer);
    return found && wants_gradients(layer) && found->can_follow(net_.bottom_vecs()[layer])
               ? found
               : nullptr;
  }

  ChannelFollower* folded(std::size_t leader, std::size_t layer) const {
    auto* found = in_place<ChannelFollower>(leader, layer);
    return found && found->can_fold(net_.bottom_vecs()[layer]) ? found : nullptr;
  }

  caffe::Net<float>& net_;
};

}  // namespace

void fuse_layers(caffe::Net<float>& net) { Fusing(net).train(); }
void fuse_test_layers(caffe::Net<float>& net) { Fusing(net).test(); }

}  // namespace lrbench
