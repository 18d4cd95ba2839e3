import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// Expiry, tags and trigger of what is written.
struct StateWriteOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("The entry is removed when this has passed.", valueName: "duration"), transform: parseTTL)
  var ttl: Duration?
  @Option(help: ArgumentHelp("A tag of the entry; may be given several times.", valueName: "tag"), transform: parseTag)
  var tag: [String] = []

  func validate() throws {
    guard Set(tag).count == tag.count else { throw ValidationError("a tag is given twice") }
    guard tag.count <= StateBounds.tags else {
      throw ValidationError("\(tag.count) tags: an entry has at most \(StateBounds.tags)")
    }
  }

  var members: [JSONValue.Member] {
    var members: [JSONValue.Member] = []
    if let ttl { members.append(.init("ttlMs", .int(milliseconds(ttl)))) }
    if !tag.isEmpty { members.append(.init("tags", JSONValue(strings: tag))) }
    return members
  }
}

/// A duration up to 100 years.
func parseTTL(_ text: String) throws -> Duration {
  let ttl = try parseDuration(text)
  guard (1...3_155_760_000_000).contains(milliseconds(ttl)) else {
    throw ValidationError("a ttl is 1ms to 36525d (a hundred years)")
  }
  return ttl
}

private func milliseconds(_ duration: Duration) -> Int64 {
  duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
}

/// The slot that is told.
struct StateTrigger: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A slot of the application that gets the key and the value as an event, in the same commit.", valueName: "slot"),
    transform: parseEventName)
  var trigger: String?
}

/// `grape state put`
struct StatePutCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "put",
    abstract: "Store an entry.",
    discussion: """
      What was there before is replaced, tags and expiry included. With --trigger a slot of the application gets the
      key and the value as an event, in the partition of the entry.

      EXAMPLES
        grape state put flights limit 5000
        grape state put shop photo-7 --file photo.jpg --store pictures --tag jpeg --ttl 30d
        curl -s https://example.org/rates | grape state put shop rates - --trigger rates-changed
      """)

  @OptionGroup var place: StatePlace
  @Argument(help: ArgumentHelp("The key.", valueName: "key")) var key: String
  @OptionGroup var value: StateValue
  @OptionGroup var entry: StateWriteOptions
  @OptionGroup var trigger: StateTrigger
  @OptionGroup var options: NodeOptions

  func validate() throws {
    _ = try place.key(key)
    guard value.isGiven else {
      throw ValidationError("the value is missing: give it as an argument, with --file, or - for standard input")
    }
  }

  func execute(_ node: NodeConnection) throws {
    let outcome = try StateWriter(node, place).write(
      "put", key: place.key(key), value: value.read(), members: entry.members, trigger: trigger.trigger)
    outcome.show(options, "stored in")
  }
}

/// `grape state remove`
struct StateRemoveCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Remove an entry.",
    discussion: """
      Without --partition and --for the entry is looked for in all partitions. If there is none the exit code is 22
      (no-entry).

      EXAMPLES
        grape state remove flights limit
        grape state remove flights count:UA --for UA
      """)

  @OptionGroup var place: StatePlace
  @Argument(help: ArgumentHelp("The key.", valueName: "key")) var key: String
  @OptionGroup var trigger: StateTrigger
  @OptionGroup var options: NodeOptions

  func validate() throws { _ = try place.key(key) }

  func execute(_ node: NodeConnection) throws {
    let writer = StateWriter(node, place)
    let key = try place.key(key)
    guard let found = try writer.partition(of: key) else { throw CommandFailure.noEntry(self.key, place) }
    let outcome = try writer.write(
      "remove", key: key, value: nil, members: [], trigger: trigger.trigger, in: found)
    outcome.show(options, "removed from")
  }
}

/// `grape state cas`
struct StateCasCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "cas",
    abstract: "Replace the value of an entry if it is what you expect.",
    discussion: """
      Compares and sets in one step: of several at a time that expect the same, one succeeds. If the entry is another
      than expected nothing is changed, and the exit code is 23 (refused).

      EXAMPLES
        grape state cas shop leader node-1 --expect-none --ttl 30s
        grape state cas shop stock 41 --expect 42
        grape state cas shop leader --expect node-1 --remove
      """)

  @OptionGroup var place: StatePlace
  @Argument(help: ArgumentHelp("The key.", valueName: "key")) var key: String
  @OptionGroup var value: StateValue
  @Option(help: ArgumentHelp("The value that must be there.", valueName: "value")) var expect: String?
  @Option(help: ArgumentHelp("A file with the value that must be there; - for standard input.", valueName: "path"))
  var expectFile: String?
  @Flag(help: "There must be no entry.") var expectNone = false
  @Flag(help: "Remove the entry instead of giving it a new value.") var remove = false
  @OptionGroup var entry: StateWriteOptions
  @OptionGroup var trigger: StateTrigger
  @OptionGroup var options: NodeOptions

  func validate() throws {
    _ = try place.key(key)
    let expectations = [expect != nil, expectFile != nil, expectNone].filter { $0 }.count
    guard expectations == 1 else {
      throw ValidationError("say what is expected: --expect VALUE, --expect-file PATH or --expect-none, one of them")
    }
    guard value.isGiven != remove else {
      throw ValidationError("give a new value (as an argument, with --file, or - for standard input) or --remove")
    }
    guard !remove || (entry.ttl == nil && entry.tag.isEmpty) else {
      throw ValidationError("--ttl and --tag are for a new value, --remove has none")
    }
    guard expectFile != "-" || (value.text != "-" && value.file != "-") else {
      throw ValidationError("standard input can be the new value or the expected one, not both")
    }
  }

  func execute(_ node: NodeConnection) throws {
    var expected = expect.map { ByteSlice($0) }
    if let expectFile {
      expected =
        expectFile == "-"
        ? try FileContent.read(descriptor: 0, name: "standard input", limit: StateBounds.value)
        : try FileContent.read(path: expectFile, limit: StateBounds.value)
    }
    let outcome = try StateWriter(node, place).write(
      "cas", key: place.key(key), value: remove ? nil : value.read(), expected: expected, members: entry.members,
      trigger: trigger.trigger)
    outcome.show(options, remove ? "removed from" : "stored in")
  }
}

/// `grape state append`
struct StateAppendCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "append",
    abstract: "Add bytes at the end of a value.",
    discussion: """
      If there is no entry it begins with these bytes. Tags and expiry of an entry that is there stay as they are; --ttl
      and --tag are for one that is not.

      EXAMPLES
        grape state append shop log:2013-01-31 'opened;'
        grape state append shop journal --file today.txt
      """)

  @OptionGroup var place: StatePlace
  @Argument(help: ArgumentHelp("The key.", valueName: "key")) var key: String
  @OptionGroup var value: StateValue
  @OptionGroup var entry: StateWriteOptions
  @OptionGroup var trigger: StateTrigger
  @OptionGroup var options: NodeOptions

  func validate() throws {
    _ = try place.key(key)
    guard value.isGiven else {
      throw ValidationError(
        "the bytes to append are missing: give them as an argument, with --file, or - for standard input")
    }
  }

  func execute(_ node: NodeConnection) throws {
    let outcome = try StateWriter(node, place).write(
      "append", key: place.key(key), value: value.read(), members: entry.members, trigger: trigger.trigger)
    outcome.show(options, "appended in")
  }
}
