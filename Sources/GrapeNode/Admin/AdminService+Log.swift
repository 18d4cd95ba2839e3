internal import GrapeCore
internal import GrapeEngine
internal import GrapeKafka
internal import GrapeLog

/// The log: its topics, and which there should be.
extension AdminService {
  static func topics(_ opened: NodeLog) async throws(StatusError) -> JSONValue {
    let log = opened.log
    do throws(LogError) {
      var topics: [JSONValue] = []
      let details = try await opened.topicDetails?() ?? [:]
      // Of the many settings of a topic those that the configuration speaks of.
      let settings = Set((opened.cluster?.topicSettings ?? [:]).keys)
      for topic in try await log.topics() {
        var partitions: [JSONValue] = []
        for partition in 0..<topic.configuration.partitions {
          let bounds = try await log.bounds(of: TopicPartition(topic.name, partition))
          partitions.append(
            ["partition": JSONValue(partition), "start": .int(bounds.start), "end": .int(bounds.end)])
        }
        topics.append(
          [
            "name": .string(topic.name), "partitions": .array(partitions),
            "configuration": topic.configuration.json,
            "details": details[topic.name].map { $0.json(settings) } ?? .null,
          ])
      }
      return ["topics": .array(topics)]
    } catch {
      throw StatusError(error)
    }
  }

  /// The topics that there should be, with what this node has and knows.
  var topicPlan: JSONValue {
    let apps = core.engines.values.sorted { $0.name < $1.name }.map(\.deployment.manifest)
    let topics =
      TopicPlan.shared(byNodes: log.isShared) + TopicPlan.node(core.configuration.name)
      + apps.flatMap { TopicPlan.application($0) }
    return [
      "node": .string(core.configuration.name.text), "log": .string(log.kind),
      "cluster": log.cluster.map(\.json) ?? .null, "topics": .array(topics.map(\.json)),
    ]
  }

  func offsets(_ request: JSONValue, _ respond: @escaping (Answer) -> Void) throws(StatusError) {
    guard let topic = request["topic"]?.string, let time = request["timeMs"]?.int else {
      throw StatusError(.badRequest, "log.offsets takes \"topic\" and \"timeMs\"")
    }
    inBackground(respond) { [log = core.gate.log] () async throws(StatusError) in
      do throws(LogError) {
        guard let description = try await log.topics().first(where: { $0.name == topic }) else {
          throw LogError(.noSuchTopic, "no topic \"\(topic)\"")
        }
        var partitions: [JSONValue] = []
        for partition in 0..<description.configuration.partitions {
          let place = TopicPartition(topic, partition)
          let bounds = try await log.bounds(of: place)
          partitions.append(
            [
              "partition": JSONValue(partition), "offset": .int(try await log.offset(of: place, at: time)),
              "start": .int(bounds.start), "end": .int(bounds.end),
            ])
        }
        return ["topic": .string(topic), "partitions": .array(partitions)]
      } catch {
        throw StatusError(error)
      }
    }
  }
}
