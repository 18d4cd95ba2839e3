import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// `grape bench`
struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Measure a node: ingest, calls, pipelines.",
    discussion: """
      The applications must be deployed. Figures are the client's: from this process, over the socket, as durable as the
      application asks for unless --durability says otherwise.

      EXAMPLES
        grape bench ingest counts@word --events 2M --size 100
        grape bench call uppercase@echo --in-flight 64 --count 200k
        grape bench pipeline uppercase@word --last counts@word --events 1M
        grape bench drain uppercase counts
      """,
    subcommands: [BenchIngestCommand.self, BenchCallCommand.self, BenchPipelineCommand.self, BenchDrainCommand.self])
}

/// What events a benchmark sends.
struct LoadOptions: ParsableArguments {
  @Option(
    name: [.customLong("events"), .customLong("records")], help: ArgumentHelp("How many events.", valueName: "n"),
    transform: parsePositiveCount)
  var events = 1_000_000
  @Option(
    name: [.customLong("size"), .customLong("value-bytes")],
    help: ArgumentHelp("Bytes of each event's data.", valueName: "bytes"),
    transform: parseCount)
  var size = 100
  @Option(
    help: ArgumentHelp("How many different keys, of 8 digits each; 0: no keys.", valueName: "n"), transform: parseCount)
  var keys = 10_000
  @Option(
    help: ArgumentHelp("disk, os or memory; the application's own if not given.", valueName: "level"),
    transform: parseDurability)
  var durability: AckDurability?
  @Flag(help: "Compress with zstd.") var compress = false
  @Option(help: ArgumentHelp("Bytes of events per frame.", valueName: "bytes"), transform: parsePositiveCount)
  var frameBytes = 512 * 1024
  @Option(help: ArgumentHelp("Bytes sent and not acknowledged.", valueName: "bytes"), transform: parsePositiveCount)
  var windowBytes = 8 << 20

  func validate() throws {
    guard keys <= 100_000_000 else { throw ValidationError("--keys takes at most 100M: keys have 8 digits") }
  }
}

/// Seconds since `start`.
func seconds(since start: ContinuousClock.Instant) -> Double {
  let (seconds, attoseconds) = (ContinuousClock.now - start).components
  return Double(seconds) + Double(attoseconds) / 1e18
}

/// Sends generated events as fast as they are taken.
struct LoadGenerator {
  /// What came of it.
  struct Outcome {
    var events: Int
    /// Of record batches, as sent.
    var bytes: Int64
    var seconds: Double
    var durability: AckDurability
  }

  private let node: NodeConnection
  private let target: EventTarget
  private let options: LoadOptions

  init(_ node: NodeConnection, target: EventTarget, options: LoadOptions) {
    self.node = node
    self.target = target
    self.options = options
  }

  func run() throws -> Outcome {
    let metadata = try node.ask("app.metadata", [("app", .string(target.app))])
    let slots = (metadata["slots"]?.array ?? []).compactMap { $0.string }
    guard slots.contains(target.event) else {
      throw StatusError(
        .noSuchSlot, "\(target.app) has no slot `\(target.event)`; its slots are \(slots.joined(separator: ", "))")
    }
    guard let partitions = metadata["partitions"]?.int.flatMap({ Int32(exactly: $0) }), partitions > 0 else {
      throw CommandFailure(.internal, "the node's app.metadata has no partitions")
    }
    var configuration = ProducerConfiguration()
    configuration.durability = options.durability ?? .applicationDefault
    configuration.compressionLevel = options.compress ? 1 : nil
    configuration.frameBytes = options.frameBytes
    configuration.windowBytes = options.windowBytes
    var durability = AckDurability.applicationDefault
    let producer = EventProducer(
      connection: node, app: target.app, partitions: partitions, configuration: configuration,
      acknowledged: { durability = $0.durability })
    let template = EventTemplate(event: target.event)
    let value = makeValue()
    let keys = makeKeys()
    let start = ContinuousClock.now
    for number in 0..<options.events {
      let key = keys.count == 0 ? nil : keys.key(number)
      // Every value differs, but only in its first bytes: making it must not be what is measured.
      if value.count >= 8 { value.storeBytes(of: UInt64(number).littleEndian, as: UInt64.self) }
      try producer.send(template, key: key, value: UnsafeRawBufferPointer(value))
    }
    try producer.finish()
    let taken = seconds(since: start)
    value.deallocate()
    return Outcome(events: options.events, bytes: producer.sentBytes, seconds: taken, durability: durability)
  }

  /// Text that looks like words: lower-case letters, which handlers can change.
  private func makeValue() -> UnsafeMutableRawBufferPointer {
    let value = UnsafeMutableRawBufferPointer.allocate(byteCount: options.size, alignment: 16)
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    for index in 0..<options.size {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      value[index] = UInt8(ascii: "a") + UInt8(truncatingIfNeeded: (state >> 33) % 26)
    }
    return value
  }

  private func makeKeys() -> KeyTable { KeyTable(count: options.keys) }
}

/// Keys of 8 digits, made beforehand.
struct KeyTable {
  let count: Int
  private let digits: ByteSlice

  init(count: Int) {
    self.count = count
    var writer = ByteWriter(capacity: max(16, count * 8))
    for number in 0..<count {
      let text = String(number)
      writer.bytes(Array((String(repeating: "0", count: max(0, 8 - text.count)) + text).utf8))
    }
    digits = writer.finish()
  }

  /// Key of the event `number`, valid while the table is alive.
  func key(_ number: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: digits.unsafeBytes[(number % count) * 8..<(number % count) * 8 + 8])
  }
}
