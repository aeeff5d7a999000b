#include "memory.h"

#include <algorithm>

#include "caffe/syncedmem.hpp"
#include "pages.h"

namespace lrbench {
namespace {

constexpr std::size_t kLarge = 256 * 1024;  // bytes of a blob that is placed

// Data or gradients of blobs, first noted, then placed all at once.
class Placing {
 public:
  void note(Blob<float>* blob, bool gradient) {
    const auto& memory = gradient ? blob->diff() : blob->data();
    // Memory that is used already, or that is another blob's, too, stays where it is.
    const bool own = memory && memory.use_count() == 1;
    if (!own || memory->head() != caffe::SyncedMemory::UNINITIALIZED) return;
    if (memory->size() < kLarge || noted(blob, gradient)) return;
    arrays_.push_back({blob, gradient});
    bytes_ += Region::rounded(memory->size());
  }

  void place() const {
    // (std::shared_ptr needs a newer libc than Debian 11's.)
    const boost::shared_ptr<Region> region(new Region(bytes_));
    for (const Array& array : arrays_) {
      const Placed placed(*array.blob, array.gradient, region);
      array.gradient ? array.blob->ShareDiff(placed) : array.blob->ShareData(placed);
    }
  }

 private:
  struct Array {
    Blob<float>* blob;
    bool gradient;
  };

  // Of a blob's shape, in a region that lives as long as the last of its arrays.
  struct Placed : Blob<float> {
    Placed(const Blob<float>& like, bool gradient, boost::shared_ptr<Region> region)
        : Blob<float>(like.shape()) {
      const std::size_t bytes = (gradient ? like.diff() : like.data())->size();
      auto* const memory = new caffe::SyncedMemory(bytes);
      memory->set_cpu_data(region->take(bytes));
      (gradient ? diff_ : data_).reset(memory, [region](caffe::SyncedMemory* m) { delete m; });
    }
  };

  bool noted(const Blob<float>* blob, bool gradient) const {
    return std::any_of(arrays_.begin(), arrays_.end(), [&](const Array& array) {
      return array.blob == blob && array.gradient == gradient;
    });
  }

  std::vector<Array> arrays_;
  std::size_t bytes_ = 0;
};

}  // namespace

void place_in_large_pages(const caffe::Net<float>& net,
                          const std::vector<boost::shared_ptr<caffe::Net<float>>>& test_nets,
                          const std::vector<boost::shared_ptr<Blob<float>>>& history) {
  Placing placing;
  for (const auto& blob : net.blobs()) {
    for (bool gradient : {false, true}) placing.note(blob.get(), gradient);
  }
  for (const auto& layer : net.layers()) {
    auto* const own = dynamic_cast<HasBlobs*>(layer.get());
    if (own == nullptr) continue;
    for (Blob<float>* blob : own->own_blobs()) placing.note(blob, false);
  }
  for (Blob<float>* blob : net.learnable_params()) placing.note(blob, true);
  for (const auto& blob : history) placing.note(blob.get(), false);
  for (const auto& test_net : test_nets) {
    for (const auto& blob : test_net->blobs()) placing.note(blob.get(), false);
  }
  placing.place();
}

}  // namespace lrbench
