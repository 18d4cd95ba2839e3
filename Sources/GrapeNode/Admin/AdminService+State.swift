internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire

/// State from outside: `state.read` and `state.write` of docs/admin.md.
extension AdminService {
  typealias BlobAnswer = Result<(json: JSONValue, blob: ByteSlice), StatusError>

  private static let longestWait: Int64 = 600_000

  // MARK: Reading

  /// Entries by key, by range, or by tags; of one partition or, one after the other, of all.
  func readState(_ request: JSONValue, respond: @escaping (BlobAnswer) -> Void) throws(StatusError) {
    let engine = try stateEngine(request)
    var query = try StateQuery(request)
    let partitions = try wantedPartitions(request, engine)
    let isLinearizable: Bool
    switch request["consistency"]?.string ?? "local" {
    case "local": isLinearizable = false
    case "linearizable": isLinearizable = true
    case let other: throw StatusError(.badRequest, "consistency \"\(other)\": local or linearizable is possible")
    }
    // Reading goes on where the last answer ended.
    var first = partitions.lowerBound
    if let next = request["next"] {
      guard let partition = next["partition"]?.int, partitions.contains(Int32(truncatingIfNeeded: partition)) else {
        throw StatusError(.badRequest, "\"next\" is not one of an earlier answer")
      }
      first = Int32(partition)
      try query.resume(next)
    }
    let timeout = try request.number("timeoutMs", 1...Self.longestWait) ?? 30_000
    let deadline = core.reactor.now + timeout * 1_000_000
    let read = { [self] in
      gather(query, engine, partitions: first..<partitions.upperBound, until: deadline, into: StateListing(), respond)
    }
    guard isLinearizable else { return read() }
    try wait(for: engine, partitions, within: request, respond, then: read)
  }

  private func gather(
    _ query: StateQuery, _ engine: ApplicationEngine, partitions: Range<Int32>, until deadline: Int64,
    into listing: StateListing, _ respond: @escaping (BlobAnswer) -> Void
  ) {
    guard let partition = partitions.first, !listing.isFull(query) else {
      return respond(.success((listing.json(next: partitions.first), listing.values)))
    }
    let goOn: (Result<StateListing, StatusError>) -> Void = { [self] result in
      switch result {
      case .failure(let error): respond(.failure(error))
      case .success(let listing):
        if listing.isCut { return respond(.success((listing.json(next: nil), listing.values))) }
        gather(
          query.forNextPartition, engine, partitions: partitions.dropFirst().startIndex..<partitions.upperBound,
          until: deadline, into: listing, respond)
      }
    }
    if !engine.isHere(partition), core.cluster != nil {
      // The other node may answer with a value as large as a frame.
      guard listing.values.count == 0 else { return respond(.success((listing.json(next: partition), listing.values))) }
      return ask(query, engine, partition, until: deadline, for: listing, completion: goOn)
    }
    engine.readState(
      partition, { (view) throws(StateError) in try query.run(on: view, partition: partition, from: listing) }
    ) { goOn($0.mapError { StatusError($0) }) }
  }

  /// Asks the node that has a partition, by a record among the writes of its state: it is answered when all before it are done.
  private func ask(
    _ query: StateQuery, _ engine: ApplicationEngine, _ partition: Int32, until deadline: Int64,
    for listing: StateListing,
    completion: @escaping (Result<StateListing, StatusError>) -> Void
  ) {
    let elsewhere = "partition \(partition) of \(engine.name) is not worked on by this node"
    guard engine.state == .running else {
      let owner = core.cluster?.table.owner(
        of: partition, app: engine.name.text, otherThan: core.configuration.name.text, now: core.reactor.now)
      let place = owner.map { " but by \($0): ask there" } ?? ""
      return completion(
        .failure(
          StatusError(
            .unavailable, "\(elsewhere)\(place), and it answers no other nodes while it is \(engine.state.rawValue)")))
    }
    let left = max(1, (deadline - core.reactor.now) / 1_000_000)
    let question: ByteSlice
    do throws(StatusError) {
      question = try query.question(for: listing, until: grape_realtime_ms() + left)
    } catch {
      return completion(.failure(error))
    }
    append(question, to: engine, partition, timeout: left) { result in
      let merged = Result { () throws(StatusError) in
        do throws(StatusError) {
          var listing = listing
          try listing.add(answer: try result.get(), partition: partition)
          return listing
        } catch {
          guard error.status == .deadlineExceeded else { throw error }
          throw StatusError(error.status, "\(elsewhere), and the one that has it has not answered within \(left) ms")
        }
      }
      completion(merged)
    }
  }

