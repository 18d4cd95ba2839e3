import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// Which part of which application's state is meant.
struct StatePlace: ParsableArguments {
  @Argument(help: ArgumentHelp("The application's name.", valueName: "app"), transform: parseAppName) var app: String

  @Option(
    help: ArgumentHelp("The store; without it the default store.", valueName: "name"), transform: parseStoreName)
  var store: String?

  @Option(help: ArgumentHelp("The partition.", valueName: "number")) var partition: Int32?

  @Option(
    name: .customLong("for"),
    help: ArgumentHelp("The partition of events with this key.", valueName: "event key"))
  var eventKey: String?

  @Flag(name: .customLong("hex"), help: "Keys are given as hexadecimal digits: KEY, --for, --prefix, --start, --end.")
  var isHexadecimal = false

  @Option(help: ArgumentHelp("How long to wait (default 30s).", valueName: "duration"), transform: parseTimeout)
  var timeout: Duration = .seconds(30)

  func validate() throws {
    if partition != nil, eventKey != nil {
      throw ValidationError("--partition and --for both say which partition: give one")
    }
    if let partition, partition < 0 { throw ValidationError("a partition is a number from 0 on, not \(partition)") }
    if let eventKey { _ = try bytes(eventKey, "--for") }
    guard timeout <= Self.longestTimeout else { throw ValidationError("--timeout is at most 10m") }
  }

  private static let longestTimeout = Duration.seconds(600)

  /// The partition that the command line names, as a request says it; nil: none.
  var partitionMember: (String, JSONValue)? {
    get throws {
      if let partition { return ("partition", JSONValue(partition)) }
      return try eventKey.map { ("eventKeyHex", .string(Hexadecimal.text(try bytes($0, "--for")))) }
    }
  }

  /// What every request has.
  var members: [(String, JSONValue)] {
    [("app", .string(app)), ("timeoutMs", JSONValue(timeout.protocolMilliseconds))]
      + (store.map { [("store", .string($0))] } ?? [])
  }

  /// The bytes of a key as the command line has them.
  func bytes(_ text: String, _ what: String) throws -> [UInt8] {
    guard isHexadecimal else { return Array(text.utf8) }
    guard let bytes = Hexadecimal.bytes(text) else {
      throw ValidationError("\(what) is an even number of hexadecimal digits with --hex, not `\(text)`")
    }
    return bytes
  }

  /// The key of an entry, checked.
  func key(_ text: String) throws -> [UInt8] {
    let key = try bytes(text, "the key")
    guard (1...StateBounds.key).contains(key.count) else {
      throw ValidationError("a key has 1 to \(StateBounds.key) bytes, not \(key.count)")
    }
    return key
  }

  /// The store, for sentences.
  var storeInWords: String { store.map { $0.isEmpty ? "the default store" : "the store \($0)" } ?? "the default store" }
}

/// What docs/protocol.md allows, for messages that come before anything is sent.
enum StateBounds {
  static let key = 480
  static let value = 64 * 1024 * 1024
  static let tags = 16
  static let tag = 63
}

/// Checks a store's name. Empty is the default store.
func parseStoreName(_ text: String) throws -> String {
  let bytes = text.utf8
  let isLegal =
    bytes.count <= 30 && (bytes.isEmpty || (0x61...0x7a).contains(bytes.first!))
    && bytes.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d }
  guard isLegal else {
    throw ValidationError("a store's name is a small letter, then up to 29 of a-z, 0-9 and -, not `\(text)`")
  }
  return text
}

/// Checks a tag.
func parseTag(_ text: String) throws -> String {
  guard (1...StateBounds.tag).contains(text.utf8.count) else {
    throw ValidationError("a tag has 1 to \(StateBounds.tag) bytes, not \(text.utf8.count)")
  }
  return text
}

/// `local` or `linearizable`.
enum StateConsistency: String, ExpressibleByArgument, CaseIterable {
  case local, linearizable

  static let help = ArgumentHelp(
    "local: what is in the store now. linearizable: everything that anybody was told to be done before.",
    valueName: "level")
}

/// A value on the command line: the text, standard input or a file.
struct StateValue: ParsableArguments {
  @Argument(help: ArgumentHelp("The value; - for standard input.", valueName: "value")) var text: String?
  @Option(help: ArgumentHelp("Take the value from a file; - for standard input.", valueName: "path")) var file: String?

  func validate() throws {
    if text != nil, file != nil { throw ValidationError("the value is given twice: as an argument and with --file") }
  }

  var isGiven: Bool { text != nil || file != nil }

  func read() throws -> ByteSlice {
    if let file, file != "-" { return try FileContent.read(path: file, limit: StateBounds.value) }
    if file == "-" || text == "-" {
      return try FileContent.read(descriptor: 0, name: "standard input", limit: StateBounds.value)
    }
    let value = ByteSlice(text ?? "")
    guard value.count <= StateBounds.value else {
      throw CommandFailure(
        .tooLarge, "the value has \(Format.count(value.count)) bytes, \(Format.count(StateBounds.value)) are allowed")
    }
    return value
  }
}

/// Bytes as hexadecimal digits.
enum Hexadecimal {
  private static let digits = Array("0123456789abcdef".utf8)

  static func text(_ bytes: [UInt8]) -> String {
    String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }

  /// nil if they are none, or an odd number.
  static func bytes(_ text: String) -> [UInt8]? {
    let text = Array(text.utf8)
    guard text.count % 2 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count / 2)
    for index in stride(from: 0, to: text.count, by: 2) {
      guard let high = digit(text[index]), let low = digit(text[index + 1]) else { return nil }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x57
    case 0x41...0x46: byte - 0x37
    default: nil
    }
  }
}
