import GrapeCore

/// The answer of `stats` as lines for a terminal.
struct StatsReport {
  private let stats: JSONValue
  private let before: JSONValue?

  /// - Parameter before: an earlier answer; rates are then counted from it, otherwise they are the node's own.
  init(_ stats: JSONValue, before: JSONValue?) {
    self.stats = stats
    self.before = before
  }

  var lines: [String] {
    let apps = stats["apps"]?.array ?? []
    var lines = [summary]
    guard !apps.isEmpty else { return lines + ["no applications are deployed; `grape deploy FOLDER` deploys one"] }
    var table = Table([
      ("APPLICATION", .left), ("STATE", .left), ("RATE/s", .right), ("LAG", .right), ("OLDEST", .right),
      ("PROCESSED", .right), ("FAILED", .right), ("P50", .right), ("P99", .right), ("HANDLER", .right),
      ("WORKERS", .left),
      ("RESTARTS", .right),
    ])
    for app in apps {
      table.add(row(app))
      for slot in app["slots"]?.array ?? [] { table.add(row(slot, of: app)) }
    }
    lines += [""] + table.lines
    lines += sourceLines(apps)
    for app in apps {
      if let problem = app["problem"]?.string, !problem.isEmpty { lines.append("\(name(app)): \(problem)") }
      if let dead = app["deadLetters"]?.int, dead > 0 {
        lines.append(
          "\(name(app)): \(Format.count(dead)) dead letters; `grape tail \(name(app)) --dead --from beginning` shows them"
        )
      }
    }
    return lines
  }

  /// The topics that are not Grape's and that applications read.
  private func sourceLines(_ apps: [JSONValue]) -> [String] {
    var table = Table([
      ("SOURCE", .left), ("SLOT", .left), ("STATE", .left), ("EVENTS", .right), ("UNUSABLE", .right), ("LAG", .right),
    ])
    var problems: [String] = []
    var isEmpty = true
    for app in apps {
      for source in app["sources"]?.array ?? [] {
        isEmpty = false
        let topic = source["topic"]?.string ?? ""
        table.add([
          topic, "\(name(app))@\(source["slot"]?.string ?? "")", source["state"]?.string ?? "",
          Format.count(source["events"]?.int ?? 0), Format.count(source["unusable"]?.int ?? 0),
          Format.count(source["lag"]?.int ?? 0),
        ])
        if let problem = source["problem"]?.string { problems.append("source \(topic) of \(name(app)): \(problem)") }
      }
    }
    return isEmpty ? [] : [""] + table.lines + problems
  }

  private var summary: String {
    let log = stats["log"]
    if log?["kind"]?.string == "kafka" { return kafkaSummary(log) }
    return
      "node \(stats["node"]?.string ?? ""), up \(Format.milliseconds(stats["uptimeMs"]?.double ?? 0)), "
      + "log \(Format.bytes(log?["bytes"]?.int ?? 0)) in \(Format.count(log?["commits"]?.int ?? 0)) commits, "
      + "sync \(micros(log?["syncMicros"]?["p50"])) median, \(micros(log?["syncMicros"]?["p99"])) p99"
  }

  private func kafkaSummary(_ log: JSONValue?) -> String {
    let brokers = log?["brokers"]?.array ?? []
    let up = brokers.filter { $0["up"]?.bool == true }.count
    let (transactions, groups) = (log?["transactions"], log?["groups"])
    return
      "node \(stats["node"]?.string ?? ""), up \(Format.milliseconds(stats["uptimeMs"]?.double ?? 0)), "
      + "log on Kafka: \(up) of \(brokers.count) brokers up, \(Format.bytes(log?["bytes"]?.int ?? 0)) in "
      + "\(Format.count(log?["commits"]?.int ?? 0)) commits, \(micros(log?["commitMicros"]?["p50"])) median, "
      + "\(micros(log?["commitMicros"]?["p99"])) p99; \(Format.count(transactions?["committed"]?.int ?? 0)) transactions, "
      + "\(Format.count(transactions?["aborted"]?.int ?? 0)) rolled back; "
      + "\(Format.count(groups?["rebalances"]?.int ?? 0)) rebalances, \(Format.count(groups?["lost"]?.int ?? 0)) partitions lost"
  }

  private func row(_ app: JSONValue) -> [String] {
    let slots = app["slots"]?.array ?? []
    let processed = slots.reduce(Int64(0)) { $0 + ($1["processed"]?.int ?? 0) }
    let failed = slots.reduce(Int64(0)) { $0 + ($1["failed"]?.int ?? 0) }
    let lag = app["lag"]?.int ?? 0
    let workers = app["workers"]
    let count = "\(workers?["live"]?.int ?? 0) of \(workers?["min"]?.int ?? 0)-\(workers?["max"]?.int ?? 0)"
    let busy = (workers?["busy"]?.int ?? 0) > 0 ? ", \(workers?["busy"]?.int ?? 0) busy" : ""
    let earlier = earlierApp(name(app)).map { app in
      (app["slots"]?.array ?? []).reduce(Int64(0)) { $0 + ($1["processed"]?.int ?? 0) }
    }
    return [
      name(app), app["state"]?.string ?? "", rate(app["rate"], processed, earlier), Format.count(lag),
      oldest(app), Format.count(processed), Format.count(failed),
      "",
      "", "", count + busy, "\(workers?["restarts"]?.int ?? 0)",
    ]
  }

  private func row(_ slot: JSONValue, of app: JSONValue) -> [String] {
    let processed = slot["processed"]?.int ?? 0
    let latency = slot["latencyMs"]
    let earlier = earlierApp(name(app))?["slots"]?.array?.first { name($0) == name(slot) }?["processed"]?.int
    return [
      "  " + name(slot), "", rate(slot["rate"], processed, earlier), slot["lag"]?.int.map { Format.count($0) } ?? "",
      oldest(slot), Format.count(processed), Format.count(slot["failed"]?.int ?? 0),
      processed > 0 ? Format.milliseconds(latency?["p50"]?.double ?? 0) : "-",
      processed > 0 ? Format.milliseconds(latency?["p99"]?.double ?? 0) : "-",
      processed > 0 ? micros(slot["handlerMicros"]) : "-", "", "",
    ]
  }

  /// Age of the oldest event that waits.
  private func oldest(_ figures: JSONValue) -> String {
    (figures["lag"]?.int ?? 0) > 0 ? Format.milliseconds(figures["oldestMs"]?.double ?? 0) : "-"
  }

  private func name(_ value: JSONValue) -> String { value["name"]?.string ?? "" }

  private func earlierApp(_ wanted: String) -> JSONValue? { before?["apps"]?.array?.first { name($0) == wanted } }

  private func rate(_ reported: JSONValue?, _ processed: Int64, _ earlier: Int64?) -> String {
    // A counter that went back belongs to a node that was started anew.
    guard let earlier, earlier <= processed, let now = stats["timeMs"]?.int, let then = before?["timeMs"]?.int,
      now > then
    else { return Format.rate(reported?.double ?? 0) }
    return Format.rate(Double(processed - earlier) * 1000 / Double(now - then))
  }

  private func micros(_ value: JSONValue?) -> String {
    guard let value = value?.double else { return "-" }
    return value < 1000 ? Format.decimal(value, value < 10 ? 1 : 0) + " µs" : Format.milliseconds(value / 1000)
  }
}
