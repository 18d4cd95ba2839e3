import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// Reads `app@event` into its parts.
func parseTarget(_ text: String) throws -> EventTarget {
  do throws(NameError) {
    let address = try EventAddress(text)
    return EventTarget(app: address.app.text, event: address.event.text)
  } catch {
    throw ValidationError(error.message)
  }
}

/// An event's address.
struct EventTarget: Equatable {
  var app: String
  var event: String
  var text: String { "\(app)@\(event)" }
}

/// Checks an application's name.
func parseAppName(_ text: String) throws -> String {
  do throws(NameError) { return try AppName(text).text } catch { throw ValidationError(error.message) }
}

/// Checks an event's name.
func parseEventName(_ text: String) throws -> String {
  do throws(NameError) { return try EventName(text).text } catch { throw ValidationError(error.message) }
}

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

func parseCompression(_ text: String) throws -> BatchCompression {
  guard let compression = BatchCompression(text) else {
    throw ValidationError("a compression is one of \(BatchCompression.choices)")
  }
  return compression
}

/// An event's data as `--data` names it: the text itself, `@file`, or `-` for standard input.
func readData(_ argument: String, limit: Int) throws -> ByteSlice {
  if argument == "-" { return try FileContent.read(descriptor: 0, name: "standard input", limit: limit) }
  // @@ is for data that begins with an @.
  if argument.hasPrefix("@@") { return ByteSlice(String(argument.dropFirst())) }
  if argument.hasPrefix("@") { return try FileContent.read(path: String(argument.dropFirst()), limit: limit) }
  return ByteSlice(argument)
}
