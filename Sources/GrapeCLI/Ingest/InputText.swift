import CGrapeLinux
import Glibc

/// Where a row begins: enough to go on reading there.
struct InputPosition: Equatable {
  /// Bytes from the input's beginning.
  var offset: Int64
  /// Counted from 1.
  var line: Int64
}

/// An input's bytes in a window that moves forward: whole rows are handed out in place, nothing is copied that need not be.
final class InputText {
  /// For messages: the path as given, or `standard input`.
  let name: String
  /// Size of a regular file; nil for pipes and the like.
  let size: Int64?
  /// Longest row, in bytes.
  private let rowLimit: Int
  private let descriptor: Int32
  private let ownsDescriptor: Bool
  /// Called before a read that may have to wait; returns when there is something to read.
  private let awaitInput: (Int32) throws -> Void

  private var buffer: UnsafeMutableRawPointer
  private var capacity: Int
  private var begin = 0
  private var end = 0
  private var ended = false
  /// Of byte `begin`.
  private(set) var position = InputPosition(offset: 0, line: 1)

  /// Opens `path`; `-` is standard input.
  init(path: String, rowLimit: Int, awaitInput: @escaping (Int32) throws -> Void) throws {
    name = path == "-" ? "standard input" : path
    descriptor = path == "-" ? 0 : grape_open(path, O_RDONLY, 0)
    ownsDescriptor = path != "-"
    guard descriptor >= 0 else { throw FileContent.unreadable(path) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let error = FileContent.unreadable(path)
      if ownsDescriptor { close(descriptor) }
      throw error
    }
    let kind = status.st_mode & S_IFMT
    guard kind != S_IFDIR else {
      close(descriptor)
      throw CommandFailure(.noInput, "\(path) is a folder; a file is expected")
    }
    size = kind == S_IFREG ? Int64(status.st_size) : nil
    self.rowLimit = rowLimit
    self.awaitInput = awaitInput
    capacity = 1 << 20
    buffer = .allocate(byteCount: capacity, alignment: 16)
  }

  deinit {
    buffer.deallocate()
    if ownsDescriptor { close(descriptor) }
  }

  /// The bytes read and not taken yet, valid until the next call of `readMore` or `take`.
  var window: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: buffer + begin, count: end - begin) }

  /// The first bytes of a regular file, without moving.
  func prefix(_ count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var filled = 0
    while filled < count {
      let got = bytes.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress! + filled, count - filled, off_t(filled))
      }
      if got < 0, errno == EINTR { continue }
      guard got >= 0 else { throw FileContent.unreadable(name) }
      if got == 0 { break }
      filled += got
    }
    return Array(bytes[..<filled])
  }

  /// Goes to where a row begins. In a pipe the bytes before it are read and let go. False if the input is shorter.
  func seek(to target: InputPosition) throws -> Bool {
    if let size {
      guard target.offset <= size else { return false }
      guard lseek(descriptor, off_t(target.offset), SEEK_SET) >= 0 else { throw FileContent.unreadable(name) }
      (begin, end, ended) = (0, 0, false)
    } else {
      while position.offset < target.offset {
        if window.isEmpty, try !readMore() { return false }
        let step = min(Int64(window.count), target.offset - position.offset)
        take(Int(step), lines: 0)
      }
    }
    position = target
    return true
  }

  /// Drops the first `count` bytes of the window, in which `lines` lines end.
  func take(_ count: Int, lines: Int64) {
    begin += count
    position.offset += Int64(count)
    position.line += lines
  }

  /// Reads more behind the window; false at the input's end. Throws if the window has grown beyond the longest row allowed.
  func readMore() throws -> Bool {
    if ended { return false }
    if begin > 0 {
      buffer.copyMemory(from: buffer + begin, byteCount: end - begin)
      end -= begin
      begin = 0
    }
    guard end <= rowLimit else {
      throw CommandFailure(
        .tooLarge,
        "\(name):\(position.line): the row has more than the \(Format.count(rowLimit)) bytes that the node takes")
    }
    if end == capacity {
      let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity * 2, alignment: 16)
      larger.copyMemory(from: buffer, byteCount: end)
      buffer.deallocate()
      buffer = larger
      capacity *= 2
    }
    while true {
      if size == nil { try awaitInput(descriptor) }
      let count = read(descriptor, buffer + end, capacity - end)
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      guard count >= 0 else { throw FileContent.unreadable(name) }
      ended = count == 0
      end += count
      return count > 0
    }
  }
}
