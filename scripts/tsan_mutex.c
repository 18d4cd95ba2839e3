// Tells the thread sanitizer what Swift's Mutex does when it has to wait: loaded before the tests by scripts/tsan.sh.
//
// Locking and unlocking without contention is compiled into our code, and is seen. With contention it happens inside the
// standard library, which is not instrumented, and in the kernel (priority-inheriting futexes): whoever gets the lock
// that way would seem not to have it. So these functions stand in front of the library's, call them, and report.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self

// In the program under test; absent in the programs that start it.
extern void __tsan_acquire(void *address) __attribute__((weak));
extern void __tsan_release(void *address) __attribute__((weak));

typedef SWIFT void (*Lock)(uint32_t thread, SELF);
typedef SWIFT bool (*TryLock)(SELF);
typedef SWIFT void (*Unlock)(SELF);

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

SWIFT void lock_slow(uint32_t thread, SELF) __asm__(LOCK);
SWIFT bool try_lock_slow(SELF) __asm__(TRY_LOCK);
SWIFT void unlock_slow(SELF) __asm__(UNLOCK);

static void *library(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (!found) abort(); // another version of the standard library: see what it calls these functions
  return found;
}

SWIFT void lock_slow(uint32_t thread, SELF) {
  static _Atomic(Lock) known;
  if (!known) known = (Lock)library(LOCK);
  known(thread, self);
  if (__tsan_acquire) __tsan_acquire(self);
}

SWIFT bool try_lock_slow(SELF) {
  static _Atomic(TryLock) known;
  if (!known) known = (TryLock)library(TRY_LOCK);
  bool locked = known(self);
  if (locked && __tsan_acquire) __tsan_acquire(self);
  return locked;
}

SWIFT void unlock_slow(SELF) {
  static _Atomic(Unlock) known;
  if (!known) known = (Unlock)library(UNLOCK);
  if (__tsan_release) __tsan_release(self);
  known(self);
}
