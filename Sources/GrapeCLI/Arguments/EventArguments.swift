import ArgumentParser
import Grape
import GrapeWire

/// Reads `app@event` into its parts, checked by the rules of docs/protocol.md, "Names".
func parseTarget(_ text: String) throws -> EventTarget {
  let parts = text.split(separator: "@", omittingEmptySubsequences: false)
  guard parts.count == 2 else {
    throw ValidationError("an event is addressed as app@event, for instance shop@order")
  }
  return EventTarget(app: try parseAppName(String(parts[0])), event: try parseEventName(String(parts[1])))
}

/// An event's address.
struct EventTarget: Equatable {
  var app: String
  var event: String
  var text: String { "\(app)@\(event)" }
}

/// Checks an application's name.
func parseAppName(_ text: String) throws -> String {
  let bytes = Array(text.utf8)
  guard let first = bytes.first, isLower(first), bytes.count <= 63,
    bytes.allSatisfy({ isLower($0) || isDigit($0) || $0 == UInt8(ascii: "-") })
  else {
    throw ValidationError(
      "an application's name is 1 to 63 of a-z, 0-9 and -, and begins with a letter; `\(text)` is not")
  }
  return text
}

/// Checks an event's name.
func parseEventName(_ text: String) throws -> String {
  let bytes = Array(text.utf8)
  guard let first = bytes.first, isLower(first), bytes.count <= 127,
    bytes.allSatisfy({ isLower($0) || isDigit($0) || [0x2d, 0x2e, 0x5f].contains($0) })
  else {
    throw ValidationError(
      "an event's name is 1 to 127 of a-z, 0-9, _, . and -, and begins with a letter; `\(text)` is not")
  }
  return text
}

private func isLower(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) }
private func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

/// Reads `name=value`.
func parseHeader(_ text: String) throws -> OutgoingEvent.Header {
  guard let equals = text.firstIndex(of: "="), equals != text.startIndex else {
    throw ValidationError("a header is written name=value, for instance source=import")
  }
  let name = String(text[..<equals])
  guard !name.hasPrefix("g.") else {
    throw ValidationError("header names that begin with g. belong to Grape: choose another than `\(name)`")
  }
  guard name.utf8.count <= 65_535 else { throw ValidationError("a header's name has at most 65,535 bytes") }
  return OutgoingEvent.Header(name, ByteSlice(String(text[text.index(after: equals)...])))
}

/// Reads `disk`, `os` or `memory`.
func parseDurability(_ text: String) throws -> AckDurability {
  guard let durability = AckDurability(name: text), durability != .applicationDefault else {
    throw ValidationError("a durability is disk, os or memory")
  }
  return durability
}

/// An event's data as `--data` names it: the text itself, `@file`, or `-` for standard input.
func readData(_ argument: String, limit: Int) throws -> ByteSlice {
  if argument == "-" { return try FileContent.read(descriptor: 0, name: "standard input", limit: limit) }
  // @@ is for data that begins with an @.
  if argument.hasPrefix("@@") { return ByteSlice(String(argument.dropFirst())) }
  if argument.hasPrefix("@") { return try FileContent.read(path: String(argument.dropFirst()), limit: limit) }
  return ByteSlice(argument)
}
