internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire

/// What a client session needs of its node.
struct ClientServices {
  var reactor: Reactor
  var gate: CommitGate
  var intake: Intake
  var calls: CallTable
  /// The engine of an application, if it is deployed.
  var engine: (String) -> ApplicationEngine?
  /// Its requests with an idempotency key.
  var requests: (String) -> RequestTable?
  var admin: AdminService
  var eventLimit: Int
  var batchLimit: Int
  var frameLimit: Int
  /// What a read says of the log's end may be a moment old: what was acknowledged may lie behind it.
  var endsLate: Bool
}

/// One client: takes its requests, gives the answers. Lives on the reactor's thread.
final class ClientSession: SourceTable.Holder {
  /// Who sends, if it said so.
  let source: SourceEpoch?
  private let connection: FrameConnection
  private let services: ClientServices
  private let onEnd: (ClientSession) -> Void
  private var calls: [UInt64: CorrelationID] = [:]
  private var fetches: [UInt64: PendingFetch] = [:]
  private var isPaused = false
  private var isFenced = false
  /// Events and frames handed to the log and not answered.
  private var unsettled = 0 {
    didSet {
      guard unsettled == 0, let callback = onSettled else { return }
      onSettled = nil
      callback()
    }
  }
  var onSettled: (() -> Void)?
  var isSettled: Bool { unsettled == 0 }

  private struct PendingFetch {
    var watch: WatchToken
    var timer: TimerID
  }

  /// Waiting fetches that one client may have.
  private static let fetchLimit = 4096

  init(
    _ connection: FrameConnection, source: SourceEpoch?, services: ClientServices,
    onEnd: @escaping (ClientSession) -> Void
  ) {
    self.source = source
    self.connection = connection
    self.services = services
    self.onEnd = onEnd
    connection.frameLimit = services.frameLimit
    connection.onFrame = { [unowned self] in received($0, $1) }
    connection.onEnd = { [unowned self] _ in ended() }
  }

  /// The node is stopping.
  func close(_ reason: String) {
    connection.send(.goodbye, id: 0) { $0.bytes((["reason": .string(reason)] as JSONValue).utf8) }
    connection.closeWhenSent(reason)
  }

  /// Another connection of its source takes over.
  func fence(_ error: StatusError) {
    isFenced = true
    connection.refuse(status: error.status.rawValue, name: error.status.name, message: error.message)
  }

  private func ended() {
    for call in calls.values { services.calls.forget(call) }
    calls.removeAll()
    for fetch in fetches.values { drop(fetch) }
    fetches.removeAll()
    onEnd(self)
  }

  private func drop(_ fetch: PendingFetch) {
    services.gate.log.cancelWatch(fetch.watch)
    services.reactor.cancel(fetch.timer)
  }

  private func received(_ header: FrameHeader, _ body: ByteSlice) {
    guard !isFenced else { return }
    do throws(WireError) {
      switch header.type {
      case .exec: try exec(header.id, body)
      case .append: try append(header.id, body)
      case .fetch: try fetch(header.id, body)
      case .cancel: cancel(header.id)
      case .request: try request(header.id, body)
      case .goodbye: connection.closeWhenSent("goodbye")
      default: connection.violation("a frame of type \(header.type) is not for clients to send")
      }
    } catch {
      connection.violation("\(header.type) frame: \(error.message)")
    }
    holdBack()
  }

  /// While too much is on its way to the log the client is not read from.
  private func holdBack() {
    guard !services.gate.admitsClients, !isPaused else { return }
    isPaused = true
    connection.pause()
    services.gate.whenDrained { [weak self] in
      guard let self, isPaused else { return }
      isPaused = false
      connection.resume()
    }
  }

  private func check(_ id: UInt64) throws(WireError) {
    guard id != 0 else { throw WireError(.malformed, "id 0 is for the connection itself") }
  }

  private func fail(_ id: UInt64, _ error: StatusError) {
    guard id != 0 else {
      return connection.refuse(status: error.status.rawValue, name: error.status.name, message: error.message)
    }
    connection.send(.error, id: id) { $0.bytes(error.json.utf8) }
  }

  // MARK: EXEC

