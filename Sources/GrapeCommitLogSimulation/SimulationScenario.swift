/// What can be simulated from a seed.
package enum SimulationScenario: String, CaseIterable, Sendable {
  /// All that a log does but giving up records by itself: every answer, every read and every start, batch by batch.
  case log
  /// Retention and compaction beside commits: what may be gone, and what must not, record by record.
  case cleaning
  /// As `log`; in the end segments are damaged and the log is repaired: what is not listed as lost must be there.
  case repair

  /// Runs the simulation of a seed; `trace` is empty unless `tracing`. Throws what is wrong with the log.
  package func run(
    seed: UInt64, tracing: Bool = false
  ) throws(Simulation.Failure) -> (summary: Simulation.Summary, trace: [String]) {
    switch self {
    case .log: try Simulation.run(seed: seed, tracing: tracing, repairs: false)
    case .repair: try Simulation.run(seed: seed, tracing: tracing, repairs: true)
    case .cleaning: try CleaningSimulation.run(seed: seed, tracing: tracing)
    }
  }
}
