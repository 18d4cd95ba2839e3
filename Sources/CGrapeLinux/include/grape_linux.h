#pragma once

// Linux calls and CPU instructions that Swift's Glibc module does not reach.
// Every call returns -1 and sets errno on failure unless said otherwise; none retries on EINTR:
// that is the business of the one caller in Swift.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// CRC-32C (Castagnoli) of `size` bytes continued from `crc` (0 to begin). Uses the SSE4.2 or ARMv8 CRC
// instruction where the processor has it (three interleaved streams for long input), tables otherwise.
uint32_t grape_crc32c(uint32_t crc, const void *bytes, size_t size);
// The table version alone, for tests of one against the other.
uint32_t grape_crc32c_portable(uint32_t crc, const void *bytes, size_t size);

// epoll
int grape_epoll_create(void);
enum { GRAPE_EPOLL_ADD = 1, GRAPE_EPOLL_DEL = 2, GRAPE_EPOLL_MOD = 3 };
enum { GRAPE_EPOLL_IN = 1, GRAPE_EPOLL_OUT = 4, GRAPE_EPOLL_ERR = 8, GRAPE_EPOLL_HUP = 16 };
int grape_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t data);
// Waits up to `timeout_ns` (-1: for ever); fills parallel arrays of at most `capacity` (<= 256) entries.
int grape_epoll_wait(int epoll, uint32_t *events, uint64_t *data, int capacity, int64_t timeout_ns);

int grape_eventfd(void);
int grape_pidfd_open(pid_t pid);
// Reaps `pid` if it has exited: 1 and *status set, 0 if still running, -1 on error.
int grape_reap(pid_t pid, int *status);
bool grape_status_exited(int status, int *code);
bool grape_status_signalled(int status, int *signal_number);

// Non-blocking close-on-exec Unix stream sockets.
int grape_unix_listen(const char *path, int backlog, mode_t mode);
int grape_unix_connect(const char *path);
int grape_accept(int listener);
int grape_peer_credentials(int fd, pid_t *pid, uid_t *uid);
int grape_set_nonblocking(int fd, bool on);
// Send without SIGPIPE.
ssize_t grape_send(int fd, const void *bytes, size_t size);
// The same for several pieces (at most 64) given as parallel arrays.
ssize_t grape_send_pieces(int fd, const void *const *bases, const size_t *sizes, int count);
int grape_socket_buffers(int fd, int bytes);
int grape_pipe(int fds[2]);

// Files
int grape_fallocate(int fd, off_t offset, off_t length);
int grape_lock_exclusive(int fd);
void grape_unlock(int fd);
/// Renames; fails with EEXIST if there is a file of the new name.
int grape_rename_new(const char *from, const char *to);
/// Bytes that this process may still write to the file system of the path; -1 and errno on failure.
int64_t grape_available_bytes(const char *path);
int grape_open(const char *path, int flags, mode_t mode);
/// As pread, but only what the page cache has: 0 if that is nothing, or cannot be told on this file system.
ssize_t grape_pread_cached(int fd, void *buffer, size_t size, off_t offset);

// Names the calling thread (at most 15 bytes), for profiles and debuggers.
void grape_name_thread(const char *name);

// Clocks, in nanoseconds.
int64_t grape_monotonic_ns(void);
int64_t grape_realtime_ms(void);

// Starts a program in its own process group with an empty signal mask, default dispositions, standard input
// from /dev/null and standard output and error to the given descriptors; nothing else is inherited. The child
// is killed when the thread that called this ends (PR_SET_PDEATHSIG), so the caller must be a thread that
// lives as long as the node. Returns the pid, or -1 with errno and *failed_step naming the step.
pid_t grape_spawn(const char *path, char *const argv[], char *const envp[], const char *directory, int stdout_fd,
                  int stderr_fd, const char **failed_step);