  private func exec(_ id: UInt64, _ body: ByteSlice) throws(WireError) {
    let request = try ExecRequest(body)
    try check(id)
    // The request points into the body.
    defer { withExtendedLifetime(body) {} }
    do throws(StatusError) {
      let (engine, slot) = try admit(request.target)
      for header in request.headers where header.name.utf8.starts(with: "g.".utf8) {
        throw StatusError(.badRequest, "header \"\(header.name)\": names that begin with g. are Grape's own")
      }
      guard request.eventBytes <= services.eventLimit else {
        throw StatusError(
          .tooLarge, "an event of \(request.eventBytes) bytes; \(services.eventLimit) are allowed")
      }
      if let key = try request.idempotencyKey {
        try execOnce(id, request, body, key, engine: engine, slot: slot)
      } else {
        try append(id, request, engine: engine, slot: slot)
      }
    } catch {
      reply(id, ReplyStatus(error.status, ran: error.ran, code: error.code, message: error.message), value: nil)
    }
  }

  private func append(
    _ id: UInt64, _ request: ExecRequest, engine: ApplicationEngine, slot: Int
  ) throws(StatusError) {
    try checkRoom(engine)
    let call = try openCall(id, request, engine: engine)
    let event = event(request, engine: engine, slot: slot, replyAddress: call.map { services.calls.address(of: $0.id) })
    let partition = services.intake.partition(forKey: request.key, of: engine)
    unsettled += 1
    services.intake.add(event, to: engine, partition: partition, durability: durability(of: request, engine)) {
      [self] outcome in
      defer { unsettled -= 1 }
      if let call, case .success(let place) = outcome {
        services.calls.placed(call.id, TopicPartition(place.topic, place.partition), place.offset)
      }
      answer(id, call, outcome)
    }
  }

  /// An event that is run once however often it comes. `body` has the bytes that the request points to.
  private func execOnce(
    _ id: UInt64, _ request: ExecRequest, _ body: ByteSlice, _ key: UnsafeRawBufferPointer, engine: ApplicationEngine,
    slot: Int
  ) throws(StatusError) {
    guard let requests = services.requests(engine.name.text) else {
      throw StatusError(.noSuchApp, "\(engine.name) is being removed")
    }
    let name = IdempotencyKey.name(event: engine.slotNames[slot], key: key)
    let fingerprint = RequestMarker.fingerprint(key: request.key, value: request.value)
    if let first = try requests.first(name, fingerprint: fingerprint, isBlocking: request.isBlocking) {
      let call = try openCall(id, request, engine: engine)
      return join(first, name, id, request, call, requests, engine)
    }
    try checkRoom(engine)
    let call = try openCall(id, request, engine: engine)
    let partition = services.intake.partition(forKey: request.key, of: engine)
    // Its deadline counts from now, however long it takes to find out whether it is the first.
    let event = event(
      request, engine: engine, slot: slot, replyAddress: call.map { requests.address(of: $0.id) })
    guard requests.needsClaims else {
      let (own, companion) = requests.begin(name, call: call?.id, fingerprint: fingerprint, partition: partition)
      return add(event, id, request, call, own, companion, partition, requests, engine)
    }
    unsettled += 1
    requests.claim(name, call: call?.id, fingerprint: fingerprint, partition: partition) { [self] decision in
      defer {
        unsettled -= 1
        withExtendedLifetime(body) {}
      }
      switch decision {
      case .append(let own, let companion):
        add(event, id, request, call, own, companion, partition, requests, engine)
      case .failed(let error): answer(id, call, .failure(error))
      case .isRepeat:
        do throws(StatusError) {
          guard let first = try requests.first(name, fingerprint: fingerprint, isBlocking: request.isBlocking) else {
            throw StatusError(.unavailable, "the first request is just being forgotten", ran: .unknown)
          }
          join(first, name, id, request, call, requests, engine)
        } catch {
          answer(id, call, .failure(error))
        }
      }
    }
  }

  /// Answers a request as the first of its name is answered.
  private func join(
    _ first: CorrelationID, _ name: ByteSlice, _ id: UInt64, _ request: ExecRequest, _ call: OpenCall?,
    _ requests: RequestTable, _ engine: ApplicationEngine
  ) {
    if let call {
      call.isRepeat = true
      return requests.follow(first, by: call.id)
    }
    unsettled += 1
    requests.acknowledge(first, name: name, durability: durability(of: request, engine)) { [self] outcome in
      defer { unsettled -= 1 }
      acknowledge(id, outcome)
    }
  }

  /// Appends the event of a request that is the first of its name.
  private func add(
    _ event: Intake.Event, _ id: UInt64, _ request: ExecRequest, _ call: OpenCall?, _ own: CorrelationID,
    _ companion: Intake.Companion, _ partition: Int32, _ requests: RequestTable, _ engine: ApplicationEngine
  ) {
    unsettled += 1
    services.intake.add(
      event, to: engine, partition: partition, durability: durability(of: request, engine), companion: companion
    ) { [self] outcome in
      defer { unsettled -= 1 }
      requests.placed(own, outcome)
      answer(id, call, outcome)
    }
  }

