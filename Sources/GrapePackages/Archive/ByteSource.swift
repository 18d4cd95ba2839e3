/// Bytes that are read once, from the beginning.
protocol ByteSource: AnyObject {
  /// Fills the buffer from its beginning, as far as bytes are at hand; 0 means the end. The buffer is not empty.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int
}

extension ByteSource {
  /// Fills the whole buffer unless the end comes first; the number of bytes read.
  func readFully(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    var count = 0
    while count < buffer.count {
      let got = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
      if got == 0 { break }
      count += got
    }
    return count
  }
}

extension Array where Element == UInt8 {
  /// The bytes that `fill` puts into a buffer of `capacity` bytes; it says how many.
  init(
    capacity: Int, filledBy fill: (UnsafeMutableRawBufferPointer) throws(PackageError) -> Int
  ) throws(PackageError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
    defer { buffer.deallocate() }
    let count = capacity == 0 ? 0 : try fill(buffer)
    self = Array(buffer[..<count])
  }
}

/// A file's bytes.
final class FileSource: ByteSource {
  private let file: File

  init(_ path: String) throws(PackageError) {
    file = try File(reading: path)
    guard try file.status().kind == .file else {
      throw PackageError(
        .unsupported, "\(path) is not a regular file: name a folder or an archive (.tar, .tar.gz, .tar.zst)")
    }
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int { try file.read(into: buffer) }
}

/// Bytes in memory.
final class MemorySource: ByteSource {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    let count = min(buffer.count, bytes.count - position)
    buffer.copyBytes(from: bytes[position..<position + count])
    position += count
    return count
  }
}

/// Some bytes that were read ahead, then the rest of their source.
final class ReplayedSource: ByteSource {
  private var head: ArraySlice<UInt8>
  private let rest: any ByteSource

  init(_ head: [UInt8], then rest: any ByteSource) {
    self.head = head[...]
    self.rest = rest
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    if head.isEmpty { return try rest.read(into: buffer) }
    let count = min(buffer.count, head.count)
    buffer.copyBytes(from: head.prefix(count))
    head = head.dropFirst(count)
    return count
  }
}

/// Counts what passes, for the limits on size and ratio.
final class CountingSource: ByteSource {
  private let source: any ByteSource
  private(set) var count: Int64 = 0

  init(_ source: any ByteSource) { self.source = source }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    let got = try source.read(into: buffer)
    count += Int64(got)
    return got
  }
}
