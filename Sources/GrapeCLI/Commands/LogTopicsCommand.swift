import ArgumentParser
import Grape
import GrapeCommitLog
import GrapeCore
import GrapeLog

/// `grape log topics`
struct LogTopicsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "topics",
    abstract: "List the topics, or those that there must be.",
    discussion: """
      Without --plan: the topics of the node's log, with their partitions' first and next offsets.

      With --plan: the topics that Grape needs, with all their settings, for an administrator who creates them where nodes
      may not. No node need be running: --config (or --log and the rest) says how nodes are set up, --name which there
      are, --app which applications. If one is running, its own applications are part of the plan, and the list tells
      what is missing and what differs. --format commands prints what to run; of topics that are as they must be nothing.

      EXAMPLES
        grape log topics
        grape log topics --data ./node --json
        grape log topics --plan --config node.yaml --name n1 --name n2 --app flights --app flights/stats
        grape log topics --plan --config node.yaml --app shop --format commands > create-topics.sh
      """)

  enum Format: String, ExpressibleByArgument, CaseIterable { case text, json, commands }

  @OptionGroup var place: LogPlace

  @Flag(help: "List the topics that there must be.")
  var plan = false

  @Option(help: ArgumentHelp("With --plan: an application's folder; may be given several times.", valueName: "folder"))
  var app: [String] = []

  @Option(
    help: ArgumentHelp(
      "With --plan: a node's name; may be given several times. Default: that of the node that answers, else the host's.",
      valueName: "name"), transform: parseNodeName)
  var name: [String] = []

  @Option(help: "With --plan: text, json or commands (of Kafka's own tools).")
  var format: Format = .text

  @OptionGroup var settings: NodeSettingsOptions

  func validate() throws {
    guard plan || (app.isEmpty && name.isEmpty && format == .text) else {
      throw ValidationError("--app, --name and --format go with --plan")
    }
    guard !plan || place.data == nil else { throw ValidationError("--data is not for --plan, which reads no files") }
  }

  func run() throws {
    try reporting(json: place.options.json) {
      if plan {
        let report = try TopicPlanReport(
          apps: app, names: name, settings: settings, node: place.options)
        return try report.print(place.options.json ? .json : format)
      }
      let answer = try place.data.map { try offline($0) } ?? place.options.connect().ask("log.topics")
      if place.options.json { return Output.line(answer.text) }
      var table = Table([
        ("TOPIC", .left), ("PARTITION", .right), ("START", .right), ("END", .right), ("RECORDS", .right),
      ])
      for topic in answer["topics"]?.array ?? [] {
        for partition in topic["partitions"]?.array ?? [] {
          let (start, end) = (partition["start"]?.int ?? 0, partition["end"]?.int ?? 0)
          table.add([
            topic["name"]?.string ?? "", "\(partition["partition"]?.int ?? 0)", "\(start)", "\(end)",
            GrapeCLI.Format.count(end - start),
          ])
        }
      }
      for line in table.lines { Output.line(line) }
    }
  }

  private func offline(_ directory: String) throws -> JSONValue {
    try LogPlace.checkIsEmbedded(directory, "list")
    let topics = try CommitLog.topics(directory: directory).map { topic -> JSONValue in
      let partitions = topic.bounds.enumerated().map { number, bounds -> JSONValue in
        ["partition": JSONValue(number), "start": JSONValue(bounds.start), "end": JSONValue(bounds.end)]
      }
      return ["name": .string(topic.description.name), "partitions": .array(partitions)]
    }
    return ["topics": .array(topics)]
  }
}
