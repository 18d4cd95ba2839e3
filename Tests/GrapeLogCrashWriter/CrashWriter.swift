import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import Glibc
import GrapeWire
import Synchronization

/// Appends to the log of a directory from several tasks until it is killed, and prints a line for every commit that
/// was acknowledged: `partition offset value`. A value names the run, the committer and its serial number.
///
/// usage: GrapeLogCrashWriter DIRECTORY RUN
@main
enum CrashWriter {
  static let partitions: Int32 = 3

  static func main() async throws {
    let directory = CommandLine.arguments[1]
    let run = CommandLine.arguments[2]
    var options = CommitLogOptions()
    // Small segments, so that deaths while changing from one to the next are among those tried.
    options.smallestSegment = 256 << 10
    options.segmentBytes = 256 << 10
    options.tailCacheBytes = 64 << 10
    options.maintenanceMilliseconds = 10
    options.cleanableShare = 0.1
    options.lowSpaceBytes = 0
    let (log, report) = try CommitLog.open(directory: directory, options: options)
    say("recovered \(report.groups) groups, \(report.cuts.count) cuts")
    try await log.createTopic("crash", configuration: TopicConfiguration(partitions: partitions))
    // What is dropped and compacted all the while, in the segments of what must stay.
    try await log.createTopic(
      "passing", configuration: TopicConfiguration(partitions: 1, retentionBytes: 100_000))
    try await log.createTopic("compacted", configuration: TopicConfiguration(partitions: 1, cleanup: .compact))
    await withThrowingTaskGroup(of: Void.self) { group in
      for committer in 0..<6 { group.addTask { try await append(to: log, run: run, committer: committer) } }
    }
  }

  private static func append(to log: CommitLog, run: String, committer: Int) async throws {
    let partition = TopicPartition("crash", Int32(committer) % partitions)
    let other = TopicPartition("crash", Int32(committer + 1) % partitions)
    for number in 0... {
      let size = number % 50 == 0 ? 40_000 : number % 7 * 30
      let value = "\(run):\(committer):\(number)"
      // Two partitions and an offset in one: none may be there without the others.
      let receipt = try await log.commit(
        Transaction(
          durability: number % 3 == 0 ? .os : .disk,
          appends: [
            SampleBatch.append([value, String(repeating: "x", count: size)], to: partition),
            SampleBatch.append(["twin of " + value], to: other),
            SampleBatch.append([String(repeating: "p", count: 500)], to: TopicPartition("passing", 0)),
            SampleBatch.append(
              pairs: [("\(committer)", value + String(repeating: "c", count: 300))], to: TopicPartition("compacted", 0)),
          ],
          offsets: [
            .init(
              group: "\(run):\(committer)", partition: partition,
              committed: CommittedOffset(offset: Int64(number), metadata: Array(value.utf8)))
          ]))
      say("\(partition.partition) \(receipt.baseOffsets[0]) \(value)")
    }
  }

  /// One write per line, not buffered: a line that was not written is an acknowledgement that nobody saw.
  private static func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    guard write(1, bytes, bytes.count) == bytes.count else { exit(3) }
  }
}
