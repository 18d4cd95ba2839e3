internal import CRDKafka
internal import GrapeLog

// Partitions that are being read, and what is told to those who watch them.
extension Reader {
  func session(for partition: TopicPartition) throws(LogError) -> PartitionSession {
    if let session = sessions[partition] { return session }
    let topic = try RDKafkaTopic(client, directory.clusterName(partition.topic))
    let session = PartitionSession(partition, topic, queue)
    sessions[partition] = session
    byKey[Key(topic: topic.pointer, partition: partition.partition)] = session
    return session
  }

  func drop(_ partition: TopicPartition, _ error: LogError) {
    guard let session = sessions.removeValue(forKey: partition) else { return }
    byKey[Key(topic: session.topic.pointer, partition: partition.partition)] = nil
    session.stop()
    for read in session.reads { read.completion(.failure(error)) }
    session.reads = []
  }

  /// Takes what librdkafka has. False if it had nothing.
  func drain() -> Bool {
    // Few: what comes is in long runs of one partition each.
    var touched: [PartitionSession] = []
    var count = 0
    var total = 0
    repeat {
      count = rd_kafka_consume_batch_queue(queue.pointer, 0, received.baseAddress, received.count)
      if count <= 0 { break }
      var place = 0
      while place < count {
        guard let message = received[place] else { break }
        let key = Key(topic: message.pointee.rkt, partition: message.pointee.partition)
        var end = place + 1
        while end < count, let other = received[end], other.pointee.rkt == key.topic,
          other.pointee.partition == key.partition
        { end += 1 }
        if let session = byKey[key] {
          if !touched.contains(where: { $0 === session }) { touched.append(session) }
          receive(place..<end, session)
        } else {
          for place in place..<end { rd_kafka_message_destroy(received[place]) }
        }
        place = end
      }
      total += count
      // Who waits for a read is not kept waiting by what others have to be told.
    } while total < Self.mostAtOnce
    for error in reported.take() { handle(error.code, error.reason) }
    if total == 0 { return false }
    let share = readAhead
    for session in touched where sessions[session.partition] === session {
      serve(session)
      watches.fire(session.partition, end: session.end)
      // What librdkafka has fetched already would be fetched again: that is taken first.
      let limit = count <= 0 ? min(share, session.window) : 4 * share
      if session.isFetching, session.buffer.bytes > limit { pause(session) }
    }
    return true
  }

  /// So many messages are taken before reads are answered.
  private static let mostAtOnce = 16_384

  private func pause(_ session: PartitionSession) {
    session.stop()
    // Watches behind what fits cannot be told by this session.
    for watch in watches.take(session.partition) { begin(watch, on: session.partition) }
  }

  /// Messages of one partition.
  private func receive(_ places: Range<Int>, _ session: PartitionSession) {
    var begin = places.lowerBound
    for place in places {
      guard let message = received[place], message.pointee.err != RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
      session.receive(received[begin..<place], scratch: &scratch)
      handleError(message, session)
      begin = place + 1
    }
    session.receive(received[begin..<places.upperBound], scratch: &scratch)
  }

  func handleError(_ message: FetchedBatches.Message, _ session: PartitionSession) {
    let code = message.pointee.err
    let offset = message.pointee.offset
    rd_kafka_message_destroy(message)
    if code == RD_KAFKA_RESP_ERR__PARTITION_EOF { return session.reachedEnd(offset) }
    fail(session, code)
  }

  /// An error that came without a message. It names its partition as `topic [number]`.
  private func handle(_ code: rd_kafka_resp_err_t, _ reason: String) {
    let about = sessions.values.filter { session in
      session.isFetching
        && reason.contains("\(directory.clusterName(session.partition.topic)) [\(session.partition.partition)]")
    }
    configuration.log?(KafkaLogLine(level: 3, facility: "READ", message: reason))
    for session in about where sessions[session.partition] === session { fail(session, code) }
  }

  private func fail(_ session: PartitionSession, _ code: rd_kafka_resp_err_t) {
    let partition = session.partition
    let error = KafkaError.log(code, "reading \(partition)")
    switch error.code {
    case .busy: return  // librdkafka tries again by itself; reads have their deadlines.
    case .noSuchTopic, .noSuchPartition:
      directory.doubt(partition.topic)
      drop(partition, error)
      watches.fire(where: { $0 == partition })
    case .offsetOutOfRange:
      // What was to be read is gone: those who wait ask anew and are told where the partition begins.
      let reads = session.reads
      session.reads = []
      drop(partition, error)
      for read in reads { self.read(partition, read.offset, read.maxBytes, read.completion) }
      for watch in watches.take(partition) { begin(watch, on: partition) }
    default:
      drop(partition, error)
      for watch in watches.take(partition) { begin(watch, on: partition) }
    }
  }

  /// Ends reads whose time is over and sessions that nobody uses.
  func sweep() {
    let now = MonotonicClock.now
    nextSweep = now + Self.sweepTime
    for (partition, session) in sessions {
      if session.lastUsed + Self.sweepTime < now { session.rested() }
      let late = session.reads.filter { $0.deadline <= now }
      if !late.isEmpty {
        session.reads.removeAll { $0.deadline <= now }
        let error = KafkaError.log(RD_KAFKA_RESP_ERR__TIMED_OUT, "reading \(partition)")
        for read in late { read.completion(.failure(error)) }
      }
      if session.reads.isEmpty && !watches.has(partition) && session.lastUsed + Self.idleTime < now {
        drop(partition, .closedLog)
      }
    }
  }

  // MARK: watches

  func begin(_ watch: Watch, on partition: TopicPartition) {
    if watches.isCancelled(watch.id) { return }
    if let session = sessions[partition] {
      if session.end > watch.offset { return watches.notify(watch) }
      if session.isFetching { return watches.add(watch, on: partition) }
    }
    let refusal = queries.lane.add {
      let found = Result { () throws(LogError) in try self.queries.bounds(of: partition) }
      if self.ask(.watchFound(partition, watch, found)) != nil { self.watches.notify(watch) }
    }
    if refusal != nil { watches.notify(watch) }
  }

  func go(on watch: Watch, _ partition: TopicPartition, _ found: Result<PartitionBounds, LogError>) {
    do throws(LogError) {
      let bounds = try found.get()
      let session = try session(for: partition)
      session.start = bounds.start
      session.end = max(session.end, bounds.end)
      if session.end > watch.offset { return watches.notify(watch) }
      if !session.isFetching { try session.begin(at: bounds.end) }
      session.lastUsed = MonotonicClock.now
      watches.add(watch, on: partition)
    } catch {
      // Whoever watches will read, and be told what is wrong.
      watches.notify(watch)
    }
  }
}
