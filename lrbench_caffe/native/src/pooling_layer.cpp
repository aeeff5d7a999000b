// MAX and AVE pooling, bit for bit as Caffe's: the same comparisons and sums in the same order, for
// as many windows of a row at a time as vectors have lanes. Where rows are shorter than that, and
// for the gradient of AVE, the lanes of small images are planes: the first elements of all, the
// second ones, ...; pooling is then Caffe's loops over vectors.
//
// Strides of 1 and 2 without padding read the image itself; lanes whose window ends before the
// column are left out. Otherwise each input plane is copied into a padded buffer whose columns are
// split by their remainder of the stride, so that the windows' elements lie side by side (Source of
// convolution.h).
#include "caffe/layers/pooling_layer.hpp"

#include <cfloat>
#include <limits>

#include "convolution.h"
#include "fusion.h"
#include "layers.h"

namespace lrbench {
namespace {

// Planes that follow each other in memory, as lanes: vector i has element i of each. The first
// `used` lanes are planes, the others repeat the last one.
class LanesOfPlanes {
 public:
  void resize(int size) {
    size_ = size;
    lanes_.resize(std::size_t(ceil_div(size, kLanes)) * kLanes * kLanes);
  }
  float* operator[](int element) { return lanes_.data() + std::ptrdiff_t(element) * kLanes; }
  const float* operator[](int element) const {
    return lanes_.data() + std::ptrdiff_t(element) * kLanes;
  }
  void clear() { std::memset(lanes_.data(), 0, sizeof(float) * size_ * kLanes); }

  void read(const float* planes, int used) {
    const float* rows[kLanes];
    for (int lane = 0; lane < kLanes; lane++)
      rows[lane] = planes + std::ptrdiff_t(std::min(lane, used - 1)) * size_;
    for (int i = 0; i < size_; i += kLanes) {
      Vec v[kLanes];
      load_columns(rows, i, size_ - i, v);
      for (int k = 0; k < kLanes; k++) store((*this)[i + k], v[k]);
    }
  }
  void write(float* planes, int used) const {
    float* rows[kLanes];
    for (int lane = 0; lane < kLanes; lane++)
      rows[lane] = planes + std::ptrdiff_t(std::min(lane, used - 1)) * size_;
    for (int i = 0; i < size_; i += kLanes) {
      Vec v[kLanes];
      for (int k = 0; k < kLanes; k++) v[k] = load((*this)[i + k]);
      store_columns(v, rows, i, size_ - i, used);
    }
  }

 private:
  int size_ = 0;
  Buffer lanes_;
};

class FastPooling : public caffe::PoolingLayer<float>, public TestLayer {
 public:
  using PoolingLayer::PoolingLayer;

  bool leads_relu() const override {
    return method() != caffe::PoolingParameter_PoolMethod_STOCHASTIC;
  }

