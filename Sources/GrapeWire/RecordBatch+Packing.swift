extension RecordBatch {
  /// The same batch with its records compressed; nil if that would make it larger. O(bytes).
  /// Precondition: a whole batch that is not compressed. Its checksum is not looked at.
  public static func packed(
    _ batch: UnsafeRawBufferPointer, by compressor: ZstdCompressor
  ) throws(WireError) -> ByteSlice? {
    try compressor.withCompressed(UnsafeRawBufferPointer(rebasing: batch[headerSize...])) { records in
      guard headerSize + records.count < batch.count else { return nil }
      var writer = ByteWriter(capacity: headerSize + records.count)
      writer.bytes(UnsafeRawBufferPointer(rebasing: batch[..<headerSize]))
      writer.bytes(records)
      writer.patch(Int32(writer.count - 12), at: Field.length)
      let attributes = batch.loadUnaligned(fromByteOffset: Field.attributes, as: Int16.self)
      writer.patch(Int16(bigEndian: attributes) | Compression.zstd.rawValue, at: Field.attributes)
      writer.patch(checksum(of: writer.unsafeBytes), at: Field.crc)
      return writer.finish()
    }
  }
}
