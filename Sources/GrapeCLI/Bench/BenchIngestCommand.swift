import ArgumentParser
import Grape
import GrapeCore

/// `grape bench ingest`
struct BenchIngestCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "ingest",
    abstract: "Push generated events, and measure until the last is acknowledged.",
    discussion: """
      BYTES are those of the record batches sent. Stop the application first if only the log is to be measured.

      EXAMPLES
        grape bench ingest counts@word --events 2M --size 100 --keys 10k
        grape bench ingest counts@word --durability os --json
      """)
  @Argument(help: ArgumentHelp("The events' address: app@event.", valueName: "target"), transform: parseTarget)
  var target: EventTarget
  @OptionGroup var load: LoadOptions
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let outcome = try LoadGenerator(node, target: target, options: load).run()
    let rate = Double(outcome.events) / outcome.seconds
    let byteRate = Double(outcome.bytes) / outcome.seconds
    show([
      "events": JSONValue(outcome.events), "bytes": JSONValue(outcome.bytes), "seconds": .double(outcome.seconds),
      "eventsPerSecond": .double(rate), "recordsPerSecond": .double(rate), "bytesPerSecond": .double(byteRate),
      "durability": .string(outcome.durability.name),
    ]) { _ in
      [
        "\(Format.count(outcome.events)) events in \(Format.decimal(outcome.seconds, 3)) s: \(Format.rate(rate))/s, "
          + "\(Format.bytes(Int64(byteRate)))/s, \(outcome.durability.inWords)"
      ]
    }
  }
}
