import ArgumentParser
import Glibc
import Grape
import GrapeCore
import GrapeWire

/// `grape state get`
struct StateGetCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "get",
    abstract: "Print the value of an entry.",
    discussion: """
      Prints the bytes of the value and nothing else. Without --partition and --for all partitions are looked into; if
      more than one has an entry of this key they are listed, and none is printed. With --json there is one object
      for each. If there is none the exit code is 22 (no-entry).

      EXAMPLES
        grape state get flights count:UA
        grape state get flights count:UA --for UA --consistency linearizable
        grape state get shop photo-7 --store pictures > photo.jpg
      """)

  @OptionGroup var place: StatePlace
  @Argument(help: ArgumentHelp("The key.", valueName: "key")) var key: String
  @Option(help: StateConsistency.help) var consistency = StateConsistency.local
  @OptionGroup var options: NodeOptions

  func validate() throws { _ = try place.key(key) }

  func execute(_ node: NodeConnection) throws {
    let key = try place.key(key)
    let pages = try StatePages(node, place, [("keyHex", .string(Hexadecimal.text(key)))], consistency: consistency)
    var found = 0
    var first: StateEntryRow?
    var lines: [String] = []
    try pages.forEach { row in
      found += 1
      if options.json {
        Output.line(row.json.text)
      } else {
        if first == nil { first = row }
        lines.append(row.line)
      }
      return true
    }
    guard found > 0 else { throw CommandFailure.noEntry(self.key, place) }
    guard !options.json, let first else { return }
    guard found == 1, let value = first.value else {
      for line in lines { Output.complain(line) }
      throw CommandFailure(
        .conflict,
        "\(found) partitions have an entry `\(self.key)`: name one with --partition, or with --for and the event's key")
    }
    Output.write(value.unsafeBytes)
    // For people only: what goes into a file or a pipe is the value's bytes and nothing else.
    if Output.isTerminal, value.unsafeBytes.last != UInt8(ascii: "\n") { Output.line("") }
  }
}

/// What `scan` and `find` have in common.
struct StateRange: ParsableArguments {
  @Option(help: ArgumentHelp("Only keys that begin so.", valueName: "key")) var prefix: String?
  @Option(help: ArgumentHelp("Only this key and those behind it.", valueName: "key")) var start: String?
  @Option(help: ArgumentHelp("Only keys before this one.", valueName: "key")) var end: String?
  @Option(
    name: [.short, .long], help: ArgumentHelp("At most so many entries.", valueName: "n"),
    transform: parsePositiveCount)
  var limit: Int?
  @Flag(help: "The last key of each partition first.") var descending = false
  @Flag(help: "Keys without their values.") var keysOnly = false
  @Option(help: StateConsistency.help) var consistency = StateConsistency.local

  func members(_ place: StatePlace) throws -> [(String, JSONValue)] {
    var members: [(String, JSONValue)] = []
    for (name, text) in [("prefix", prefix), ("start", start), ("end", end)] {
      guard let text else { continue }
      let bytes = try place.bytes(text, "--\(name)")
      guard bytes.count <= StateBounds.key else {
        throw ValidationError("--\(name) has \(bytes.count) bytes; a key has at most \(StateBounds.key)")
      }
      members.append((name + "Hex", .string(Hexadecimal.text(bytes))))
    }
    if descending { members.append(("descending", true)) }
    return members
  }

  /// Prints what there is, one entry a line.
  func print(_ tags: [String], _ place: StatePlace, _ options: NodeOptions, _ node: NodeConnection) throws {
    var members = try members(place)
    if !tags.isEmpty { members.append(("tags", JSONValue(strings: tags))) }
    let pages = try StatePages(node, place, members, keysOnly: keysOnly, consistency: consistency)
    try pages.forEach(limit: limit) { row in
      Output.line(options.json ? row.json.text : row.line)
      return true
    }
  }
}

/// `grape state scan`
struct StateScanCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "scan",
    abstract: "List entries in the order of their keys.",
    discussion: """
      One entry a line: partition, key, value, expiry, tags, with tabs between. Keys are ordered bytewise within a
      partition; one partition comes after the other.

      EXAMPLES
        grape state scan flights --prefix count: --limit 20
        grape state scan flights --start a --end b --descending
        grape state scan flights --partition 2 --keys-only --json
      """)

  @OptionGroup var place: StatePlace
  @OptionGroup var range: StateRange
  @OptionGroup var options: NodeOptions

  func validate() throws { _ = try range.members(place) }
  func execute(_ node: NodeConnection) throws { try range.print([], place, options, node) }
}

/// `grape state find`
struct StateFindCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "find",
    abstract: "List the entries that have all of some tags.",
    discussion: """
      EXAMPLES
        grape state find shop --tag open --tag priority
        grape state find shop --tag open --prefix order: --keys-only
      """)

  @OptionGroup var place: StatePlace
  @Option(help: ArgumentHelp("A tag; may be given several times.", valueName: "tag"), transform: parseTag) var tag:
    [String] = []
  @OptionGroup var range: StateRange
  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard !tag.isEmpty else { throw ValidationError("name a tag at least: --tag open") }
    guard tag.count <= StateBounds.tags else { throw ValidationError("an entry has at most \(StateBounds.tags) tags") }
    _ = try range.members(place)
  }

  func execute(_ node: NodeConnection) throws { try range.print(tag, place, options, node) }
}

extension CommandFailure {
  /// There is no such entry.
  static func noEntry(_ key: String, _ place: StatePlace) -> CommandFailure {
    let where_ =
      place.partition.map { " in partition \($0)" } ?? place.eventKey.map {
        " in the partition of events with key `\($0)`"
      } ?? ""
    return CommandFailure(.noEntry, "\(place.app) has no entry `\(key)` in \(place.storeInWords)\(where_)")
  }
}
