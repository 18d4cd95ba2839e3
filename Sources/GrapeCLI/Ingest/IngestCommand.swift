import ArgumentParser
import Grape
import GrapeCore

/// `grape ingest`
struct IngestCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ingest",
    abstract: "Turn the rows of files or of standard input into events.",
    discussion: """
      lines   each line is an event's data; empty lines are passed over
      ndjson  each line is a JSON value, checked, and sent as it stands
      csv     with a header row (RFC 4180); each row becomes a JSON object of strings
      auto    by the file's name: .csv, .ndjson or .jsonl, else lines

      Rows with the same key keep their order. With --resume the command remembers in a state file how far it is; started
      again after an interruption (even kill -9) it goes on there, and no row becomes two events.

      EXAMPLES
        grape ingest flights@raw flights.csv --key-field carrier
        zcat log.gz | grape ingest logs@line -
        grape ingest shop@order orders/*.ndjson --key-field customer --event-field kind --compress
        grape ingest flights@raw flights.csv --resume
        grape ingest logs@line big.log --compression zstd:9
      """)

  @Argument(help: ArgumentHelp("The events' address: app@event.", valueName: "target"), transform: parseTarget)
  var target: EventTarget

  @Argument(help: ArgumentHelp("Files; - for standard input.", valueName: "file"))
  var files: [String]

  @Option(help: ArgumentHelp("auto, lines, ndjson or csv.", valueName: "format"), transform: parseFormat)
  var format: InputFormat?

  @Option(help: ArgumentHelp("The field or column whose content is the event's key.", valueName: "name"))
  var keyField: String?

  @Option(help: ArgumentHelp("The field or column that names the event, instead of the target's.", valueName: "name"))
  var eventField: String?

  @Option(
    help: ArgumentHelp("A header for every event; may be given several times.", valueName: "name=value"),
    transform: parseHeader)
  var header: [OutgoingEvent.Header] = []

  @Option(
    help: ArgumentHelp("disk, os or memory; the application's own if not given.", valueName: "level"),
    transform: parseDurability)
  var durability: AckDurability?

  @Option(
    help: ArgumentHelp("\(BatchCompression.choices).", valueName: "codec"),
    transform: parseCompression)
  var compression: BatchCompression?

  @Flag(help: "The same as --compression zstd.")
  var compress = false

  @Flag(help: "Pass over bad rows; they are counted, and the first ten are named.")
  var skipBad = false

  @Flag(help: "Remember how far it is, and go on there if there is a state already.")
  var resume = false

  @Option(
    help: ArgumentHelp(
      "The state file for --resume. Default: FILE.grape-ingest beside the first file.", valueName: "file"))
  var state: String?

  @Flag(name: [.short, .long], help: "No progress on standard error.")
  var quiet = false

  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard !files.isEmpty else { throw ValidationError("name a file, or - for standard input") }
    if compress, compression != nil { throw ValidationError("--compress and --compression do not go together") }
    guard files.count <= 32_000 else { throw ValidationError("at most 32,000 files at a time") }
    guard files.filter({ $0 == "-" }).count <= 1 else { throw ValidationError("standard input can be read only once") }
    if resume, state == nil, files[0] == "-" {
      throw ValidationError("to resume standard input, name a state file with --state")
    }
    if keyField != nil || eventField != nil {
      for file in files where (format ?? InputFormat.of(path: file)) == .lines {
        throw ValidationError(
          "plain lines have no fields: \(file == "-" ? "standard input" : file) needs --format csv or ndjson for a key or event field"
        )
      }
    }
  }

  func run() throws {
    try reporting(json: options.json) {
      let interrupts = try Interrupts()
      try IngestRun(
        IngestRun.Settings(
          target: target, files: files, format: format, keyField: keyField, eventField: eventField, headers: header,
          durability: durability ?? .applicationDefault,
          compressionLevel: (compression ?? (compress ? .zstd(level: 1) : .none)).level.map { Int32($0) },
          skipBad: skipBad,
          statePath: state ?? files[0] + ".grape-ingest", keepsState: resume || state != nil,
          showsProgress: !quiet && Output.errorIsTerminal, json: options.json),
        interrupts: interrupts, connect: { try options.connect(source: $0) }
      ).run()
    }
  }
}

private func parseFormat(_ text: String) throws -> InputFormat? {
  if text == "auto" { return nil }
  guard let format = InputFormat(rawValue: text) else {
    throw ValidationError("a format is auto, lines, ndjson or csv")
  }
  return format
}
