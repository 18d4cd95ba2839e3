// Takes files out of the page cache, so that the next reader finds them on the disk only. Says how much of them stayed:
// pages that somebody maps or writes cannot be dropped. Usage: drop FILE ...
#include <sys/mman.h>
#include <sys/stat.h>

#include "measure.h"

// Bytes of the file that the page cache has.
static uint64_t cached(int file, const char *path, size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page;
  if (pages == 0) return 0;
  void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) fail("mmap %s", path);
  unsigned char *states = allocate(pages);
  if (mincore(memory, size, states)) fail("mincore %s", path);
  uint64_t found = 0;
  for (size_t index = 0; index < pages; index++) found += states[index] & 1;
  free(states);
  munmap(memory, size);
  return found * page;
}

int main(int count, char **arguments) {
  uint64_t bytes = 0, stayed = 0;
  for (int index = 1; index < count; index++) {
    int file = open(arguments[index], O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("%s", arguments[index]);
    struct stat about;
    if (fstat(file, &about)) fail("fstat %s", arguments[index]);
    // Dirty pages are not dropped.
    if (fdatasync(file)) fail("fdatasync %s", arguments[index]);
    int error = posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    if (error) {
      errno = error;
      fail("posix_fadvise %s", arguments[index]);
    }
    bytes += (uint64_t)about.st_size;
    stayed += cached(file, arguments[index], (size_t)about.st_size);
    close(file);
  }
  printf("{\"program\":\"drop\",\"bytes\":%llu,\"stillCachedBytes\":%llu}\n", (unsigned long long)bytes,
         (unsigned long long)stayed);
  return 0;
}
