import ArgumentParser
import Grape
import GrapeCore
import GrapeLog
import GrapePackages

/// Why a command failed: one line for people, the parts for programs, and the exit code.
struct CommandFailure: Error, CustomStringConvertible {
  var exit: GrapeExit
  /// What, where, and what would be right.
  var message: String
  /// The protocol's status, where the node or a handler gave one.
  var status: Status?
  /// The handler's own code.
  var code: Int32 = 0
  var ran: Ran = .never

  init(_ exit: GrapeExit, _ message: String) {
    self.exit = exit
    self.message = message
  }

  init(_ error: StatusError) {
    exit = GrapeExit(error.status)
    message = error.message.isEmpty ? error.status.name : error.message
    status = error.status
    code = error.code
    ran = error.ran
  }

  /// Any error that a command may throw.
  init(_ error: any Error) {
    switch error {
    case let failure as CommandFailure: self = failure
    case let error as StatusError: self.init(error)
    case let error as ClientError:
      self.init(GrapeExit(error.code), error.message)
      // The request may have been under way when the connection went.
      if error.code == .disconnected || error.code == .deadlineExceeded { ran = .unknown }
    case let error as PackageError: self.init(GrapeExit(error.code), error.message)
    case let error as LogError: self.init(GrapeExit(error.code), error.message)
    case is CancellationError: self.init(.interrupted, "interrupted")
    default: self.init(.failure, "\(error)")
    }
  }

  var description: String { message }

  /// The line on standard error.
  var line: String {
    let kind = status.map { "\($0.name): " } ?? ""
    let code = self.code == 0 ? "" : " (code \(self.code))"
    return message == status?.name ? "grape: \(message)\(code)" : "grape: \(kind)\(message)\(code)"
  }

  /// What `--json` prints.
  var json: JSONValue {
    let kebab = exit.name
    return [
      "error": [
        "status": .string(status?.name ?? kebab),
        "statusCode": status.map { JSONValue($0.rawValue) } ?? .null,
        "code": JSONValue(code),
        "message": .string(message),
        "ran": .string(ran.name),
        "exitCode": JSONValue(exit.rawValue),
      ]
    ]
  }
}

extension GrapeExit {
  /// The case's name as JSON output has it: `no-such-app`.
  var name: String {
    var text = ""
    for character in "\(self)" {
      if character.isUppercase { text += "-" }
      text += character.lowercased()
    }
    return text
  }
}

/// Runs a command's body: whatever it throws becomes one line on standard error (and one JSON object on standard output with
/// `--json`), and the exit code.
func reporting(json: Bool, _ body: () throws -> Void) throws {
  do {
    try body()
    try Output.flush()
  } catch {
    throw report(error, json: json)
  }
}

/// The same for a body that waits.
func reportingAsync(json: Bool, _ body: () async throws -> Void) async throws {
  do {
    try await body()
    try Output.flush()
  } catch {
    throw report(error, json: json)
  }
}

private func report(_ error: any Error, json: Bool) -> any Error {
  // The parser's own errors (a usage problem found late) are printed by it.
  if error is ValidationError || error is ExitCode || error is CleanExit { return error }
  let failure = CommandFailure(error)
  if json { Output.line(failure.json.text) }
  Output.flushQuietly()
  if failure.exit != .interrupted || !failure.message.isEmpty { Output.complain(failure.line) }
  return ExitCode(failure.exit.rawValue)
}
