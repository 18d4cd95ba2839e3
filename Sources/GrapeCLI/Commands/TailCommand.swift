import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// `grape tail`
struct TailCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "tail",
    abstract: "Print an application's events as they come, and those that came.",
    discussion: """
      Positions are beginning, end, an offset (of each partition), a time (ISO 8601, UTC unless it says otherwise) or a
      time ago (-5m). What is there already is printed in order of time; then events are printed as they come, until
      Ctrl-C, or until --count of them were printed. With --json there is one object a line.

      EXAMPLES
        grape tail shop
        grape tail shop --from -10m --event order --count 5
        grape tail shop --from beginning --no-follow --json | jq .value
        grape tail shop --from 2013-01-31T12:00:00Z --partition 2
        grape tail shop --dead --from beginning --no-follow
      """)

  @Argument(help: ArgumentHelp("The application's name.", valueName: "app"), transform: parseAppName) var app: String
  @Option(help: "Only events of this name; may be given several times.", transform: parseEventName) var event:
    [String] = []
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Where to begin (default: end, or beginning with --no-follow).", valueName: "position"),
    transform: ReadPosition.parse)
  var from: ReadPosition?
  @Option(help: ArgumentHelp("Only this partition.", valueName: "number")) var partition: Int32?
  @Option(
    name: [.short, .long], help: ArgumentHelp("Stop after so many events.", valueName: "n"),
    transform: parsePositiveCount)
  var count: Int?
  @Flag(inversion: .prefixedNo, help: "Wait for more at the end.") var follow = true
  @Flag(help: "The application's dead letters instead of its events.") var dead = false
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let metadata = try node.ask("app.metadata", [("app", .string(app))])
    let topic = dead ? "\(app).dead" : metadata["topic"]?.string ?? "\(app).events"
    for name in event where !(metadata["slots"]?.array ?? []).contains(.string(name)) {
      throw StatusError(.noSuchSlot, "\(app) has no slot `\(name)`")
    }
    var reader = try TopicReader(node, topic: topic, only: partition)
    try reader.seek(to: from ?? (follow ? .end : .beginning))
    let printer = RecordPrinter(json: options.json)
    var left = count ?? .max
    func take(_ record: TopicRecord) throws -> Bool {
      guard event.isEmpty || event.contains(record.event ?? "") else { return true }
      try printer.print(record)
      left -= 1
      return left > 0
    }
    guard try reader.backlog(take), follow else { return }
    try Output.flush()
    try reader.follow { records in
      for record in records where try !take(record) { return false }
      try Output.flush()
      return true
    }
  }
}
