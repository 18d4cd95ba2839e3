import ArgumentParser
import Grape
import GrapeCore
import GrapeLog
import GrapePackages

/// What the process exits with: one number per kind of failure. docs/cli.md carries the same table.
enum GrapeExit: Int32, CaseIterable {
  case ok = 0
  case failure = 1
  case handlerError = 10
  case noSuchApp = 11
  case noSuchSlot = 12
  case queueFull = 13
  case deadlineExceeded = 14
  case tooLarge = 15
  case gaveUp = 16
  case unavailable = 17
  case verificationFailed = 18
  case conflict = 19
  case unauthorized = 20
  case notFound = 21
  case noEntry = 22
  case refused = 23
  case usage = 64
  case badInput = 65
  case noInput = 66
  case unreachable = 69
  case `internal` = 70
  case interrupted = 130

  var meaning: String {
    switch self {
    case .ok: "done"
    case .failure: "a failure without a number of its own"
    case .handlerError: "the event's handler ran and failed"
    case .noSuchApp: "no application of that name is deployed"
    case .noSuchSlot: "the application has no slot for that event"
    case .queueFull: "the application's queue is full: try later"
    case .deadlineExceeded: "the time ran out"
    case .tooLarge: "the event or row is larger than the node takes"
    case .gaveUp: "the event was tried as often as allowed, and is a dead letter now"
    case .unavailable: "the node or the application is stopping or cannot take events"
    case .verificationFailed: "`grape log verify` or `grape state verify` found problems"
    case .conflict: "the state of things does not allow it, or a file is in the way"
    case .unauthorized: "not allowed"
    case .notFound: "no such topic, partition or offset"
    case .noEntry: "the state has no such entry"
    case .refused: "`grape state cas` found something else than expected"
    case .usage: "the command line is wrong"
    case .badInput: "bad content: a manifest, package, input file or state file"
    case .noInput: "no such file or folder, or it cannot be read"
    case .unreachable: "the node cannot be reached, or the connection to it was lost"
    case .internal: "a fault of Grape itself"
    case .interrupted: "interrupted by Ctrl-C or SIGTERM"
    }
  }

  /// The exit code that a status of the protocol becomes.
  init(_ status: Status) {
    switch status {
    case .ok: self = .ok
    case .handlerError, .hopLimit: self = .handlerError
    case .noSuchApp: self = .noSuchApp
    case .noSuchSlot: self = .noSuchSlot
    case .queueFull: self = .queueFull
    case .deadlineExceeded: self = .deadlineExceeded
    case .tooLarge: self = .tooLarge
    case .gaveUp: self = .gaveUp
    case .unavailable: self = .unavailable
    case .badRequest: self = .badInput
    case .unauthorized: self = .unauthorized
    case .internal: self = .internal
    case .conflict, .fenced: self = .conflict
    case .unsupportedVersion: self = .unreachable
    case .notFound, .offsetOutOfRange: self = .notFound
    default: self = .failure
    }
  }

  /// The exit code that a failure of the connection becomes.
  init(_ code: ClientError.Code) {
    switch code {
    case .unreachable, .disconnected, .refused: self = .unreachable
    case .deadlineExceeded: self = .deadlineExceeded
    case .interrupted: self = .interrupted
    case .fenced: self = .conflict
    default: self = .internal
    }
  }

  /// The exit code that a failure with a package becomes.
  init(_ code: PackageError.Code) {
    switch code {
    case .notFound: self = .noInput
    case .system: self = .failure
    case .changed: self = .conflict
    default: self = .badInput
    }
  }

  /// The exit code that a failure with the log's files becomes.
  init(_ code: LogError.Code) {
    switch code {
    case .corrupt: self = .verificationFailed
    case .noSuchTopic, .noSuchPartition, .offsetOutOfRange: self = .notFound
    case .locked: self = .conflict
    case .failed: self = .noInput
    case .unsupportedFormat: self = .badInput
    default: self = .failure
    }
  }
}