  /// Runs `body` once everything that had been handed to the log for these partitions is in the stores.
  private func wait(
    for engine: ApplicationEngine, _ partitions: Range<Int32>, within request: JSONValue,
    _ respond: @escaping (BlobAnswer) -> Void, then body: @escaping () -> Void
  ) throws(StatusError) {
    let timeout = try request.number("timeoutMs", 1...Self.longestWait) ?? 30_000
    var isOver = false
    engine.whenApplied(partitions) {
      guard !isOver else { return }
      isOver = true
      body()
    }
    if isOver { return }
    core.reactor.schedule(after: timeout * 1_000_000) {
      guard !isOver else { return }
      isOver = true
      respond(.failure(StatusError(.deadlineExceeded, "what is being committed was not applied within \(timeout) ms")))
    }
  }

  // MARK: Writing

  /// Appends writes to the application's topic for them, and answers when they are done: all of a request in one partition together, in one commit.
  func writeState(_ request: JSONValue, blob: ByteSlice, respond: @escaping (BlobAnswer) -> Void) throws(StatusError) {
    let engine = try stateEngine(request)
    guard engine.state == .running else {
      throw StatusError(.unavailable, "\(engine.name) is \(engine.state.rawValue): it takes no writes of its state")
    }
    guard let items = request["writes"]?.array, !items.isEmpty else {
      throw StatusError(.badRequest, "the request has no \"writes\"")
    }
    let timeout = try request.number("timeoutMs", 1...Self.longestWait) ?? 30_000
    let store = request["store"]?.string ?? ""
    let fixed = try wantedPartition(request, engine)
    var byPartition: [Int32: (indexes: [Int], writer: ByteWriterBox)] = [:]
    var at = 0
    for (index, item) in items.enumerated() {
      let (write, key) = try stateWrite(item, store: store, blob: blob, at: &at, engine)
      let partition = fixed ?? key.withUnsafeBytes { Partitioner.partition(forKey: $0, of: engine.partitions) }
      let box = byPartition[partition]?.writer ?? ByteWriterBox()
      write.write(to: &box.writer)
      byPartition[partition, default: ([], box)].indexes.append(index)
    }
    guard at == blob.count else {
      throw StatusError(.badRequest, "the blob has \(blob.count) bytes, the writes' sizes make \(at)")
    }
    let answers = StateAnswers(count: items.count, missing: byPartition.count, respond)
    for (partition, part) in byPartition.sorted(by: { $0.key < $1.key }) {
      append(part.writer.writer.take(nextCapacity: 16), to: engine, partition, timeout: timeout) { reply in
        answers.took(reply, for: part.indexes, in: partition)
      }
    }
  }

  /// Appends a record of writes, or a question, and waits for what comes of it.
  private func append(
    _ writes: ByteSlice, to engine: ApplicationEngine, _ partition: Int32, timeout: Int64,
    completion: @escaping (Result<ByteSlice, StatusError>) -> Void
  ) {
    var isAnswered = false
    let finish: (Result<ByteSlice, StatusError>) -> Void = { result in
      guard !isAnswered else { return }
      isAnswered = true
      completion(result)
    }
    let opened = core.calls.open(timeoutMilliseconds: timeout, wasDelivered: { true }) { reply in
      let value = reply.value.map { ByteSlice(copying: $0) } ?? ByteSlice([])
      finish(
        reply.status.status == .ok
          ? .success(value) : .failure(StatusError(reply.status.status, reply.status.message, ran: reply.status.ran)))
    }
    guard let call = opened else {
      return finish(.failure(StatusError(.queueFull, "too many calls are open; try later")))
    }
    var headers = HeaderSection()
    headers.append("g.r", core.calls.address(of: call))
    var builder = RecordBatchBuilder(capacity: writes.count + 256)
    builder.append(key: nil, value: writes, headerSection: headers.finish(), timestamp: grape_realtime_ms())
    let batch: FinishedBatch
    do throws(WireError) { batch = try builder.take() } catch {
      core.calls.forget(call)
      return finish(.failure(StatusError(.tooLarge, error.message)))
    }
    core.gate.commit(
      Transaction(
        durability: engine.durability,
        appends: [
          .init(
            TopicPartition(engine.name.writesTopic, partition), batch: batch.bytes, maxTimestamp: batch.maxTimestamp,
            recordCount: 1)
        ])
    ) { [self] result in
      guard case .failure(let error) = result else { return }
      core.calls.forget(call)
      finish(.failure(StatusError(error)))
    }
  }

