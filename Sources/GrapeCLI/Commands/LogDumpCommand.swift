import ArgumentParser
import GrapeCommitLog
import GrapeCore
import GrapeLog
import GrapeWire

/// `grape log dump`
struct LogDumpCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dump",
    abstract: "Print what the log's files hold.",
    discussion: """
      With a topic: its records, in the order of the log. Without: every change in every commit, one a line. With
      --json there is one object a line.

      EXAMPLES
        grape log dump shop.events
        grape log dump shop.events --partition 2 --from 1000 --count 20 --json
        grape log dump --data ./node
      """)

  @Argument(help: ArgumentHelp("The topic.", valueName: "topic")) var topic: String?
  @Option(help: ArgumentHelp("Only this partition.", valueName: "number")) var partition: Int32?
  @Option(help: ArgumentHelp("With a topic: only offsets from this one on.", valueName: "offset")) var from: Int64 = 0
  @Option(
    name: [.short, .long], help: ArgumentHelp("Stop after so many lines.", valueName: "n"),
    transform: parsePositiveCount)
  var count: Int?
  @OptionGroup var place: LogPlace

  func validate() throws {
    guard from >= 0 else { throw ValidationError("--from takes an offset: 0 or more") }
    if topic == nil, partition != nil || from != 0 { throw ValidationError("--partition and --from go with a topic") }
  }

  func run() throws {
    try reporting(json: place.options.json) {
      var scanner = try CommitLogScanner(directory: try place.directory("dump"))
      var left = count ?? .max
      var partitions: Int32?
      let printer = RecordPrinter(json: place.options.json)
      while left > 0, let group = try scanner.next() {
        for entry in group.entries where left > 0 {
          guard let topic else {
            left -= 1
            Output.line(place.options.json ? json(entry, of: group).text : line(entry, of: group))
            continue
          }
          switch entry {
          case .topicCreated(let created) where created.name == topic: partitions = created.configuration.partitions
          case .append(let place, let batch, _)
          where place.topic == topic && (partition == nil || partition == place.partition) && batch.lastOffset >= from:
            for record in try TopicRecord.read(batch.bytes, topic: topic, partition: place.partition, from: from)
            where left > 0 {
              left -= 1
              try printer.print(record)
            }
          default: break
          }
        }
      }
      try checkFound(partitions)
    }
  }

  private func checkFound(_ partitions: Int32?) throws {
    guard let topic else { return }
    guard let partitions else {
      throw StatusError(.notFound, "the log has no topic \(topic); `grape log topics` lists them")
    }
    if let partition, !(0..<partitions).contains(partition) {
      throw StatusError(.notFound, "\(topic) has partitions 0 to \(partitions - 1), not \(partition)")
    }
  }

  private func line(_ entry: CommitLogScanner.Entry, of group: CommitLogScanner.Group) -> String {
    let what =
      switch entry {
      case .append(let place, let batch, let count):
        "append \(place) offsets \(batch.baseOffset) to \(batch.lastOffset) (\(count) records, \(batch.bytes.count) bytes)"
      case .offsetCommit(let name, let place, let committed): "commit of \(name) on \(place): \(committed.offset)"
      case .topicCreated(let topic): "topic \(topic.name) created with \(topic.configuration.partitions) partitions"
      case .topicDeleted(let name): "topic \(name) deleted"
      case .topicAltered(let topic): "topic \(topic.name) changed"
      case .trimmed(let place, let start): "records of \(place) before offset \(start) given up"
      case .partitionState(let place, let bounds): "\(place) cleaned: offsets \(bounds.start) to \(bounds.end)"
      case .groupDeleted(let name): "consumer group \(name) deleted"
      case .topicIDs(let next): "next topic id \(next)"
      case .unknown(let kind, let bytes): "entry of kind \(kind), \(bytes) bytes"
      }
    return "\(Format.time(group.time)) group \(group.sequence) at \(group.position): \(what)"
  }

  private func json(_ entry: CommitLogScanner.Entry, of group: CommitLogScanner.Group) -> JSONValue {
    let common: [JSONValue.Member] = [
      .init("group", JSONValue(group.sequence)), .init("timeMs", JSONValue(group.time)),
      .init("position", JSONValue(group.position)), .init("file", .string(group.file)),
      .init("byte", JSONValue(group.fileOffset)),
    ]
    func place(_ place: TopicPartition) -> [JSONValue.Member] {
      [.init("topic", .string(place.topic)), .init("partition", JSONValue(place.partition))]
    }
    let own: [JSONValue.Member] =
      switch entry {
      case .append(let at, let batch, let count):
        [.init("kind", "append")] + place(at) + [
          .init("firstOffset", JSONValue(batch.baseOffset)), .init("lastOffset", JSONValue(batch.lastOffset)),
          .init("records", JSONValue(count)), .init("bytes", JSONValue(batch.bytes.count)),
        ]
      case .offsetCommit(let name, let at, let committed):
        [.init("kind", "commit"), .init("consumer", .string(name))] + place(at)
          + [.init("offset", JSONValue(committed.offset)), .init("metadataBytes", JSONValue(committed.metadata.count))]
      case .topicCreated(let topic):
        [
          .init("kind", "topicCreated"), .init("topic", .string(topic.name)),
          .init("partitions", JSONValue(topic.configuration.partitions)),
        ]
      case .topicDeleted(let name): [.init("kind", "topicDeleted"), .init("topic", .string(name))]
      case .topicAltered(let topic): [.init("kind", "topicAltered"), .init("topic", .string(topic.name))]
      case .trimmed(let at, let start): [.init("kind", "trimmed")] + place(at) + [.init("start", JSONValue(start))]
      case .partitionState(let at, let bounds):
        [.init("kind", "partitionState")] + place(at)
          + [.init("start", JSONValue(bounds.start)), .init("end", JSONValue(bounds.end))]
      case .groupDeleted(let name): [.init("kind", "groupDeleted"), .init("consumer", .string(name))]
      case .topicIDs(let next): [.init("kind", "topicIDs"), .init("next", JSONValue(next))]
      case .unknown(let kind, let bytes):
        [.init("kind", "unknown"), .init("number", JSONValue(kind)), .init("bytes", JSONValue(bytes))]
      }
    return .object(common + own)
  }
}
