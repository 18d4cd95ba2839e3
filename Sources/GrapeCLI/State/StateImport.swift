import CGrapeLinux
import Glibc
import Grape
import GrapeCore
import GrapeWire

/// One run of `grape state import`: reads lines, sends them in batches, several under way.
final class StateImport {
  struct Result {
    /// Stored.
    var entries: Int64 = 0
    /// Left out because their time was over.
    var expired: Int64 = 0
    /// Of values.
    var bytes: Int64 = 0
    var seconds: Double = 0
  }

  private let node: NodeConnection
  private let place: StatePlace
  private let byKey: Bool
  private let interrupts: Interrupts
  private var progress: IngestProgress
  private var result = Result()

  /// What is sent in one request: entries of one store, in one partition or each in that of its key.
  private struct Group {
    var store: String
    var partition: Int32?
    var writes: [JSONValue] = []
    var values: [ByteSlice] = []
    var bytes = 0
    var lines: ClosedRange<Int64>
  }

  /// A request that was not answered yet.
  private struct Request {
    var entries: Int
    var bytes: Int
    var lines: ClosedRange<Int64>
    var deadline: ContinuousClock.Instant
  }

  private var groups: [Group] = []
  private var groupedEntries = 0
  private var groupedBytes = 0
  private var underWay: [UInt64: Request] = [:]
  private var bytesUnderWay = 0

  private static let batchEntries = 1000
  private static let batchBytes = 2 << 20
  private static let requestsUnderWay = 16
  private static let mostBytesUnderWay = 16 << 20
  /// Longest line: each byte of the largest value as an escape sequence.
  private static let lineLimit = 6 * StateBounds.value + 64 * 1024

  init(
    _ node: NodeConnection, _ place: StatePlace, byKey: Bool, interrupts: Interrupts, showsProgress: Bool
  ) {
    self.node = node
    self.place = place
    self.byKey = byKey
    self.interrupts = interrupts
    progress = IngestProgress(isShown: showsProgress, noun: "entries")
  }

  func run(_ path: String) throws -> Result {
    defer { progress.end() }
    let text = try InputText(path: path, rowLimit: Self.lineLimit) { [unowned self] in try awaitInput($0) }
    progress.totalBytes = text.size ?? 0
    do {
      try readAll(text)
    } catch {
      throw settle(error)
    }
    result.seconds = progress.seconds
    return result
  }

  private func readAll(_ text: InputText) throws {
    let lines = LineReader(text)
    while let row = try lines.next() {
      if interrupts.pending { throw CommandFailure(.interrupted, "") }
      let line: StateImportLine
      do throws(StateImportLine.Problem) { line = try StateImportLine(row.value) } catch {
        throw CommandFailure(.badInput, "\(text.name):\(row.line): \(error.message)")
      }
      try take(line, number: row.line)
      progress.update(bytes: lines.position.offset, events: result.entries, acknowledged: result.entries)
    }
    try sendGroups()
    try awaitAnswers(until: 0)
  }

  private func take(_ line: StateImportLine, number: Int64) throws {
    var item: [JSONValue.Member] = [
      .init("op", "put"), .init("keyHex", .string(Hexadecimal.text(line.key))),
      .init("size", JSONValue(line.value.count)),
    ]
    if let expiry = line.expiresMs {
      let left = expiry - grape_realtime_ms()
      guard left > 0 else {
        result.expired += 1
        return
      }
      // A hundred years is what the node takes; such an entry outlives us all the same.
      item.append(.init("ttlMs", .int(min(left, 3_155_760_000_000))))
    }
    if !line.tags.isEmpty { item.append(.init("tags", JSONValue(strings: line.tags))) }
    if groupedBytes > 0, groupedBytes + line.byteCount > Self.batchBytes { try sendGroups() }
    // What the command line says comes before what the file says.
    let store = place.store ?? line.store
    let isPlaced = try place.partitionMember != nil
    let partition = byKey || isPlaced ? nil : line.partition
    var index = groups.count - 1
    while index >= 0, groups[index].store != store || groups[index].partition != partition { index -= 1 }
    if index < 0 {
      index = groups.count
      groups.append(Group(store: store, partition: partition, lines: number...number))
    }
    groups[index].writes.append(.object(item))
    groups[index].values.append(line.value)
    groups[index].bytes += line.value.count
    groups[index].lines = groups[index].lines.lowerBound...number
    groupedEntries += 1
    groupedBytes += line.byteCount
    if groupedEntries >= Self.batchEntries { try sendGroups() }
  }

