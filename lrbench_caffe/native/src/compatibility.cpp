// Debian 11's libstdc++ (GLIBCXX_3.4.28) runs what newer compilers make, but for a few functions
// that their headers call and it does not have. These are they.
#include <new>

namespace std {
// Called where a vector's size overflows (since GCC 11).
__attribute__((weak, noreturn)) void __throw_bad_array_new_length() {
  throw bad_array_new_length();
}
}  // namespace std

// Only named by <iostream> (since GCC 13), to have the streams initialized; libcaffe has done that.
extern "C" __attribute__((weak)) void _ZSt21ios_base_library_initv() {}
