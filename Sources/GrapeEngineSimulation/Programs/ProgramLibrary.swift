import GrapeCommitLogSimulation

/// All programs of a run, and how often each was begun.
final class ProgramLibrary: @unchecked Sendable {
  // A simulation lives on one thread.
  private(set) var programs: [Program] = []
  /// By the event's value: how often its handler was begun.
  var runs: [[UInt8]: Int] = [:]
  /// By the event's value: how often it failed, or was lost with its worker.
  var misfortunes: [[UInt8]: Int] = [:]
  /// Told of each program that is made.
  var willAdd: ((Program) -> Void)?
  private let apps: Int
  /// Of 100 programs so many are meant to go wrong.
  private let trouble: Int

  init(apps: Int, trouble: Int) {
    self.apps = apps
    self.trouble = trouble
  }

  /// Adds a program.
  /// - Parameters:
  ///   - depth: programs that may follow one from the other.
  ///   - awaited: somebody waits for the event: it is answered, or passed on once.
  func make(_ random: inout SimulationRandom, depth: Int, awaited: Bool) -> Int {
    let number = programs.count
    programs.append(Program(number: number, steps: []))
    var steps: [Program.Step] = []
    for _ in 0..<random.within(1...4) { steps.append(stateStep(&random)) }
    if depth > 0 {
      for _ in 0..<random.pick([0, 0, 1, 1, 2]) {
        let child = make(&random, depth: depth - 1, awaited: false)
        steps.append(emission(of: child, detached: awaited || random.chance(1, in: 2), &random))
      }
    }
    if awaited { answer(&steps, depth, &random) }
    if random.chance(trouble, in: 100) {
      steps.insert(troubleStep(&random), at: random.below(steps.count + 1))
    }
    programs[number].steps = steps
    willAdd?(programs[number])
    return number
  }

  private func emission(of child: Int, detached: Bool, _ random: inout SimulationRandom) -> Program.Step {
    .emit(app: random.below(apps), key: random.below(12), child: child, detached: detached)
  }

  private func answer(_ steps: inout [Program.Step], _ depth: Int, _ random: inout SimulationRandom) {
    if random.chance(1, in: 4) { steps.insert(.reply(isFinal: false), at: random.below(steps.count + 1)) }
    switch random.below(3) {
    case 0: break
    case 1 where depth > 0:
      steps.append(emission(of: make(&random, depth: depth - 1, awaited: true), detached: false, &random))
    default: steps.append(.reply(isFinal: true))
    }
  }

  private func stateStep(_ random: inout SimulationRandom) -> Program.Step {
    let key = random.below(StateName.count)
    switch random.below(16) {
    case 0, 1, 2, 3, 4, 5: return .add(key, random.within(-5...9))
    case 6: return .get(key)
    case 7, 8: return .append(key)
    case 9: return .remove(key)
    case 10: return .put(key, ttl: nil, tagged: random.chance(1, in: 2))
    case 11: return .put(key, ttl: random.pick([1, 300, 2_000, 20_000]), tagged: random.chance(1, in: 2))
    case 12, 13: return .compareAndSet(key, matching: random.chance(2, in: 3))
    case 14: return .find
    default: return .scan(descending: random.chance(1, in: 2), limit: random.pick([1, 3, 100]))
    }
  }

  private func troubleStep(_ random: inout SimulationRandom) -> Program.Step {
    let times = random.pick([1, 1, 2, 3, Program.always])
    switch random.below(16) {
    case 0, 1, 2, 3, 4: return .fail(times: times)
    case 5, 6: return .retry(times: times, milliseconds: random.pick([0, 10, 700]))
    case 7, 8: return .reject
    case 9, 10, 11, 12, 13, 14: return .crash(times: times)
    default: return .hang(times: random.pick([1, 1, 2]))
    }
  }

  func began(_ event: [UInt8]) -> Int {
    let count = runs[event, default: 0] + 1
    runs[event] = count
    return count
  }
}
