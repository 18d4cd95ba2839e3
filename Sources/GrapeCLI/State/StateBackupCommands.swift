import ArgumentParser
import Glibc
import Grape
import GrapeCore
import GrapeNode

/// An absolute path: the node has another working directory.
private func absolute(_ path: String) throws -> String {
  if path.hasPrefix("/") { return path }
  guard let current = getcwd(nil, 0) else {
    throw CommandFailure(.noInput, "the current directory: \(String(cString: strerror(errno)))")
  }
  defer { free(current) }
  return String(cString: current) + "/" + path
}

/// `grape state backup`
struct StateBackupCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup",
    abstract: "Copy an application's state into a new directory.",
    discussion: """
      The node writes the directory, on its machine. The application goes on; all partitions are copied as they were at
      one moment. DIRECTORY is there when the backup is complete, and not before.

      EXAMPLES
        grape state backup flights /backup/flights-$(date +%F)
        grape state verify --backup /backup/flights-2026-11-22
        grape state restore flights /backup/flights-2026-11-22
      """)

  @Argument(help: "The application's name.", transform: parseAppName) var app: String
  @Argument(help: "The directory to make.") var directory: String
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let members: [(String, JSONValue)] = [("app", .string(app)), ("directory", .string(try absolute(directory)))]
    show(try StateJobRun(node).run("state.backup", members)) { answer in
      [
        "backed up \(Format.count(answer["entries"]?.int ?? 0)) entries of \(answer["partitions"]?.int ?? 0) partitions, "
          + "\(Format.bytes(answer["bytes"]?.int ?? 0)), to \(answer["directory"]?.string ?? directory)"
      ]
    }
  }
}

/// `grape state restore`
struct StateRestoreCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Bring a stopped application's state to what a backup has.",
    discussion: """
      What differs is written to the application's changelog: entries that the backup has, and removals of those that it
      does not have. The backup is checked first. A restore that was broken off is completed by running it again; until
      then the application is best left stopped.

      EXAMPLES
        grape app stop flights
        grape state restore flights /backup/flights-2026-11-22
        grape app start flights
      """)

  @Argument(help: "The application's name.", transform: parseAppName) var app: String
  @Argument(help: "The backup's directory, on the node's machine.") var directory: String
  @Flag(help: "Take the backup of an application of another name.") var force = false
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let members: [(String, JSONValue)] = [
      ("app", .string(app)), ("directory", .string(try absolute(directory))), ("force", .bool(force)),
    ]
    show(try StateJobRun(node).run("state.restore", members)) { answer in
      [
        "\(app) has the \(Format.count(answer["entries"]?.int ?? 0)) entries of the backup: "
          + "\(Format.count(answer["written"]?.int ?? 0)) written, \(Format.count(answer["removed"]?.int ?? 0)) removed"
      ]
    }
  }
}

/// `grape state verify`
struct StateVerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Check an application's state, or a backup of it.",
    discussion: """
      With a running node: every page, checksum and index of every partition's store, and whether it is exactly what its
      changelog comes to. With --backup, without a node: sizes, hashes, pages, checksums and indexes of the files.
      The exit code is 18 if something is wrong.

      EXAMPLES
        grape state verify flights
        grape state verify --backup /backup/flights-2026-11-22 --json
      """)

  @Argument(help: "The application's name.", transform: parseAppName) var app: String?
  @Option(help: ArgumentHelp("A backup's directory, on this machine.", valueName: "directory")) var backup: String?
  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard (app == nil) != (backup == nil) else {
      throw ValidationError("give the name of an application, or --backup and a directory")
    }
  }

  func run() throws {
    try reporting(json: options.json) {
      let report: JSONValue
      if let backup {
        report = try check(backup)
      } else {
        report = try StateJobRun(try options.connect()).run("state.verify", [("app", .string(app ?? ""))])
      }
      if options.json { Output.line(report.text) } else { print(report) }
      guard report["sound"]?.bool != true else { return }
      // The report is the answer, with --json too; only the exit code says more.
      try Output.flush()
      throw ExitCode(GrapeExit.verificationFailed.rawValue)
    }
  }

  private func check(_ directory: String) throws -> JSONValue {
    let showsProgress = Output.errorIsTerminal
    let backup = try StateBackup(directory: directory)
    let problems = try backup.problems(in: directory) { partition, done, total in
      if showsProgress {
        Output.writeError(
          "\rpartition \(partition) of \(backup.partitions.count): \(Format.bytes(Int64(done))) of \(Format.bytes(Int64(total)))\u{1b}[K"
        )
      }
      return true
    }
    if showsProgress { Output.writeError("\r\u{1b}[K") }
    return [
      "app": .string(backup.app), "sound": .bool(problems.isEmpty), "problemCount": JSONValue(problems.count),
      "problems": .array(
        problems.map { ["partition": JSONValue($0.partition), "message": .string($0.message)] }),
      "takenMs": .int(backup.takenMs),
      "partitions": .array(
        backup.partitions.map {
          [
            "partition": JSONValue($0.partition), "entries": JSONValue($0.entries), "changelog": .int($0.changelog),
            "processed": .int($0.processed),
          ]
        }),
    ]
  }

  private func print(_ report: JSONValue) {
    let problems = report["problems"]?.array ?? []
    for problem in problems {
      Output.line("partition \(problem["partition"]?.int ?? 0): \(problem["message"]?.string ?? "")")
    }
    let count = report["problemCount"]?.int ?? 0
    if count > problems.count { Output.line("and \(Format.count(count - Int64(problems.count))) problems more") }
    let partitions = report["partitions"]?.array ?? []
    let entries = partitions.reduce(Int64(0)) { $0 + ($1["entries"]?.int ?? 0) }
    let taken = report["takenMs"]?.int.map { ", taken \(Format.time($0))" } ?? ""
    Output.line(
      "\(count == 0 ? "sound" : "\(Format.count(count)) problems"): \(report["app"]?.string ?? ""), "
        + "\(Format.count(entries)) entries in \(partitions.count) partitions\(taken)")
  }
}