  private func durability(of request: ExecRequest, _ engine: ApplicationEngine) -> Durability {
    request.durability ?? Durability(engine.deployment.profile.durability)
  }

  private func answer(_ id: UInt64, _ call: OpenCall?, _ outcome: Intake.Outcome) {
    if let call { placed(call, outcome) } else { acknowledge(id, outcome) }
  }

  /// The application and slot that an address names, if events are taken for it now.
  private func admit(_ target: String) throws(StatusError) -> (ApplicationEngine, Int) {
    let address: EventAddress
    do throws(NameError) { address = try EventAddress(target) } catch {
      throw StatusError(.badRequest, error.message)
    }
    let engine = try engine(address.app.text)
    guard let slot = engine.slotNames.firstIndex(of: address.event.text) else {
      throw StatusError(
        .noSuchSlot,
        "\(address.app) has no slot for event \"\(address.event)\"; its slots are \(engine.scanner.slotList)")
    }
    return (engine, slot)
  }

  private func engine(_ app: String) throws(StatusError) -> ApplicationEngine {
    guard let engine = services.engine(app) else {
      throw StatusError(.noSuchApp, "no application \"\(app)\" is deployed here")
    }
    // Where it stands is being found out; its deployment has not been answered yet, unless that was at another node.
    guard engine.state != .loading else {
      if let problem = engine.problem {
        throw StatusError(.unavailable, "application \"\(app)\" cannot run here: \(problem)")
      }
      throw StatusError(.unavailable, "application \"\(app)\" is being loaded here: try again")
    }
    if let failure = services.gate.failure {
      throw StatusError(.unavailable, "the log takes no more events: \(failure.message)")
    }
    return engine
  }

  private func checkRoom(_ engine: ApplicationEngine) throws(StatusError) {
    guard engine.admitsEvents else {
      throw StatusError(
        .queueFull,
        "\(engine.name) has \(engine.deployment.profile.queueLimit) events waiting, its queue-limit; try later")
    }
  }

  /// A blocking event's place in the table of calls; where the event lies is known once it is appended.
  private final class OpenCall {
    var id = CorrelationID(high: 0, low: 0)
    var place: Intake.Place?
    /// The event is that of an earlier call.
    var isRepeat = false
  }

  /// nil: nobody waits for the event.
  private func openCall(
    _ request: UInt64, _ exec: ExecRequest, engine: ApplicationEngine
  ) throws(StatusError) -> OpenCall? {
    guard exec.isBlocking else { return nil }
    guard calls[request] == nil else { throw StatusError(.badRequest, "request id \(request) is in use") }
    let call = OpenCall()
    let id = services.calls.open(
      timeoutMilliseconds: exec.milliseconds,
      wasDelivered: {
        if call.isRepeat { return true }
        // Not appended yet: nobody can have started it. Its deadline keeps it from starting later.
        guard let place = call.place else { return false }
        return engine.wasDelivered(partition: place.partition, offset: place.offset)
      },
      deliver: { [weak self] answer in
        if answer.status.isFinal { self?.calls[request] = nil }
        self?.reply(request, answer.status, value: answer.value)
      })
    guard let id else {
      throw StatusError(.queueFull, "\(CallTable.limit) blocking events are open; try later")
    }
    call.id = id
    calls[request] = id
    return call
  }

  private func placed(_ call: OpenCall, _ outcome: Intake.Outcome) {
    switch outcome {
    case .success(let place): call.place = place
    case .failure(let error): services.calls.fail(call.id, error)
    }
  }

  /// The event as it is to stand in the log.
  private func event(
    _ request: ExecRequest, engine: ApplicationEngine, slot: Int, replyAddress: [UInt8]?
  ) -> Intake.Event {
    var headers = HeaderSection()
    headers.append(HeaderName.event, Array(engine.slotNames[slot].utf8))
    if request.milliseconds > 0 { headers.append(deadline: grape_realtime_ms() + request.milliseconds) }
    if let replyAddress { headers.append(HeaderName.replyAddress, replyAddress) }
    for (name, value) in request.headers {
      var name = name
      name.withUTF8 { headers.append(UnsafeRawBufferPointer($0), value) }
    }
    return Intake.Event(
      slot: slot, key: request.key, value: request.value ?? UnsafeRawBufferPointer(start: nil, count: 0),
      headerSection: headers.finish())
  }

