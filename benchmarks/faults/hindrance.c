/* Preloaded into a command: its clock jumps back, or what it writes to a disk takes long.

   HINDER_JUMP_AFTER: seconds after the start at which the clock of the day jumps back an hour.
   HINDER_DELAY: seconds that every write, rename, removal and fsync of a file takes longer.
   HINDER_STALL_AFTER, HINDER_STALL: the first of them after so many seconds takes that much longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static double jump_after = -1, delay, stall_after, stall;
static struct timespec begun;
static atomic_int stalled;

static double setting(const char *name, double otherwise) {
  const char *text = getenv(name);
  return text ? atof(text) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &begun);
  jump_after = setting("HINDER_JUMP_AFTER", -1);
  delay = setting("HINDER_DELAY", 0);
  stall_after = setting("HINDER_STALL_AFTER", 0);
  stall = setting("HINDER_STALL", 0);
}

static double passed(void) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - begun.tv_sec) + (double)(now.tv_nsec - begun.tv_nsec) * 1e-9;
}

static long back(void) { return jump_after >= 0 && passed() > jump_after ? 3600 : 0; }

int clock_gettime(clockid_t id, struct timespec *at) {
  int code = (int)syscall(SYS_clock_gettime, id, at);
  if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec -= back();
  return code;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  int code = (int)syscall(SYS_gettimeofday, at, zone);
  if (!code) at->tv_sec -= back();
  return code;
}

static void hold(double seconds) {
  struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (seconds > 0 && nanosleep(&left, &left)) {
  }
}

static void slow(void) {
  hold(delay);
  if (stall > 0 && passed() > stall_after && !atomic_exchange(&stalled, 1)) hold(stall);
}

static void slow_file(int file) {
  struct stat found;
  if ((delay > 0 || stall > 0) && !fstat(file, &found) && S_ISREG(found.st_mode)) slow();
}

ssize_t write(int file, const void *bytes, size_t count) {
  slow_file(file);
  return REAL(write)(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  slow_file(file);
  return REAL(writev)(file, parts, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
  slow_file(file);
  return REAL(pwrite64)(file, bytes, count, offset);
}

int fsync(int file) {
  slow_file(file);
  return REAL(fsync)(file);
}

int rename(const char *from, const char *to) {
  slow();
  return REAL(rename)(from, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
  slow();
  return REAL(renameat)(from_at, from, to_at, to);
}

int unlink(const char *path) {
  slow();
  return REAL(unlink)(path);
}
