public import GrapeLog
import GrapeWire
import Synchronization

extension CommitLog {
  public func topics(completion: @escaping @Sendable (Result<[TopicDescription], LogError>) -> Void) {
    completion(
      look { state throws(LogError) in
        state.ids.keys.sorted().map { name in
          TopicDescription(name: name, configuration: state.topics[Int(state.ids[name]!)]!.configuration)
        }
      })
  }

  public func bounds(
    of partition: TopicPartition, completion: @escaping @Sendable (Result<PartitionBounds, LogError>) -> Void
  ) {
    completion(look { state throws(LogError) in try state.partition(partition).bounds })
  }

  public func offset(
    of partition: TopicPartition, at timestamp: Int64, completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  ) {
    completion(
      look { state throws(LogError) in
        let found = try state.partition(partition)
        return found.index.firstLocation(at: timestamp)?.baseOffset ?? found.bounds.end
      })
  }

  public func committedOffsets(
    group: String, completion: @escaping @Sendable (Result<[TopicPartition: CommittedOffset], LogError>) -> Void
  ) {
    completion(look { state throws(LogError) in state.groups[group] ?? [:] })
  }

  public func whenAvailable(
    _ partition: TopicPartition, after offset: Int64, notify: @escaping @Sendable () -> Void
  ) -> WatchToken {
    let token = shared.withLock { shared in
      shared.closed ? nil : shared.state.watch(partition, after: offset, notify: notify)
    }
    if let token { return token }
    notify()
    return WatchToken(id: 0)
  }

  public func cancelWatch(_ token: WatchToken) { shared.withLock { $0.state.cancelWatch(token) } }

  public func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int,
    completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    let plan = shared.withLock { shared -> Plan in
      if shared.closed { return .answer(.failure(.logClosed)) }
      do throws(LogError) {
        return try shared.plan(partition, from: offset, maxBytes: maxBytes)
      } catch {
        return .answer(.failure(error))
      }
    }
    switch plan {
    case .answer(let result): completion(result)
    case .disk(let locations, let segments, let bounds):
      reader.read(
        DiskReader.Request(
          partition: partition, batches: locations, segments: segments, bounds: bounds, completion: completion))
    }
  }

  private func look<Value: Sendable>(
    _ body: (borrowing PublishedState) throws(LogError) -> Value
  ) -> Result<Value, LogError> {
    shared.withLock { shared in
      if shared.closed { return .failure(.logClosed) }
      do throws(LogError) {
        return .success(try body(shared.state))
      } catch {
        return .failure(error)
      }
    }
  }

  enum Plan: Sendable {
    case answer(Result<ReadResult, LogError>)
    case disk([PartitionIndex.Location], segments: [Int64], PartitionBounds)
  }
}

extension LogError {
  static var logClosed: LogError { LogError(.closed, "the log is closed") }
}

extension CommitLog.SharedState {
  /// Answers from memory, or tells what to read from disk.
  mutating func plan(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int
  ) throws(LogError) -> CommitLog.Plan {
    let (topic, number) = try state.find(partition)
    let bounds = state.topics[topic]!.partitions[number].bounds
    guard offset >= bounds.start, offset <= bounds.end else {
      throw LogError(
        .offsetOutOfRange, "offset \(offset) of \(partition): the log has \(bounds.start) to \(bounds.end)")
    }
    guard offset < bounds.end, var place = state.topics[topic]!.partitions[number].index.place(of: offset) else {
      return .answer(.success(ReadResult(batches: [], bounds: bounds)))
    }
    var probe = place
    let first = state.topics[topic]!.partitions[number].index.next(&probe)!
    if let start = cache.start, first.position >= start {
      return cached(topic, number, &place, maxBytes, bounds)
    }
    return onDisk(topic, number, &place, maxBytes, bounds)
  }

  private mutating func cached(
    _ topic: Int, _ number: Int, _ place: inout PartitionIndex.Place, _ maxBytes: Int, _ bounds: PartitionBounds
  ) -> CommitLog.Plan {
    var batches: [LogBatch] = []
    var bytes = 0
    while let location = state.topics[topic]!.partitions[number].index.next(&place) {
      bytes += location.length
      if bytes > maxBytes && !batches.isEmpty { break }
      guard let slice = cache.slice(position: location.position, count: location.length) else {
        preconditionFailure("the cache has a hole")
      }
      let delta = slice.unsafeBytes.bigEndian(at: 23, as: Int32.self)
      batches.append(
        LogBatch(
          bytes: slice, baseOffset: location.baseOffset, lastOffset: location.baseOffset + Int64(delta),
          maxTimestamp: location.maxTimestamp))
    }
    cachedReads += UInt64(batches.count)
    return .answer(.success(ReadResult(batches: batches, bounds: bounds)))
  }

  private mutating func onDisk(
    _ topic: Int, _ number: Int, _ place: inout PartitionIndex.Place, _ maxBytes: Int, _ bounds: PartitionBounds
  ) -> CommitLog.Plan {
    var locations: [PartitionIndex.Location] = []
    var segments: [Int64] = []
    var bytes = 0
    var segment = 0
    while let location = state.topics[topic]!.partitions[number].index.next(&place) {
      bytes += location.length
      if bytes > maxBytes && !locations.isEmpty { break }
      if let start = cache.start, location.position >= start { break }
      if locations.isEmpty { segment = segmentIndex(of: location.position) }
      while segment + 1 < bases.count && bases[segment + 1] <= location.position { segment += 1 }
      locations.append(location)
      segments.append(bases[segment])
    }
    diskReads += UInt64(locations.count)
    return .disk(locations, segments: segments, bounds)
  }

  private func segmentIndex(of position: Int64) -> Int {
    var low = 0
    var high = bases.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if bases[middle] <= position { low = middle } else { high = middle }
    }
    return low
  }
}
