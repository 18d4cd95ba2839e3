import ArgumentParser
import Grape
import GrapeCommitLog
import GrapeCore
import GrapeLog
import GrapeWire

/// `grape log`
struct LogCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "log",
    abstract: "The log: its topics, its content, its soundness.",
    discussion: """
      dump and verify read the files themselves, also while a node is running, and also when none can be started:
      --data names the data directory then.

      EXAMPLES
        grape log topics
        grape log dump shop.events --count 10
        grape log verify --data ./node
      """,
    subcommands: [Topics.self, LogDumpCommand.self, LogVerifyCommand.self, LogRepairCommand.self])

  struct Topics: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "List the topics with their partitions' first and next offsets.",
      discussion: """
        EXAMPLES
          grape log topics
          grape log topics --data ./node --json
        """)
    @OptionGroup var place: LogPlace

    func run() throws {
      try reporting(json: place.options.json) {
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
              Format.count(end - start),
            ])
          }
        }
        for line in table.lines { Output.line(line) }
      }
    }

    private func offline(_ directory: String) throws -> JSONValue {
      let topics = try CommitLog.topics(directory: directory).map { topic -> JSONValue in
        let partitions = topic.bounds.enumerated().map { number, bounds -> JSONValue in
          ["partition": JSONValue(number), "start": JSONValue(bounds.start), "end": JSONValue(bounds.end)]
        }
        return ["name": .string(topic.description.name), "partitions": .array(partitions)]
      }
      return ["topics": .array(topics)]
    }
  }
}

/// Which log a command is about.
struct LogPlace: ParsableArguments {
  @Option(help: ArgumentHelp("The data directory. Default: that of the node.", valueName: "folder"))
  var data: String?
  @OptionGroup var options: NodeOptions

  /// The data directory.
  func directory() throws -> String {
    if let data { return data }
    guard let directory = try options.connect().ask("node.info")["dataDirectory"]?.string else {
      throw CommandFailure(.internal, "the node does not say where its data is: name the folder with --data")
    }
    return directory
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
      let report = try CommitLog.verify(directory: try place.directory(), positions: range) { done, total in
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
