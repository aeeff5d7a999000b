// Which layers of a net are done in one pass.
#include "fusion.h"

#include <algorithm>
#include <set>
#include <string>

#include "caffe/net.hpp"

namespace lrbench {
namespace {

class Fusing {
 public:
  explicit Fusing(caffe::Net<float>& net) : net_(net) {}

  void train() {
    for (std::size_t i = 0; i < net_.layers().size(); i++) {
      if (auto* leader = dynamic_cast<Leader*>(net_.layers()[i].get())) fuse(i, *leader);
      if (auto* sum = dynamic_cast<GradientSum*>(net_.layers()[i].get())) share(i, *sum);
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

  void fuse(std::size_t i, Leader& leader) const {
    if (!leader.can_lead() || !wants_gradients(i)) return;
    std::size_t next = i + 1;
    auto* scale = leader.takes_scale() ? follower<ScaleFollower>(i, next) : nullptr;
    if (scale) next++;
    auto* relu = scale || !leader.takes_scale() ? follower<ReLUFollower>(i, next) : nullptr;
    if (owns_input(i)) {
      leader.own_input();
      if (scale && !relu && adds(i, next)) {
        auto* sum = dynamic_cast<SumFollower*>(net_.layers()[next].get());
        leader.lead(Sum{sum, net_.bottom_vecs()[next], net_.top_vecs()[next]});
        sum->be_done_by_leader();
        relu = follower<ReLUFollower>(next, next + 1);
      }
    }
    if (scale) scale->be_done_by_leader();
    if (relu) relu->be_done_by_leader();
    leader.lead(scale, relu);
  }

  // Whether the layer works in place on what a layer makes whose output is its own: others, as
  // Split, give the memory of their input to their outputs.
  bool owns_input(std::size_t layer) const {
    const Blobs& bottom = net_.bottom_vecs()[layer];
    if (bottom.size() != 1 || net_.top_vecs()[layer] != bottom) return false;
    for (std::size_t i = 0; i < layer; i++) {
      const Blobs& top = net_.top_vecs()[i];
      if (std::find(top.begin(), top.end(), bottom[0]) == top.end()) continue;
      const std::string type = net_.layers()[i]->type();
      return i + 1 == layer && (type == "Convolution" || type == "InnerProduct");
    }
    return false;
  }

  // Whether a layer adds the leader's only output to another blob.
  bool adds(std::size_t leader, std::size_t layer) const {
    if (layer >= net_.layers().size()) return false;
    const Blobs& bottom = net_.bottom_vecs()[layer];
    const auto* found = dynamic_cast<SumFollower*>(net_.layers()[layer].get());
    if (!found || !wants_gradients(layer) || !found->can_follow(bottom)) return false;
    const bool first = bottom[0] == net_.top_vecs()[leader][0];
    return (first || bottom[1] == net_.top_vecs()[leader][0]) && movable(bottom[first]);
  }

  // Whether a blob's gradient can get other memory before the layers that made the blob read it.
  // Some, as Reshape, have given the memory that was there to their input.
  bool movable(const Blob<float>* blob) const {
    static const std::set<std::string> kTypes = {
        "BatchNorm", "Convolution", "Dropout", "Eltwise", "InnerProduct",
        "LRN",       "Pooling",     "ReLU",    "Scale",   "Split",
    };
    for (std::size_t i = 0; i < net_.layers().size(); i++) {
      const Blobs& top = net_.top_vecs()[i];
      const bool made = std::find(top.begin(), top.end(), blob) != top.end();
      if (made && (kTypes.count(net_.layers()[i]->type()) == 0 || has_loss(i))) return false;
    }
    return true;
  }

  // Then the gradient of an output is written once for all passes.
  bool has_loss(std::size_t layer) const {
    return net_.layers()[layer]->layer_param().loss_weight_size() > 0;
  }

  // Looks for an output whose gradient one of Caffe's layers writes in each pass.
  void share(std::size_t layer, GradientSum& sum) const {
    const Blobs& top = net_.top_vecs()[layer];
    if (has_loss(layer) || !movable(net_.bottom_vecs()[layer][0])) return;
    for (std::size_t t = 0; t < top.size(); t++) {
      for (std::size_t i = layer + 1; i < net_.layers().size(); i++) {
        const Blobs& bottom = net_.bottom_vecs()[i];
        const auto at = std::find(bottom.begin(), bottom.end(), top[t]);
        if (at == bottom.end()) continue;
        const bool written = net_.bottom_need_backward()[i][at - bottom.begin()] &&
                             net_.layers()[i]->type() != std::string("Python");
        if (written) return sum.sum_in(t);
        break;
      }
    }
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
