import Grape
import GrapeCore
import GrapeKafka
import GrapeLog
import GrapeNode
import GrapePackages

/// The topics that there must be, and how those that are there compare, for people, programs and shells.
struct TopicPlanReport {
  private let topics: [PlannedTopic]
  /// Nil: the log is the embedded one.
  private let cluster: ClusterTopics?
  /// What is there; nil: no node was asked.
  private let existing: [String: Existing]?

  /// A topic that is there.
  private struct Existing {
    var configuration: TopicConfiguration
    /// On a cluster.
    var details: KafkaTopicDetails?
  }

  /// Puts the plan together. Errors: a folder without a good manifest, wrong settings, a node that was named and does not
  /// answer.
  init(apps: [String], names: [String], settings: NodeSettingsOptions, node: NodeOptions) throws {
    let settings = try settings.settings()
    let answer = try Self.ask(node, settings)
    var planned = answer == nil ? TopicPlan.shared(byNodes: settings.isOnKafka) : []
    var names = names
    if names.isEmpty, answer == nil { names = [settings.name?.value ?? hostName()] }
    for name in names { planned += TopicPlan.node(try NodeName(name)) }
    planned += answer?.plan ?? []
    for folder in apps {
      planned += TopicPlan.application(try Package.load(folder: folder, requiringEntry: false).manifest)
    }
    // What a folder says holds against what is deployed.
    var last: [String: PlannedTopic] = [:]
    for topic in planned { last[topic.name] = topic }
    var order: [String] = []
    for topic in planned where !order.contains(topic.name) { order.append(topic.name) }
    topics = order.compactMap { last[$0] }
    existing = answer?.existing
    if let answer {
      cluster = answer.cluster
    } else if case .kafka(let brokers) = settings.log?.value ?? .embedded {
      cluster = ClusterTopics(settings.kafkaConfiguration(brokers: brokers))
    } else {
      cluster = nil
    }
  }

  /// What a node tells.
  private struct Answer {
    var plan: [PlannedTopic]
    var cluster: ClusterTopics?
    var existing: [String: Existing]
  }

  /// Asks the node that was named, or the one that is found if settings name no other log. Nil: none is running.
  private static func ask(_ options: NodeOptions, _ settings: NodeSettings) throws -> Answer? {
    if options.node == nil, settings.log != nil { return nil }
    let node: NodeConnection
    do throws(ClientError) { node = try options.connect() } catch {
      guard options.node == nil, error.code == .unreachable else { throw error }
      return nil
    }
    let plan = try node.ask("log.plan")
    var existing: [String: Existing] = [:]
    for topic in try node.ask("log.topics")["topics"]?.array ?? [] {
      guard let name = topic["name"]?.string,
        let configuration = topic["configuration"].flatMap({ TopicConfiguration(json: $0) })
      else { continue }
      existing[name] = Existing(
        configuration: configuration, details: topic["details"].flatMap { KafkaTopicDetails(json: $0) })
    }
    let cluster = plan["cluster"].flatMap { ClusterTopics(json: $0) }
    let namespace = settings.kafka.namespace?.value ?? ""
    if case .kafka(let brokers) = settings.log?.value, cluster?.namespace != namespace {
      throw CommandFailure(
        .usage,
        "the node works on \(cluster.map { "namespace \($0.namespace.quotedForMessage) at \($0.brokers)" } ?? "the embedded log"), "
          + "and the settings name namespace \(namespace.quotedForMessage) at \(brokers): leave out --node, or the settings"
      )
    }
    return Answer(
      plan: plan["topics"]?.array.map { $0.compactMap { PlannedTopic(json: $0) } } ?? [], cluster: cluster,
      existing: existing)
  }

  private enum State: String { case there, missing, differs }

  private func state(_ topic: PlannedTopic) -> (state: State, differences: [TopicDifference])? {
    guard let existing else { return nil }
    guard let found = existing[topic.name] else { return (.missing, []) }
    var differences = topic.differences(from: found.configuration)
    if let details = found.details { differences += cluster?.differences(of: details) ?? [] }
    return (differences.isEmpty ? .there : .differs, differences)
  }

  private func shownName(_ topic: PlannedTopic) -> String { cluster?.name(of: topic.name) ?? topic.name }
}

