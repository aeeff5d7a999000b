// A few threads that wait for work. There is one set in a process; a training is its only user.
#pragma once

#include <functional>

namespace lrbench {

// How many threads work at once from now on, the caller's among them.
void set_threads(int count);
int thread_count();

// Calls work(0) to work(parts - 1), no more than thread_count() of them, each in a thread of its
// own; returns when all are done. Which thread gets which part is fixed.
void run_parts(int parts, const std::function<void(int)>& work);

}  // namespace lrbench
