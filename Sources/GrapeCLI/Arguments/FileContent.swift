import CGrapeLinux
import Glibc
import GrapeWire

/// Whole files read into memory, and small files written.
enum FileContent {
  /// Reads a file of at most `limit` bytes.
  static func read(path: String, limit: Int) throws -> ByteSlice {
    let descriptor = grape_open(path, O_RDONLY, 0)
    guard descriptor >= 0 else { throw unreadable(path) }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw unreadable(path) }
    guard status.st_mode & S_IFMT != S_IFDIR else {
      throw CommandFailure(.noInput, "\(path) is a folder; a file is expected")
    }
    return try read(descriptor: descriptor, name: path, limit: limit)
  }

  /// Reads a descriptor to its end.
  static func read(descriptor: Int32, name: String, limit: Int) throws -> ByteSlice {
    var content = ByteWriter(capacity: 64 * 1024)
    let piece = ByteStorage(capacity: 256 * 1024)
    while true {
      let count = Glibc.read(descriptor, piece.base, piece.capacity)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw unreadable(name) }
      if count == 0 { return content.finish() }
      guard content.count + count <= limit else {
        throw CommandFailure(.tooLarge, "\(name) has more than the \(Format.count(limit)) bytes allowed")
      }
      content.bytes(UnsafeRawBufferPointer(start: piece.base, count: count))
    }
  }

  /// The failure for `errno` and a path that was to be read.
  static func unreadable(_ path: String) -> CommandFailure {
    CommandFailure(.noInput, "cannot read \(path): \(String(cString: strerror(errno)))")
  }

  /// Writes a file so that either the old content is there or the new one, whatever becomes of this process.
  /// - Parameter durable: whatever becomes of the machine, too.
  static func replace(path: String, with bytes: [UInt8], durable: Bool) throws {
    let temporary = path + ".new"
    let descriptor = grape_open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    func failure(_ what: String) -> CommandFailure {
      CommandFailure(.failure, "cannot \(what): \(String(cString: strerror(errno)))")
    }
    guard descriptor >= 0 else { throw failure("write \(temporary)") }
    var position = 0
    while position < bytes.count {
      let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + position, bytes.count - position) }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else {
        let error = failure("write \(temporary)")
        close(descriptor)
        throw error
      }
      position += count
    }
    if durable, fdatasync(descriptor) != 0 {
      let error = failure("write \(temporary)")
      close(descriptor)
      throw error
    }
    close(descriptor)
    guard rename(temporary, path) == 0 else { throw failure("rename \(temporary) to \(path)") }
  }
}
