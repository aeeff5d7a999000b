#include "threads.h"

#include <pthread.h>

#include <mutex>
#include <thread>
#include <vector>

namespace lrbench {
namespace {

// std::condition_variable needs a newer libstdc++ than Debian 11's.
class Condition {
 public:
  template <class Test>
  void wait(std::unique_lock<std::mutex>& lock, Test test) {
    while (!test()) pthread_cond_wait(&condition_, lock.mutex()->native_handle());
  }
  void notify() { pthread_cond_broadcast(&condition_); }

 private:
  pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
};

class Pool {
 public:
  int count = 1;

  void run(int parts, const std::function<void(int)>& work) {
    while (int(threads_.size()) < parts - 1) {
      const int part = int(threads_.size()) + 1;
      threads_.emplace_back([this, part, seen = round_] { serve(part, seen); });
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      parts_ = parts;
      busy_ = parts - 1;
      round_++;
    }
    wake_.notify();
    work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve(int part, long seen) {
    for (;;) {
      const std::function<void(int)>* work;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (part >= parts_) continue;
        work = work_;
      }
      (*work)(part);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify();
    }
  }

  std::mutex mutex_;
  Condition wake_, done_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* work_ = nullptr;
  int parts_ = 0, busy_ = 0;
  long round_ = 0;
};

// Never destroyed: its threads wait until the process ends.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

}  // namespace

void set_threads(int count) { pool().count = count; }
int thread_count() { return pool().count; }

void run_parts(int parts, const std::function<void(int)>& work) {
  if (parts == 1) return work(0);
  pool().run(parts, work);
}

}  // namespace lrbench