  void Reshape(const Blobs& bottom, const Blobs& top) override {
    PoolingLayer::Reshape(bottom, top);
    if (method() != caffe::PoolingParameter_PoolMethod_STOCHASTIC &&
        bottom[0]->shape() != planned_) {
      planned_ = bottom[0]->shape();  // Caffe reshapes before every pass
      plan();
    }
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    if (method() == caffe::PoolingParameter_PoolMethod_STOCHASTIC) {
      return PoolingLayer::Forward_cpu(bottom, top);
    }
    const bool max = method() == caffe::PoolingParameter_PoolMethod_MAX;
    fill(max ? -std::numeric_limits<float>::infinity() : 0.f);
    const float* x = bottom[0]->cpu_data();
    float* y = top[0]->mutable_cpu_data();
    float* top_mask = max && top.size() > 1 ? top[1]->mutable_cpu_data() : nullptr;
    int* mask = max && !top_mask && !only_test_ ? max_idx_.mutable_cpu_data() : nullptr;
    const int size = height_ * width_, pixels = pooled_height_ * pooled_width_;
    const int planes = bottom[0]->num() * channels_;
    test_followers_.be_done_once();
    if (small(planes) && pooled_width_ < kLanes)
      return forward_planes(planes, x, y, mask, top_mask);
    for (int plane = 0; plane < planes; plane++, x += size, y += pixels) {
      // Reading in place goes beyond the plane, by less than a window and two vectors.
      const bool in_place = pad_w_ == 0 && stride_w_ <= 2 &&
                            std::ptrdiff_t(planes - 1 - plane) * size >= kernel_w_ + 2 * kLanes;
      if (!in_place) source_.copy(x, buffer_.data());
      const auto pool = [&](auto window) {
        if (!max) return average(window, y);
        if (kernel_w_ == 2) return find_maxima<2>(window, y, mask, top_mask);
        if (kernel_w_ == 3) return find_maxima<3>(window, y, mask, top_mask);
        find_maxima<0>(window, y, mask, top_mask);
      };
      if (!in_place) {
        pool(Copied{buffer_.data(), source_.pitch, offsets_.data()});
      } else if (stride_w_ == 1) {
        pool(InPlace<1>{x, width_});
      } else {
        pool(InPlace<2>{x, width_});
      }
      if (mask) mask += pixels;
      if (top_mask) top_mask += pixels;
    }
  }

  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down,
                    const Blobs& bottom) override {
    if (!propagate_down[0]) return;
    check_backward();
    if (method() == caffe::PoolingParameter_PoolMethod_STOCHASTIC) {
      return PoolingLayer::Backward_cpu(top, propagate_down, bottom);
    }
    const bool max = method() == caffe::PoolingParameter_PoolMethod_MAX;
    const float* dy = top[0]->cpu_diff();
    float* dx = bottom[0]->mutable_cpu_diff();
    const float* top_mask = max && top.size() > 1 ? top[1]->cpu_data() : nullptr;
    const int* mask = max && !top_mask ? max_idx_.cpu_data() : nullptr;
    const int planes = bottom[0]->num() * channels_, pixels = pooled_height_ * pooled_width_;
    if (!max && small(planes)) return spread_planes(planes, dy, dx);
    for (int plane = 0; plane < planes; plane++, dx += height_ * width_, dy += pixels) {
      if (!max) {
        spread(dy, dx);
        continue;
      }
      std::memset(dx, 0, sizeof(float) * height_ * width_);
      if (mask) {
        for (int i = 0; i < pixels; i++) {
          if (mask[i] >= 0) dx[mask[i]] += dy[i];  // a window of NaN has no maximum
        }
        mask += pixels;
      } else {
        for (int i = 0; i < pixels; i++) {
          if (top_mask[i] >= 0) dx[int(top_mask[i])] += dy[i];
        }
        top_mask += pixels;
      }
    }
  }

 private:
  // The elements of the windows of output columns j, j + 1, ... in input row h and window column
  // kw; and in how many of them that column is inside the image.
  struct Copied {
    const float* plane;
    int pitch;
    const int* offsets;
    Vec operator()(int h, int j, int kw) const {
      return load(plane + std::ptrdiff_t(h) * pitch + offsets[kw] + j);
    }
    int lanes(int, int) const { return kLanes; }  // what is around the image does no harm
  };

  template <int Stride>
  struct InPlace {
    const float* plane;
    int width;
    Vec operator()(int h, int j, int kw) const {
      const float* p = plane + std::ptrdiff_t(h) * width + j * Stride + kw;
      if (Stride == 1) return load(p);
      // An even column and the next one are read together.
      return kw % 2 ? every_second<1>(load(p - 1), load(p - 1 + kLanes)) : every_second(p);
    }
    int lanes(int j, int kw) const { return (width - kw - j * Stride + Stride - 1) / Stride; }
  };

  caffe::PoolingParameter_PoolMethod method() const { return layer_param_.pooling_param().pool(); }

  // Whether the planes of a group fit into the first-level cache.
  bool small(int planes) const {
    const std::ptrdiff_t elements =
        std::ptrdiff_t(height_) * width_ + std::ptrdiff_t(pooled_height_) * pooled_width_ * 2;
    return planes >= kLanes && elements <= 8192 / kLanes;
  }

  void plan() {
    if (small(kLanes)) {
      image_.resize(height_ * width_);
      output_.resize(pooled_height_ * pooled_width_);
      where_.resize(pooled_height_ * pooled_width_);
    }
    // Only columns are split and padded: rows are looked at one by one.
    source_ = Source{1, height_, width_, 1, stride_w_, 0, 0, 0, 0};
    const int first = floor_div(-pad_w_, stride_w_),
              last = floor_div(kernel_w_ - 1 - pad_w_, stride_w_);
    source_.low_w = first;
    source_.rows = height_;
    source_.pitch = last - first + pooled_width_;
    offsets_.clear();
    for (int kw = 0; kw < kernel_w_; kw++) {
      const int w = kw - pad_w_, column = floor_div(w, stride_w_);
      offsets_.push_back(int(source_.at(w - column * stride_w_, 0, 0, column - first)));
    }
    buffer_.resize(source_.size() + kLanes);
    filled_ = 0;
    const int padded = ceil_div(pooled_width_, kLanes) * kLanes;
    quotients_.resize(padded);
    sizes_.resize(std::size_t(pooled_height_) * padded);
    for (int ph = 0; ph < pooled_height_; ph++) {
      const int rows = std::min(ph * stride_h_ - pad_h_ + kernel_h_, height_ + pad_h_) -
                       (ph * stride_h_ - pad_h_);
      for (int pw = 0; pw < padded; pw++) {
        const int columns = std::min(pw * stride_w_ - pad_w_ + kernel_w_, width_ + pad_w_) -
                            (pw * stride_w_ - pad_w_);
        sizes_.data()[ph * padded + pw] = pw < pooled_width_ ? float(rows * columns) : 1.f;
      }
    }
  }

