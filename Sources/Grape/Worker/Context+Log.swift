public import GrapeCore

/// How grave a log message is.
public enum LogLevel: String, Sendable, CaseIterable {
  case debug, info, warning, error
}

extension Context {
  /// Sends a message to the application's log. Never waits: if the node takes messages more slowly than they are made
  /// the newest are dropped, and the log says how many.
  public func log(_ level: LogLevel, _ message: String, _ fields: [String: JSONValue] = [:]) {
    session.log.append(level, message, fields)
  }

  public func debug(_ message: String, _ fields: [String: JSONValue] = [:]) { log(.debug, message, fields) }
  public func info(_ message: String, _ fields: [String: JSONValue] = [:]) { log(.info, message, fields) }
  public func warning(_ message: String, _ fields: [String: JSONValue] = [:]) { log(.warning, message, fields) }
  public func error(_ message: String, _ fields: [String: JSONValue] = [:]) { log(.error, message, fields) }
}
