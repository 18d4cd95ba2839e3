internal import GrapeCore
internal import GrapeWire

/// What a producer does with its events.
public struct ProducerConfiguration: Sendable {
  public var durability: AckDurability = .applicationDefault
  /// zstd level: 1 (fast) to 19 (small), or -1 to -7, which are faster still and pack less; nil: batches are not
  /// compressed.
  public var compressionLevel: Int32?
  /// Bytes of events collected, over all partitions, before they are sent as one frame.
  public var frameBytes = 512 * 1024
  /// Bytes sent and not acknowledged; sending waits beyond.
  public var windowBytes = 8 << 20
  /// How long to wait without any acknowledgement before giving up.
  public var acknowledgementTimeout: Duration = .seconds(60)
  /// How long a full queue is waited for, without any progress, before its refusal is thrown.
  public var queueFullPatience: Duration = .seconds(60)
  /// If given, the first record of every batch gets a header `EventProducer.provenanceHeader` with these bytes, as `i64` the number
  /// of the frame's first event, and as `u32` the number of records in the batch; so a reader can tell which frames of a producer that died arrived, also
  /// where the log puts records into other batches.
  public var provenance: [UInt8]?
  /// Number of the first event.
  public var firstEvent: Int64 = 0

  public init() {}
}

/// What a caller wants to be told about an event once it is acknowledged: any two numbers.
public struct EventTag: Sendable, Hashable {
  public var first: Int64
  public var second: Int64

  public init(_ first: Int64 = 0, _ second: Int64 = 0) {
    self.first = first
    self.second = second
  }
}

/// A frame of events that the node has acknowledged.
public struct Acknowledgement: Sendable {
  /// Number of the first event of the frame.
  public var firstEvent: Int64
  /// Events in the frame.
  public var eventCount: Int64
  /// The tag given with the last event of the frame.
  public var tag: EventTag
  public var durability: AckDurability
  public var topic: String
  /// Where the batches went, and how many events each has.
  public var batches: [(partition: Int32, baseOffset: Int64, eventCount: Int32)]
}

/// An event's name and headers, encoded once for all events that share them.
public struct EventTemplate: Sendable {
  let event: String
  let headers: [OutgoingEvent.Header]
  let section: ByteSlice

  /// - Parameters:
  ///   - event: name of a slot of the producer's application.
  ///   - headers: the events' own.
  public init(event: String, headers: [OutgoingEvent.Header] = []) {
    self.event = event
    self.headers = headers
    section = Self.encode(event, headers)
  }

  static func encode(_ event: String, _ headers: [OutgoingEvent.Header]) -> ByteSlice {
    var section = HeaderSection()
    section.append(HeaderName.event, Array(event.utf8))
    for header in headers {
      let name = ByteSlice(header.name)
      section.append(name.unsafeBytes, header.value?.unsafeBytes)
      withExtendedLifetime((name, header)) {}
    }
    return section.finish()
  }
}

/// Sends many events to one application: collects them into one record batch per partition, sends the batches of all
/// partitions together as APPEND frames, and keeps a bounded number of bytes unacknowledged. For one thread.
///
/// A frame is appended whole or not at all, and holds consecutive events; acknowledgements are handed over in order of
/// the events. Nothing is allocated per event.
public final class EventProducer {
  /// Name of the header that `ProducerConfiguration.provenance` asks for.
  public static let provenanceHeader = "grape-ingest"

  public let app: String
  public let partitionCount: Int32
  let configuration: ProducerConfiguration
  let connection: NodeConnection
  private let acknowledged: (Acknowledgement) throws -> Void
  private let sending: (Range<Int64>) throws -> Void
  private let compressor: ZstdCompressor?
  private let builders: UnsafeMutablePointer<RecordBatchBuilder>
  /// By partition: where the count in the first record of the batch ends.
  private var countEnds: [Int]

  private var now: Int64 = 0
  private var collectedBytes = 0
  private var collectedEvents: Int64 = 0
  private var nextEvent: Int64
  private var lastTag = EventTag()
  private var stickyPartition: Int32 = 0
  var window = ProducerWindow()

