import Dispatch
import Foundation
import GrapeCommitLogSimulation
import GrapeEngineSimulation
import Synchronization
import Testing

@Suite("Engines, state and log of a node, simulated") struct EngineSimulationTests {
  /// `GRAPE_SIMULATION_SEEDS=FROM..TO` runs others; `.build/release/GrapeSimulator --scenario state` runs more.
  private static let seeds: ClosedRange<UInt64> = {
    let text = ProcessInfo.processInfo.environment["GRAPE_SIMULATION_SEEDS"] ?? ""
    let parts = text.split(separator: "..").compactMap { UInt64($0) }
    return parts.count == 2 && parts[0] <= parts[1] ? parts[0]...parts[1] : 1...300
  }()

  @Test("no death of worker, node or machine loses, doubles or reorders an effect, and everything comes to its end")
  func histories() {
    let next = Mutex(Self.seeds.lowerBound)
    let failures = Mutex<[Simulation.Failure]>([])
    let total = Mutex(EngineSimulation.Summary())
    DispatchQueue.concurrentPerform(iterations: max(ProcessInfo.processInfo.activeProcessorCount, 1)) { _ in
      while let seed = next.withLock({ next -> UInt64? in
        guard next <= Self.seeds.upperBound, failures.withLock({ $0.isEmpty }) else { return nil }
        defer { next += 1 }
        return next
      }) {
        do throws(Simulation.Failure) {
          let summary = try EngineSimulation.run(seed: seed).summary
          total.withLock { $0 += summary }
        } catch {
          failures.withLock { $0.append(error) }
        }
      }
    }
    for failure in failures.withLock({ $0 }) {
      Issue.record(
        "\(failure) (.build/release/GrapeSimulator --scenario state --seed \(failure.seed) --trace tells all)")
    }
    let summary = total.withLock { $0 }
    #expect(summary.kills > 0 && summary.powerLosses > 0 && summary.workerKills > 0 && summary.deadLetters > 0)
  }

  @Test("the same seed does the same again, step by step")
  func deterministic() throws {
    for seed: UInt64 in 1...10 {
      let trace = try EngineSimulation.run(seed: seed, tracing: true).trace
      #expect(try EngineSimulation.run(seed: seed, tracing: true).trace == trace, "seed \(seed)")
    }
  }
}
