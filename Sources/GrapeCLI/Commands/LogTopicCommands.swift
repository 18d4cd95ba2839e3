import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// `grape log create-topic`
struct LogCreateTopicCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "create-topic",
    abstract: "Create a topic that is not Grape's.",
    discussion: """
      Applications read such topics as sources and write to them by signals: the manifest names them. Creating one that
      is there just so changes nothing; one that is there otherwise is an error (conflict).

      EXAMPLES
        grape log create-topic orders --partitions 6
        grape log create-topic customers --compact
        grape log create-topic clicks --partitions 12 --retention-age 7d --retention-size 10GiB
      """)

  @Argument(help: ArgumentHelp("The topic.", valueName: "topic"), transform: parseTopicName)
  var topic: TopicName
  @Option(help: "How many partitions; they stay as many.")
  var partitions: Int32 = 1
  @Flag(help: "Keep the last record of each key, instead of all records.")
  var compact = false
  @Option(
    help: ArgumentHelp("Records older than this may be dropped.", valueName: "duration"), transform: parseDuration)
  var retentionAge: Duration?
  @Option(
    help: ArgumentHelp("A partition larger than this may lose its oldest records (10GiB).", valueName: "size"),
    transform: parseTopicBytes)
  var retentionSize: Int?
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let answer = try node.ask(
      "log.create",
      [
        ("topic", .string(topic.text)), ("partitions", JSONValue(partitions)),
        ("cleanup", compact ? "compact" : "delete"),
        ("retentionMs", retentionAge.map { .int(Int64($0 / .milliseconds(1))) } ?? .null),
        ("retentionBytes", retentionSize.map { JSONValue($0) } ?? .null),
      ])
    show(answer) { _ in ["\(topic): \(partitions) partition\(partitions == 1 ? "" : "s")"] }
  }
}

/// `grape log produce`
struct LogProduceCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "produce",
    abstract: "Write plain records to a topic that is not Grape's.",
    discussion: """
      With --value (or --tombstone) one record; otherwise a record per line of standard input. With --key-separator the
      key stands before the separator. With --ndjson each line is an object: key, value (or keyBase64, valueBase64; null
      or missing: null), headers (an object of texts).

      EXAMPLES
        grape log produce orders --key c7 --value '{"item": "tea"}' --header source=shop
        grape log produce orders --key c7 --tombstone
        grape log produce orders --key-separator : < orders.txt
        grape log produce orders --ndjson < orders.ndjson
      """)

  @Argument(help: ArgumentHelp("The topic.", valueName: "topic"), transform: parseTopicName)
  var topic: TopicName
  @Option(help: "The key. Without it any partition is taken.") var key: String?
  @Option(help: ArgumentHelp("The value: TEXT, @FILE, or - for standard input.", valueName: "data"))
  var value: String?
  @Flag(help: "The value is null.") var tombstone = false
  @Option(help: ArgumentHelp("A header; may be given several times.", valueName: "name=value"), transform: parseHeader)
  var header: [OutgoingEvent.Header] = []
  @Option(help: ArgumentHelp("What stands between key and value in a line.", valueName: "text"))
  var keySeparator: String?
  @Flag(help: "Each line of standard input is a JSON object.") var ndjson = false
  @Option(help: "The partition, instead of that of the key.") var partition: Int32?
  @OptionGroup var options: NodeOptions

  func validate() throws {
    guard value == nil || !tombstone else { throw ValidationError("--value and --tombstone exclude each other") }
    let isSingle = value != nil || tombstone
    guard !isSingle || (keySeparator == nil && !ndjson) else {
      throw ValidationError("--key-separator and --ndjson are for lines; with --value or --tombstone there are none")
    }
    guard keySeparator == nil || (key == nil && !ndjson) else {
      throw ValidationError("--key-separator excludes --key and --ndjson")
    }
    guard keySeparator != "" else { throw ValidationError("--key-separator is empty") }
    guard !ndjson || (key == nil && header.isEmpty) else {
      throw ValidationError("with --ndjson the lines say key and headers")
    }
  }

  func execute(_ node: NodeConnection) throws {
    let writer = RecordWriter(topic: topic, partition: partition, node: node)
    if value != nil || tombstone {
      try writer.add(
        PlainRecord(
          key: key.map { ByteSlice($0) }, value: try value.map { try readData($0, limit: node.welcome.maxEvent) },
          headers: header))
    } else {
      // What comes slowly is written as it comes.
      let text = try InputText(path: "-", rowLimit: node.welcome.maxEvent) { _ in try writer.flush() }
      let lines = LineReader(text)
      let separator = keySeparator.map { Array($0.utf8) }
      while let row = try lines.next() {
        let record: PlainRecord
        do throws(PlainRecord.Problem) {
          record =
            ndjson
            ? try PlainRecord(ndjson: row.value)
            : try PlainRecord(line: row.value, key: key, separator: separator, headers: header)
        } catch {
          throw CommandFailure(.badInput, "standard input, line \(row.line): \(error.message)")
        }
        try writer.add(record)
      }
    }
    try writer.flush()
    let (count, places) = (writer.count, writer.places)
    show(["topic": .string(topic.text), "records": JSONValue(count), "appended": .array(places)]) { _ in
      if count == 1, let place = places.first {
        return ["\(topic), partition \(place["partition"]?.int ?? 0), offset \(place["offset"]?.int ?? 0)"]
      }
      return ["\(topic): \(Format.count(count)) records"]
    }
  }
}

func parseTopicName(_ text: String) throws -> TopicName {
  do throws(NameError) { return try TopicName(text) } catch { throw ValidationError(error.message) }
}

private func parseTopicBytes(_ text: String) throws -> Int {
  do throws(QuantityError) { return try ByteCountText.parse(text) } catch { throw ValidationError(error.message) }
}
