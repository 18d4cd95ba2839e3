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
  /// 1 (fast) to 19 (small); -1 to -7 are faster still and pack less.
  public let level: Int32
  /// Where frames come to be: memory that is used again stays in the processor's caches, and what is handed out takes
  /// only what the frame needs.
  private var scratch = ByteStorage(capacity: 0)

  /// Scratch memory beyond this is given back after the call.
  private static let keptBytes = 2 << 20
  /// Level 1 looks matches up in a table of 2^12 entries, 16 KiB, instead of up to 64 KiB: beside the data it stays in
  /// the first-level cache. On batches of JSON it is a tenth to a fifth faster for the same size (text: 3% larger).
  private static let fastTableLog: Int32 = 12

  /// Creates a context for `level`, or for the nearest there is; 0 is taken for 1. Precondition: memory for it is to be
  /// had.
  public init(level: Int32 = 1) {
    guard let context = ZSTD_createCCtx() else { preconditionFailure("no memory for a zstd context") }
    self.context = context
    self.level = level == 0 ? 1 : min(max(level, -7), 19)
    set(ZSTD_c_compressionLevel, self.level)
    if self.level == 1 { set(ZSTD_c_hashLog, Self.fastTableLog) }
  }

  private func set(_ parameter: ZSTD_cParameter, _ value: Int32) {
    let result = ZSTD_CCtx_setParameter(context, parameter, value)
    precondition(ZSTD_isError(result) == 0, "zstd: \(String(cString: ZSTD_getErrorName(result)))")
  }

  deinit { ZSTD_freeCCtx(context) }

  /// Packs `bytes` into one frame that states its size.
  public func compress(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> ByteSlice {
    try withCompressed(bytes) { ByteSlice(copying: $0) }
  }

  /// Packs `bytes` into one frame that states its size, and calls `body` with it. The frame's bytes must not escape it.
  public func withCompressed<Result: ~Copyable>(
    _ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Result
  ) throws(WireError) -> Result {
    let bound = ZSTD_compressBound(bytes.count)
    if scratch.capacity < bound { scratch = ByteStorage(capacity: bound) }
    defer { if scratch.capacity > Self.keptBytes { scratch = ByteStorage(capacity: 0) } }
    let size = ZSTD_compress2(context, scratch.base, scratch.capacity, bytes.baseAddress, bytes.count)
    guard ZSTD_isError(size) == 0 else {
      throw WireError(.malformed, "zstd: \(String(cString: ZSTD_getErrorName(size)))")
    }
    return body(UnsafeRawBufferPointer(start: scratch.base, count: size))
  }
}
