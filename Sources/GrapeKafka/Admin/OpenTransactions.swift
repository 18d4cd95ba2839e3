internal import CRDKafka
internal import GrapeLog
internal import Synchronization

/// Waits, on a thread of its own, until transactions that are open in some partitions are decided.
///
/// The end of all records when it is asked is where the end of committed records must come to. Brokers tell nobody of
/// that by themselves, so they are asked, less and less often.
///
/// `@unchecked Sendable`: everything but the inbox is used by that thread alone.
final class OpenTransactions: @unchecked Sendable {
  struct Request: Sendable {
    let partitions: [TopicPartition]
    /// Nanoseconds of the monotonic clock.
    let deadline: Int64
    let completion: @Sendable (Result<Void, LogError>) -> Void
  }

  private struct Inbox {
    var requests: [Request] = []
    var last: (@Sendable () -> Void)?
    var closed = false
  }

  /// What is waited for: the ends to be reached, by names on the cluster; none yet: they are still to be asked for.
  private struct Wait {
    let request: Request
    var ends: [TopicPartition: Int64]?
    var lastError: LogError?
  }

  private let inbox = Mutex(Inbox())
  private let wakeup = Wakeup()
  private let configuration: KafkaConfiguration
  private let directory: TopicDirectory
  /// Sees the ends of committed records.
  private let committed: RDKafkaClient
  /// Sees the ends of all records. Made when it is first needed.
  private var all: RDKafkaClient?
  private var waits: [Wait] = []
  private static let longestPause = 200

  init(_ configuration: KafkaConfiguration, _ directory: TopicDirectory, committed: RDKafkaClient) {
    self.configuration = configuration
    self.directory = directory
    self.committed = committed
  }

  func start() { BackgroundThread.start("kafka-settle") { self.run() } }

  /// Most requests that wait.
  static let limit = 10_000

  func wait(_ request: Request) {
    let refusal = inbox.withLock { inbox -> LogError? in
      if inbox.closed { return .closedLog }
      if inbox.requests.count >= Self.limit {
        return LogError(.busy, "\(Self.limit) questions for open transactions wait already: try later")
      }
      inbox.requests.append(request)
      return nil
    }
    if let refusal { request.completion(.failure(refusal)) } else { wakeup.signal() }
  }

  /// Answers whoever waits with `closed`, then calls `last` on the thread. Only the first call counts.
  func stop(last: @escaping @Sendable () -> Void) {
    inbox.withLock { inbox in
      if inbox.closed { return }
      inbox.closed = true
      inbox.last = last
    }
    wakeup.signal()
  }

  private func run() {
    var pause = 1
    while true {
      let (requests, closed, last) = inbox.withLock { inbox in
        defer {
          inbox.requests = []
          inbox.last = nil
        }
        return (inbox.requests, inbox.closed, inbox.last)
      }
      waits += requests.map { Wait(request: $0) }
      if closed {
        for wait in waits { wait.request.completion(.failure(.closedLog)) }
        waits = []
        last?()
        return
      }
      if !requests.isEmpty { pause = 1 }
      step()
      wakeup.wait(until: waits.isEmpty ? nil : MonotonicClock.after(milliseconds: pause))
      pause = min(pause * 2, Self.longestPause)
    }
  }

  /// Asks once about everything that is waited for.
  private func step() {
    for place in waits.indices where waits[place].ends == nil { begin(&waits[place]) }
    let partitions = waits.reduce(into: Set<TopicPartition>()) { $0.formUnion($1.ends?.keys.map { $0 } ?? []) }
    if !partitions.isEmpty {
      do throws(LogError) {
        let (ends, gone) = try ends(of: partitions, committed)
        for place in waits.indices {
          if let missing = waits[place].ends?.keys.first(where: gone.contains) {
            waits[place].lastError = noSuchTopic(missing)
          }
          waits[place].ends = waits[place].ends?.filter { (ends[$0.key] ?? -1) < $0.value }
        }
      } catch {
        for place in waits.indices { waits[place].lastError = error }
      }
    }
    answer()
  }

  private func begin(_ wait: inout Wait) {
    do throws(LogError) {
      for partition in wait.request.partitions {
        try directory.check(partition, timeout: MonotonicClock.milliseconds(until: wait.request.deadline))
      }
      if all == nil { all = try RDKafkaClient(.consumer, configuration, own: Self.settings) }
      guard let all else { return }
      let partitions = wait.request.partitions.map {
        TopicPartition(directory.clusterName($0.topic), $0.partition)
      }
      let (ends, gone) = try ends(of: Set(partitions), all)
      if let missing = gone.first { throw noSuchTopic(missing) }
      // Those that do not answer are asked again, all together, so that the ends are of one time.
      if ends.count == Set(partitions).count { wait.ends = ends }
    } catch {
      wait.lastError = error
    }
  }

  private func answer() {
    let now = MonotonicClock.now
    var left: [Wait] = []
    for wait in waits {
      if let ends = wait.ends, ends.isEmpty {
        wait.request.completion(.success(()))
      } else if let error = wait.lastError, error.code != .busy {
        wait.request.completion(.failure(error))
      } else if wait.request.deadline <= now {
        let partitions = wait.request.partitions.map(\.description).joined(separator: ", ")
        let reason = wait.lastError.map { ": \($0.message)" } ?? ""
        wait.request.completion(
          .failure(LogError(.busy, "transactions in \(partitions) are not known to be decided\(reason)")))
      } else {
        left.append(wait)
        left[left.count - 1].lastError = nil
      }
    }
    waits = left
  }

  static let settings = [
    ("isolation.level", "read_uncommitted"), ("allow.auto.create.topics", "false"), ("enable.auto.commit", "false"),
  ]

  private func noSuchTopic(_ partition: TopicPartition) -> LogError {
    LogError(.noSuchTopic, "there is no topic \"\(directory.ownName(partition.topic) ?? partition.topic)\"")
  }

  /// The ends that the brokers tell this client (those that they do not tell now are left out), and the partitions that
  /// are gone.
  private func ends(
    of partitions: Set<TopicPartition>, _ client: RDKafkaClient
  ) throws(LogError) -> (ends: [TopicPartition: Int64], gone: Set<TopicPartition>) {
    if partitions.isEmpty { return ([:], []) }
    let list = PartitionList(capacity: partitions.count)
    for partition in partitions {
      list.add(partition.topic, partition.partition, offset: Int64(RD_KAFKA_OFFSET_END))
    }
    let doing = "asking for the ends of partitions"
    let code = rd_kafka_offsets_for_times(client.pointer, list.pointer, 2_000)
    guard code == RD_KAFKA_RESP_ERR_NO_ERROR else {
      // This client may take a former leader for the leader until it asks for metadata.
      for topic in Set(partitions.map(\.topic)) { _ = try RDKafkaTopic(client, topic).refresh(topic, timeout: 2_000) }
      throw KafkaError.log(code, doing)
    }
    var ends: [TopicPartition: Int64] = [:]
    var gone: Set<TopicPartition> = []
    for place in 0..<Int(list.pointer.pointee.cnt) {
      let entry = list.pointer.pointee.elems[place]
      let topic = String(cString: entry.topic)
      if entry.err == RD_KAFKA_RESP_ERR_NO_ERROR {
        ends[TopicPartition(topic, entry.partition)] = entry.offset
      } else if try RDKafkaTopic(client, topic).refresh(topic, timeout: 2_000) == nil {
        if let name = directory.ownName(topic) { directory.set(name, partitions: nil) }
        gone.insert(TopicPartition(topic, entry.partition))
      }
    }
    return (ends, gone)
  }
}
