import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// `grape state import`
struct StateImportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Store entries from lines of JSON, as export writes them.",
    discussion: """
      Each line is an object with key (or keyBase64) and value (or valueBase64), and, if wanted, store, partition, tags
      and expiresMs. Entries go to the partition that their line names, all of them to that of --partition or --for, or,
      with --by-key or if the line names none, to the one that events with their key would have. Entries whose time is
      over are left out. What is there already with the same key is replaced, everything else stays.

      The first bad line ends the command with its number; entries before it have been stored. Running it again does no
      harm.

      EXAMPLES
        grape state import flights flights.ndjson
        zcat sessions.ndjson.gz | grape state import shop -
        grape state import flights old.ndjson --by-key
      """)

  @OptionGroup var place: StatePlace
  @Argument(help: ArgumentHelp("The file; - for standard input.", valueName: "file")) var file: String
  @Flag(help: "Pay no heed to the lines' partitions.") var byKey = false
  @Flag(inversion: .prefixedNo, help: "Show how far it is, on a terminal.") var progress = true
  @OptionGroup var options: NodeOptions

  func validate() throws {
    if byKey, try place.partitionMember != nil {
      throw ValidationError(
        "--by-key says that each key's own partition is taken: --partition and --for do not go with it")
    }
  }

  func run() throws {
    try reporting(json: options.json) {
      let interrupts = try Interrupts()
      let node = try options.connect()
      let result = try StateImport(
        node, place, byKey: byKey, interrupts: interrupts, showsProgress: progress && Output.errorIsTerminal
      ).run(file)
      if options.json {
        return Output.line(
          JSONValue.object([
            .init("entries", .int(result.entries)), .init("expired", .int(result.expired)),
            .init("bytes", .int(result.bytes)), .init("seconds", .double(result.seconds)),
          ]).text)
      }
      let expired = result.expired > 0 ? "; \(Format.count(result.expired)) had expired and were left out" : ""
      let rate = result.seconds > 0 ? Double(result.entries) / result.seconds : 0
      Output.line(
        "\(Format.count(result.entries)) entries in \(Format.milliseconds(result.seconds * 1000)) (\(Format.rate(rate))/s)\(expired)"
      )
    }
  }
}
