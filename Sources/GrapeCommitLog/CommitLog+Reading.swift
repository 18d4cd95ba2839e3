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
    let plan = shared.withLock { shared -> Result<TimePlan, LogError> in
      if shared.closed { return .failure(.logClosed) }
      do throws(LogError) {
        let (topic, number) = try shared.state.find(partition)
        let found = shared.state.topics[topic]!.partitions[number]
        let known = found.index.firstLocation(at: timestamp)?.baseOffset ?? found.bounds.end
        // Batches that only index files know come first.
        let cold = found.index.droppedTimestamp >= timestamp && found.bounds.start < found.indexedFrom
        return .success(
          TimePlan(
            topic: TopicID(topic), bounds: found.bounds, known: known, cold: cold ? shared.table.cold : []))
      } catch {
        return .failure(error)
      }
    }
    switch plan {
    case .failure(let error): completion(.failure(error))
    case .success(let plan):
      if plan.cold.isEmpty { return completion(.success(max(plan.known, plan.bounds.start))) }
      let added = reader.add { self.lookUp(timestamp, in: partition, plan, completion) }
      if !added { completion(.failure(.readerBusy)) }
    }
  }

  private struct TimePlan: Sendable {
    var topic: TopicID
    var bounds: PartitionBounds
    /// The answer, as far as memory knows.
    var known: Int64
    var cold: ArraySlice<Segment>
  }

  private func lookUp(
    _ timestamp: Int64, in partition: TopicPartition, _ plan: TimePlan,
    _ completion: @escaping @Sendable (Result<Int64, LogError>) -> Void
  ) {
    let search = ColdSearch(indexes, plan.cold, topic: plan.topic, partition: partition.partition)
    do throws(SegmentIndexes.Fault) {
      let found = try search.batch(at: timestamp)?.baseOffset ?? plan.known
      completion(.success(max(found, plan.bounds.start)))
    } catch {
      switch error {
      case .replaced: offset(of: partition, at: timestamp, completion: completion)
      case .failed(let error): completion(.failure(error))
      }
    }
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
  ) { read(partition, from: offset, maxBytes: maxBytes, searched: nil, completion) }

  /// `searched`: the index files of segments before this position have nothing from the offset on.
  private func read(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int, searched: Int64?,
    _ completion: @escaping @Sendable (Result<ReadResult, LogError>) -> Void
  ) {
    let plan = shared.withLock { shared -> Plan in
      if shared.closed { return .answer(.failure(.logClosed)) }
      do throws(LogError) {
        return try shared.plan(partition, from: offset, maxBytes: maxBytes, searched: searched)
      } catch {
        return .answer(.failure(error))
      }
    }
    switch plan {
    case .answer(let result): completion(result)
    case .disk(let request):
      let added = reader.read(request) { answer in
        switch answer {
        case .result(let result): completion(result)
        case .replaced:
          self.read(partition, from: offset, maxBytes: maxBytes, searched: nil, completion)
        case .nothing(let searched):
          self.read(partition, from: offset, maxBytes: maxBytes, searched: searched, completion)
        }
      }
      if !added { completion(.failure(.readerBusy)) }
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
    case disk(DiskReader.Request)
  }
}

extension LogError {
  static var logClosed: LogError { LogError(.closed, "the log is closed") }
  static var readerBusy: LogError {
    LogError(.busy, "too many reads are waiting for the disk: try again later")
  }
}

extension CommitLog.SharedState {
  /// Answers from memory, or tells what to read from disk.
  mutating func plan(
    _ partition: TopicPartition, from offset: Int64, maxBytes: Int, searched: Int64?
  ) throws(LogError) -> CommitLog.Plan {
    let (topic, number) = try state.find(partition)
    let bounds = state.topics[topic]!.partitions[number].bounds
    guard offset >= bounds.start, offset <= bounds.end else {
      throw LogError(
        .offsetOutOfRange, "offset \(offset) of \(partition): the log has \(bounds.start) to \(bounds.end)")
    }
    let nothing = CommitLog.Plan.answer(.success(ReadResult(batches: [], bounds: bounds)))
    if offset == bounds.end { return nothing }
    if searched != table.memoryFloor, offset < state.topics[topic]!.partitions[number].indexedFrom, !table.cold.isEmpty
    {
      diskReads += 1
      return .disk(
        DiskReader.Request(
          partition: partition, topic: TopicID(topic), offset: offset, maxBytes: maxBytes, bounds: bounds,
          source: .cold(table.cold, floor: table.memoryFloor)))
    }
    guard var place = state.topics[topic]!.partitions[number].index.place(of: offset) else { return nothing }
    var probe = place
    let first = state.topics[topic]!.partitions[number].index.next(&probe)!
    if let start = cache.start, first.position >= start {
      return cached(topic, number, &place, maxBytes, bounds)
    }
    let (locations, segments) = onDisk(topic, number, &place, maxBytes)
    return .disk(
      DiskReader.Request(
        partition: partition, topic: TopicID(topic), offset: offset, maxBytes: maxBytes, bounds: bounds,
        source: .located(locations, segments, floor: table.memoryFloor)))
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
    _ topic: Int, _ number: Int, _ place: inout PartitionIndex.Place, _ maxBytes: Int
  ) -> ([PartitionIndex.Location], [Segment]) {
    var locations: [PartitionIndex.Location] = []
    var segments: [Segment] = []
    var bytes = 0
    var segment = 0
    while let location = state.topics[topic]!.partitions[number].index.next(&place) {
      bytes += location.length
      if bytes > maxBytes && !locations.isEmpty { break }
      if let start = cache.start, location.position >= start { break }
      if locations.isEmpty { segment = table.place(of: location.position) }
      while location.position >= table.segments[segment].upperBound { segment += 1 }
      locations.append(location)
      segments.append(table.segments[segment])
    }
    diskReads += UInt64(locations.count)
    return (locations, segments)
  }
}
