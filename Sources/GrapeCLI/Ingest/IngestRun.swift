import Glibc
import Grape
import GrapeCore
import GrapeWire

/// One run of `grape ingest`: reads rows, sends them, keeps the state, shows the progress.
final class IngestRun {
  struct Settings {
    var target: EventTarget
    var files: [String]
    /// nil: by the files' names.
    var format: InputFormat?
    var keyField: String?
    var eventField: String?
    var headers: [OutgoingEvent.Header]
    var durability: AckDurability
    var compressionLevel: Int32?
    var skipBad: Bool
    var statePath: String
    /// Whether `--resume` was given.
    var keepsState: Bool
    var showsProgress: Bool
    var json: Bool
  }

  private let settings: Settings
  private let interrupts: Interrupts
  private let connect: (SourceEpoch?) throws -> NodeConnection

  private var state: IngestState
  private var lock: StateLock?
  private var node: NodeConnection!
  private var producer: EventProducer!
  private var templates: EventTemplates!
  private var progress: IngestProgress
  private var skipped: Int64 = 0
  private var durability: AckDurability = .applicationDefault
  /// Where reading ended: index of the file, and place in it.
  private var reached = (file: 0, position: InputPosition(offset: 0, line: 1))
  /// Of regular files; 0 for the others.
  private var sizes: [Int64] = []
  /// Events that an earlier run sent without hearing of their arrival, and that did arrive.
  private var arrived: [Range<Int64>] = []
  /// Number of the next event read.
  private var next: Int64 = 0

  init(_ settings: Settings, interrupts: Interrupts, connect: @escaping (SourceEpoch?) throws -> NodeConnection) {
    self.settings = settings
    self.interrupts = interrupts
    self.connect = connect
    progress = IngestProgress(isShown: settings.showsProgress)
    state = IngestState(
      run: Self.makeRun(), job: .init(target: "", format: "", skipBad: false, files: []), ends: [])
  }

  func run() throws {
    // Files first: what is not there should be known before anything is sent.
    state.job = try describeJob()
    defer { lock?.release() }
    let isContinuation = try loadState()
    node = try connectAsSource()
    let metadata = try node.ask("app.metadata", [("app", .string(settings.target.app))])
    guard let topic = metadata["topic"]?.string, let count = metadata["partitions"]?.int, (1...65_535).contains(count)
    else {
      throw CommandFailure(.internal, "the node's app.metadata has no topic and partitions")
    }
    templates = try EventTemplates(
      target: settings.target, slots: (metadata["slots"]?.array ?? []).compactMap { $0.string },
      headers: settings.headers)
    if isContinuation {
      try checkPartitions(Int32(count))
      try findArrived(topic: topic)
    } else {
      try beginState(topic: topic, partitions: Int32(count))
    }
    makeProducer(partitions: Int32(count))
    next = state.acknowledged
    do {
      try readAll()
      try producer.finish()
    } catch {
      throw settle(error)
    }
    // The end of the last file, not behind it: what is appended to it later can be ingested too.
    (state.file, state.position) = reached
    state.acknowledged = next
    state.sent = max(state.sent, next)
    if settings.keepsState { try saveState(durable: true) }
    progress.end()
    report()
  }

  // MARK: Before

  private func describeJob() throws -> IngestState.Job {
    let files = try settings.files.map { path -> IngestState.File in
      let text = try InputText(path: path, rowLimit: 0) { _ in }
      sizes.append(text.size ?? 0)
      guard let size = text.size else { return IngestState.File(path: path, prefixBytes: 0, prefixChecksum: 0) }
      progress.totalBytes += size
      let prefix = try text.prefix(Int(min(size, 4096)))
      return IngestState.File(
        path: path, prefixBytes: prefix.count, prefixChecksum: prefix.withUnsafeBytes { CRC32C.checksum($0) })
    }
    if settings.files.contains("-") { progress.totalBytes = 0 }
    return IngestState.Job(
      target: settings.target.text, format: settings.format?.rawValue ?? "auto", keyField: settings.keyField,
      eventField: settings.eventField, skipBad: settings.skipBad, files: files)
  }