  private func acknowledge(_ id: UInt64, _ outcome: Intake.Outcome) {
    switch outcome {
    case .success(let place):
      connection.send(.ack, id: id) { writer in
        writer.u8(place.durability.rawValue)
        writer.u8(0)
        writer.u16(0)
        writer.i32(place.partition)
        writer.i64(place.offset)
        writer.string16(place.topic)
      }
    case .failure(let error):
      reply(id, ReplyStatus(error.status, ran: error.ran, message: error.message), value: nil)
    }
  }

  private func reply(_ id: UInt64, _ status: ReplyStatus, value: UnsafeRawBufferPointer?) {
    connection.send(.reply, flags: status.isFinal ? 1 : 0, id: id) { writer in
      writer.u16(status.status.rawValue)
      writer.u8(status.ran.rawValue)
      writer.u8(0)
      writer.i32(status.code)
      writer.string16(status.message)
      writer.bytes32(value)
    }
  }

  // MARK: APPEND

  private func append(_ id: UInt64, _ body: ByteSlice) throws(WireError) {
    let request = try AppendRequest(body)
    try check(id)
    do throws(StatusError) {
      let engine = try engine(request.app)
      try checkRoom(engine)
      var transaction = Transaction(
        durability: request.durability ?? Durability(engine.deployment.profile.durability))
      var arrivals: [ApplicationEngine.Arrival] = []
      for (partition, batch) in request.batches {
        transaction.appends += try appends(batch, partition, engine: engine, arrivals: &arrivals)
      }
      guard transaction.appends.count <= Int(UInt16.max) else {
        throw StatusError(
          .badRequest, "\(transaction.appends.count) batches once split by key; \(UInt16.max) are allowed")
      }
      for arrival in arrivals { engine.noteAppended(arrival) }
      unsettled += 1
      services.gate.commit(transaction) { [self] result in
        defer { unsettled -= 1 }
        switch result {
        case .success(let receipt): appended(id, engine.topic, arrivals.map(\.partition), receipt)
        case .failure(let error):
          for arrival in arrivals { engine.noteRefused(arrival) }
          fail(id, StatusError(error))
        }
      }
    } catch {
      fail(id, error)
    }
  }

  /// The batch as it goes into the log, split by key if its sender left that to the node, and what it brings.
  private func appends(
    _ batch: ByteSlice, _ partition: Int32, engine: ApplicationEngine, arrivals: inout [ApplicationEngine.Arrival]
  ) throws(StatusError) -> [Transaction.Append] {
    guard partition >= -1, partition < engine.partitions else {
      throw StatusError(
        .badRequest,
        "partition \(partition): \(engine.topic) has partitions 0 to \(engine.partitions - 1), -1 leaves it to the node"
      )
    }
    var counts = [Int](repeating: 0, count: engine.slotNames.count)
    let header = try engine.scanner.scan(batch, from: .client, checkingCRC: true, counts: &counts)
    guard partition == -1 else {
      arrivals.append(.init(partition: partition, counts: counts, timestamp: header.maxTimestamp))
      return [
        .init(
          TopicPartition(engine.topic, partition), batch: batch, maxTimestamp: header.maxTimestamp,
          recordCount: header.recordCount)
      ]
    }
    let parts: [(partition: Int32, batch: FinishedBatch)]
    do throws(WireError) {
      parts = try BatchSplitter.split(
        batch, partitions: engine.partitions, keyless: .random(in: 0..<engine.partitions), limit: services.batchLimit)
    } catch {
      throw StatusError(.badRequest, "record batch: \(error.message)")
    }
    for (partition, part) in parts {
      var share = [Int](repeating: 0, count: counts.count)
      _ = try engine.scanner.scan(part.bytes, from: .client, checkingCRC: false, counts: &share)
      arrivals.append(.init(partition: partition, counts: share, timestamp: part.maxTimestamp))
    }
    return parts.map {
      .init(
        TopicPartition(engine.topic, $0.partition), batch: $0.batch.bytes, maxTimestamp: $0.batch.maxTimestamp,
        recordCount: $0.batch.recordCount)
    }
  }

  private func appended(_ id: UInt64, _ topic: String, _ partitions: [Int32], _ receipt: CommitReceipt) {
    connection.send(.appended, id: id) { writer in
      writer.u8(receipt.durability.rawValue)
      writer.u8(0)
      writer.u16(UInt16(partitions.count))
      writer.string16(topic)
      for (partition, offset) in zip(partitions, receipt.baseOffsets) {
        writer.i32(partition)
        writer.i64(offset)
      }
    }
  }

