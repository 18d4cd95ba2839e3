internal import Crypto
private import CZstd

/// Compresses with zstd, level 3, and hands the result on.
final class ZstdSink: ByteSink {
  private let sink: any ByteSink
  private let context: OpaquePointer
  private let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 16)

  init(_ sink: any ByteSink) throws(PackageError) {
    self.sink = sink
    guard let context = ZSTD_createCCtx() else {
      throw PackageError(.system, "zstd cannot be initialised: out of memory")
    }
    self.context = context
    try check(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 3))
    try check(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1))
  }

  deinit {
    ZSTD_freeCCtx(context)
    output.deallocate()
  }

  func write(_ bytes: UnsafeRawBufferPointer) throws(PackageError) {
    _ = try compress(bytes, ZSTD_e_continue)
  }

  func finish() throws(PackageError) {
    _ = try compress(UnsafeRawBufferPointer(start: nil, count: 0), ZSTD_e_end)
    try sink.finish()
  }

  private func compress(_ bytes: UnsafeRawBufferPointer, _ directive: ZSTD_EndDirective) throws(PackageError) {
    var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
    while true {
      var packed = ZSTD_outBuffer(dst: output.baseAddress, size: output.count, pos: 0)
      let left = ZSTD_compressStream2(context, &packed, &input, directive)
      try check(left)
      if packed.pos > 0 { try sink.write(UnsafeRawBufferPointer(rebasing: output[..<packed.pos])) }
      // At the end the library says when all is out; before it, taking all of the input is enough.
      if directive == ZSTD_e_end ? left == 0 : input.pos == input.size { return }
    }
  }

  private func check(_ result: Int) throws(PackageError) {
    if ZSTD_isError(result) != 0 {
      throw PackageError(.system, "the package cannot be compressed: \(String(cString: ZSTD_getErrorName(result)))")
    }
  }
}

/// Writes to a file, and computes its SHA-256 on the way.
final class FileSink: ByteSink {
  private let file: File
  private var hash = SHA256()
  private(set) var count: Int64 = 0

  init(_ path: String) throws(PackageError) { file = try File(creating: path) }

  func write(_ bytes: UnsafeRawBufferPointer) throws(PackageError) {
    try file.write(bytes)
    hash.update(bufferPointer: bytes)
    count += Int64(bytes.count)
  }

  func finish() throws(PackageError) {}

  /// SHA-256 of what was written so far, in hexadecimal.
  var digest: String { hash.finalize().hex }
}

/// Collects in memory.
final class MemorySink: ByteSink {
  private(set) var bytes: [UInt8] = []
  func write(_ bytes: UnsafeRawBufferPointer) throws(PackageError) { self.bytes.append(contentsOf: bytes) }
  func finish() throws(PackageError) {}
}

extension Sequence<UInt8> {
  /// Two lower-case hexadecimal digits a byte.
  var hex: String {
    var text: [UInt8] = []
    let digits = Array("0123456789abcdef".utf8)
    for byte in self {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }
}
