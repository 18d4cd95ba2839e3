import GrapeNode

/// Runs a node until it is told to stop.
func runNode(_ settings: ServeSettings) async throws {
  throw CommandFailure(.internal, "this build of grape has no node in it")
}
