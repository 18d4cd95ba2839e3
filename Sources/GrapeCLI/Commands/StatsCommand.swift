import ArgumentParser
import Glibc
import Grape
import GrapeCore

/// `grape stats`
struct StatsCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats",
    abstract: "Show rates, lag, latencies and workers, per application and slot.",
    discussion: """
      RATE is events per second over the last ten seconds; LAG the events not yet processed, of the application and of each
      slot, OLDEST the age of the oldest of them; latencies are from the append of an event to the commit of its result. With --watch and --json there is one
      object a line.

      EXAMPLES
        grape stats
        grape stats --watch
        grape stats --wait-idle --timeout 5m
        grape stats --json
        grape stats --prometheus
      """)

  @Flag(help: "Redraw every second, with rates since the last drawing.") var watch = false
  @Flag(help: "Wait until every running application has processed all its events, and committed what came of them.")
  var waitIdle = false
  @Option(
    help: ArgumentHelp("With --wait-idle: how long at most (default 1h).", valueName: "duration"),
    transform: parseTimeout)
  var timeout: Duration?
  @Option(
    help: ArgumentHelp("Only this application; may be given several times.", valueName: "name"), transform: parseAppName
  )
  var app: [String] = []
  @Flag(help: "Print the figures in the text format of Prometheus.") var prometheus = false
  @OptionGroup var options: NodeOptions

  func validate() throws {
    if prometheus, watch || options.json { throw ValidationError("--prometheus does not go with --watch or --json") }
    if watch, waitIdle { throw ValidationError("--watch and --wait-idle do not go together") }
    if timeout != nil, !waitIdle { throw ValidationError("--timeout goes with --wait-idle") }
  }

  func execute(_ node: NodeConnection) throws {
    if waitIdle { try IdleWait(node, apps: app, timeout: timeout ?? .seconds(3600)).run() }
    guard watch else {
      let stats = try read(node)
      if prometheus { return Output.write(PrometheusText(stats).text) }
      return show(stats) { StatsReport($0, before: nil).lines }
    }
    var before: JSONValue?
    while true {
      let stats = try read(node)
      if options.json {
        Output.line(stats.text)
      } else {
        // Home, then each line cleared to its end, then what is below: no flicker, as a cleared screen would.
        if Output.isTerminal { Output.write("\u{1b}[H") }
        for line in StatsReport(stats, before: before).lines {
          Output.line(Output.isTerminal ? line + "\u{1b}[K" : line)
        }
        if Output.isTerminal { Output.write("\u{1b}[J") } else { Output.line("") }
      }
      try Output.flush()
      before = stats
      try node.pause(until: ContinuousClock.now + .seconds(1))
    }
  }

  private func read(_ node: NodeConnection) throws -> JSONValue {
    let stats = try node.ask("stats")
    guard !app.isEmpty else { return stats }
    let all = stats["apps"]?.array ?? []
    for name in app where !all.contains(where: { $0["name"]?.string == name }) {
      throw StatusError(.noSuchApp, "no application `\(name)` is deployed; `grape app list` lists them")
    }
    let kept = all.filter { app.contains($0["name"]?.string ?? "") }
    return .object((stats.object ?? []).map { $0.name == "apps" ? .init("apps", .array(kept)) : $0 })
  }
}

/// Waits until applications have no events left.
struct IdleWait {
  private let node: NodeConnection
  private let apps: [String]
  private let timeout: Duration
  private let fixedPause: Duration?

  /// - Parameter apps: empty: all.
  /// - Parameter pause: between two questions at first; it doubles up to 100 ms, or stays if it is given.
  init(_ node: NodeConnection, apps: [String], timeout: Duration, pause: Duration? = nil) {
    self.node = node
    self.apps = apps
    self.timeout = timeout
    fixedPause = pause
  }

  /// Polls the statistics. The node says of all applications at one point in time whether anything waits, is at a worker or is not committed;
  /// an event that one application emits waits at the next as soon as the one it comes from is done. So one answer is enough.
  func run() throws {
    let deadline = ContinuousClock.now + timeout
    var pause = fixedPause ?? .milliseconds(10)
    while true {
      let stats = try node.ask("stats")
      let all = (stats["apps"]?.array ?? []).filter { apps.isEmpty || apps.contains($0["name"]?.string ?? "") }
      let busy = all.filter { $0["idle"]?.bool != true }
      if let failed = busy.first(where: { $0["state"]?.string == "failed" }) {
        throw CommandFailure(
          .unavailable,
          "\(failed["name"]?.string ?? "") has failed with events waiting: \(failed["problem"]?.string ?? "see its log")"
        )
      }
      let waiting = busy.filter { $0["state"]?.string != "stopped" }
      if waiting.isEmpty { return }
      guard ContinuousClock.now < deadline else {
        let left = waiting.map { "\($0["name"]?.string ?? "") has \(Format.count(lag($0)))" }.joined(separator: ", ")
        throw CommandFailure(.deadlineExceeded, "events are left after \(Format.duration(timeout)): \(left)")
      }
      try node.pause(until: ContinuousClock.now + pause)
      if fixedPause == nil { pause = min(pause * 2, .milliseconds(100)) }
    }
  }

  private func lag(_ app: JSONValue) -> Int64 { app["lag"]?.int ?? 0 }
}
