// Which layers of a net are done in one pass.
#include "fusion.h"

#include "caffe/net.hpp"

namespace lrbench {
namespace {

class Fusing {
 public:
  explicit Fusing(caffe::Net<float>& net) : net_(net) {}

  void all() {
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

 private:
  bool wants_gradients(std::size_t layer) const {
    for (bool wanted : net_.bottom_need_backward()[layer]) {
      if (!wanted) return false;
    }
    return true;
  }

  // The layer's class, if that layer works in place on the leader's only output.
  template <class Kind>
  Kind* follower(std::size_t leader, std::size_t layer) const {
    if (layer >= net_.layers().size()) return nullptr;
    const Blobs &bottom = net_.bottom_vecs()[layer], &output = net_.top_vecs()[leader];
    auto* found = dynamic_cast<Kind*>(net_.layers()[layer].get());
    const bool in_place =
        output.size() == 1 && bottom == output && net_.top_vecs()[layer] == output;
    return found && in_place && wants_gradients(layer) && found->can_follow(bottom) ? found
                                                                                    : nullptr;
  }

  caffe::Net<float>& net_;
};

}  // namespace

void fuse_layers(caffe::Net<float>& net) { Fusing(net).all(); }

}  // namespace lrbench
