internal import CGrapeLinux
public import GrapeCore
public import GrapeReactor
internal import Glibc

/// An application's log: what its workers print and log, and what the node has to say about them. A bounded tail is kept in memory, all of it in a
/// file of JSON lines that is rotated by size.
public final class ApplicationLog {
  /// One line.
  public struct Line: Sendable {
    public var number: Int64
    public var timeMs: Int64
    public var worker: String
    /// `stdout`, `stderr`, `log` or `node`.
    public var stream: String
    /// `debug`, `info`, `warning` or `error`.
    public var level: String
    public var message: String
    public var fields: JSONValue?

    /// As in the answer to `app.logs` and in the file.
    public var json: JSONValue {
      var members: [JSONValue.Member] = [
        .init("timeMs", .int(timeMs)), .init("worker", .string(worker)), .init("stream", .string(stream)),
        .init("level", .string(level)), .init("message", .string(message)),
      ]
      if let fields { members.append(.init("fields", fields)) }
      return .object(members)
    }
  }

  /// Lines kept in memory.
  public static let capacity = 2000

  private let path: String?
  private let limit: Int
  private let reactor: Reactor
  private var lines: [Line] = []
  private var nextNumber: Int64 = 1
  private var pending: [UInt8] = []
  private var isFlushScheduled = false
  private var waiting: [(Int64, () -> Void)] = []
  /// Why the file could not be written last time; nil: it could.
  public private(set) var problem: String?

  /// Logs to `path`, rotated to `path.1` at `limit` bytes; nil: in memory alone.
  public init(path: String?, limit: Int, reactor: Reactor) {
    self.path = path
    self.limit = max(limit, 4096)
    self.reactor = reactor
  }

  /// Adds a line.
  public func append(worker: String, stream: String, level: String, message: String, fields: JSONValue? = nil) {
    let line = Line(
      number: nextNumber, timeMs: reactor.clock.wall, worker: worker, stream: stream, level: level, message: message,
      fields: fields)
    nextNumber += 1
    lines.append(line)
    if lines.count > Self.capacity + 500 { lines.removeFirst(lines.count - Self.capacity) }
    if path != nil, pending.count < 4 * 1024 * 1024 { pending += line.json.utf8 + [0x0a] }
    if !isFlushScheduled {
      isFlushScheduled = true
      reactor.deferred { [self] in flush() }
    }
  }

  /// The last `count` lines, or those numbered above `after`.
  public func tail(_ count: Int, after: Int64?) -> (lines: ArraySlice<Line>, next: Int64) {
    var selected = lines[...]
    if let after { selected = selected.drop { $0.number <= after } }
    return (after == nil ? selected.suffix(count) : selected.prefix(count), lines.last?.number ?? nextNumber - 1)
  }

  /// Calls `action` once there is a line numbered above `number`.
  public func whenLonger(than number: Int64, _ action: @escaping () -> Void) { waiting.append((number, action)) }

  private func flush() {
    isFlushScheduled = false
    let due = waiting.filter { $0.0 < nextNumber - 1 }
    waiting.removeAll { $0.0 < nextNumber - 1 }
    for (_, action) in due { action() }
    guard let path, !pending.isEmpty else { return }
    defer { pending.removeAll(keepingCapacity: pending.count < 65_536) }
    do throws(SystemError) {
      try write(to: path)
      problem = nil
    } catch {
      // The lines stay in memory; the log of an application must not stop its events.
      problem = error.description
    }
  }

  private func write(to path: String) throws(SystemError) {
    let file = try system("open \(path)") { grape_open(path, O_WRONLY | O_CREAT | O_APPEND, 0o640) }
    defer { close(file) }
    let size = lseek(file, 0, SEEK_END)
    var position = 0
    while position < pending.count {
      let written = try system("write \(path)") {
        pending.withUnsafeBytes { Glibc.write(file, $0.baseAddress! + position, $0.count - position) }
      }
      position += written
    }
    if Int(size) + pending.count > limit { try system("rename \(path)") { rename(path, path + ".1") } }
  }
}
