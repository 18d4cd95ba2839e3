internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire

/// Topics that are not Grape's: making them, writing to them, showing them.
extension AdminService {
  /// Creates a topic, or finds that it is there as it is wanted.
  func createTopic(_ request: JSONValue, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    let topic = try plainTopic(request, "log.create")
    guard let partitions = request["partitions"]?.int, let count = Int32(exactly: partitions) else {
      throw StatusError(.badRequest, "log.create takes \"partitions\", a number")
    }
    var configuration = TopicConfiguration(partitions: count)
    switch request["cleanup"]?.string ?? "delete" {
    case "delete": configuration.cleanup = .delete
    case "compact": configuration.cleanup = .compact
    case let other: throw StatusError(.badRequest, "cleanup \"\(other)\": delete or compact is possible")
    }
    configuration.retentionMilliseconds = request["retentionMs"]?.int
    configuration.retentionBytes = request["retentionBytes"]?.int
    inBackground(respond) { [log = core.gate.log, configuration] () async throws(StatusError) in
      do throws(LogError) {
        try await log.createTopic(topic.text, configuration: configuration)
      } catch {
        throw StatusError(error)
      }
      return ["topic": .string(topic.text), "partitions": JSONValue(configuration.partitions)]
    }
  }

  /// Appends the records of one batch, each to the partition of its key, or all to one.
  func appendRecords(_ request: JSONValue, _ blob: ByteSlice, _ respond: @escaping (Answer) -> Void) throws(StatusError)
  {
    let topic = try plainTopic(request, "log.append")
    let partition = request["partition"]?.int ?? -1
    core.refreshTopics { [self] result in
      do throws(StatusError) {
        try result.get()
        guard let partitions = core.external.partitions[topic] else {
          throw StatusError(.notFound, "there is no topic \(topic): `grape log create-topic` makes one")
        }
        try append(blob, to: topic, partition, of: partitions, respond)
      } catch {
        respond(.failure(error))
      }
    }
  }

  private func append(
    _ batch: ByteSlice, to topic: TopicName, _ partition: Int64, of partitions: Int32,
    _ respond: @escaping (Answer) -> Void
  ) throws(StatusError) {
    let isKeyed = partition == -1
    let limit = FrameHeader.defaultLimit
    let header = try PlainRecords.check(
      batch, topic: topic.text, partition: isKeyed ? 0 : Int32(clamping: partition), of: partitions, checkingCRC: true,
      eventLimit: core.configuration.eventLimit, batchLimit: limit)
    var parts: [(partition: Int32, batch: FinishedBatch)]
    if isKeyed {
      do throws(WireError) {
        parts = try BatchSplitter.split(
          batch, partitions: partitions, keyless: Int32.random(in: 0..<partitions), limit: limit)
      } catch {
        throw StatusError(.badRequest, "record batch for \(topic): \(error.message)")
      }
    } else {
      parts = [
        (
          Int32(partition),
          FinishedBatch(bytes: batch, recordCount: header.recordCount, maxTimestamp: header.maxTimestamp)
        )
      ]
    }
    let transaction = Transaction(
      durability: .disk,
      appends: parts.map { part in
        Transaction.Append(
          TopicPartition(topic.text, part.partition), batch: part.batch.bytes, maxTimestamp: part.batch.maxTimestamp,
          recordCount: part.batch.recordCount)
      })
    core.gate.commit(transaction) { result in
      respond(
        result.map { receipt in
          let places: [JSONValue] = zip(parts, receipt.baseOffsets).map { part, offset in
            [
              "partition": JSONValue(part.partition), "offset": .int(offset),
              "records": JSONValue(part.batch.recordCount),
            ]
          }
          return ["topic": .string(topic.text), "appended": .array(places)]
        }.mapError { StatusError($0) })
    }
  }

  /// The topic that a request names; refused if it is one of Grape's own.
  private func plainTopic(_ request: JSONValue, _ operation: String) throws(StatusError) -> TopicName {
    guard let text = request["topic"]?.string else {
      throw StatusError(.badRequest, "\(operation) takes \"topic\"")
    }
    let topic: TopicName
    do throws(NameError) { topic = try TopicName(text) } catch { throw StatusError(.badRequest, error.message) }
    if let owner = core.topology.ownership(of: topic) {
      throw StatusError(.conflict, "\(owner): records get there by events alone")
    }
    return topic
  }

  /// Sources and sinks, for `topology`.
  var topicEdges: JSONValue {
    .array(
      core.topology.topicEdges(topics: core.external.names).map { edge in
        [
          "direction": .string(edge.direction == .source ? "source" : "sink"), "topic": .string(edge.topic.text),
          "slot": .string(edge.slot.text), "signal": JSONValue(edge.signal?.text),
          "optional": .bool(edge.isOptional), "missing": .bool(edge.isMissing),
        ]
      })
  }
}
