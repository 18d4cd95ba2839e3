import Dispatch
import GrapeCommitLogSimulation
import GrapeEngineSimulation
import Synchronization

#if canImport(Glibc)
  import Glibc
#endif

/// Runs simulations: `--seeds FROM..TO` (both included) or `--seed N [--trace]`, with `--jobs N` at a time, of
/// `--scenario log`, unless told otherwise, `cleaning`, `repair` or `state`. Stops at the first seed that fails, with exit code 1.
@main
struct Simulator {
  static func main() {
    let arguments: Arguments
    do {
      arguments = try Arguments(CommandLine.arguments.dropFirst())
    } catch {
      complain("\(error.message)\n\(Arguments.usage)\n")
      exit(64)
    }
    let runs = Runs(arguments.scenario, arguments.seeds)
    CrashReport.install(jobs: arguments.jobs)
    let progress = Progress(runs)
    DispatchQueue.concurrentPerform(iterations: arguments.jobs) { job in
      runs.work(job: job, tracing: arguments.trace) { progress.tell() }
    }
    progress.finish()
    guard let failed = runs.failed else { return }
    complain(describe(failed, arguments))
    exit(1)
  }

  /// A failed seed is run once more, to tell what led to the failure.
  private static func describe(_ failure: Simulation.Failure, _ arguments: Arguments) -> String {
    var failure = failure
    if !arguments.trace {
      do throws(Simulation.Failure) {
        _ = try arguments.scenario.run(seed: failure.seed, tracing: true)
        return "\(failure)\nThe same seed passes when it is run again: the simulation is not deterministic.\n"
      } catch {
        failure = error
      }
      failure.trace = failure.trace.suffix(60)
    }
    return "\(failure)\nEverything that led to it: --scenario \(arguments.scenario) --seed \(failure.seed) --trace\n"
  }
}

/// Writes to the standard error output.
func complain(_ text: String) {
  var text = text
  text.withUTF8 { bytes in
    var done = 0
    while done < bytes.count {
      let count = write(2, bytes.baseAddress! + done, bytes.count - done)
      if count < 0 && errno == EINTR { continue }
      // Nobody listens: the exit code still says it.
      if count <= 0 { return }
      done += count
    }
  }
}

/// The command line.
struct Arguments {
  static let usage =
    "usage: GrapeSimulator [--scenario log|cleaning|repair|state] (--seeds FROM..TO | --seed N [--trace]) [--jobs N]"

  struct Wrong: Error {
    let message: String
  }

  private(set) var seeds: ClosedRange<UInt64> = 1...1_000
  private(set) var scenario = Scenario.log(.log)
  private(set) var trace = false
  private(set) var jobs = 1

  init(_ arguments: some Sequence<String>) throws(Wrong) {
    var rest = Array(arguments)[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--trace": trace = true
      case "--scenario":
        let name = rest.popFirst() ?? ""
        guard let found = Scenario(name) else {
          throw Wrong(message: "--scenario \(name): there is \(Scenario.names.joined(separator: ", "))")
        }
        scenario = found
      case "--seed":
        let seed = try Self.number(rest.popFirst(), argument)
        seeds = seed...seed
      case "--jobs": jobs = Int(clamping: min(max(try Self.number(rest.popFirst(), argument), 1), 1_024))
      case "--seeds":
        let text = rest.popFirst() ?? ""
        let parts = text.split(separator: "..", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, let from = UInt64(parts[0]), let to = UInt64(parts[1]), from <= to, to < .max else {
          throw Wrong(message: "--seeds \(text): two numbers with .. between are expected, such as 1..1000")
        }
        seeds = from...to
      default: throw Wrong(message: "\(argument) is unknown")
      }
    }
  }

  private static func number(_ text: String?, _ option: String) throws(Wrong) -> UInt64 {
    guard let text, let number = UInt64(text), number < .max else {
      throw Wrong(message: "\(option) \(text ?? ""): a number is expected")
    }
    return number
  }
}

/// The seeds, handed out to whoever is free.
final class Runs: Sendable {
  private struct State {
    var next: UInt64
    var done: UInt64 = 0
    var total: Scenario.Summary
    var failed: Simulation.Failure?
  }

  let seeds: ClosedRange<UInt64>
  private let scenario: Scenario
  private let state: Mutex<State>

  init(_ scenario: Scenario, _ seeds: ClosedRange<UInt64>) {
    self.scenario = scenario
    self.seeds = seeds
    state = Mutex(State(next: seeds.lowerBound, total: scenario.nothing))
  }

  /// Of the failures that were seen, that of the smallest seed.
  var failed: Simulation.Failure? { state.withLock { $0.failed } }

  var done: UInt64 { state.withLock { $0.done } }

  var summary: String {
    state.withLock { "\($0.done) seeds: \($0.total)" }
  }

  func work(job: Int, tracing: Bool, _ tell: () -> Void) {
    while let seed = take() {
      CrashReport.running(seed, job: job)
      do throws(Simulation.Failure) {
        let (summary, trace) = try scenario.run(seed: seed, tracing: tracing)
        if tracing { print(trace.joined(separator: "\n")) }
        state.withLock { state in
          state.done += 1
          state.total.add(summary)
        }
      } catch {
        state.withLock { state in
          if state.failed == nil || state.failed!.seed > error.seed { state.failed = error }
        }
      }
      tell()
    }
  }

  private func take() -> UInt64? {
    state.withLock { state in
      guard state.failed == nil, state.next <= seeds.upperBound else { return nil }
      defer { state.next += 1 }
      return state.next
    }
  }
}

/// Says every few seconds how far it is.
final class Progress: Sendable {
  private let runs: Runs
  private let began = ContinuousClock.now
  private let last = Mutex(ContinuousClock.now)

  init(_ runs: Runs) { self.runs = runs }

  func tell() {
    let now = ContinuousClock.now
    let due = last.withLock { last in
      guard now - last >= .seconds(5) else { return false }
      last = now
      return true
    }
    if due { complain("\(line(now))\n") }
  }

  func finish() { print("\(line(.now))\n\(runs.summary)") }

  private func line(_ now: ContinuousClock.Instant) -> String {
    let seconds = Double((now - began).components.attoseconds) / 1e18 + Double((now - began).components.seconds)
    let done = runs.done
    return "\(done) of \(runs.seeds.count) seeds, \(Int(Double(done) / max(seconds, 0.001))) per second"
  }
}