  /// - Parameters:
  ///   - connection: used by this producer alone while it has frames under way.
  ///   - partitions: of the application's input topic, as `app.metadata` says.
  ///   - acknowledged: called in order, on the thread that sends.
  ///   - sending: called before a frame goes out, with the numbers of its events.
  public init(
    connection: NodeConnection, app: String, partitions: Int32, configuration: ProducerConfiguration = .init(),
    acknowledged: @escaping (Acknowledgement) throws -> Void = { _ in },
    sending: @escaping (Range<Int64>) throws -> Void = { _ in }
  ) {
    precondition(partitions > 0, "an application has at least one partition")
    self.connection = connection
    self.app = app
    self.partitionCount = partitions
    var configuration = configuration
    // A frame holds the batches and at most one event beyond the limit, so it stays below the node's.
    configuration.frameBytes = max(1, min(configuration.frameBytes, connection.welcome.maxFrame / 4))
    self.configuration = configuration
    self.acknowledged = acknowledged
    self.sending = sending
    compressor = configuration.compressionLevel.map { ZstdCompressor(level: $0) }
    nextEvent = configuration.firstEvent
    builders = .allocate(capacity: Int(partitions))
    for index in 0..<Int(partitions) { (builders + index).initialize(to: RecordBatchBuilder()) }
    countEnds = [Int](repeating: 0, count: Int(partitions))
  }

  deinit {
    builders.deinitialize(count: Int(partitionCount))
    builders.deallocate()
  }

  /// Events handed over so far, acknowledged or not, counted from `firstEvent`.
  public var eventCount: Int64 { nextEvent - configuration.firstEvent }
  /// Bytes of record batches sent so far.
  public private(set) var sentBytes: Int64 = 0
  /// Bytes sent and not acknowledged.
  public var unacknowledgedBytes: Int { window.bytes }

  /// Takes one event. Its bytes are copied. May send, and may wait for acknowledgements.
  ///
  /// - Parameters:
  ///   - key: nil: any partition.
  ///   - tag: handed back with the acknowledgement of the frame if this is its last event.
  /// Throws `StatusError` (`tooLarge` for this event, or what the node answered to an earlier frame) or `ClientError`.
  public func send(
    _ template: EventTemplate, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer, tag: EventTag = EventTag()
  ) throws {
    let section = template.section.unsafeBytes
    let size = (key?.count ?? 0) + value.count + section.count
    guard size <= connection.welcome.maxEvent else {
      throw StatusError(.tooLarge, "an event of \(size) bytes; the node takes \(connection.welcome.maxEvent)")
    }
    if collectedBytes + size > configuration.frameBytes, collectedEvents > 0 { try flush() }
    // One clock reading per frame: batches keep milliseconds, and a frame is collected in less or waits for nobody.
    if collectedEvents == 0 { now = wallClockMilliseconds() }
    let partition = key.map { Partitioner.partition(forKey: $0, of: partitionCount) } ?? stickyPartition
    let builder = builders + Int(partition)
    if configuration.provenance != nil, builder.pointee.isEmpty {
      let first = provenanceSection(template)
      builder.pointee.append(key: key, value: value, headerSection: first.unsafeBytes, timestamp: now)
      withExtendedLifetime(first) {}
      // The section is what a record ends with, and the count what the section ends with.
      countEnds[Int(partition)] = builder.pointee.byteCount
    } else {
      builder.pointee.append(key: key, value: value, headerSection: section, timestamp: now)
    }
    // 12: a record's own lengths and deltas, about.
    collectedBytes += size + 12
    collectedEvents += 1
    nextEvent += 1
    lastTag = tag
    withExtendedLifetime(template) {}
  }

  private func provenanceSection(_ template: EventTemplate) -> ByteSlice {
    var value = ByteWriter(capacity: 32)
    value.bytes(configuration.provenance ?? [])
    value.i64(nextEvent - collectedEvents)
    // Known when the batch is whole.
    value.u32(0)
    return EventTemplate.encode(
      template.event, template.headers + [.init(Self.provenanceHeader, value.finish())])
  }

  /// Leaves out `count` numbers of events, for events that the node is known to have. Sends what was collected.
  public func skipEvents(_ count: Int64) throws {
    try flush()
    nextEvent += count
  }

