public import GrapeCore
internal import GrapeState
internal import GrapeWire

/// What became of an event in a `TestRun`.
public struct TestResult: Sendable {
  /// An event that the handler emitted.
  public struct Emitted: Sendable {
    /// Name of the event at its destination; empty for a topic that is not Grape's.
    public var name: String
    /// The destination's topic, `stats.events`.
    public var topic: String
    public var partition: Int32
    public var key: ByteSlice?
    public var value: ByteSlice
    /// The value is null.
    public var isTombstone: Bool
    /// The event's own headers.
    public var headers: [Event.Header]
    /// Carries the waiting caller on, so that a later stage may reply.
    public var carriesOrigin: Bool
    /// The data as text.
    public var text: String { value.string }
  }

  /// What the caller was sent.
  public struct Answer: Sendable {
    public var status: Status
    /// The handler's own code.
    public var code: Int32
    public var message: String
    /// No further one follows.
    public var isFinal: Bool
    /// nil is null.
    public var data: ByteSlice?
    /// The data as text; empty if there is none.
    public var text: String { data?.string ?? "" }
  }

  /// How the event ended.
  public enum Outcome: Sendable, Hashable {
    case succeeded
    case rejected(code: Int32, message: String)
    /// `after` zero: as the profile says.
    case retry(after: Duration, message: String)
    /// Its deadline had passed; it was not run.
    case expired
    case failed(message: String)
  }

  /// What the handler changed of the state.
  public struct Change: Sendable, Hashable {
    /// Name of the store; empty: the default one.
    public var store: String
    public var key: [UInt8]
    /// The entry now; nil: it was removed.
    public var entry: StoreEntry?
    /// The key as text.
    public var keyText: String { String(decoding: key, as: UTF8.self) }
  }

  public var outcome: Outcome = .succeeded
  /// The last change of each key. Empty if the handler failed.
  public var changes: [Change] = []
  /// In order per destination. Empty if the handler failed.
  public var emitted: [Emitted] = []
  /// In order. Empty if nobody waits.
  public var replies: [Answer] = []
  /// LOG frames' contents: objects with `level`, `message` and `fields`.
  public var log: [JSONValue] = []

  /// The final answer, if there is one.
  public var reply: Answer? { replies.last { $0.isFinal } }

  init(_ run: DeliveryRun, changelog: String, log frames: [UInt8]) throws {
    var body = ByteWriter()
    run.writeResult(to: &body)
    var reader = ByteReader(body.unsafeBytes)
    _ = try reader.i64()
    for _ in 0..<(try reader.u32()) {
      _ = try reader.i64()
      let kind = Verdict.Kind(rawValue: try reader.u8())
      _ = try reader.u8()
      _ = try reader.u16()
      let code = try reader.i32()
      let delay = try reader.u32()
      let message = try reader.string16()
      switch kind {
      case .rejected: outcome = .rejected(code: code, message: message)
      case .retry: outcome = .retry(after: .milliseconds(Int64(delay)), message: message)
      case .expired: outcome = .expired
      case .failed, nil: outcome = .failed(message: message)
      }
    }
    for output in run.context.outputs.active {
      var batches: [ByteSlice] = []
      output.forEachBatch { batches.append(ByteSlice(copying: $0)) }
      for batch in batches {
        if output.topic == changelog { try readChanges(batch) } else { try read(batch, of: output) }
      }
    }
    try readLog(ByteSlice(frames))
  }

  private mutating func read(_ batch: ByteSlice, of output: Output) throws {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: batch.count)
    var records = unpacked.reader()
    while let record = try records.next() {
      let data = record.value.map { ByteSlice(copying: $0) }
      var own: [Event.Header] = []
      var status: ReplyStatus?
      var headers = record.headers
      while let (name, value) = try headers.next() {
        if let value, name.elementsEqual("g.s".utf8) { status = try ReplyStatus(value) }
        if HeaderName.isReserved(name) { continue }
        own.append(
          Event.Header(String(decoding: name, as: UTF8.self), value.map { ByteSlice(copying: $0) }))
      }
      if let status {
        replies.append(
          Answer(
            status: status.status, code: status.code, message: status.message, isFinal: status.isFinal, data: data))
      } else {
        let grapes = try EventHeaders(record)
        emitted.append(
          Emitted(
            name: grapes.event.map { String(decoding: $0, as: UTF8.self) } ?? "", topic: output.topic,
            partition: output.partition, key: record.key.map { ByteSlice(copying: $0) },
            value: data ?? ByteSlice([]), isTombstone: data == nil, headers: own,
            carriesOrigin: grapes.replyAddress != nil))
      }
    }
    withExtendedLifetime(unpacked) {}
  }

  private mutating func readChanges(_ batch: ByteSlice) throws {
    let unpacked = try RecordBatch.unpack(batch, checkingCRC: true, limit: batch.count)
    var records = unpacked.reader()
    while let record = try records.next() {
      let key = try StateKey(full: ByteSlice(copying: record.key ?? UnsafeRawBufferPointer(start: nil, count: 0)))
      let entry = try record.value.map { bytes in
        let entry = try StateEntry(bytes)
        return StoreEntry(key: key.key.array, value: [UInt8](entry.value), tags: entry.tags, expiry: entry.expiry)
      }
      changes.append(Change(store: key.store, key: key.key.array, entry: entry))
    }
    withExtendedLifetime(unpacked) {}
  }

  private mutating func readLog(_ frames: ByteSlice) throws {
    var position = 0
    while let header = try FrameHeader(frames[position..<frames.count].unsafeBytes, limit: FrameHeader.defaultLimit) {
      let begin = position + FrameHeader.size
      log.append(try JSONValue(parsing: frames[begin..<begin + header.bodySize].unsafeBytes))
      position = begin + header.bodySize
    }
  }
}
