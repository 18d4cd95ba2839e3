internal import Glibc

/// Why and how a worker process ends.
struct WorkerEnd: Sendable, Equatable {
  /// Exit status.
  var status: Int32
  /// For standard error; nil: nothing to say.
  var message: String?
  /// A handler may be running in another thread: nothing of the process may be touched any more.
  var isForced = false

  static let drained = WorkerEnd(status: 0)
  /// `onStart` threw.
  static func startFailed(_ message: String) -> WorkerEnd { WorkerEnd(status: 1, message: message) }
  /// Not started by a node.
  static func usage(_ message: String) -> WorkerEnd { WorkerEnd(status: 64, message: message) }
  /// The node is gone, cannot be reached, or does not want this worker.
  static func unavailable(_ message: String, isForced: Bool = false) -> WorkerEnd {
    WorkerEnd(status: 69, message: message, isForced: isForced)
  }
  /// The node broke the protocol.
  static func protocolBroken(_ message: String) -> WorkerEnd { WorkerEnd(status: 70, message: message) }
  /// The system lacks something that a worker needs.
  static func system(_ message: String) -> WorkerEnd { WorkerEnd(status: 71, message: message) }

  /// Ends the process.
  func exitProcess() -> Never {
    if let message {
      var line = "grape worker: \(message)\n"
      line.withUTF8 { bytes in
        // Nothing can be done about an error here: this is where errors are told.
        _ = write(2, bytes.baseAddress, bytes.count)
      }
    }
    if isForced { _exit(status) }
    exit(status)
  }
}