  // Puts a value around the image, which must not win, or must not count.
  void fill(float value) {
    if (filled_ != value) std::fill_n(buffer_.data(), source_.size() + kLanes, value);
    filled_ = value;
  }

  // The rows [first, second) of the image in the windows of an output row.
  std::pair<int, int> rows(int ph) const {
    const int start = ph * stride_h_ - pad_h_;
    return {std::max(start, 0), std::min(start + kernel_h_, height_)};
  }
  // The columns likewise.
  std::pair<int, int> columns(int pw) const {
    const int start = pw * stride_w_ - pad_w_;
    return {std::max(start, 0), std::min(start + kernel_w_, width_)};
  }

  // use(the window's output, its size) for all windows of a plane, in Caffe's order.
  template <class Use>
  void each_window(Use use) const {
    const int padded = ceil_div(pooled_width_, kLanes) * kLanes;
    for (int ph = 0; ph < pooled_height_; ph++) {
      for (int pw = 0; pw < pooled_width_; pw++)
        use(ph * pooled_width_ + pw, rows(ph), columns(pw), sizes_.data()[ph * padded + pw]);
    }
  }

  // use(element) for all of a window's elements, in Caffe's order.
  template <class Use>
  void each_element(std::pair<int, int> rows, std::pair<int, int> columns, Use use) const {
    for (int h = rows.first; h < rows.second; h++) {
      for (int w = columns.first; w < columns.second; w++) use(h * width_ + w);
    }
  }

  // The image_ to the output_ and, for MAX, the elements that it comes from.
  void pool_lanes(bool max_pooling) {
    const Vec lowest = set1(test_followers_.lowest());
    each_window([&](int at, auto rows, auto columns, float size) {
      Vec result = max_pooling ? set1(-FLT_MAX) : zero(), index = set1(-1);
      each_element(rows, columns, [&](int i) {
        const Vec x = load(image_[i]);
        if (!max_pooling) return void(result = add(result, x));
        index = select(index, set1(float(i)), greater(x, result));
        result = max(x, result);  // x where it is greater
      });
      if (max_pooling) {
        store(where_[at], index);
      } else {
        result = div(result, set1(size));
      }
      store(output_[at], max(lowest, result));
    });
  }

  // The gradients of the output_ to those of the image_, as `spread` does.
  void spread_lanes() {
    image_.clear();
    each_window([&](int at, auto rows, auto columns, float size) {
      const Vec share = div(load(output_[at]), set1(size));
      each_element(rows, columns, [&](int i) { store(image_[i], add(load(image_[i]), share)); });
    });
  }

  // visit(first plane, planes) for as many planes at a time as vectors have lanes.
  template <class Visit>
  void each_group(int planes, Visit visit) const {
    for (int first = 0; first < planes; first += kLanes)
      visit(std::ptrdiff_t(first), std::min(kLanes, planes - first));
  }

  void forward_planes(int planes, const float* x, float* y, int* mask, float* top_mask) {
    const int size = height_ * width_, pixels = pooled_height_ * pooled_width_;
    const bool max = method() == caffe::PoolingParameter_PoolMethod_MAX;
    each_group(planes, [&](std::ptrdiff_t first, int used) {
      image_.read(x + first * size, used);
      pool_lanes(max);
      output_.write(y + first * pixels, used);
      if (top_mask) where_.write(top_mask + first * pixels, used);
      if (!mask) return;
      for (int i = 0; i < pixels; i++) store(where_[i], bits_of_ints(load(where_[i])));
      where_.write(reinterpret_cast<float*>(mask) + first * pixels, used);
    });
  }

  void spread_planes(int planes, const float* dy, float* dx) {
    const int size = height_ * width_, pixels = pooled_height_ * pooled_width_;
    each_group(planes, [&](std::ptrdiff_t first, int used) {
      output_.read(dy + first * pixels, used);
      spread_lanes();
      image_.write(dx + first * size, used);
    });
  }

