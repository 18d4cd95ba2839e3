import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// `grape bench call`
struct BenchCallCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "call",
    abstract: "Send blocking events, some at a time, and measure how long each takes.",
    discussion: """
      The next event goes out when an answer comes (closed loop), over one connection.

      EXAMPLES
        grape bench call uppercase@echo
        grape bench call uppercase@echo --in-flight 64 --count 200k --json
      """)
  @Argument(help: ArgumentHelp("The event: app@event.", valueName: "target"), transform: parseTarget)
  var target: EventTarget
  @Option(help: ArgumentHelp("How many at a time.", valueName: "n"), transform: parsePositiveCount) var inFlight = 1
  @Option(
    name: [.customLong("count"), .customLong("calls")], help: ArgumentHelp("How many in all.", valueName: "n"),
    transform: parsePositiveCount)
  var count = 10_000
  @Option(help: ArgumentHelp("Calls before the measurement begins.", valueName: "n"), transform: parseCount)
  var warmUp = 100
  @Option(
    name: [.customLong("size"), .customLong("value-bytes")],
    help: ArgumentHelp("Bytes of each event's data.", valueName: "bytes"),
    transform: parseCount)
  var size = 100
  @Option(
    help: ArgumentHelp("disk, os or memory; the application's own if not given.", valueName: "level"),
    transform: parseDurability)
  var durability: AckDurability?
  @Option(help: ArgumentHelp("For each call.", valueName: "duration"), transform: parseTimeout) var timeout: Duration =
    .seconds(30)
  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard inFlight <= 65_536 else { throw ValidationError("--in-flight takes at most 65,536") }
  }

  func execute(_ node: NodeConnection) throws {
    _ = try measure(node, calls: warmUp)
    let start = ContinuousClock.now
    var samples = try measure(node, calls: count)
    let taken = seconds(since: start)
    samples.sort()
    func percentile(_ share: Double) -> Double {
      Double(samples[min(samples.count - 1, Int(Double(samples.count) * share))]) / 1000
    }
    let mean = samples.reduce(0.0) { $0 + Double($1) } / Double(samples.count) / 1000
    let rate = Double(count) / taken
    let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)]
    var members: [JSONValue.Member] = [
      .init("calls", JSONValue(count)), .init("inFlight", JSONValue(inFlight)), .init("seconds", .double(taken)),
      .init("callsPerSecond", .double(rate)), .init("meanMicros", .double(mean)),
    ]
    members += shares.map { .init($0.0 + "Micros", .double(percentile($0.1))) }
    members.append(.init("maxMicros", .double(Double(samples[samples.count - 1]) / 1000)))
    show(.object(members)) { _ in
      let figures = shares.map { "\($0.0) \(Format.decimal(percentile($0.1), 0)) µs" }.joined(separator: ", ")
      return [
        "\(Format.count(count)) calls, \(inFlight) in flight, in \(Format.decimal(taken, 3)) s: \(Format.rate(rate))/s",
        "\(figures), max \(Format.decimal(Double(samples[samples.count - 1]) / 1000, 0)) µs, mean \(Format.decimal(mean, 0)) µs",
      ]
    }
  }

  /// Nanoseconds of each call.
  private func measure(_ node: NodeConnection, calls: Int) throws -> [Int64] {
    var samples: [Int64] = []
    samples.reserveCapacity(calls)
    var begun: [UInt64: ContinuousClock.Instant] = [:]
    begun.reserveCapacity(inFlight * 2)
    let value = ByteSlice([UInt8](repeating: UInt8(ascii: "x"), count: size))
    let limit = timeout.protocolMilliseconds
    var sent = 0
    func send() throws {
      let id = node.nextID()
      // Without a key: the node spreads the events over the partitions.
      let frame = ClientFrame.exec(
        OutgoingEvent(target.text, value: value), id: id, durability: durability ?? .applicationDefault, blocking: true,
        timeoutMilliseconds: limit)
      begun[id] = .now
      sent += 1
      try node.send(frame, until: .now + timeout)
    }
    while sent < min(calls, inFlight) { try send() }
    while samples.count < calls {
      let frame = try node.receive(until: .now + timeout + .seconds(2))
      if let failure = frame.failure { throw failure }
      let reply = try frame.reply()
      if let failure = reply.failure { throw failure }
      guard reply.isFinal else { continue }
      guard let start = begun.removeValue(forKey: frame.id) else { continue }
      let (seconds, attoseconds) = (ContinuousClock.now - start).components
      samples.append(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
      if sent < calls { try send() }
    }
    return samples
  }
}
