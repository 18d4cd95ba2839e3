// Calls beyond POSIX. Not in the header: modules that see libc with and without it do not fit together.
#define _GNU_SOURCE
#include "grape_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int grape_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

int grape_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data.u64 = data};
  return epoll_ctl(epoll, operation, fd, &event);
}

int grape_epoll_wait(int epoll, uint32_t *events, uint64_t *data, int capacity, int64_t timeout_ns) {
  struct epoll_event buffer[256];
  if (capacity > 256) capacity = 256;
  int milliseconds = timeout_ns < 0 ? -1 : timeout_ns > 2000000000000LL ? 2000000 : (int)((timeout_ns + 999999) / 1000000);
  int count = epoll_wait(epoll, buffer, capacity, milliseconds);
  for (int i = 0; i < count; i++) {
    events[i] = buffer[i].events;
    data[i] = buffer[i].data.u64;
  }
  return count;
}

int grape_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
int grape_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int grape_reap(pid_t pid, int *status) {
  pid_t result = waitpid(pid, status, WNOHANG);
  if (result == pid) return 1;
  return result == 0 ? 0 : -1;
}

bool grape_status_exited(int status, int *code) {
  if (!WIFEXITED(status)) return false;
  *code = WEXITSTATUS(status);
  return true;
}

bool grape_status_signalled(int status, int *signal_number) {
  if (!WIFSIGNALED(status)) return false;
  *signal_number = WTERMSIG(status);
  return true;
}

static int unix_address(const char *path, struct sockaddr_un *address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address->sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(address->sun_path, path);
  return 0;
}

static int close_keeping_errno(int fd) {
  int saved = errno;
  close(fd);
  errno = saved;
  return -1;
}

int grape_unix_listen(const char *path, int backlog, mode_t mode) {
  struct sockaddr_un address;
  if (unix_address(path, &address) < 0) return -1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  // fchmod before bind sets the mode the socket file is born with, so it is never wider than asked.
  if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || chmod(path, mode) < 0 ||
      listen(fd, backlog) < 0)
    return close_keeping_errno(fd);
  return fd;
}

int grape_unix_connect(const char *path) {
  struct sockaddr_un address;
  if (unix_address(path, &address) < 0) return -1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return close_keeping_errno(fd);
  return fd;
}

int grape_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }

int grape_peer_credentials(int fd, pid_t *pid, uid_t *uid) {
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) return -1;
  *pid = credentials.pid;
  *uid = credentials.uid;
  return 0;
}

int grape_set_nonblocking(int fd, bool on) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -1;
  return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

ssize_t grape_send(int fd, const void *bytes, size_t size) { return send(fd, bytes, size, MSG_NOSIGNAL); }

ssize_t grape_send_pieces(int fd, const void *const *bases, const size_t *sizes, int count) {
  struct iovec pieces[64];
  if (count > 64) count = 64;
  for (int i = 0; i < count; i++) pieces[i] = (struct iovec){(void *)bases[i], sizes[i]};
  struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
  return sendmsg(fd, &message, MSG_NOSIGNAL);
}

int grape_socket_buffers(int fd, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) < 0) return -1;
  return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

int grape_pipe(int fds[2]) { return pipe2(fds, O_CLOEXEC); }
int grape_fallocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length); }
void grape_unlock(int fd) { flock(fd, LOCK_UN); }
int grape_lock_exclusive(int fd) { return flock(fd, LOCK_EX | LOCK_NB); }

int grape_rename_new(const char *from, const char *to) {
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  // Not every file system knows the flag; a second link refuses an existing name everywhere.
  if (link(from, to) != 0) return -1;
  return unlink(from);
}

int64_t grape_available_bytes(const char *path) {
  struct statvfs status;
  if (statvfs(path, &status) != 0) return -1;
  return (int64_t)status.f_bavail * (int64_t)status.f_frsize;
}

int grape_open(const char *path, int flags, mode_t mode) { return open(path, flags | O_CLOEXEC, mode); }

void grape_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

int64_t grape_monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t grape_realtime_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *const step_names[] = {"fork", "prctl", "redirect", "chdir", "exec"};

pid_t grape_spawn(const char *path, char *const argv[], char *const envp[], const char *directory, int stdout_fd,
                  int stderr_fd, const char **failed_step) {
  int report[2];
  *failed_step = step_names[0];
  if (pipe2(report, O_CLOEXEC) < 0) return -1;
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0) {
    close_keeping_errno(report[0]);
    return close_keeping_errno(report[1]);
  }
  // All signals are blocked across fork so that no handler of ours runs in the child.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  pid_t parent = getpid();
  pid_t child = fork();
  if (child == 0) {
    // Only async-signal-safe calls from here to exec.
    unsigned char step = 1;
    setpgid(0, 0);
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) goto failed;
    if (getppid() != parent) _exit(127); // the node died between fork and prctl
    step = 2;
    // Standard descriptors survive exec; all others of the node are close-on-exec.
    if (dup2(null, 0) < 0 || dup2(stdout_fd, 1) < 0 || dup2(stderr_fd, 2) < 0) goto failed;
    step = 3;
    if (chdir(directory) < 0) goto failed;
    step = 4;
    execve(path, argv, envp);
  failed:;
    int error = errno;
    unsigned char message[1 + sizeof error];
    message[0] = step;
    memcpy(message + 1, &error, sizeof error);
    ssize_t written = write(report[1], message, sizeof message);
    (void)written;
    _exit(127);
  }
  int saved = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(report[1]);
  close(null);
  if (child < 0) {
    close(report[0]);
    errno = saved;
    return -1;
  }
  // Also from this side: the group must exist before anyone signals it, whichever of the two runs first.
  setpgid(child, child);
  unsigned char message[1 + sizeof(int)];
  ssize_t count;
  do count = read(report[0], message, sizeof message);
  while (count < 0 && errno == EINTR);
  close(report[0]);
  if (count == (ssize_t)sizeof message) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    *failed_step = step_names[message[0]];
    memcpy(&errno, message + 1, sizeof(int));
    return -1;
  }
  return child;
}

ssize_t grape_pread_cached(int fd, void *buffer, size_t size, off_t offset) {
  struct iovec part = {buffer, size};
  ssize_t count = preadv2(fd, &part, 1, offset, RWF_NOWAIT);
  return count < 0 && (errno == EAGAIN || errno == EOPNOTSUPP || errno == EINVAL) ? 0 : count;
}
