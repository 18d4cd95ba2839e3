import GrapeCore

/// The answer of `stats` in the text format of Prometheus (version 0.0.4): a family of samples after the other, each with its help and type.
struct PrometheusText {
  private enum Kind: String { case counter, gauge, summary }

  private struct Family {
    var help: String
    var kind: Kind
    var samples: [String] = []
  }

  private var families: [(name: String, family: Family)] = []
  private var places: [String: Int] = [:]

  init(_ stats: JSONValue) {
    let node = [("node", stats["node"]?.string ?? "")]
    add("grape_node_uptime_seconds", .gauge, "Time since the node's start.", stats["uptimeMs"], scale: 0.001, node)
    if let log = stats["log"] { if log["kind"]?.string == "kafka" { addKafka(log) } else { addLog(log) } }
    for clock in stats["clocks"]?.array ?? [] {
      add(
        "grape_cluster_clock_ahead_seconds", .gauge, "By how much the clock of another node is ahead of this one's.",
        clock["aheadMs"], scale: 0.001, [("peer", clock["node"]?.string ?? "")])
    }
    for app in stats["apps"]?.array ?? [] { add(app) }
  }

  /// Ends with the end of a line.
  var text: String {
    families.map { name, family in
      "# HELP \(name) \(family.help)\n# TYPE \(name) \(family.kind.rawValue)\n" + family.samples.joined()
    }.joined()
  }

  // MARK: what there is

  private mutating func addLog(_ log: JSONValue) {
    add("grape_log_commits_total", .counter, "Commits to the log.", log["commits"])
    add("grape_log_written_bytes_total", .counter, "Bytes written to the log.", log["bytes"])
    add("grape_log_syncs_total", .counter, "Synchronisations of the log's files.", log["syncs"])
    addQuantiles("grape_log_sync_seconds", "How long a synchronisation takes.", log["syncMicros"], scale: 1e-6)
  }

  private mutating func addKafka(_ log: JSONValue) {
    add("grape_kafka_commits_total", .counter, "Commits that the cluster has taken.", log["commits"])
    add(
      "grape_kafka_commits_plain_total", .counter, "Those of them that went without a Kafka transaction.", log["plain"])
    add("grape_kafka_commits_refused_total", .counter, "Commits that failed.", log["refused"])
    for outcome in ["begun", "committed", "aborted"] {
      add(
        "grape_kafka_transactions_total", .counter, "Kafka transactions, by what became of them.",
        log["transactions"]?[outcome], [("outcome", outcome)])
    }
    add("grape_kafka_written_bytes_total", .counter, "Bytes written to the cluster.", log["bytes"])
    add("grape_kafka_written_records_total", .counter, "Records written to the cluster.", log["records"])
    add("grape_kafka_read_bytes_total", .counter, "Bytes read from the cluster.", log["bytesRead"])
    add("grape_kafka_read_records_total", .counter, "Records read from the cluster.", log["recordsRead"])
    addQuantiles(
      "grape_kafka_commit_seconds", "From the handing over of a commit to its acknowledgement.", log["commitMicros"],
      scale: 1e-6)
    add("grape_kafka_rebalances_total", .counter, "Changes of this node's partitions.", log["groups"]?["rebalances"])
    for change in ["assigned", "revoked", "lost"] {
      add(
        "grape_kafka_partitions_total", .counter, "Partitions that came to this node, or went from it.",
        log["groups"]?[change], [("change", change)])
    }
    add(
      "grape_kafka_offsets_stale_total", .counter, "Offsets that a coordinator refused because the group had gone on.",
      log["groups"]?["stale"])
    for broker in log["brokers"]?.array ?? [] {
      let label = [("broker", broker["name"]?.string ?? "")]
      add("grape_kafka_broker_up", .gauge, "1 if the broker is connected.", broker["up"], label)
      let quantiles: JSONValue = ["p50": broker["roundTripMicros"] ?? 0, "p99": broker["roundTripMicros99"] ?? 0]
      addQuantiles(
        "grape_kafka_broker_round_trip_seconds", "How long the broker takes to answer.", quantiles, scale: 1e-6, label)
    }
  }

