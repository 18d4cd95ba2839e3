import ArgumentParser
import Grape
import GrapeCore

/// `grape bench pipeline`
struct BenchPipelineCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "pipeline",
    abstract:
      "Fill an application's topic while it is stopped, then measure how fast it and its followers work it off.",
    discussion: """
      The clock runs from `app start` until the slot named by --last has processed as many events as were sent.

      EXAMPLES
        grape bench pipeline uppercase@word --last counts@word --events 1M
      """)
  @Argument(help: ArgumentHelp("Where the events go in: app@event.", valueName: "target"), transform: parseTarget)
  var target: EventTarget
  @Option(
    help: ArgumentHelp("The slot at the end: app@event. Default: the target.", valueName: "target"),
    transform: parseTarget)
  var last: EventTarget?
  @OptionGroup var load: LoadOptions
  @Option(help: ArgumentHelp("For the working off.", valueName: "duration"), transform: parseTimeout)
  var timeout: Duration = .seconds(600)
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let end = last ?? target
    _ = try node.ask("app.stop", [("app", .string(target.app))], timeout: .seconds(120))
    let before = try SlotCounter(node, end).processed()
    let filled = try LoadGenerator(node, target: target, options: load).run()
    let start = ContinuousClock.now
    _ = try node.ask("app.start", [("app", .string(target.app))])
    try SlotCounter(node, end).wait(for: before + Int64(load.events), until: start + timeout)
    let taken = seconds(since: start)
    let rate = Double(load.events) / taken
    show([
      "events": JSONValue(load.events), "seconds": .double(taken), "eventsPerSecond": .double(rate),
      "recordsPerSecond": .double(rate), "fillSeconds": .double(filled.seconds),
    ]) { _ in
      ["\(Format.count(load.events)) events in \(Format.decimal(taken, 3)) s: \(Format.rate(rate))/s"]
    }
  }
}

/// `grape bench drain`
struct BenchDrainCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "drain",
    abstract: "Start stopped applications and measure until they have no events left.",
    discussion: """
      EXAMPLES
        grape app stop uppercase && grape ingest uppercase@word words.txt && grape bench drain uppercase counts
        grape bench drain --app uppercase,counts --json
      """)
  @Argument(help: ArgumentHelp("The applications' names.", valueName: "app"), transform: parseAppName) var names:
    [String] = []
  @Option(help: ArgumentHelp("The same, with commas between.", valueName: "names")) var app: String?
  @Option(help: ArgumentHelp("How long at most.", valueName: "duration"), transform: parseTimeout)
  var timeout: Duration = .seconds(600)
  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard !names.isEmpty || app != nil else { throw ValidationError("name an application") }
  }

  func execute(_ node: NodeConnection) throws {
    let apps = try names + (app?.split(separator: ",").map { try parseAppName(String($0)) } ?? [])
    let before = try processed(node, apps)
    let start = ContinuousClock.now
    for name in apps { _ = try node.ask("app.start", [("app", .string(name))]) }
    try IdleWait(node, apps: apps, timeout: timeout, pause: .milliseconds(5)).run()
    let taken = seconds(since: start)
    let events = try processed(node, apps) - before
    let rate = Double(events) / taken
    show([
      "events": JSONValue(events), "seconds": .double(taken), "eventsPerSecond": .double(rate),
      "recordsPerSecond": .double(rate),
    ]) { _ in
      ["\(Format.count(events)) events in \(Format.decimal(taken, 3)) s: \(Format.rate(rate))/s"]
    }
  }

  private func processed(_ node: NodeConnection, _ apps: [String]) throws -> Int64 {
    let all = try node.ask("stats")["apps"]?.array ?? []
    return try apps.reduce(Int64(0)) { sum, name in
      guard let app = all.first(where: { $0["name"]?.string == name }) else {
        throw StatusError(.noSuchApp, "no application `\(name)` is deployed; `grape app list` lists them")
      }
      return (app["slots"]?.array ?? []).reduce(sum) { $0 + ($1["processed"]?.int ?? 0) + ($1["failed"]?.int ?? 0) }
    }
  }
}

/// How many events a slot has processed, by the node's statistics.
struct SlotCounter {
  private let node: NodeConnection
  private let slot: EventTarget

  init(_ node: NodeConnection, _ slot: EventTarget) {
    self.node = node
    self.slot = slot
  }

  func processed() throws -> Int64 {
    let apps = try node.ask("stats")["apps"]?.array ?? []
    guard let app = apps.first(where: { $0["name"]?.string == slot.app }) else {
      throw StatusError(.noSuchApp, "no application `\(slot.app)` is deployed; `grape app list` lists them")
    }
    guard let found = app["slots"]?.array?.first(where: { $0["name"]?.string == slot.event }) else {
      throw StatusError(.noSuchSlot, "\(slot.app) has no slot `\(slot.event)`")
    }
    if app["state"]?.string == "failed" {
      throw CommandFailure(.unavailable, "\(slot.app) has failed: \(app["problem"]?.string ?? "see its log")")
    }
    return found["processed"]?.int ?? 0
  }

  /// Asks every 5 ms until the count is reached.
  func wait(for wanted: Int64, until deadline: ContinuousClock.Instant) throws {
    while true {
      let count = try processed()
      if count >= wanted { return }
      guard ContinuousClock.now < deadline else {
        throw CommandFailure(
          .deadlineExceeded, "\(slot.text) has processed \(Format.count(count)) of \(Format.count(wanted)) events")
      }
      try node.pause(until: .now + .milliseconds(5))
    }
  }
}
