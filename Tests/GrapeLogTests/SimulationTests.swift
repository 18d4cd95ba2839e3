import Dispatch
import Foundation
import GrapeCommitLogSimulation
import Synchronization
import Testing

@Suite("The log on a simulated disk") struct SimulationTests {
  /// `GRAPE_SIMULATION_SEEDS=FROM..TO` runs others; `.build/release/GrapeLogSimulator` runs more.
  private static let seeds: ClosedRange<UInt64> = {
    let text = ProcessInfo.processInfo.environment["GRAPE_SIMULATION_SEEDS"] ?? ""
    let parts = text.split(separator: "..").compactMap { UInt64($0) }
    return parts.count == 2 && parts[0] <= parts[1] ? parts[0]...parts[1] : 1...1_000
  }()

  @Test("no crash, fault or order of steps loses, doubles, tears or invents anything")
  func seeds() {
    let next = Mutex(Self.seeds.lowerBound)
    let failures = Mutex<[Simulation.Failure]>([])
    DispatchQueue.concurrentPerform(iterations: max(ProcessInfo.processInfo.activeProcessorCount, 1)) { _ in
      while let seed = next.withLock({ next -> UInt64? in
        guard next <= Self.seeds.upperBound, failures.withLock({ $0.isEmpty }) else { return nil }
        defer { next += 1 }
        return next
      }) {
        do throws(Simulation.Failure) {
          try Simulation.run(seed: seed)
        } catch {
          failures.withLock { $0.append(error) }
        }
      }
    }
    for failure in failures.withLock({ $0 }) {
      Issue.record("\(failure) (.build/release/GrapeLogSimulator --seed \(failure.seed) --trace tells all)")
    }
  }

  @Test("the same seed does the same again, step by step")
  func deterministic() throws {
    for seed: UInt64 in 1...20 {
      #expect(try Simulation.traced(seed: seed).trace == Simulation.traced(seed: seed).trace, "seed \(seed)")
    }
  }

  /// `GRAPE_CLEANING_SIMULATIONS=N` runs N seeds instead of a few.
  private static let cleanings =
    ProcessInfo.processInfo.environment["GRAPE_CLEANING_SIMULATIONS"].flatMap { UInt64($0) } ?? 150

  @Test("retention and compaction remove only what they may, whenever the process dies or the power goes")
  func cleaning() throws {
    var deaths = 0
    var cleaned: UInt64 = 0
    for seed in 0..<Self.cleanings {
      let simulation = CleaningSimulation(seed: seed)
      try simulation.run()
      deaths += simulation.deaths
      cleaned += simulation.cleaned
    }
    #expect(deaths > 0 && cleaned > Self.cleanings)
  }
}