  private mutating func add(_ app: JSONValue) {
    let name = app["name"]?.string ?? ""
    let label = [("app", name)]
    let state = app["state"]?.string
    add(
      "grape_app_running", .gauge, "1 if the application takes events and its workers can be started.",
      .bool(state == "running"), label)
    add(
      "grape_app_failed", .gauge, "1 if something keeps the application from working.", .bool(state == "failed"), label)
    add("grape_app_lag_events", .gauge, "Events that are not dealt with yet.", app["lag"], label)
    add(
      "grape_app_oldest_event_age_seconds", .gauge,
      "Age of the oldest event that is not dealt with yet; 0: there is none.",
      app["oldestMs"], scale: 0.001, label)
    add("grape_app_dead_letters", .gauge, "Events set aside.", app["deadLetters"], label)
    add("grape_app_retries_total", .counter, "Events that were tried again.", app["retries"], label)
    for what in ["live", "starting", "busy"] {
      add(
        "grape_app_workers", .gauge,
        "Worker processes: those that are ready, those of them at work, those being started.",
        app["workers"]?[what], label + [("state", what)])
    }
    add(
      "grape_app_worker_restarts_total", .counter, "Workers that ended without having been asked to.",
      app["workers"]?["restarts"], label)
    add(
      "grape_app_idempotency_keys", .gauge, "Requests with an idempotency key that are remembered.",
      app["idempotency"]?["keys"], label)
    add(
      "grape_app_idempotency_repeats_total", .counter, "Requests that were recognised as repeats.",
      app["idempotency"]?["repeats"], label)
    for slot in app["slots"]?.array ?? [] { add(slot: slot, label + [("slot", slot["name"]?.string ?? "")]) }
    for partition in app["partitions"]?.array ?? [] {
      let label = label + [("partition", "\(partition["partition"]?.int ?? 0)")]
      add(
        "grape_partition_lag_events", .gauge, "Events of a partition that are not dealt with yet.", partition["lag"],
        label)
      add("grape_partition_end_offset", .gauge, "The offset behind the last record.", partition["end"], label)
      add(
        "grape_partition_committed_offset", .gauge, "The offset up to which all is dealt with.", partition["committed"],
        label)
    }
    for source in app["sources"]?.array ?? [] {
      let label = label + [("topic", source["topic"]?.string ?? "")]
      add(
        "grape_source_running", .gauge, "1 if a topic that is not Grape's is being read.",
        .bool(source["state"]?.string == "running"), label)
      add("grape_source_events_total", .counter, "Records of it that became events.", source["events"], label)
      add("grape_source_unusable_total", .counter, "Records of it that were set aside.", source["unusable"], label)
      add("grape_source_lag_records", .gauge, "Records of it that are still to be read.", source["lag"], label)
    }
  }

  private mutating func add(slot: JSONValue, _ label: [(String, String)]) {
    add(
      "grape_slot_events_processed_total", .counter, "Events that a handler has dealt with.", slot["processed"], label)
    add("grape_slot_events_failed_total", .counter, "Events whose handler failed for good.", slot["failed"], label)
    add("grape_slot_lag_events", .gauge, "Events of a slot that are not dealt with yet.", slot["lag"], label)
    add(
      "grape_slot_oldest_event_age_seconds", .gauge, "Age of the oldest of them; 0: there is none.", slot["oldestMs"],
      scale: 0.001, label)
    addQuantiles(
      "grape_slot_latency_seconds", "From the append of an event to the commit of its result.", slot["latencyMs"],
      scale: 0.001, label)
    add(
      "grape_slot_handler_seconds", .gauge, "Mean time in the handler.", slot["handlerMicros"], scale: 1e-6, label)
  }

  // MARK: how it is written

  private mutating func add(
    _ name: String, _ kind: Kind, _ help: String, _ value: JSONValue?, scale: Double = 1,
    _ labels: [(name: String, value: String)] = []
  ) {
    guard let number = Self.number(value, scale: scale) else { return }
    let place = place(of: name, kind, help)
    families[place].family.samples.append("\(name)\(Self.text(labels)) \(number)\n")
  }

  /// Members p50, p90 and so on; those that are there.
  private mutating func addQuantiles(
    _ name: String, _ help: String, _ values: JSONValue?, scale: Double, _ labels: [(name: String, value: String)] = []
  ) {
    for (member, quantile) in [("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99"), ("max", "1")] {
      add(name, .summary, help, values?[member], scale: scale, labels + [("quantile", quantile)])
    }
  }

  private mutating func place(of name: String, _ kind: Kind, _ help: String) -> Int {
    if let place = places[name] { return place }
    places[name] = families.count
    families.append((name, Family(help: help, kind: kind)))
    return families.count - 1
  }

  private static func number(_ value: JSONValue?, scale: Double) -> String? {
    switch value {
    case .bool(let isTrue): isTrue ? "1" : "0"
    case .int(let number) where scale == 1: "\(number)"
    case .int(let number): "\(Double(number) * scale)"
    case .double(let number): "\(number * scale)"
    default: nil
    }
  }

  private static func text(_ labels: [(name: String, value: String)]) -> String {
    if labels.isEmpty { return "" }
    return "{" + labels.map { "\($0.name)=\"\(escaped($0.value))\"" }.joined(separator: ",") + "}"
  }

  private static func escaped(_ value: String) -> String {
    var text = ""
    for character in value {
      switch character {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.append(character)
      }
    }
    return text
  }
}
