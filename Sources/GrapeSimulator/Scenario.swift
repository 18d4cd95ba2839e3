import GrapeCommitLogSimulation
import GrapeEngineSimulation

/// What can be simulated: the log alone, or all of a node's engines on it.
enum Scenario: Sendable, CustomStringConvertible {
  case log(SimulationScenario)
  case state

  /// What runs have come to.
  enum Summary: Sendable, CustomStringConvertible {
    case log(Simulation.Summary)
    case state(EngineSimulation.Summary)

    mutating func add(_ other: Summary) {
      switch (self, other) {
      case (.log(var total), .log(let one)):
        total += one
        self = .log(total)
      case (.state(var total), .state(let one)):
        total += one
        self = .state(total)
      default: preconditionFailure("all runs are of one scenario")
      }
    }

    var description: String {
      switch self {
      case .log(let summary): "\(summary)"
      case .state(let summary): "\(summary)"
      }
    }
  }

  static let names = SimulationScenario.allCases.map(\.rawValue) + ["state"]

  init?(_ name: String) {
    if name == "state" {
      self = .state
    } else if let scenario = SimulationScenario(rawValue: name) {
      self = .log(scenario)
    } else {
      return nil
    }
  }

  var description: String {
    switch self {
    case .log(let scenario): scenario.rawValue
    case .state: "state"
    }
  }

  /// The sum of no runs.
  var nothing: Summary {
    switch self {
    case .log: .log(Simulation.Summary())
    case .state: .state(EngineSimulation.Summary())
    }
  }

  func run(seed: UInt64, tracing: Bool) throws(Simulation.Failure) -> (Summary, trace: [String]) {
    switch self {
    case .log(let scenario):
      let (summary, trace) = try scenario.run(seed: seed, tracing: tracing)
      return (.log(summary), trace)
    case .state:
      let (summary, trace) = try EngineSimulation.run(seed: seed, tracing: tracing)
      return (.state(summary), trace)
    }
  }
}
