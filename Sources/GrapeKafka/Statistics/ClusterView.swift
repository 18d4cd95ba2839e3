internal import CRDKafka
internal import GrapeLog

/// What librdkafka reports of the brokers now and then. Confined to the thread that serves the groups.
final class ClusterView {
  private let queue: RDKafkaQueue
  private let meters: KafkaMeters

  init(_ client: RDKafkaClient, _ wakeup: Wakeup, _ meters: KafkaMeters) {
    queue = RDKafkaQueue(client, rd_kafka_queue_get_main(client.pointer))
    self.meters = meters
    queue.signal(wakeup)
  }

  /// Takes what there is.
  func serve() {
    while let event = rd_kafka_queue_poll(queue.pointer, 0) {
      defer { rd_kafka_event_destroy(event) }
      switch rd_kafka_event_type(event) {
      case RD_KAFKA_EVENT_STATS:
        guard let text = rd_kafka_event_stats(event) else { continue }
        meters.saw(Self.brokers(in: String(cString: text)))
      case RD_KAFKA_EVENT_ERROR:
        let text = rd_kafka_event_error_string(event).map { String(cString: $0) }
        meters.failed(KafkaError.log(rd_kafka_event_error(event), "reaching the cluster", detail: text))
      default: continue
      }
    }
  }

  /// Lets go of the wakeup.
  func end() { queue.signal(nil) }

  static func brokers(in report: String) -> [KafkaStatistics.Broker] {
    var reader = ReportReader(Array(report.utf8))
    guard case .object(let all)? = reader.value(), case .object(let brokers)? = all["brokers"] else { return [] }
    return brokers.sorted { $0.key < $1.key }.compactMap { name, broker in
      guard case .object(let fields) = broker, case .number(let id)? = fields["nodeid"], id >= 0,
        case .string(let state)? = fields["state"], state != "INIT"
      else { return nil }
      var roundTrip: [String: ReportReader.Value] = [:]
      if case .object(let found)? = fields["rtt"] { roundTrip = found }
      func microseconds(_ name: String) -> Int {
        if case .number(let value)? = roundTrip[name] { return Int(value) }
        return 0
      }
      return KafkaStatistics.Broker(
        name: name, isUp: state == "UP", roundTripMean: microseconds("avg"), roundTrip99: microseconds("p99"))
    }
  }
}

/// Reads the JSON that librdkafka writes, as far as it is of use here.
struct ReportReader {
  enum Value {
    case object([String: Value])
    case string(String)
    case number(Double)
    case other
  }

  private let bytes: [UInt8]
  private var place = 0
  private static let deepest = 32

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// The next value; nil: this is not JSON.
  mutating func value(depth: Int = 0) -> Value? {
    guard depth < Self.deepest, let first = next() else { return nil }
    switch first {
    case UInt8(ascii: "{"): return object(depth)
    case UInt8(ascii: "["): return array(depth)
    case UInt8(ascii: "\""): return string().map { .string($0) }
    default:
      place -= 1
      let start = place
      while place < bytes.count, !",]} \n\t\r".utf8.contains(bytes[place]) { place += 1 }
      let text = String(decoding: bytes[start..<place], as: UTF8.self)
      if let number = Double(text), number.magnitude < 1e15 { return .number(number) }
      return ["true", "false", "null"].contains(text) ? .other : nil
    }
  }

  private mutating func object(_ depth: Int) -> Value? {
    var fields: [String: Value] = [:]
    guard var byte = next() else { return nil }
    while byte != UInt8(ascii: "}") {
      guard byte == UInt8(ascii: "\""), let name = string(), next() == UInt8(ascii: ":"),
        let value = value(depth: depth + 1), let separator = next()
      else { return nil }
      fields[name] = value
      byte = separator
      if separator == UInt8(ascii: ",") {
        guard let following = next() else { return nil }
        byte = following
      }
    }
    return .object(fields)
  }

  private mutating func array(_ depth: Int) -> Value? {
    guard var byte = next() else { return nil }
    while byte != UInt8(ascii: "]") {
      place -= 1
      guard value(depth: depth + 1) != nil, let separator = next() else { return nil }
      byte = separator
      if separator == UInt8(ascii: ",") {
        guard let following = next() else { return nil }
        byte = following
      }
    }
    return .other
  }

  /// Behind the opening quotation mark. Escapes stay as they are.
  private mutating func string() -> String? {
    let start = place
    while place < bytes.count, bytes[place] != UInt8(ascii: "\"") {
      place += bytes[place] == UInt8(ascii: "\\") ? 2 : 1
    }
    guard place < bytes.count else { return nil }
    place += 1
    return String(decoding: bytes[start..<place - 1], as: UTF8.self)
  }

  /// The next byte that is no blank.
  private mutating func next() -> UInt8? {
    while place < bytes.count, " \n\t\r".utf8.contains(bytes[place]) { place += 1 }
    guard place < bytes.count else { return nil }
    place += 1
    return bytes[place - 1]
  }
}