  // `Where`: also at which element. `Kernel`: the windows' width, 0 for any.
  template <bool Where, int Kernel, class Window>
  void find_maxima(const Window& window, float* y, int* mask, float* top_mask) const {
    const int kernel = Kernel ? Kernel : kernel_w_, width = width_, outputs = pooled_width_;
    const Ints steps = lrbench::steps(stride_w_);
    const Vec lowest = set1(test_followers_.lowest());
    for (int ph = 0; ph < pooled_height_; ph++) {
      const auto range = rows(ph);
      for (int j = 0; j < outputs; j += kLanes) {
        // An element's index is that of its window's first one, plus h * width + kw.
        const Ints first = add(steps, ints(j * stride_w_ - pad_w_));
        Vec best = set1(-FLT_MAX);
        Ints index = sub(ints(-1), first);
        for (int h = range.first; h < range.second; h++) {
          for (int kw = 0; kw < kernel; kw++) {
            Vec x = window(h, j, kw);
            const int lanes = window.lanes(j, kw);
            if (lanes < kLanes) x = select(best, x, lane_mask(lanes));
            if (Where) index = select(index, ints(h * width + kw), greater(x, best));
            best = max(x, best);  // x where it is greater
          }
        }
        const int at = ph * outputs + j, lanes = outputs - j;
        store_first(y + at, max(lowest, best), lanes);
        if (!Where) continue;
        index = add(index, first);
        if (mask) store_first(mask + at, index, lanes);
        if (top_mask) store_first(top_mask + at, floats(index), lanes);
      }
    }
  }

  template <int Kernel, class Window>
  void find_maxima(const Window& window, float* y, int* mask, float* top_mask) const {
    mask || top_mask ? find_maxima<true, Kernel>(window, y, mask, top_mask)
                     : find_maxima<false, Kernel>(window, y, nullptr, nullptr);
  }

  template <class Window>
  void average(const Window& window, float* y) const {
    const Vec lowest = set1(test_followers_.lowest());
    const int padded = ceil_div(pooled_width_, kLanes) * kLanes;
    for (int ph = 0; ph < pooled_height_; ph++) {
      const auto range = rows(ph);
      for (int j = 0; j < pooled_width_; j += kLanes) {
        Vec sums = zero();
        for (int h = range.first; h < range.second; h++) {
          for (int kw = 0; kw < kernel_w_; kw++) {
            Vec x = window(h, j, kw);
            const int lanes = window.lanes(j, kw);
            if (lanes < kLanes) x = keep(x, lane_mask(lanes));
            sums = add(sums, x);
          }
        }
        const Vec mean = div(sums, load(sizes_.data() + ph * padded + j));
        store_first(y + ph * pooled_width_ + j, max(lowest, mean), pooled_width_ - j);
      }
    }
  }

  // The gradient of average: each element gets its windows' quotients from the first window to the
  // last.
  void spread(const float* dy, float* dx) {
    const int padded = ceil_div(pooled_width_, kLanes) * kLanes;
    std::memset(buffer_.data(), 0, sizeof(float) * (source_.size() + kLanes));
    for (int ph = 0; ph < pooled_height_; ph++) {
      const float* sizes = sizes_.data() + ph * padded;
      for (int j = 0; j < pooled_width_; j += kLanes) {
        const Vec g = load(dy + ph * pooled_width_ + j, lane_mask(pooled_width_ - j));
        store(quotients_.data() + j, div(g, load(sizes + j)));
      }
      const auto range = rows(ph);
      for (int h = range.first; h < range.second; h++) {
        float* row = buffer_.data() + std::ptrdiff_t(h) * source_.pitch;
        for (int kw = kernel_w_ - 1; kw >= 0; kw--) {
          float* to = row + offsets_[kw];
          int j = 0;
          for (; j + kLanes <= pooled_width_; j += kLanes) {
            store(to + j, add(load(to + j), load(quotients_.data() + j)));
          }
          for (; j < pooled_width_; j++) to[j] += quotients_.data()[j];
        }
      }
    }
    // A stride can leave columns that no window covers.
    if ((source_.low_w + source_.pitch) * stride_w_ < width_)
      std::memset(dx, 0, sizeof(float) * height_ * width_);
    source_.extract(buffer_.data(), dx);
    filled_ =
        std::numeric_limits<float>::quiet_NaN();  // equals nothing: the next pass fills it anew
  }

  std::vector<int> planned_;  // the input's shape that everything below is for
  Source source_{};
  std::vector<int> offsets_;  // of a window's columns in the buffer
  Buffer buffer_, quotients_, sizes_;
  LanesOfPlanes image_, output_, where_;
  float filled_ = 0;  // what is around the image in buffer_
};

}  // namespace

LayerPointer create_pooling(const LayerParameter& parameter) {
  return LayerPointer(new FastPooling(parameter));
}

}  // namespace lrbench
