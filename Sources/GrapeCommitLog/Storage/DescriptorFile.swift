import CGrapeLinux
import Glibc
import GrapeLog
import Synchronization

/// A file behind a descriptor, closed with the last reference at the latest.
final class DescriptorFile: SegmentFile {
  let path: String
  private let descriptor: Int32
  private let closed = Atomic(false)

  init(path: String, descriptor: Int32) {
    self.path = path
    self.descriptor = descriptor
  }

  deinit { close() }

  func close() {
    if !closed.exchange(true, ordering: .acquiringAndReleasing) { Glibc.close(descriptor) }
  }

  func size() throws(LogError) -> Int64 {
    var status = stat()
    _ = try SystemCall.run("fstat", path) { Int(fstat(descriptor, &status)) }
    return Int64(status.st_size)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(LogError) {
    var done = 0
    while done < bytes.count {
      // A short write is followed by another, which makes the reason known if there is one.
      let count = try SystemCall.run("pwrite", path) {
        pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
      }
      guard count > 0 else { throw SystemCall.failure("pwrite", path, EIO) }
      done += count
    }
  }

  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int {
    var done = 0
    while done < bytes.count {
      let count = try SystemCall.run("pread", path) {
        pread(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
      }
      if count == 0 { break }
      done += count
    }
    return done
  }

  func readCached(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int {
    try SystemCall.run("preadv2", path) {
      grape_pread_cached(descriptor, bytes.baseAddress!, bytes.count, off_t(offset))
    }
  }

  func readPiece(
    into bytes: UnsafeMutableRawBufferPointer, of count: Int, at offset: Int64
  ) throws(LogError) -> Int {
    // Advice: without it the same is read a little at a time.
    posix_fadvise(descriptor, off_t(offset), off_t(count), POSIX_FADV_WILLNEED)
    let result = try read(into: bytes, at: offset)
    if result == bytes.count, count > bytes.count {
      // The last byte is there when everything is.
      var last: UInt8 = 0
      try withUnsafeMutableBytes(of: &last) { last throws(LogError) in
        _ = try read(into: last, at: offset + Int64(count) - 1)
      }
    }
    return result
  }

  func setReadAhead(_ isOn: Bool) {
    // Advice as well: whether the kernel takes it shows in speed alone.
    posix_fadvise(descriptor, 0, 0, isOn ? POSIX_FADV_NORMAL : POSIX_FADV_RANDOM)
  }

  func synchronize() throws(LogError) {
    _ = try SystemCall.run("fdatasync", path) { Int(fdatasync(descriptor)) }
  }

  func resize(to size: Int64) throws(LogError) {
    _ = try SystemCall.run("ftruncate", path) { Int(ftruncate(descriptor, off_t(size))) }
  }

  func preallocate(to size: Int64) throws(LogError) {
    while grape_fallocate(descriptor, 0, off_t(size)) < 0 {
      let code = errno
      if code == EINTR { continue }
      guard code == EOPNOTSUPP else { throw SystemCall.failure("fallocate", path, code) }
      // This file system cannot reserve space: the file grows sparse, and a full disk shows at the write.
      return try resize(to: size)
    }
  }
}