  /// Sends what was collected, without waiting for its acknowledgement.
  public func flush() throws {
    guard collectedEvents > 0 else { return }
    var batches: [(partition: Int32, bytes: ByteSlice)] = []
    var counts: [Int32] = []
    var bytes = 0
    for partition in 0..<partitionCount {
      let builder = builders + Int(partition)
      guard !builder.pointee.isEmpty else { continue }
      let capacity = min(builder.pointee.byteCount + 1024, configuration.frameBytes + 1024)
      if configuration.provenance != nil {
        builder.pointee.patch(UInt32(builder.pointee.recordCount), endingAt: countEnds[Int(partition)])
      }
      let batch = try builder.pointee.take(compressor: compressor, nextCapacity: capacity)
      batches.append((partition, batch.bytes))
      counts.append(batch.recordCount)
      bytes += batch.bytes.count
    }
    let frame = ProducerWindow.Frame(
      batches: batches, counts: counts, bytes: bytes, firstEvent: nextEvent - collectedEvents,
      eventCount: collectedEvents,
      tag: lastTag)
    collectedEvents = 0
    collectedBytes = 0
    stickyPartition = (stickyPartition + 1) % partitionCount
    try waitForRoom(bytes)
    try sending(frame.firstEvent..<frame.firstEvent + frame.eventCount)
    sentBytes += Int64(bytes)
    try transmit(frame)
  }

  /// Sends what was collected and waits until everything is acknowledged.
  public func finish() throws {
    try flush()
    while !window.isEmpty { try settle(waiting: true) }
  }

  /// Takes acknowledgements that have come, without waiting.
  public func takeAcknowledgements() throws { try settle(waiting: false) }

  // MARK: Window

  private func waitForRoom(_ bytes: Int) throws {
    try settle(waiting: false)
    while !window.isEmpty, window.bytes + bytes > configuration.windowBytes || window.isRetrying {
      try settle(waiting: true)
    }
  }

  private func transmit(_ frame: ProducerWindow.Frame) throws {
    let id = connection.nextID()
    window.sent(frame, id: id)
    try connection.send(
      ClientFrame.append(app: app, batches: frame.batches, durability: configuration.durability, id: id),
      until: ContinuousClock.now + configuration.acknowledgementTimeout)
  }

  /// Takes the answers that are there; with `waiting`, at least one.
  private func settle(waiting: Bool) throws {
    var mustWait = waiting
    while !window.isEmpty {
      let answer: ReceivedFrame
      if mustWait {
        answer = try receive()
        mustWait = false
      } else if let ready = try connection.receiveIfReady() {
        answer = ready
      } else {
        break
      }
      if let failure = answer.failure {
        try window.failed(id: answer.id, failure)
      } else {
        try window.answered(id: answer.id, try answer.appendReceipt())
      }
      while let done = try window.takeSettled() { try acknowledged(done) }
    }
    if window.mustRetry { try retryRefused() }
  }

  private func receive() throws(ClientError) -> ReceivedFrame {
    do throws(ClientError) {
      return try connection.receive(until: ContinuousClock.now + configuration.acknowledgementTimeout)
    } catch {
      guard error.code == .deadlineExceeded else { throw error }
      throw ClientError(
        .deadlineExceeded,
        "the node at \(connection.path) acknowledged nothing for \(configuration.acknowledgementTimeout)")
    }
  }

  /// The queue was full for some frames, and nothing else is under way: sends them again, one after the other, waiting longer each
  /// time the node refuses.
  private func retryRefused() throws {
    var patience = ContinuousClock.now + configuration.queueFullPatience
    var pause = Duration.milliseconds(20)
    while let (frame, refusal) = window.takeRefused() {
      let resume = ContinuousClock.now + pause
      guard resume < patience else { throw refusal }
      try connection.pause(until: resume)
      pause = min(pause * 2, .seconds(1))
      try transmit(frame)
      let answer = try receive()
      if let failure = answer.failure {
        try window.failed(id: answer.id, failure)
        continue
      }
      try window.answered(id: answer.id, try answer.appendReceipt())
      while let done = try window.takeSettled() { try acknowledged(done) }
      patience = ContinuousClock.now + configuration.queueFullPatience
      pause = .milliseconds(20)
    }
  }
}
