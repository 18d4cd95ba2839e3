internal import Glibc

/// What the node tells a worker by environment variables.
struct WorkerEnvironment: Sendable {
  var socket = ""
  var token = ""
  /// SIGTERM asks this worker to end: false where it shares the process with others.
  var obeysSignals = false

  /// nil: not started by a node.
  static func ofProcess() -> WorkerEnvironment? {
    guard let socket = variable("GRAPE_SOCKET") else { return nil }
    return WorkerEnvironment(socket: socket, token: variable("GRAPE_TOKEN") ?? "", obeysSignals: true)
  }

  private static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