  private func stateWrite(
    _ item: JSONValue, store: String, blob: ByteSlice, at position: inout Int, _ engine: ApplicationEngine
  ) throws(StatusError) -> (StateWrite, ByteSlice) {
    let operation: StateWrite.Operation
    switch item["op"]?.string {
    case "put": operation = .put
    case "remove": operation = .remove
    case "cas": operation = .compareAndSet
    case "append": operation = .append
    default: throw StatusError(.badRequest, "a write's \"op\" is put, remove, cas or append")
    }
    func piece(_ member: String) throws(StatusError) -> ByteSlice? {
      guard let size = try item.number(member, 0...Int64(StateLimits.value)).map(Int.init) else { return nil }
      guard position + size <= blob.count else {
        throw StatusError(.badRequest, "the blob ends before the write's \"\(member)\"")
      }
      defer { position += size }
      return blob[position..<position + size]
    }
    let value = try piece("size")
    let expected = try piece("expectedSize")
    guard value != nil || operation == .remove || operation == .compareAndSet else {
      throw StatusError(.badRequest, "\(operation.name) needs a value: \"size\" says how much of the blob it is")
    }
    let trigger = item["trigger"]?.string ?? ""
    guard trigger.isEmpty || engine.slotNames.contains(trigger) else {
      throw StatusError(.noSuchSlot, "\(engine.name) has no slot \"\(trigger)\" to be triggered")
    }
    let ttl = try item.number("ttlMs", 1...Self.longestTTL)
    let tags = try item.texts("tags")
    do throws(StateError) {
      guard let key = try item.bytes("key") else { throw StateError(.invalidArgument, "a write has no \"key\"") }
      let full = try StateKey(store: store, key)
      // What the trigger's event has besides: the headers that say where it comes from.
      let event = key.count + (value?.count ?? 0) + Self.triggerHeaders
      guard trigger.isEmpty || event <= core.configuration.eventLimit else {
        throw StateError(
          .tooLarge,
          "the event for \(trigger) would have \(event) bytes, \(core.configuration.eventLimit) are allowed; without a trigger the value can be stored"
        )
      }
      var entry: ByteSlice?
      if let value, operation != .remove {
        var writer = ByteWriter(capacity: value.count + 64)
        try StateEntry.write(
          value: value.unsafeBytes, expiry: ttl.map { grape_realtime_ms() + $0 }, tags: tags, to: &writer)
        entry = writer.finish()
      }
      return (StateWrite(operation, key: full, entry: entry, expected: expected, trigger: trigger), ByteSlice(key))
    } catch {
      throw StatusError(error)
    }
  }

  /// Bytes of the headers `state-store` and `state-operation`, at most.
  private static let triggerHeaders = 128

  /// A hundred years, milliseconds.
  private static let longestTTL: Int64 = 3_155_760_000_000

  // MARK: Requests

  private func stateEngine(_ request: JSONValue) throws(StatusError) -> ApplicationEngine {
    let engine = try engine(request)
    guard engine.state != .loading else { throw StatusError(.unavailable, "\(engine.name) is starting") }
    return engine
  }

  /// The partition that the request names, by number or by the key of the events it belongs to.
  private func wantedPartition(_ request: JSONValue, _ engine: ApplicationEngine) throws(StatusError) -> Int32? {
    if let number = try request.number("partition", 0...Int64(engine.partitions) - 1) { return Int32(number) }
    do throws(StateError) {
      guard let key = try request.bytes("eventKey") else { return nil }
      return ByteSlice(key).withUnsafeBytes { Partitioner.partition(forKey: $0, of: engine.partitions) }
    } catch {
      throw StatusError(.badRequest, error.message)
    }
  }

  private func wantedPartitions(_ request: JSONValue, _ engine: ApplicationEngine) throws(StatusError) -> Range<Int32> {
    if let one = try wantedPartition(request, engine) { return one..<one + 1 }
    return 0..<engine.partitions
  }
}

/// A writer that is reached by reference.
private final class ByteWriterBox {
  var writer = ByteWriter(capacity: 256)
}

/// Puts together what the partitions of one request answer.
private final class StateAnswers {
  private var results: [JSONValue]
  private var missing: Int
  private var failure: StatusError?
  private let respond: (AdminService.BlobAnswer) -> Void

  init(count: Int, missing: Int, _ respond: @escaping (AdminService.BlobAnswer) -> Void) {
    results = [JSONValue](repeating: .null, count: count)
    self.missing = missing
    self.respond = respond
  }

  func took(_ reply: Result<ByteSlice, StatusError>, for indexes: [Int], in partition: Int32) {
    switch reply {
    case .failure(let error): failure = failure ?? error
    case .success(let bytes):
      var reader = ByteReader(bytes.unsafeBytes)
      do throws(WireError) {
        for index in indexes {
          let result = StateWrite.Outcome.Result(rawValue: try reader.u8()) ?? .refused
          let size = try reader.i64()
          results[index] = [
            "result": .string(result.name), "size": size < 0 ? .null : .int(size), "partition": JSONValue(partition),
          ]
        }
      } catch {
        failure = failure ?? StatusError(.internal, "the answer to a write cannot be read: \(error.message)")
      }
      withExtendedLifetime(bytes) {}
    }
    missing -= 1
    guard missing == 0 else { return }
    if let failure { return respond(.failure(failure)) }
    respond(.success((["results": .array(results)], ByteSlice([]))))
  }
}

extension StateWrite.Outcome.Result {
  fileprivate var name: String {
    switch self {
    case .refused: "refused"
    case .done: "done"
    case .tooLarge: "too-large"
    }
  }
}
