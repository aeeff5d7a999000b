// Where the blobs of a training are in memory.
#pragma once

#include <vector>

#include "layers.h"

namespace lrbench {

// A layer with blobs of its own that are as large as its input.
class HasBlobs {
 public:
  virtual ~HasBlobs() = default;
  virtual Blobs own_blobs() = 0;
};

// Gives memory in large pages (pages.h) to the larger ones of a solver's blobs that have none yet:
// those of the training net, of the test nets, and the solver's history.
void place_in_large_pages(const caffe::Net<float>& net,
                          const std::vector<boost::shared_ptr<caffe::Net<float>>>& test_nets,
                          const std::vector<boost::shared_ptr<Blob<float>>>& history);

}  // namespace lrbench
