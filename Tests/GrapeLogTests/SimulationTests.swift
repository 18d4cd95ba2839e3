import Dispatch
import Foundation
import GrapeCommitLogSimulation
import Synchronization
import Testing

@Suite("The log on a simulated disk") struct SimulationTests {
  /// `GRAPE_SIMULATION_SEEDS=FROM..TO` runs others; `.build/release/GrapeSimulator` runs more.
  private static let chosen: ClosedRange<UInt64>? = {
    let text = ProcessInfo.processInfo.environment["GRAPE_SIMULATION_SEEDS"] ?? ""
    let parts = text.split(separator: "..").compactMap { UInt64($0) }
    return parts.count == 2 && parts[0] <= parts[1] ? parts[0]...parts[1] : nil
  }()

  @Test("no crash, fault or order of steps loses, doubles, tears or invents anything")
  func log() { _ = run(.log, 1...1_000) }

  @Test("retention and compaction remove only what they may, whatever comes between and wherever the process dies")
  func cleaning() {
    let summary = run(.cleaning, 1...200)
    #expect(summary.kills > 0 && summary.powerLosses > 0 && summary.cleaned > summary.starts)
  }

  @Test("what a repair does not list as lost is there, and new records get the offsets that come next")
  func repair() { _ = run(.repair, 1...100) }

  @Test("the same seed does the same again, step by step", arguments: SimulationScenario.allCases)
  func deterministic(_ scenario: SimulationScenario) throws {
    for seed: UInt64 in 1...10 {
      let trace = try scenario.run(seed: seed, tracing: true).trace
      #expect(try scenario.run(seed: seed, tracing: true).trace == trace, "seed \(seed)")
    }
  }

  /// Runs a range of seeds on all processors, up to the first that fails.
  private func run(_ scenario: SimulationScenario, _ usual: ClosedRange<UInt64>) -> Simulation.Summary {
    let seeds = Self.chosen ?? usual
    let next = Mutex(seeds.lowerBound)
    let failures = Mutex<[Simulation.Failure]>([])
    let total = Mutex(Simulation.Summary())
    DispatchQueue.concurrentPerform(iterations: max(ProcessInfo.processInfo.activeProcessorCount, 1)) { _ in
      while let seed = next.withLock({ next -> UInt64? in
        guard next <= seeds.upperBound, failures.withLock({ $0.isEmpty }) else { return nil }
        defer { next += 1 }
        return next
      }) {
        do throws(Simulation.Failure) {
          let summary = try scenario.run(seed: seed).summary
          total.withLock { $0 += summary }
        } catch {
          failures.withLock { $0.append(error) }
        }
      }
    }
    for failure in failures.withLock({ $0 }) {
      Issue.record(
        "\(failure) (.build/release/GrapeSimulator --scenario \(scenario) --seed \(failure.seed) --trace tells all)")
    }
    return total.withLock { $0 }
  }
}