  // MARK: FETCH

  private func fetch(_ id: UInt64, _ body: ByteSlice) throws(WireError) {
    let request = try FetchRequest(body)
    try check(id)
    let (place, offset, wait) = (request.partition, request.offset, request.waitMilliseconds)
    let maxBytes = min(request.maxBytes, services.frameLimit / 4)
    if offset >= 0 { return read(id, place, offset, maxBytes, wait) }
    services.gate.log.bounds(
      of: place,
      completion: services.reactor.completion { [self] result in
        switch result {
        case .success(let bounds): read(id, place, offset == -1 ? bounds.end : bounds.start, maxBytes, wait)
        case .failure(let error): fail(id, StatusError(error))
        }
      })
  }

  private func read(_ id: UInt64, _ place: TopicPartition, _ offset: Int64, _ maxBytes: Int, _ wait: Int64) {
    services.gate.log.read(
      place, from: offset, maxBytes: maxBytes,
      completion: services.reactor.completion { [self] result in
        switch result {
        case .success(let read) where read.batches.isEmpty && wait > 0:
          // Nothing is there up to the end, whatever compaction has taken before it.
          waitForMore(id, place, max(offset, read.bounds.end), maxBytes, wait)
        case .success(let read):
          guard services.endsLate, let last = read.batches.last, last.lastOffset + 1 >= read.bounds.end else {
            return fetched(id, read, offset)
          }
          confirmEnd(id, place, read, offset)
        case .failure(let error): fail(id, StatusError(error))
        }
      })
  }

  /// Whoever reads up to the end has then read all that anybody was told to be in the log before.
  private func confirmEnd(_ id: UInt64, _ place: TopicPartition, _ read: ReadResult, _ offset: Int64) {
    services.gate.log.bounds(
      of: place,
      completion: services.reactor.completion { [self] result in
        switch result {
        case .success(let bounds):
          let end = max(bounds.end, read.bounds.end)
          fetched(
            id, ReadResult(batches: read.batches, bounds: PartitionBounds(start: read.bounds.start, end: end)), offset)
        case .failure(let error): fail(id, StatusError(error))
        }
      })
  }

  private func waitForMore(_ id: UInt64, _ place: TopicPartition, _ offset: Int64, _ maxBytes: Int, _ wait: Int64) {
    guard !connection.isClosed else { return }
    guard fetches.count < Self.fetchLimit, fetches[id] == nil else {
      return fail(id, StatusError(.badRequest, "\(fetches.count) fetches wait, or id \(id) is in use"))
    }
    let again = services.reactor.completion { [weak self] (_: Void) in
      guard let self, let fetch = fetches.removeValue(forKey: id) else { return }
      drop(fetch)
      read(id, place, offset, maxBytes, 0)
    }
    let watch = services.gate.log.whenAvailable(place, after: offset) { again(()) }
    let timer = services.reactor.schedule(after: wait * 1_000_000) { again(()) }
    fetches[id] = PendingFetch(watch: watch, timer: timer)
  }

  private func fetched(_ id: UInt64, _ read: ReadResult, _ offset: Int64) {
    connection.send(.fetched, id: id, slices: read.batches.map(\.bytes)) { writer in
      writer.i64(read.bounds.start)
      writer.i64(read.bounds.end)
      writer.i64(read.batches.last.map { $0.lastOffset + 1 } ?? max(offset, read.bounds.end))
    }
  }

  private func cancel(_ id: UInt64) {
    if let call = calls.removeValue(forKey: id) { services.calls.forget(call) }
    if let fetch = fetches.removeValue(forKey: id) { drop(fetch) }
  }

  // MARK: REQUEST

  private func request(_ id: UInt64, _ body: ByteSlice) throws(WireError) {
    let request = try AdminRequest(body)
    try check(id)
    services.admin.handle(request.json, blob: request.blob) { [weak self] result in
      guard let self else { return }
      switch result {
      case .success(let answer):
        connection.send(.response, id: id, slices: answer.blob.count > 0 ? [answer.blob] : []) { writer in
          let text = answer.json.utf8
          writer.u32(UInt32(text.count))
          writer.bytes(text)
        }
      case .failure(let error): fail(id, error)
      }
    }
  }
}

extension StatusError {
  /// As in the body of an ERROR frame.
  var json: JSONValue {
    ["status": JSONValue(status.rawValue), "name": .string(status.name), "message": .string(message)]
  }
}
