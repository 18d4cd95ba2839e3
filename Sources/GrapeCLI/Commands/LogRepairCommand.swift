import ArgumentParser
import GrapeCommitLog
import GrapeCore
import GrapeLog

/// `grape log repair`
struct LogRepairCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "repair",
    abstract: "Make a damaged log usable again by giving up what cannot be read.",
    discussion: """
      Without --apply it only tells what it would do. With it, every damaged segment is rewritten with the groups that
      are sound, and the damaged file is kept beside it under the name *.log.damaged. The node must be stopped. A backup
      is better than a repair: what is listed as lost is lost.

      EXAMPLES
        grape log repair --data ./node
        grape log repair --data ./node --apply
      """)
  @Option(help: ArgumentHelp("The data directory, of a node that is not running.", valueName: "folder"))
  var data: String
  @Flag(help: "Do it.")
  var apply = false
  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    try reporting(json: json) {
      try LogPlace.checkIsEmbedded(data, "repair")
      let showsProgress = Output.errorIsTerminal
      let report = try CommitLog.repair(directory: data, apply: apply) { done, total in
        guard showsProgress, total > 0 else { return }
        Output.writeError("\r\(Format.bytes(done)) of \(Format.bytes(total)), \(done * 100 / total) %\u{1b}[K")
      }
      if showsProgress { Output.writeError("\r\u{1b}[K") }
      if json { return Output.line(value(report).text) }
      print(report)
    }
  }

  private func print(_ report: RepairReport) {
    if report.segments.isEmpty { return Output.line("nothing is damaged") }
    for segment in report.segments {
      Output.line(
        "\(segment.file): \(Format.count(segment.keptGroups)) groups kept, \(Format.bytes(segment.unreadableBytes)) unreadable"
      )
      for reason in segment.reasons { Output.line("  \(reason)") }
      if let copy = segment.copy { Output.line("  the damaged file is \(copy)") }
    }
    for loss in report.losses {
      Output.line(
        "lost: \(loss.partition) offsets \(loss.offsets.lowerBound) to \(loss.offsets.upperBound - 1)")
    }
    for topic in report.recoveredTopics { Output.line("topic \(topic) was made anew: its creation was lost") }
    if !apply { Output.line("nothing was changed; add --apply to do it") }
  }

  private func value(_ report: RepairReport) -> JSONValue {
    let segments = report.segments.map { segment -> JSONValue in
      [
        "file": .string(segment.file), "reasons": .array(segment.reasons.map { .string($0) }),
        "unreadableBytes": JSONValue(segment.unreadableBytes), "keptGroups": JSONValue(segment.keptGroups),
        "copy": JSONValue(segment.copy),
      ]
    }
    let losses = report.losses.map { loss -> JSONValue in
      [
        "topic": .string(loss.partition.topic), "partition": JSONValue(loss.partition.partition),
        "firstOffset": JSONValue(loss.offsets.lowerBound), "lastOffset": JSONValue(loss.offsets.upperBound - 1),
      ]
    }
    return [
      "applied": .bool(apply), "segments": .array(segments), "losses": .array(losses),
      "recoveredTopics": .array(report.recoveredTopics.map { .string($0) }),
    ]
  }
}
