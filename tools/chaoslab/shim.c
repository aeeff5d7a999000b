/* Preloaded into the processes of a trial: counts their file operations below one folder, and ends
 * the process or fails at one of them; shifts the wall clock.
 *
 * The control block is a file that the trial maps, too (shim.py has the same fields). Only system
 * calls and the oldest symbols of the C library are used, so that one build serves every process:
 * Caffe's may have an older C library than the compiler's. What the C library writes itself (stdio)
 * is not seen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND, CHILD, WORKER, ROLES };
enum {
  WRITE = 1,
  FSYNC = 2,
  RENAME = 4,
  UNLINK = 8,
  OPEN = 16,
  LINK = 32,
  MKDIR = 64,
  TRUNCATE = 128,
  KINDS = 8
};
enum { NONE, KILL_BEFORE, KILL_AFTER, TORN, FAIL_ONCE, FAIL_ON };

struct control {
  int64_t kinds;  /* which operations count */
  int64_t role;   /* whose */
  int64_t number; /* at which something happens, from 1; 0 for none */
  int64_t action;
  int64_t error; /* errno of the failing ones */
  int64_t
      everyone; /* whether all others end with the one that is killed, each at its next operation */
  int64_t fired;       /* how often something happened */
  int64_t offset;      /* of the wall clock, in ns */
  int64_t seen[ROLES]; /* operations of these kinds, by role */
  int64_t counts[ROLES][KINDS];
};

static struct control* block;
static char folder[4096];
static size_t folder_length;
static int role, ready;

static void die(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); }

static int own_role(void) {
  char line[8192];
  long length, i, fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY, 0);
  if (fd < 0) return COMMAND;
  length = syscall(SYS_read, fd, line, sizeof line - 1);
  syscall(SYS_close, fd);
  for (i = 0; i < length; i++)
    if (!line[i]) line[i] = ' ';
  line[length > 0 ? length : 0] = 0;
  return strstr(line, "runtime/worker.py")    ? WORKER
         : strstr(line, "lrbench_caffe.jobs") ? CHILD
                                              : COMMAND;
}

