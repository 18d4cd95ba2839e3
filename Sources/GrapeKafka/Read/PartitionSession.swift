internal import CRDKafka
internal import GrapeLog
internal import GrapeWire

/// One partition that is being read: where librdkafka fetches, and what it has fetched. Confined to the reader's
/// thread.
final class PartitionSession {
  struct PendingRead {
    let offset: Int64
    let maxBytes: Int
    /// The partition's bounds when the read was asked for, or later.
    var bounds: PartitionBounds
    /// Nanoseconds of the monotonic clock.
    let deadline: Int64
    let completion: @Sendable (Result<ReadResult, LogError>) -> Void
  }

  let partition: TopicPartition
  let topic: RDKafkaTopic
  private let queue: RDKafkaQueue
  var buffer = FetchedBatches()
  /// Every record from here on is in the buffer or will be fetched.
  private(set) var next: Int64
  /// Every record before this has been fetched.
  private(set) var fetched: Int64
  private(set) var isFetching = false
  /// First offset kept, as known.
  var start: Int64 = 0
  /// The partition's end is this or greater, as known.
  var end: Int64 = 0
  var reads: [PendingRead] = []
  /// How much is read ahead, bytes: little at first, more with every read that takes something.
  private(set) var window = leastWindow
  private static let leastWindow = 1 << 20
  /// Nanoseconds of the monotonic clock.
  var lastUsed = MonotonicClock.now

  init(_ partition: TopicPartition, _ topic: RDKafkaTopic, _ queue: RDKafkaQueue) {
    self.partition = partition
    self.topic = topic
    self.queue = queue
    next = 0
    fetched = 0
  }

  deinit { stop() }

  /// True if records from `offset` on are there or will come without starting anew.
  func covers(_ offset: Int64) -> Bool { offset >= next && offset <= fetched && (isFetching || offset < fetched) }

  /// Fetches from `offset` on, and forgets what was fetched. Errors: why librdkafka cannot.
  func begin(at offset: Int64) throws(LogError) {
    stop()
    buffer.removeAll()
    next = offset
    fetched = offset
    try resume()
  }

  /// Goes on fetching where it stopped.
  func resume() throws(LogError) {
    if isFetching { return }
    guard rd_kafka_consume_start_queue(topic.pointer, partition.partition, fetched, queue.pointer) == 0 else {
      throw KafkaError.log(rd_kafka_last_error(), "reading \(partition)")
    }
    isFetching = true
  }

  /// Stops fetching; what comes all the same is dropped by librdkafka.
  func stop() {
    if !isFetching { return }
    // It can only fail for partitions that were not started.
    _ = rd_kafka_consume_stop(topic.pointer, partition.partition)
    isFetching = false
  }

  /// Takes messages over, none of them an error. `scratch` is memory to work in.
  func receive(_ messages: Slice<FetchedBatches.Messages>, scratch: inout ByteWriter) {
    guard let fetched = buffer.take(messages, from: isFetching ? fetched : .max, scratch: &scratch) else { return }
    self.fetched = fetched
    end = max(end, fetched)
  }

  /// Takes over a batch that was written at `offset` and has not been fetched. False, and nothing taken, if it does not go on with what was fetched.
  func receive(_ batch: UnpackedBatch, at offset: Int64) -> Bool {
    guard isFetching, fetched == offset else { return false }
    do throws(WireError) {
      fetched = try buffer.take(batch, at: offset)
    } catch {
      preconditionFailure("a batch that was written can be read: \(error)")
    }
    end = max(end, fetched)
    return true
  }

  /// librdkafka has seen the end.
  func reachedEnd(_ offset: Int64) {
    guard isFetching else { return }
    fetched = max(fetched, offset)
    end = max(end, offset)
  }

  /// Forgets what comes before `offset`.
  func skip(to offset: Int64) {
    buffer.drop(before: offset)
    next = max(next, offset)
  }

  func noteTaken(_ batches: [LogBatch]) {
    guard let last = batches.last else { return }
    next = max(next, last.lastOffset + 1)
    if window < 1 << 40 { window *= 2 }
  }

  /// Nobody has read for a while.
  func rested() { window = Self.leastWindow }

  func trim(to offset: Int64) {
    start = max(start, offset)
    buffer.drop(before: start)
    next = max(next, start)
  }
}
