import CGrapeLinux
import Glibc
import GrapeCore
import Logging

/// The node's log on standard error: a line per message, as text or JSON.
struct LineLogHandler: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level = .info
  private let json: Bool

  init(json: Bool) { self.json = json }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let time = Format.time(grape_realtime_ms())
    let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
    var line: String
    if json {
      var members: [JSONValue.Member] = [
        .init("time", .string(time)), .init("level", .string(event.level.rawValue)),
        .init("message", .string("\(event.message)")),
      ]
      members += all.map { .init($0.key, .string("\($0.value)")) }
      line = JSONValue.object(members).text
    } else {
      line = "\(time) \(event.level.rawValue): \(event.message)"
      for (key, value) in all { line += " \(key)=\(value)" }
    }
    line += "\n"
    // One call, so that lines of several threads do not mix. A standard error that cannot be written to has no better place to
    // be reported at.
    line.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
  }
}