  private static func makeRun() -> String {
    var generator = SystemRandomNumberGenerator()
    return (0..<16).map { _ in UInt8.random(in: 0...255, using: &generator) }
      .map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }.joined()
  }

  /// Reads the state if there is one to go on from. Returns whether there was one.
  private func loadState() throws -> Bool {
    guard settings.keepsState else { return false }
    lock = try StateLock(state: settings.statePath)
    guard access(settings.statePath, F_OK) == 0 else { return false }
    let saved = try IngestState(
      try FileContent.read(path: settings.statePath, limit: 1 << 24), path: settings.statePath)
    try checkContinuation(saved.job, state.job)
    state = saved
    return true
  }

  /// Connects, with `--resume` as a source: whatever an earlier run's connection left is then in the log or gone for good.
  private func connectAsSource() throws -> NodeConnection {
    guard settings.keepsState else { return try connect(nil) }
    state.epoch += 1
    // On the disk before it is used: no epoch may come twice.
    if !state.ends.isEmpty { try saveState(durable: true) }
    return try connect(SourceEpoch(id: state.run, epoch: state.epoch))
  }

  private func checkPartitions(_ partitions: Int32) throws {
    guard state.ends.count == Int(partitions) else {
      throw CommandFailure(
        .conflict,
        "\(settings.statePath): the application has \(partitions) partitions now, not \(state.ends.count)")
    }
  }

  private func beginState(topic: String, partitions: Int32) throws {
    state.ends = [Int64](repeating: 0, count: Int(partitions))
    let topics = try node.ask("log.topics")["topics"]?.array ?? []
    for partition in topics.first(where: { $0["name"]?.string == topic })?["partitions"]?.array ?? [] {
      if let number = partition["partition"]?.int, (0..<Int64(partitions)).contains(number) {
        state.ends[Int(number)] = partition["end"]?.int ?? 0
      }
    }
    if settings.keepsState { try saveState(durable: true) }
  }

  private func checkContinuation(_ saved: IngestState.Job, _ job: IngestState.Job) throws {
    var differences: [String] = []
    if saved.target != job.target { differences.append("its target is \(saved.target)") }
    if saved.format != job.format { differences.append("its format is \(saved.format)") }
    if saved.keyField != job.keyField { differences.append("its key field is \(saved.keyField ?? "none")") }
    if saved.eventField != job.eventField { differences.append("its event field is \(saved.eventField ?? "none")") }
    if saved.skipBad != job.skipBad { differences.append("it was \(saved.skipBad ? "" : "not ")run with --skip-bad") }
    if saved.files.map({ $0.path }) != job.files.map({ $0.path }) {
      differences.append("its files are \(saved.files.map { $0.path }.joined(separator: " "))")
    }
    guard differences.isEmpty else {
      throw CommandFailure(
        .conflict,
        "\(settings.statePath) belongs to another ingest: \(differences.joined(separator: ", ")); "
          + "remove it to begin anew, or name another with --state")
    }
    for file in saved.files where file.path != "-" && file.prefixBytes > 0 {
      let prefix = try InputText(path: file.path, rowLimit: 0) { _ in }.prefix(file.prefixBytes)
      guard prefix.count == file.prefixBytes, prefix.withUnsafeBytes({ CRC32C.checksum($0) }) == file.prefixChecksum
      else {
        throw CommandFailure(
          .conflict,
          "\(file.path) is not the file that \(settings.statePath) is about: its beginning differs; remove the state to begin anew"
        )
      }
    }
  }

  private func findArrived(topic: String) throws {
    guard state.sent > state.acknowledged else { return }
    let found = try ArrivedEvents(node, topic: topic, run: runBytes).find(
      from: state.ends, wanted: state.acknowledged..<state.sent)
    arrived = found
  }

  private var runBytes: [UInt8] {
    let digits = Array(state.run)
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(String(digits[$0...$0 + 1]), radix: 16) ?? 0 }
  }

  private func makeProducer(partitions: Int32) {
    var configuration = ProducerConfiguration()
    configuration.durability = settings.durability
    configuration.compressionLevel = settings.compressionLevel
    configuration.firstEvent = state.acknowledged
    if settings.keepsState { configuration.provenance = runBytes }
    producer = EventProducer(
      connection: node, app: settings.target.app, partitions: partitions, configuration: configuration,
      acknowledged: { [unowned self] in acknowledge($0) },
      sending: { [unowned self] events in
        guard settings.keepsState else { return }
        state.sent = max(state.sent, events.upperBound)
        try saveState(durable: false)
      })
  }

  // MARK: Under way

  private func readAll() throws {
    reached = (state.file, state.position)
    progress.bytesBefore = sizes[..<min(state.file, sizes.count)].reduce(0, +)
    for index in state.file..<settings.files.count {
      let start = index == state.file ? state.position : nil
      try readFile(index, from: start)
    }
  }

  private func readFile(_ index: Int, from start: InputPosition?) throws {
    let path = settings.files[index]
    let text = try InputText(path: path, rowLimit: node.welcome.maxEvent + 1024) { [unowned self] in try awaitInput($0)
    }
    let before = progress.bytesBefore
    let reader: any RowReader
    switch settings.format ?? InputFormat.of(path: path) {
    case .csv:
      reader = try CSVReader(text, keyField: settings.keyField, eventField: settings.eventField, start: start)
    case .lines:
      try seek(text, to: start)
      reader = LineReader(text)
    case .ndjson:
      try seek(text, to: start)
      reader = NDJSONReader(text, keyField: settings.keyField, eventField: settings.eventField)
    }
    var rows = 0
    while true {
      if interrupts.pending { throw CommandFailure(.interrupted, "") }
      do {
        guard let row = try reader.next() else { break }
        try take(row, of: index, reader, text.name)
      } catch let error as BadRow {
        guard settings.skipBad else { throw CommandFailure(.badInput, error.message) }
        skipped += 1
        if skipped <= 10 { progress.interrupt { Output.complain("grape: passed over \(error.message)") } }
      }
      rows += 1
      if rows & 0x3ff == 0 {
        progress.update(bytes: before + text.position.offset, events: next, acknowledged: state.acknowledged)
      }
    }
    reached = (index, reader.position)
    progress.bytesBefore = before + text.position.offset
  }

  private func seek(_ text: InputText, to start: InputPosition?) throws {
    guard let start, start.offset > 0 else { return }
    guard try text.seek(to: start) else {
      throw CommandFailure(.badInput, "\(text.name) is shorter than what was read of it before")
    }
  }

  private func take(_ row: InputRow, of file: Int, _ reader: any RowReader, _ name: String) throws {
    let template =
      try row.event.map { event in
        guard let template = templates.named(event) else {
          throw BadRow(message: "\(name):\(row.line): \(templates.problem(event))")
        }
        return template
      } ?? templates.target
    // Only rows that become events have numbers, so that a continuation counts as this run does.
    let number = next
    next += 1
    if let range = arrived.first, range.contains(number) {
      if number == range.upperBound - 1 {
        arrived.removeFirst()
        try producer.skipEvents(Int64(range.count))
      }
      return
    }
    // The place behind the row; asking for it moves the reader on, but not the row's bytes.
    let position = reader.position
    do {
      try producer.send(
        template, key: row.key, value: row.value,
        tag: EventTag(Int64(file) << 48 | position.offset, position.line))
    } catch let error as StatusError where error.status == .tooLarge && error.ran == .never && row.value.count > 1024 {
      next -= 1
      throw StatusError(.tooLarge, "\(name):\(row.line): \(error.message)")
    }
  }

  private func acknowledge(_ acknowledgement: Acknowledgement) {
    state.acknowledged = acknowledgement.firstEvent + acknowledgement.eventCount
    state.sent = max(state.sent, state.acknowledged)
    state.file = Int(acknowledgement.tag.first >> 48)
    state.position = InputPosition(
      offset: acknowledgement.tag.first & 0xffff_ffff_ffff, line: acknowledgement.tag.second)
    for batch in acknowledgement.batches where Int(batch.partition) < state.ends.count {
      state.ends[Int(batch.partition)] = max(
        state.ends[Int(batch.partition)], batch.baseOffset + Int64(batch.eventCount))
    }
    durability = acknowledgement.durability
    progress.acknowledgedHere += acknowledgement.eventCount
  }

  /// Called when a pipe may have nothing to read just now: what was read is sent, and while waiting the node is listened to.
  private func awaitInput(_ input: Int32) throws {
    var set = [
      pollfd(fd: input, events: Int16(POLLIN), revents: 0),
      pollfd(fd: interrupts.descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: node.descriptor, events: Int16(POLLIN), revents: 0),
    ]
    if poll(&set, 1, 0) > 0 { return }
    // Before the producer is there, the beginning of a stream is being skipped.
    if producer != nil { try producer.flush() }
    while true {
      let count = poll(&set, 3, settings.showsProgress ? 200 : -1)
      if count < 0, errno == EINTR { continue }
      if set[1].revents != 0 { throw CommandFailure(.interrupted, "") }
      if set[2].revents != 0 {
        try producer.takeAcknowledgements()
        // Nothing more is due: only an end of the connection can be seen here.
        if producer.unacknowledgedBytes == 0 { try node.pause(until: .now) }
      }
      if set[0].revents != 0 { return }
      progress.update(bytes: nil, events: next, acknowledged: state.acknowledged)
    }
  }

  private func saveState(durable: Bool) throws {
    try FileContent.replace(path: settings.statePath, with: state.json.utf8 + [0x0a], durable: durable)
  }

  // MARK: After

  /// Brings what was read before a failure to an end as far as it can be, keeps the state, and says how to go on.
  private func settle(_ error: any Error) -> CommandFailure {
    var failure = CommandFailure(error)
    // Rows before a bad one (or an interruption) are good; if the node is the trouble there is nothing to wait for.
    if failure.exit == .interrupted || failure.exit == .badInput || failure.exit == .tooLarge {
      do {
        try producer.finish()
      } catch {
        failure = CommandFailure(error)
      }
    }
    progress.end()
    var advice = "\(Format.count(progress.acknowledgedHere)) events were acknowledged before"
    let settled = producer.unacknowledgedBytes == 0
    if (error as? ClientError)?.code == .fenced {
      // The state is the other one's now.
    } else if settings.keepsState || (settled && failure.exit == .interrupted && !settings.files.contains("-")) {
      do {
        try saveState(durable: true)
        let option = settings.statePath == settings.files[0] + ".grape-ingest" ? "" : " --state \(settings.statePath)"
        advice += "; the same command with --resume\(option) goes on from here"
      } catch {
        advice += "; \(CommandFailure(error).message)"
      }
    }
    failure.message = failure.message.isEmpty ? "interrupted; \(advice)" : "\(failure.message); \(advice)"
    return failure
  }

  private func report() {
    let seconds = progress.seconds
    let events = progress.acknowledgedHere
    let rate = seconds > 0 ? Double(events) / seconds : 0
    if settings.json {
      let result: JSONValue = [
        "events": JSONValue(events), "skipped": JSONValue(skipped), "bytes": JSONValue(producer.sentBytes),
        "seconds": .double(seconds), "eventsPerSecond": .double(rate),
        "durability": .string(events == 0 ? "none" : durability.name), "total": JSONValue(next),
      ]
      return Output.line(result.text)
    }
    var line =
      "\(Format.count(events)) events in \(Format.milliseconds(seconds * 1000)) (\(Format.rate(rate))/s, "
      + "\(Format.bytes(producer.sentBytes)) of batches)"
    if events > 0 { line += ", \(durability.inWords)" }
    if skipped > 0 { line += "; \(Format.count(skipped)) bad rows passed over" }
    if next > events { line += "; \(Format.count(next - events)) were there before" }
    Output.line(line)
  }
}