extension TopicPlanReport {
  func print(_ format: LogTopicsCommand.Format) throws {
    switch format {
    case .text: printText()
    case .json: Output.line(json.text)
    case .commands: try printCommands()
    }
  }

  private func printText() {
    var columns: [(title: String, alignment: Table.Alignment)] = [
      ("TOPIC", .left), ("PARTITIONS", .right), ("COPIES", .right), ("CLEANUP", .left), ("KEPT", .left), ("FOR", .left),
    ]
    if existing != nil { columns.append(("STATE", .left)) }
    var table = Table(columns)
    for topic in topics {
      let configuration = topic.configuration
      var row = [
        shownName(topic), "\(configuration.partitions)",
        cluster == nil ? "1" : cluster?.replication.map(String.init) ?? "-",
        configuration.cleanup == .compact ? "compact" : "delete", kept(configuration),
        (topic.app.map { "\($0): " } ?? "") + topic.purpose,
      ]
      if let (state, differences) = state(topic) {
        row.append(
          state == .differs ? "differs: it " + differences.map(\.text).joined(separator: ", ") : state.rawValue)
      }
      table.add(row)
    }
    for line in table.lines { Output.line(line) }
    guard let cluster else { return }
    let settings = cluster.topicSettings.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    if !settings.isEmpty { Output.line("each also with \(settings.joined(separator: ", "))") }
  }

  private func kept(_ configuration: TopicConfiguration) -> String {
    if configuration.cleanup == .compact { return "last of each key" }
    let age = configuration.retentionMilliseconds.map { DurationText.format(.milliseconds($0)) }
    let size = configuration.retentionBytes.map { "at most \(ByteCountText.format(Int($0))) a partition" }
    return age == nil && size == nil ? "for ever" : [age, size].compactMap { $0 }.joined(separator: ", ")
  }

  private var json: JSONValue {
    [
      "cluster": cluster.map(\.json) ?? .null, "compared": .bool(existing != nil),
      "topics": .array(topics.map { json($0) }),
    ]
  }

  private func json(_ topic: PlannedTopic) -> JSONValue {
    var members: [JSONValue.Member] = [
      .init("name", .string(shownName(topic))), .init("topic", .string(topic.name)), .init("app", JSONValue(topic.app)),
      .init("purpose", .string(topic.purpose)), .init("configuration", topic.configuration.json),
    ]
    if let cluster {
      let settings = cluster.settings(of: topic.configuration).map { JSONValue.Member($0.name, .string($0.value)) }
      members.append(.init("settings", .object(settings)))
      members.append(.init("replication", cluster.replication.map { JSONValue($0) } ?? .null))
    }
    if let (state, differences) = state(topic) {
      members.append(.init("state", .string(state.rawValue)))
      members.append(.init("differences", JSONValue(strings: differences.map(\.text))))
    }
    if let command = command(topic) { members.append(.init("command", .string(command))) }
    return .object(members)
  }

  private func printCommands() throws {
    guard cluster != nil else {
      throw CommandFailure(
        .usage,
        "the embedded log's topics are made by the node; commands are for a log on Kafka: --log kafka://host:port")
    }
    Output.line("#!/bin/sh")
    Output.line("# What this script is given goes to each command, as in --command-config admin.properties.")
    Output.line("set -e")
    for topic in topics {
      let purpose = "\(shownName(topic)): \(topic.app.map { "\($0), " } ?? "")\(topic.purpose)"
      if let (state, differences) = state(topic) {
        if state == .there { continue }
        if state == .differs { Output.line("# It \(differences.map(\.text).joined(separator: ", ")).") }
      }
      Output.line("# \(purpose)")
      Output.line(
        command(topic).map { $0 + " \"$@\"" }
          ?? "# No command of this script mends that: the number of partitions stays what it is, and "
          + "kafka-reassign-partitions.sh makes more copies.")
    }
  }

  /// What makes the topic as it must be; nil: nothing has to, or nothing can.
  private func command(_ topic: PlannedTopic) -> String? {
    guard let cluster else { return nil }
    guard let (state, differences) = state(topic) else { return cluster.createCommand(topic) }
    switch state {
    case .there: return nil
    case .missing: return cluster.createCommand(topic)
    case .differs:
      return differences.contains { if case .partitions = $0 { true } else { false } }
        ? nil : cluster.alterCommand(topic, differences)
    }
  }
}
