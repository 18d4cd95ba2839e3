internal import GrapeCore
internal import GrapeLog

/// How the records of one partition of a source become events. A value that goes to the thread which does it.
struct SourceRules: Sendable {
  /// The partition of the source.
  var place: TopicPartition
  /// Name of the slot, UTF-8.
  var slot: [UInt8]
  /// Header that has the key; nil: the record's own key.
  var keyHeader: [UInt8]?
  /// The application's input.
  var eventsTopic: String
  var partitions: Int32
  var deadLettersTopic: String
  /// Content hash of the application's package.
  var version: String
  /// Bytes of key + value + headers of one event.
  var eventLimit: Int
  /// Bytes of a batch's records, unpacked.
  var batchLimit: Int
  /// How batches are packed.
  var compression: BatchCompression

  /// `TOPIC/PARTITION:`, before the offset in `grape-source`.
  var origin: [UInt8] { Array("\(place):".utf8) }
}
