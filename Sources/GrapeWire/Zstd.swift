internal import CZstd

/// Zstandard, by the reference library.
public enum Zstd {
  // Macros with casts, which the importer leaves out.
  private static let contentSizeUnknown = UInt64.max
  private static let contentSizeError = UInt64.max - 1

  /// Unpacks one or more frames. `tooLarge` if they hold more than `limit` bytes, `malformed` if they are not zstd.
  public static func decompress(_ packed: UnsafeRawBufferPointer, limit: Int) throws(WireError) -> ByteSlice {
    let declared = ZSTD_getFrameContentSize(packed.baseAddress, packed.count)
    if declared == contentSizeError { throw WireError(.malformed, "the records are not a zstd frame") }
    if declared != contentSizeUnknown, declared > UInt64(limit) {
      throw WireError(.tooLarge, "the records unpack to \(declared) bytes, \(limit) are allowed")
    }
    // Other producers stream: the size is then unknown, or only that of the first of several frames.
    var storage = ByteStorage(
      capacity: declared == contentSizeUnknown ? min(limit, max(4096, packed.count * 4)) : Int(declared))
    guard let context = ZSTD_createDStream() else { throw WireError(.unsupported, "zstd has no memory for a context") }
    defer { ZSTD_freeDStream(context) }
    var input = ZSTD_inBuffer(src: packed.baseAddress, size: packed.count, pos: 0)
    var produced = 0
    while true {
      var output = ZSTD_outBuffer(dst: storage.base, size: storage.capacity, pos: produced)
      let result = ZSTD_decompressStream(context, &output, &input)
      produced = output.pos
      if ZSTD_isError(result) != 0 {
        throw WireError(.malformed, "zstd: \(String(cString: ZSTD_getErrorName(result)))")
      }
      if input.pos == input.size, result == 0 || output.pos < output.size {
        guard result == 0 else { throw WireError(.truncated, "the zstd frame ends early") }
        break
      }
      guard output.pos == output.size else { continue }
      guard storage.capacity < limit else {
        throw WireError(.tooLarge, "the records unpack to more than the \(limit) bytes allowed")
      }
      let larger = ByteStorage(capacity: min(limit, max(4096, storage.capacity * 2)))
      larger.base.copyMemory(from: storage.base, byteCount: produced)
      storage = larger
    }
    return ByteSlice(storage: storage, offset: 0, count: produced)
  }
}

/// A reusable compression context. For one thread at a time.
public final class ZstdCompressor {
  private let context: OpaquePointer
  /// 1 (fast) to 19 (small).
  public let level: Int32

  /// Creates a context for `level`. Precondition: memory for it is to be had.
  public init(level: Int32 = 1) {
    guard let context = ZSTD_createCCtx() else { preconditionFailure("no memory for a zstd context") }
    self.context = context
    self.level = min(max(level, 1), 19)
  }

  deinit { ZSTD_freeCCtx(context) }

  /// Packs `bytes` into one frame that states its size.
  public func compress(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> ByteSlice {
    let storage = ByteStorage(capacity: ZSTD_compressBound(bytes.count))
    let size = ZSTD_compressCCtx(context, storage.base, storage.capacity, bytes.baseAddress, bytes.count, level)
    guard ZSTD_isError(size) == 0 else {
      throw WireError(.malformed, "zstd: \(String(cString: ZSTD_getErrorName(size)))")
    }
    return ByteSlice(storage: storage, offset: 0, count: size)
  }
}
