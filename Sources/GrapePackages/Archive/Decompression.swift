private import CZlib
private import CZstd
private import GrapeCore

/// The tar stream within an archive, whatever its compression.
enum Decompression {
  /// Tells the format by its first bytes and unpacks it, within the limits.
  static func open(_ source: any ByteSource, limits: PackageLimits) throws(PackageError) -> any ByteSource {
    let packed = CountingSource(source)
    let head = try [UInt8](capacity: 512) { (buffer) throws(PackageError) in try packed.readFully(into: buffer) }
    if head.isEmpty { throw PackageError(.notAnArchive, "the archive is empty") }
    let all = ReplayedSource(head, then: packed)
    let unpacked: any ByteSource
    if head.starts(with: [0x1f, 0x8b]) {
      unpacked = try GzipSource(all)
    } else if head.starts(with: [0x28, 0xb5, 0x2f, 0xfd]) {
      unpacked = try ZstdSource(all)
    } else {
      if let name = foreignFormat(head) {
        throw PackageError(.notAnArchive, "the archive is a \(name) file: pack it as .tar, .tar.gz or .tar.zst")
      }
      unpacked = all
    }
    return LimitedSource(unpacked, packed: packed, limits: limits)
  }

  private static func foreignFormat(_ head: [UInt8]) -> String? {
    if head.starts(with: Array("PK".utf8)) { return "zip" }
    if head.starts(with: Array("BZh".utf8)) { return "bzip2" }
    if head.starts(with: [0xfd, 0x37, 0x7a, 0x58, 0x5a]) { return "xz" }
    if head.starts(with: [0x37, 0x7a, 0xbc, 0xaf]) { return "7z" }
    return nil
  }
}

/// Stops a stream that grows beyond its limits, while it grows.
private final class LimitedSource: ByteSource {
  private let source: any ByteSource
  private let packed: CountingSource
  private let limits: PackageLimits
  private var count: Int64 = 0

  init(_ source: any ByteSource, packed: CountingSource, limits: PackageLimits) {
    self.source = source
    self.packed = packed
    self.limits = limits
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    let got = try source.read(into: buffer)
    count += Int64(got)
    if count > limits.streamBytes {
      throw PackageError(
        .tooLarge,
        "the archive unpacks to more than \(ByteCountText.format(Int(limits.unpackedBytes))), the most a "
          + "package may hold"
      )
    }
    if count > 16 << 20, count / limits.ratio > packed.count {
      throw PackageError(
        .tooLarge, "the archive unpacks to more than \(limits.ratio) times its size, as only a bomb does")
    }
    return got
  }
}

/// Input of a decompressor: a buffer that is refilled when it has been used up.
private struct InputBuffer: ~Copyable {
  let base = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
  private(set) var start = 0
  private(set) var end = 0
  private(set) var isAtEnd = false

  deinit { base.deallocate() }

  var available: Int { end - start }
  var pointer: UnsafeMutableRawPointer? { base.baseAddress.map { $0 + start } }

  mutating func refill(from source: any ByteSource) throws(PackageError) {
    guard start == end, !isAtEnd else { return }
    start = 0
    end = try source.read(into: base)
    isAtEnd = end == 0
  }

  mutating func consume(_ count: Int) { start += count }
}

/// Unpacks gzip, members one after the other.
private final class GzipSource: ByteSource {
  private let source: any ByteSource
  private let stream: UnsafeMutablePointer<z_stream>
  private var input = InputBuffer()
  private var isBetweenMembers = false

  init(_ source: any ByteSource) throws(PackageError) {
    self.source = source
    stream = .allocate(capacity: 1)
    stream.initialize(to: z_stream())
    // 15 bits of window, and 16: expect a gzip header and check the trailing checksum.
    guard inflateInit2_(stream, 15 + 16, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
      throw PackageError(.system, "zlib cannot be initialised: out of memory")
    }
  }

  deinit {
    inflateEnd(stream)
    stream.deallocate()
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    while true {
      try input.refill(from: source)
      if input.isAtEnd {
        if isBetweenMembers { return 0 }
        throw PackageError(.damaged, "the archive is cut off: its gzip data ends too early")
      }
      if isBetweenMembers {
        guard inflateReset(stream) == Z_OK else { throw PackageError(.system, "zlib cannot be reset") }
        isBetweenMembers = false
      }
      stream.pointee.next_in = input.pointer?.assumingMemoryBound(to: UInt8.self)
      stream.pointee.avail_in = UInt32(input.available)
      stream.pointee.next_out = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
      stream.pointee.avail_out = UInt32(clamping: buffer.count)
      let space = Int(stream.pointee.avail_out)
      let status = inflate(stream, Z_NO_FLUSH)
      input.consume(input.available - Int(stream.pointee.avail_in))
      let produced = space - Int(stream.pointee.avail_out)
      switch status {
      case Z_OK, Z_BUF_ERROR: break
      case Z_STREAM_END: isBetweenMembers = true
      case Z_MEM_ERROR: throw PackageError(.system, "zlib is out of memory")
      default:
        let reason = stream.pointee.msg.map { String(cString: $0) } ?? "error \(status)"
        throw PackageError(.damaged, "the archive's gzip data is damaged: \(reason)")
      }
      if produced > 0 { return produced }
    }
  }
}

/// Unpacks zstd, frames one after the other.
private final class ZstdSource: ByteSource {
  private let source: any ByteSource
  private let context: OpaquePointer
  private var input = InputBuffer()
  /// What the library said last: 0 at the end of a frame.
  private var hint = 0

  init(_ source: any ByteSource) throws(PackageError) {
    self.source = source
    guard let context = ZSTD_createDCtx() else {
      throw PackageError(.system, "zstd cannot be initialised: out of memory")
    }
    self.context = context
  }

  deinit { ZSTD_freeDCtx(context) }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    while true {
      try input.refill(from: source)
      if input.isAtEnd, hint == 0 { return 0 }
      // At the end of the input there may still be output that did not fit the last buffer.
      var packed = ZSTD_inBuffer(src: input.pointer.map { UnsafeRawPointer($0) }, size: input.available, pos: 0)
      var unpacked = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
      hint = ZSTD_decompressStream(context, &unpacked, &packed)
      if ZSTD_isError(hint) != 0 {
        throw PackageError(.damaged, "the archive's zstd data is damaged: \(String(cString: ZSTD_getErrorName(hint)))")
      }
      input.consume(packed.pos)
      if unpacked.pos > 0 { return unpacked.pos }
      if input.isAtEnd, hint != 0 {
        throw PackageError(.damaged, "the archive is cut off: its zstd data ends too early")
      }
    }
  }
}
