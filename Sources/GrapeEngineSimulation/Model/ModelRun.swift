import GrapeCore

/// Runs events one after the other on the state of a partition: what a delivery must come to.
struct ModelRun {
  /// An entry written: nil is removed.
  struct Write {
    var entry: [UInt8]?
    /// Milliseconds that it is to live: when it was written is not known.
    var ttl: Int?
  }

  private(set) var state: [[UInt8]: [UInt8]]
  /// The last word on each key written.
  private(set) var writes: [[UInt8]: Write] = [:]
  /// By topic and partition, in order.
  private(set) var emitted: [Place: [LoggedRecord]] = [:]
  private(set) var replies: [LoggedRecord] = []

  struct Place: Hashable {
    var app: Int
    var partition: Int
  }

  private let apps: [String]
  private let partitions: Int

  init(_ state: [[UInt8]: [UInt8]], apps: [String], partitions: Int) {
    self.state = state
    self.apps = apps
    self.partitions = partitions
  }

  /// A change that comes from outside.
  mutating func set(_ key: [UInt8], _ entry: [UInt8]?) { write(key, Write(entry: entry)) }

  private mutating func write(_ key: [UInt8], _ write: Write) {
    state[key] = write.entry
    writes[key] = write
  }

  /// Takes over what the commit has of an entry whose expiry could not be told.
  mutating func settle(_ key: [UInt8], _ entry: [UInt8]) { state[key] = entry }

  /// The event ran to its end.
  mutating func succeed(_ event: LoggedRecord, _ library: ProgramLibrary) {
    perform(event, library, upToTrouble: false)
  }

  /// The event failed, and somebody waits for it: replies that were not final stay, and the error is the final one. How far the handler came
  /// shows in `found`.
  mutating func fail(
    _ event: LoggedRecord, _ library: ProgramLibrary, _ status: ReplyStatus, found: [LoggedRecord]
  ) {
    var attempt = self
    attempt.perform(event, library, upToTrouble: true)
    let address = event.replyAddress ?? []
    let given = found.filter { $0.key == Array(address.prefix(16)) && $0.status?.isFinal == false }
    var expected = attempt.replies[replies.count...].filter { $0.status?.isFinal == false }.prefix(given.count)
    // A scan that could not go on ends early, and its event fails when the handler is done: what was replied in between is what it is.
    if Self.walks(event, library) {
      for (index, reply) in zip(expected.indices, given) { expected[index].value = reply.value }
    }
    replies += expected
    answer(address, status, nil)
  }

  private static func walks(_ event: LoggedRecord, _ library: ProgramLibrary) -> Bool {
    guard let number = Program.number(in: event.value ?? []) else { return false }
    return library.programs[number].steps.contains { step in
      switch step {
      case .scan, .find: true
      default: false
      }
    }
  }

  private mutating func perform(_ event: LoggedRecord, _ library: ProgramLibrary, upToTrouble: Bool) {
    let value = event.value ?? []
    if event.event == ProgramHandler.trigger {
      let key = ModelEntry.fullKey(store: "", "told")
      let old = ModelEntry.value(state[key])
      let new = Digest.added(1, to: old, by: (event.key ?? []) + value)
      return write(key, Write(entry: ModelEntry.make(new)))
    }
    guard let number = Program.number(in: value) else { return }
    var digest = Digest()
    var isAnswered = false
    var isPassedOn = false
    for step in library.programs[number].steps {
      switch step {
      case .get(let key): digest.mix(ModelEntry.value(state[ModelEntry.fullKey(key)]))
      case .add(let key, let amount):
        let key = ModelEntry.fullKey(key)
        let old = ModelEntry.value(state[key])
        digest.mix(old)
        write(key, Write(entry: ModelEntry.make(Digest.added(amount, to: old, by: value))))
      case .append(let key):
        let key = ModelEntry.fullKey(key)
        let entry = (state[key] ?? ModelEntry.make([])) + Array("\(number),".utf8)
        digest.mix(ModelEntry.value(entry)!.count)
        // Its expiry stays what it is.
        write(key, Write(entry: entry, ttl: writes[key]?.ttl))
      case .remove(let key): write(ModelEntry.fullKey(key), Write(entry: nil))
      case .put(let key, let ttl, let tagged):
        let entry = ModelEntry.make(
          Array("p\(number) \(digest.text)".utf8), expiry: ttl == nil ? nil : 0, tag: tagged ? StateName.tag : nil)
        write(ModelEntry.fullKey(key), Write(entry: entry, ttl: ttl))
      case .compareAndSet(let key, let matching):
        if matching { write(ModelEntry.fullKey(key), Write(entry: ModelEntry.make(Array("c\(number)".utf8)))) }
        digest.mix(matching ? 1 : 0)
      case .scan(let descending, let limit):
        let found = state.filter { $0.key.starts(with: [0, UInt8(ascii: "k")]) }
          .sorted { $0.key.lexicographicallyPrecedes($1.key) }
        for (key, entry) in (descending ? found.reversed() : found).prefix(limit) {
          digest.mix(key[1...])
          digest.mix(ModelEntry.value(entry))
        }
      case .find:
        let found = state.filter { $0.key[0] == 0 && ModelEntry.isTagged($0.value) }.map(\.key)
          .sorted { $0.lexicographicallyPrecedes($1) }
        for key in found { digest.mix(key[1...]) }
      case .emit(let app, let key, let child, let detached):
        let key = Array("e\(key)".utf8)
        var record = LoggedRecord(
          key: key, value: Array("\(child) \(digest.text)".utf8),
          headers: [
            .init(name: "g.e", value: Array(ProgramHandler.slot.utf8)), .init(name: "g.h", value: [event.hops + 1]),
          ])
        if !detached, let address = event.replyAddress { record.headers.append(.init(name: "g.r", value: address)) }
        if !detached { isPassedOn = true }
        let partition = key.withUnsafeBytes { Partitioner.partition(forKey: $0, of: Int32(partitions)) }
        emitted[Place(app: app, partition: Int(partition)), default: []].append(record)
      case .reply(let isFinal):
        isAnswered = isFinal
        reply(to: event, ReplyStatus(isFinal: isFinal), Array("\(number) \(digest.text)".utf8))
      case .fail, .retry, .reject: if upToTrouble { return }
      case .crash, .hang: break
      }
    }
    if !isAnswered, !isPassedOn { reply(to: event, ReplyStatus(), nil) }
  }

  mutating func answer(_ address: [UInt8], _ status: ReplyStatus, _ value: [UInt8]?) {
    replies.append(Self.reply(to: address, status, value))
  }

  private mutating func reply(to event: LoggedRecord, _ status: ReplyStatus, _ value: [UInt8]?) {
    guard let address = event.replyAddress else { return }
    replies.append(Self.reply(to: address, status, value))
  }

  private static func reply(to address: [UInt8], _ status: ReplyStatus, _ value: [UInt8]?) -> LoggedRecord {
    LoggedRecord(
      key: Array(address.prefix(16)), value: value, headers: [.init(name: "g.s", value: status.encoded)])
  }
}