  // MARK: Sending

  private func sendGroups() throws {
    let sent = groups
    groups.removeAll()
    (groupedEntries, groupedBytes) = (0, 0)
    for group in sent { try send(group) }
  }

  private func send(_ group: Group) throws {
    let bytes = group.bytes
    while !underWay.isEmpty, underWay.count >= Self.requestsUnderWay || bytesUnderWay + bytes > Self.mostBytesUnderWay {
      try takeAnswer()
    }
    var members = place.members.filter { $0.0 != "store" } + [("store", JSONValue.string(group.store))]
    if let partition = group.partition {
      members.append(("partition", JSONValue(partition)))
    } else if let partition = try place.partitionMember {
      members.append(partition)
    }
    members.append(("writes", .array(group.writes)))
    var blob = ByteWriter(capacity: max(16, bytes))
    for value in group.values { value.withUnsafeBytes { blob.bytes($0) } }
    let id = node.nextID()
    let deadline = ContinuousClock.now + place.timeout + .seconds(2)
    let frame = ClientFrame.request(
      "state.write", members.map { JSONValue.Member($0.0, $0.1) }, blob: blob.finish(), id: id)
    guard frame.count - 4 <= node.welcome.maxFrame else {
      throw CommandFailure(
        .tooLarge,
        "line \(group.lines.lowerBound): the request has \(Format.count(frame.count)) bytes, the node takes \(Format.count(node.welcome.maxFrame))"
      )
    }
    underWay[id] = Request(entries: group.writes.count, bytes: bytes, lines: group.lines, deadline: deadline)
    bytesUnderWay += bytes
    try node.send(frame, until: deadline)
  }

  private func awaitAnswers(until count: Int) throws {
    while underWay.count > count { try takeAnswer() }
  }

  /// Takes one answer, waiting for it.
  private func takeAnswer() throws {
    guard let deadline = underWay.values.map(\.deadline).min() else { return }
    try took(try node.receive(until: deadline))
  }

  private func took(_ frame: ReceivedFrame) throws {
    guard let request = underWay.removeValue(forKey: frame.id) else {
      throw ClientError(.protocolViolation, "the node answered request \(frame.id), which was not sent")
    }
    bytesUnderWay -= request.bytes
    if var failure = frame.failure {
      failure.message = "lines \(request.lines.lowerBound) to \(request.lines.upperBound): \(failure.message)"
      throw failure
    }
    let results = try frame.adminResponse().json["results"]?.array ?? []
    guard results.count == request.entries, results.allSatisfy({ $0["result"]?.string == "done" }) else {
      throw CommandFailure(
        .internal,
        "the node did not store all of lines \(request.lines.lowerBound) to \(request.lines.upperBound)")
    }
    result.entries += Int64(request.entries)
    result.bytes += Int64(request.bytes)
    progress.acknowledgedHere = result.entries
  }

  /// Called when a pipe may have nothing to read just now: what was read is sent, and while waiting the node is listened to.
  private func awaitInput(_ input: Int32) throws {
    var set = [
      pollfd(fd: input, events: Int16(POLLIN), revents: 0),
      pollfd(fd: interrupts.descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: node.descriptor, events: Int16(POLLIN), revents: 0),
    ]
    if poll(&set, 1, 0) > 0 { return }
    try sendGroups()
    while true {
      while let frame = try node.receiveIfReady() { try took(frame) }
      let count = poll(&set, 3, -1)
      if count < 0, errno == EINTR { continue }
      if set[1].revents != 0 { throw CommandFailure(.interrupted, "") }
      if set[0].revents != 0 { return }
    }
  }

  /// Brings what was read before a failure to an end as far as it can be, and says what was stored.
  private func settle(_ error: any Error) -> CommandFailure {
    var failure = CommandFailure(error)
    // Lines before a bad one (or an interruption) are good; if the node is the trouble there is nothing to wait for.
    if failure.exit == .interrupted || failure.exit == .badInput || failure.exit == .tooLarge, failure.status == nil {
      do {
        try sendGroups()
        try awaitAnswers(until: 0)
      } catch {
        failure = CommandFailure(error)
      }
    }
    let unknown = underWay.values.reduce(0) { $0 + $1.entries }
    var advice = "\(Format.count(result.entries)) entries were stored before"
    if unknown > 0 { advice += ", and perhaps \(Format.count(unknown)) more that were on their way" }
    failure.message = failure.message.isEmpty ? "interrupted; \(advice)" : "\(failure.message); \(advice)"
    return failure
  }
}
