import GrapeCore
import GrapeKafka
import GrapeLog
import GrapePackages
import GrapeTestKit
import Logging
import Testing

@testable import GrapeNode

@Suite struct TopicKeeperTests {
  private static let app = """
    grape: 1
    name: shop
    runtime: python
    entry: app.py
    partitions: 3
    slots: {order: {}}
    profile: {retention-age: 7d, retention-size: 1GiB}
    """

  private static let cluster: ClusterTopics = {
    var configuration = KafkaConfiguration(bootstrapServers: "k:9092", transactionalID: "n")
    configuration.namespace = "prod."
    return ClusterTopics(configuration)
  }()

  private static func plan() throws -> [PlannedTopic] {
    TopicPlan.shared(byNodes: true) + TopicPlan.node(try NodeName("n1"))
      + TopicPlan.application(try Manifest(yaml: app))
  }

  private static func keeper(_ log: any EventLog) -> TopicKeeper {
    TopicKeeper(log: log, cluster: cluster, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
  }

  /// Everything as planned, but for what `change` does to one topic.
  private static func log(
    forbidding forbidden: Set<GuardedLog.Act>, changing name: String = "",
    _ change: (inout TopicConfiguration) -> Void = { _ in }
  ) async throws -> GuardedLog {
    let log = GuardedLog(forbidding: forbidden)
    for topic in try plan() {
      var configuration = topic.configuration
      if topic.name == name { change(&configuration) }
      try await log.inner.createTopic(topic.name, configuration: configuration)
    }
    return log
  }

  private static func failure(_ log: GuardedLog) async throws -> LogError? {
    let plan = try plan()
    do throws(LogError) {
      try await keeper(log).ensure(plan)
      return nil
    } catch {
      return error
    }
  }

  @Test func whatIsMissingIsCreatedAsPlanned() async throws {
    let log = GuardedLog(forbidding: [])
    try await Self.keeper(log).ensure(try Self.plan())
    let found = Dictionary(uniqueKeysWithValues: try await log.topics().map { ($0.name, $0.configuration) })
    let planned = Dictionary(uniqueKeysWithValues: try Self.plan().map { ($0.name, $0.configuration) })
    #expect(found == planned)
    #expect(found.count == 8)
  }

  @Test func topicsThatAreAsPlannedAreLeftAlone() async throws {
    let log = try await Self.log(forbidding: [])
    #expect(try await Self.failure(log) == nil)
    #expect(log.changed.isEmpty)
  }

  @Test func nodesThatMayChangeNothingWorkOnTopicsThatAreAsPlanned() async throws {
    #expect(try await Self.failure(try await Self.log(forbidding: [.create, .alter])) == nil)
    #expect(try await Self.failure(try await Self.log(forbidding: [.create, .alter, .describe])) == nil)
    // With the right to create, and without that to describe, the log cannot say whether the topic is as asked for.
    #expect(try await Self.failure(try await Self.log(forbidding: [.alter, .describe])) == nil)
  }

  @Test func allMissingTopicsAreNamedWithTheCommandThatPrintsThem() async throws {
    let failure = try #require(try await Self.failure(GuardedLog(forbidding: [.create])))
    #expect(failure.code == .unauthorized)
    for topic in try Self.plan() { #expect(failure.message.contains("topic prod.\(topic.name) is not there")) }
    #expect(failure.message.contains("grape log topics --plan"))
  }

  @Test func otherCleanupAndRetentionAreMended() async throws {
    let log = try await Self.log(forbidding: [], changing: "shop.events") { $0.retentionMilliseconds = 5 }
    #expect(try await Self.failure(log) == nil)
    #expect(log.changed == ["alter shop.events"])
    let mended = try await log.topics().first { $0.name == "shop.events" }?.configuration
    #expect(mended?.retentionMilliseconds == 604_800_000)
  }

  @Test func aTopicThatKeepsTooLittleIsExplainedWithTheCommandThatMendsIt() async throws {
    let log = try await Self.log(forbidding: [.alter], changing: "shop.events") { $0.retentionMilliseconds = 3_600_000 }
    let failure = try #require(try await Self.failure(log))
    #expect(failure.code == .unauthorized)
    #expect(failure.message.contains("topic prod.shop.events keeps records for 1h instead of for 7d"))
    #expect(
      failure.message.contains(
        "kafka-configs.sh --bootstrap-server k:9092 --alter --entity-type topics --entity-name prod.shop.events "
          + "--add-config retention.ms=604800000"))
  }

  @Test func aTopicThatIsCompactedAndShouldNotBeIsExplained() async throws {
    for name in ["shop.state", "_grape.registry"] {
      let log = try await Self.log(forbidding: [.alter], changing: name) { $0.cleanup = .delete }
      let failure = try #require(try await Self.failure(log))
      #expect(failure.message.contains("prod.\(name) has cleanup policy delete instead of compact"))
      #expect(failure.message.contains("cleanup.policy=compact"))
    }
  }

  @Test func topicsThatKeepMoreThanTheyMustAreGoodEnough() async throws {
    for change: @Sendable (inout TopicConfiguration) -> Void in [
      { $0.retentionMilliseconds = nil }, { $0.retentionMilliseconds? += 1 }, { $0.retentionBytes = nil },
    ] {
      let log = try await Self.log(forbidding: [.create, .alter], changing: "shop.events", change)
      #expect(try await Self.failure(log) == nil)
    }
  }

  @Test func howLongDeadLettersAreKeptIsLeftToTheOperator() async throws {
    let log = try await Self.log(forbidding: [], changing: "shop.dead") { $0.retentionMilliseconds = 5 }
    #expect(try await Self.failure(log) == nil)
    #expect(log.changed.isEmpty)
  }

  @Test func anotherNumberOfPartitionsIsExplainedWhateverANodeMayDo() async throws {
    for forbidden: Set<GuardedLog.Act> in [[], [.create, .alter], [.create, .alter, .describe]] {
      for count: Int32 in [1, 2, 4, 9] {
        let log = try await Self.log(forbidding: forbidden, changing: "shop.events") { $0.partitions = count }
        let failure = try #require(try await Self.failure(log))
        #expect(failure.code == .invalidArgument)
        #expect(failure.message.contains("prod.shop.events has"))
        #expect(failure.message.contains("partitions: in grape.yaml"))
      }
    }
  }

  @Test func otherFailuresOfTheLogAreToldAsTheyAre() async throws {
    let log = GuardedLog(forbidding: [])
    log.inner.fail(with: LogError(.busy, "no leader"))
    let failure = try #require(try await Self.failure(log))
    #expect(failure.code == .busy)
    #expect(failure.message.contains("no leader"))
  }
}

@Suite struct TopicPlanTests {
  @Test func aPlanIsReadAsItWasWritten() throws {
    let manifest = try Manifest(yaml: "grape: 1\nname: a\nruntime: python\nentry: a.py\nslots: {s: {}}")
    for topic in TopicPlan.shared(byNodes: true) + TopicPlan.application(manifest) {
      #expect(PlannedTopic(json: topic.json) == topic)
    }
    #expect(PlannedTopic(json: ["name": "x"]) == nil)
  }