static struct control* control(void) {
  const char* path;
  long fd;
  void* found;
  if (ready) return block;
  ready = 1;
  path = getenv("CHAOS_CONTROL");
  if (!path || !getenv("CHAOS_FOLDER")) return 0;
  fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return 0;
  found = (void*)syscall(SYS_mmap, 0, sizeof *block, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (found == MAP_FAILED) return 0;
  strncpy(folder, getenv("CHAOS_FOLDER"), sizeof folder - 1);
  folder_length = strlen(folder);
  role = own_role();
  return block = found;
}

__attribute__((constructor)) static void begin(void) {
  int kept = errno;
  control();
  errno = kept;
}

/* -- which operations count -----------------------------------------------------------------------
 */

static int is_below(const char* path) {
  return !strncmp(path, folder, folder_length) && path[folder_length] == '/';
}

static int fd_path(int fd, char* path, size_t size) {
  char link[64], digits[16];
  int n = 0, at = 0;
  long length;
  static const char prefix[] = "/proc/self/fd/";
  if (fd < 0) return 0;
  do digits[n++] = '0' + fd % 10;
  while (fd /= 10);
  memcpy(link, prefix, at = sizeof prefix - 1);
  while (n) link[at++] = digits[--n];
  link[at] = 0;
  length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return 1;
}

static int counts_fd(int fd) {
  char path[4096];
  return control() && fd_path(fd, path, sizeof path) && is_below(path);
}

static int counts_path(int at, const char* path) {
  char base[4096];
  if (!control() || !path) return 0;
  if (path[0] == '/') return is_below(path);
  if (at == AT_FDCWD) {
    if (syscall(SYS_getcwd, base, sizeof base) <= 0) return 0;
  } else if (!fd_path(at, base, sizeof base))
    return 0;
  return is_below(base) || !strcmp(base, folder);
}

/* What happens at this operation. */
static int action_at(int kind, int counts) {
  int64_t number;
  if (!counts) return NONE;
  if (block->everyone && block->fired) die();
  __atomic_add_fetch(&block->counts[role][__builtin_ctz(kind)], 1, __ATOMIC_SEQ_CST);
  if (!block->number || !(kind & block->kinds)) return NONE;
  number = __atomic_add_fetch(&block->seen[role], 1, __ATOMIC_SEQ_CST);
  if (role != block->role) return NONE;
  if (number != block->number && !(block->action == FAIL_ON && number > block->number)) return NONE;
  __atomic_add_fetch(&block->fired, 1, __ATOMIC_SEQ_CST);
  if (block->action == KILL_BEFORE || (block->action == TORN && kind != WRITE)) die();
  return block->action;
}

#define FAILS(action) ((action) == FAIL_ONCE || (action) == FAIL_ON)
#define AROUND(kind, counted, call)        \
  do {                                     \
    int kept = errno;                      \
    int action = action_at(kind, counted); \
    long result;                           \
    errno = kept;                          \
    if (FAILS(action)) {                   \
      errno = (int)block->error;           \
      return -1;                           \
    }                                      \
    result = (call);                       \
    if (action == KILL_AFTER) die();       \
    return result;                         \
  } while (0)

/* How much of a write takes place: all, half (a full disk takes a part, a torn write ends in the
 * middle), none. */
static ssize_t part(int fd, size_t size, int* action) {
  int kept = errno;
  int64_t before = block ? block->fired : 0;
  *action = action_at(WRITE, counts_fd(fd));
  errno = kept;
  if (*action == TORN) return size / 2;
  if (*action == FAIL_ON && block->error == ENOSPC && !before && size > 1) return size / 2;
  if (FAILS(*action)) {
    errno = (int)block->error;
    return -1;
  }
  return size;
}

static ssize_t ended(ssize_t result, int action) {
  if (action == TORN || action == KILL_AFTER) die();
  return result;
}

/* -- writing --------------------------------------------------------------------------------------
 */

ssize_t write(int fd, const void* data, size_t size) {
  int action;
  ssize_t now = part(fd, size, &action);
  return now < 0 ? -1 : ended(syscall(SYS_write, fd, data, (size_t)now), action);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off_t place) {
  int action;
  ssize_t now = part(fd, size, &action);
  return now < 0 ? -1 : ended(syscall(SYS_pwrite64, fd, data, (size_t)now, place), action);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t place) {
  return pwrite64(fd, data, size, place);
}

ssize_t writev(int fd, const struct iovec* parts, int count) {
  int action;
  ssize_t now = part(fd, 2, &action);
  if (now < 0) return -1;
  if (now < 2) /* the first part stands for half of it */
    return ended(syscall(SYS_writev, fd, parts, count > 1 ? 1 : count), action);
  return ended(syscall(SYS_writev, fd, parts, count), action);
}

ssize_t sendfile64(int out, int in, off_t* place, size_t size) {
  int action;
  ssize_t now = part(out, size, &action);
  return now < 0 ? -1 : ended(syscall(SYS_sendfile, out, in, place, (size_t)now), action);
}

ssize_t sendfile(int out, int in, off_t* place, size_t size) {
  return sendfile64(out, in, place, size);
}

ssize_t copy_file_range(int in, off_t* from, int out, off_t* to, size_t size, unsigned flags) {
  int action;
  ssize_t now = part(out, size, &action);
  return now < 0
             ? -1
             : ended(syscall(SYS_copy_file_range, in, from, out, to, (size_t)now, flags), action);
}

int fsync(int fd) { AROUND(FSYNC, counts_fd(fd), syscall(SYS_fsync, fd)); }

int fdatasync(int fd) { AROUND(FSYNC, counts_fd(fd), syscall(SYS_fdatasync, fd)); }

int ftruncate64(int fd, off_t size) {
  AROUND(TRUNCATE, counts_fd(fd), syscall(SYS_ftruncate, fd, size));
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int truncate64(const char* path, off_t size) {
  AROUND(TRUNCATE, counts_path(AT_FDCWD, path), syscall(SYS_truncate, path, size));
}

int truncate(const char* path, off_t size) { return truncate64(path, size); }

int fallocate64(int fd, int mode, off_t from, off_t size) {
  AROUND(WRITE, counts_fd(fd), syscall(SYS_fallocate, fd, mode, from, size));
}

int fallocate(int fd, int mode, off_t from, off_t size) {
  return fallocate64(fd, mode, from, size);
}

/* -- opening --------------------------------------------------------------------------------------
 */

static int opened(int at, const char* path, int flags, mode_t mode) {
  int writes = (flags & O_ACCMODE) != O_RDONLY;
  AROUND(OPEN, writes && counts_path(at, path), syscall(SYS_openat, at, path, flags, mode));
}

#define MODE(flags, last)                                        \
  mode_t mode = 0;                                               \
  if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
    va_list rest;                                                \
    va_start(rest, last);                                        \
    mode = va_arg(rest, mode_t);                                 \
    va_end(rest);                                                \
  }

int open(const char* path, int flags, ...) {
  MODE(flags, flags)
  return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  MODE(flags, flags)
  return opened(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char* path, int flags, ...) {
  MODE(flags, flags)
  return opened(at, path, flags, mode);
}

int openat64(int at, const char* path, int flags, ...) {
  MODE(flags, flags)
  return opened(at, path, flags, mode);
}

int __open_2(const char* path, int flags) { return opened(AT_FDCWD, path, flags, 0); }

int __open64_2(const char* path, int flags) { return opened(AT_FDCWD, path, flags, 0); }

int __openat_2(int at, const char* path, int flags) { return opened(at, path, flags, 0); }

int __openat64_2(int at, const char* path, int flags) { return opened(at, path, flags, 0); }

int creat(const char* path, mode_t mode) {
  return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

int creat64(const char* path, mode_t mode) { return creat(path, mode); }

/* C++ streams open through it, and then call write. */
FILE* fopen64(const char* path, const char* mode) {
  int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
  int fd;
  FILE* file;
  if (mode[0] == 'w') flags |= O_CREAT | O_TRUNC;
  if (mode[0] == 'a') flags |= O_CREAT | O_APPEND;
  if (strchr(mode, 'x')) flags |= O_EXCL;
  if (strchr(mode, 'e')) flags |= O_CLOEXEC;
  fd = opened(AT_FDCWD, path, flags, 0666);
  if (fd < 0) return 0;
  file = fdopen(fd, mode);
  if (!file) syscall(SYS_close, fd);
  return file;
}

FILE* fopen(const char* path, const char* mode) { return fopen64(path, mode); }

/* -- names ----------------------------------------------------------------------------------------
 */

int renameat(int from_at, const char* from, int to_at, const char* to) {
  AROUND(RENAME, counts_path(to_at, to), syscall(SYS_renameat2, from_at, from, to_at, to, 0));
}

int rename(const char* from, const char* to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int at, const char* path, int flags) {
  AROUND(UNLINK, counts_path(at, path), syscall(SYS_unlinkat, at, path, flags));
}

int unlink(const char* path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char* path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int remove(const char* path) {
  int result = unlink(path);
  return result && errno == EISDIR ? rmdir(path) : result;
}

int linkat(int from_at, const char* from, int to_at, const char* to, int flags) {
  AROUND(LINK, counts_path(to_at, to), syscall(SYS_linkat, from_at, from, to_at, to, flags));
}

int link(const char* from, const char* to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char* target, int at, const char* path) {
  AROUND(LINK, counts_path(at, path), syscall(SYS_symlinkat, target, at, path));
}

int symlink(const char* target, const char* path) { return symlinkat(target, AT_FDCWD, path); }

int mkdirat(int at, const char* path, mode_t mode) {
  AROUND(MKDIR, counts_path(at, path), syscall(SYS_mkdirat, at, path, mode));
}

int mkdir(const char* path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* -- the wall clock -------------------------------------------------------------------------------
 */

int clock_gettime(clockid_t clock, struct timespec* now) {
  long result = syscall(SYS_clock_gettime, clock, now);
  if (!result && control() && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t sum = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + block->offset;
    now->tv_sec = sum / 1000000000;
    now->tv_nsec = sum % 1000000000;
  }
  return result;
}

int gettimeofday(struct timeval* now, void* zone) {
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}
