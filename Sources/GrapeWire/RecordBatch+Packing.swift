extension RecordBatch {
  /// The same batch with its records compressed; nil if that would make it larger. O(bytes).
  /// Precondition: a whole batch that is not compressed.
  public static func packed(
    _ batch: UnsafeRawBufferPointer, by compressor: ZstdCompressor
  ) throws(WireError) -> ByteSlice? {
    let records = try compressor.compress(UnsafeRawBufferPointer(rebasing: batch[headerSize...]))
    guard headerSize + records.count < batch.count else { return nil }
    var writer = ByteWriter(capacity: headerSize + records.count)
    writer.bytes(UnsafeRawBufferPointer(rebasing: batch[..<headerSize]))
    writer.bytes(records.unsafeBytes)
    writer.patch(Int32(writer.count - 12), at: Field.length)
    let attributes = batch.loadUnaligned(fromByteOffset: Field.attributes, as: Int16.self)
    writer.patch(Int16(bigEndian: attributes) | Compression.zstd.rawValue, at: Field.attributes)
    writer.patch(checksum(of: writer.unsafeBytes), at: Field.crc)
    return writer.finish()
  }
}
