import ArgumentParser
import Grape
import GrapeCommitLog
import GrapeCore
import GrapeLog
import GrapeNode
import GrapeWire

/// `grape log`
struct LogCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "log",
    abstract: "The log: its topics, its content, its soundness.",
    discussion: """
      dump, verify and repair work on the files of the embedded log themselves; dump and verify also while a node is
      running, and also when none can be started: --data names the data directory then.

      EXAMPLES
        grape log topics
        grape log topics --plan --config node.yaml --app shop --format commands
        grape log dump shop.events --count 10
        grape log verify --data ./node
      """,
    subcommands: [
      LogTopicsCommand.self, LogCreateTopicCommand.self, LogProduceCommand.self, LogDumpCommand.self,
      LogVerifyCommand.self, LogRepairCommand.self,
    ])
}

/// Which log a command is about.
struct LogPlace: ParsableArguments {
  @Option(help: ArgumentHelp("The data directory. Default: that of the node.", valueName: "folder"))
  var data: String?
  @OptionGroup var options: NodeOptions

  /// The data directory of a node with the embedded log. `doing` says what its files are wanted for.
  func directory(_ doing: String) throws -> String {
    if let data {
      try LogPlace.checkIsEmbedded(data, doing)
      return data
    }
    let info = try options.connect().ask("node.info")
    if info["log"]?.string == "kafka" { throw Self.noFiles("node \(info["node"]?.string ?? "")", doing) }
    guard let directory = info["dataDirectory"]?.string else {
      throw CommandFailure(.internal, "the node does not say where its data is: name the folder with --data")
    }
    return directory
  }

  /// Fails if the data directory is that of a node on Kafka.
  static func checkIsEmbedded(_ directory: String, _ doing: String) throws {
    let namespace: String?
    do throws(NodeError) { namespace = try LogMarker.namespace(in: directory) } catch {
      throw CommandFailure(.badInput, error.message)
    }
    if namespace != nil { throw noFiles("the node of \(directory)", doing) }
  }

  private static func noFiles(_ node: String, _ doing: String) -> CommandFailure {
    CommandFailure(
      .conflict,
      "\(node) works on Kafka: it has no files of a log to \(doing). `grape log topics` and `grape tail` read topics there, "
        + "and Kafka's own tools look after its brokers' files")
  }
}

/// `grape log verify`
struct LogVerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Check every segment, group, batch and offset.",
    discussion: """
      Damage is named by file and byte, and by topic, partition and offsets as far as they are known; the exit code is
      then 18.

      EXAMPLES
        grape log verify
        grape log verify --data ./node --json
        grape log verify --from 67108864 --to 134217728   # only what lies between two positions
      """)
  @OptionGroup var place: LogPlace
  @Option(help: ArgumentHelp("First position to check, rounded down to a segment.", valueName: "position"))
  var from: Int64 = 0
  @Option(help: ArgumentHelp("Position to stop before, rounded up to a segment.", valueName: "position"))
  var to: Int64?

  func run() throws {
    try reporting(json: place.options.json) {
      let showsProgress = Output.errorIsTerminal
      guard from >= 0, to.map({ $0 > from }) ?? true else {
        throw CommandFailure(
          .usage, "--from \(from) --to \(to ?? 0): a range of positions goes from a smaller to a larger one")
      }
      let range = from == 0 && to == nil ? nil : from..<(to ?? .max)
      let report = try CommitLog.verify(directory: try place.directory("verify"), positions: range) { done, total in
        guard showsProgress, total > 0 else { return }
        Output.writeError("\r\(Format.bytes(done)) of \(Format.bytes(total)), \(done * 100 / total) %\u{1b}[K")
      }
      if showsProgress { Output.writeError("\r\u{1b}[K") }
      if place.options.json { Output.line(json(report).text) } else { print(report) }
      guard report.problemCount > 0 else { return }
      // The report is the answer, with --json too; only the exit code says more.
      try Output.flush()
      throw ExitCode(GrapeExit.verificationFailed.rawValue)
    }
  }

  private func print(_ report: VerificationReport) {
    for problem in report.problems { Output.line("\(problem)") }
    if report.problemCount > report.problems.count {
      Output.line("and \(Format.count(report.problemCount - report.problems.count)) problems more")
    }
    if let tail = report.tail { Output.line("behind the last group, cut at the next start: \(tail)") }
    Output.line(
      "\(report.problemCount == 0 ? "sound" : "\(Format.count(report.problemCount)) problems"): "
        + "\(Format.count(report.segments)) segment\(report.segments == 1 ? "" : "s"), \(Format.count(report.groups)) groups, "
        + "\(Format.count(report.batches)) batches, \(Format.count(report.records)) records, \(Format.bytes(report.bytes))"
    )
  }

  private func json(_ report: VerificationReport) -> JSONValue {
    let problems = report.problems.map { problem -> JSONValue in
      [
        "file": .string(problem.file), "byte": JSONValue(problem.fileOffset), "message": .string(problem.message),
        "topic": JSONValue(problem.partition?.topic),
        "partition": problem.partition.map { JSONValue($0.partition) } ?? .null,
        "firstOffset": problem.offsets.map { JSONValue($0.lowerBound) } ?? .null,
        "lastOffset": problem.offsets.map { JSONValue($0.upperBound - 1) } ?? .null,
      ]
    }
    return [
      "sound": .bool(report.problemCount == 0), "problemCount": JSONValue(report.problemCount),
      "problems": .array(problems),
      "tail": JSONValue(report.tail), "segments": JSONValue(report.segments), "groups": JSONValue(report.groups),
      "batches": JSONValue(report.batches), "records": JSONValue(report.records), "bytes": JSONValue(report.bytes),
    ]
  }
}
