import GrapeLog
import GrapeWire

/// Makes record batches whose every value differs from all others.
struct SimulatedPayload {
  private static let filler: ByteSlice = {
    var random = SimulationRandom(seed: 1)
    let storage = ByteStorage(capacity: largest)
    for place in stride(from: 0, to: largest, by: 8) {
      storage.base.storeBytes(of: random.next(), toByteOffset: place, as: UInt64.self)
    }
    return ByteSlice(storage: storage, offset: 0, count: largest)
  }()

  /// Largest value, in bytes.
  static let largest = 256 << 10

  private var lastValue: UInt64 = 0

  /// An append of `count` records of about `size` bytes. Keys are few, so that later ones replace earlier ones.
  mutating func append(
    to partition: TopicPartition, count: Int, size: Int, timestamp: Int64, _ random: inout SimulationRandom
  ) -> Transaction.Append {
    var builder = RecordBatchBuilder(capacity: 64 + count * (size + 32))
    let filler = Self.filler.unsafeBytes
    for _ in 0..<count {
      lastValue += 1
      let length = max(8, size / 2 + random.below(size / 2 + 1))
      withUnsafeTemporaryAllocation(byteCount: length, alignment: 8) { value in
        let start = random.below(Self.largest - length + 1)
        value.copyMemory(from: UnsafeRawBufferPointer(rebasing: filler[start..<start + length]))
        value.storeBytes(of: lastValue, as: UInt64.self)
        let key = UInt8(random.below(10))
        let late = Int64(random.below(20))
        withUnsafeBytes(of: key) { key in
          withUnsafeBytes(of: UInt8(0)) { noHeaders in
            builder.append(
              key: key[0] == 0 ? nil : key, value: UnsafeRawBufferPointer(value), headerSection: noHeaders,
              timestamp: timestamp - late)
          }
        }
      }
    }
    do throws(WireError) {
      let batch = try builder.take(nextCapacity: 0)
      return Transaction.Append(
        partition, batch: batch.bytes, maxTimestamp: batch.maxTimestamp, recordCount: batch.recordCount)
    } catch {
      preconditionFailure("an uncompressed batch can always be built: \(error)")
    }
  }
}
