// Preloaded into a process, lets its time of day be GRAPE_CLOCK_SHIFT_MS milliseconds ahead (behind, if negative). Clocks that only go forward stay.
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
  long failed = syscall(SYS_clock_gettime, clock, time);
  const char *shift = getenv("GRAPE_CLOCK_SHIFT_MS");
  if (!failed && clock == CLOCK_REALTIME && shift) {
    long long ms = atoll(shift), nanoseconds = time->tv_nsec + ms % 1000 * 1000000;
    time->tv_sec += ms / 1000 + (nanoseconds < 0 ? -1 : nanoseconds / 1000000000);
    time->tv_nsec = (nanoseconds + 1000000000) % 1000000000;
  }
  return (int)failed;
}