  @Test func namesOfPlannedTopicsAreDistinct() throws {
    let manifest = try Manifest(yaml: "grape: 1\nname: a\nruntime: python\nentry: a.py\nslots: {s: {}}")
    let plan =
      TopicPlan.shared(byNodes: true) + TopicPlan.node(try NodeName("n")) + TopicPlan.application(manifest)
    #expect(Set(plan.map(\.name)).count == plan.count)
  }

  /// All pairs of a few configurations: whatever differs is found, what is harmless keeps at least as much.
  @Test func differencesAreFoundAndJudged() {
    let limits: [Int64?] = [nil, 0, 10, 20]
    for wantedAge in limits {
      for hasAge in limits {
        let wanted = PlannedTopic(
          "t", TopicConfiguration(partitions: 2, retentionMilliseconds: wantedAge), purpose: "test")
        let differences = wanted.differences(
          from: TopicConfiguration(partitions: 2, retentionMilliseconds: hasAge))
        #expect(differences.isEmpty == (wantedAge == hasAge))
        let keepsEnough = (hasAge ?? .max) >= (wantedAge ?? .max)
        #expect(differences.allSatisfy(\.isHarmless) == keepsEnough)
      }
    }
    let compacted = PlannedTopic("t", TopicConfiguration(partitions: 2, cleanup: .compact), purpose: "test")
    #expect(
      compacted.differences(from: TopicConfiguration(partitions: 2, cleanup: .compact, retentionMilliseconds: 5))
        .isEmpty)
    #expect(
      compacted.differences(from: TopicConfiguration(partitions: 3))
        == [.partitions(has: 3, wanted: 2), .cleanup(has: .delete, wanted: .compact)])
  }

  @Test func copiesAndSettingsOfAClusterAreCompared() throws {
    var configuration = KafkaConfiguration(bootstrapServers: "k:9092", transactionalID: "n")
    configuration.topicSettings = ["min.insync.replicas": "2", "max.message.bytes": "100"]
    let anyCopies = ClusterTopics(configuration)
    configuration.replicationFactor = 3
    let cluster = ClusterTopics(configuration)
    let good = KafkaTopicDetails(
      replication: 3, settings: ["min.insync.replicas": "2", "max.message.bytes": "100", "other": "1"])
    #expect(cluster.differences(of: good).isEmpty)
    #expect(KafkaTopicDetails(json: good.json(["min.insync.replicas"]))?.settings == ["min.insync.replicas": "2"])
    var poor = good
    poor.replication = 1
    #expect(cluster.differences(of: poor) == [.copies(has: 1, wanted: 3)])
    #expect(anyCopies.differences(of: poor).isEmpty)
    poor.settings["min.insync.replicas"] = "1"
    poor.settings["max.message.bytes"] = nil
    let differences = cluster.differences(of: poor)
    #expect(
      differences.map(\.text).joined(separator: ", ") == "has 1 copy of a partition instead of 3, has "
        + "max.message.bytes= instead of 100, has min.insync.replicas=1 instead of 2")
    #expect(differences.filter { !$0.isHarmless }.isEmpty)
    let topic = PlannedTopic("t", TopicConfiguration(partitions: 1), purpose: "test")
    #expect(
      cluster.alterCommand(topic, differences)?.hasSuffix(
        "--entity-name t --add-config max.message.bytes=100,min.insync.replicas=2") == true)
    // Without the right to describe a topic nothing is known of its settings.
    #expect(cluster.differences(of: KafkaTopicDetails(replication: 3, settings: [:])).isEmpty)
  }

  @Test func commandsCarryEverySettingAndSurviveAShell() throws {
    var configuration = KafkaConfiguration(bootstrapServers: "k1:9092,k2:9092", transactionalID: "n")
    configuration.namespace = "prod."
    configuration.replicationFactor = 3
    configuration.topicSettings = ["min.insync.replicas": "2", "odd": "it's; $HOME"]
    configuration.settings = ["sasl.password": "hunter2"]
    let cluster = ClusterTopics(configuration)
    let topic = PlannedTopic(
      "t", TopicConfiguration(partitions: 4, retentionMilliseconds: 60_000), purpose: "test")
    let command = cluster.createCommand(topic)
    #expect(
      command
        == "kafka-topics.sh --bootstrap-server k1:9092,k2:9092 --create --if-not-exists --topic prod.t --partitions 4 "
        + "--replication-factor 3 --config cleanup.policy=delete --config file.delete.delay.ms=60000 "
        + "--config min.insync.replicas=2 --config 'odd=it'\\''s; $HOME' --config retention.bytes=-1 "
        + "--config retention.ms=60000")
    #expect(!"\(cluster)\(cluster.json.text)\(command)".contains("hunter2"))
    #expect(ClusterTopics(json: cluster.json)?.createCommand(topic) == command)
  }
}
