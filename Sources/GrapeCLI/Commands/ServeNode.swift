import Glibc
import GrapeCore
import GrapeKafka
import GrapeNode

/// Runs a node until it is told to stop.
func runNode(_ settings: ServeSettings) async throws {
  let name: NodeName
  do throws(NameError) { name = try NodeName(settings.name) } catch { throw CommandFailure(.usage, error.message) }
  let configuration = NodeConfiguration(
    dataDirectory: settings.dataDirectory, socketPath: settings.socketPath, name: name, logger: settings.logger,
    log: settings.log, segmentBytes: settings.segmentSize,
    lowSpaceBytes: settings.lowSpace.map(Int64.init))
  do {
    try await Node.run(configuration, environment: settings.environment)
  } catch let error as NodeError {
    throw CommandFailure(.unavailable, error.message)
  }
}

/// The process's environment.
func processEnvironment() -> [String: String] {
  var variables: [String: String] = [:]
  var entry = environ
  while let text = entry.pointee {
    let assignment = String(cString: text)
    if let equals = assignment.firstIndex(of: "=") {
      variables[String(assignment[..<equals])] = String(assignment[assignment.index(after: equals)...])
    }
    entry += 1
  }
  return variables
}
