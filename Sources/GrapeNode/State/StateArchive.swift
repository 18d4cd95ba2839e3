internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeStore
internal import GrapeWire
internal import Glibc

/// What the archive needs of an application: reached from its thread, answered by the reactor's.
struct StateSource: Sendable {
  var app: String
  var version: String
  var node: String
  var partitions: Int32
  /// Holds fast the state of these partitions, all at one moment.
  var snapshots: @Sendable (Range<Int32>) async throws(StatusError) -> [(any StateSnapshot)?]
  /// Writes changes of one partition, and returns when its store has them.
  var write: @Sendable (Int32, [(key: ByteSlice, entry: ByteSlice?)]) async throws(StatusError) -> Void
}

/// Backs up state, checks it against its changelog, restores it. Works with files for as long as it takes, on a thread of its own, one
/// operation after the other.
actor StateArchive {
  private let thread: WorkThread
  private let log: any EventLog
  /// Files that are needed for the time of one operation; emptied at start.
  private let scratch: String
  private var isBusy = false
  private var queue: [CheckedContinuation<Void, Never>] = []

  nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  private static let linesTold = 100
  /// Bytes of changes in one commit of a restore.
  private static let commitBytes = 1024 * 1024
  private static let readBytes = 8 * 1024 * 1024

  /// - Parameter scratch: a folder of its own; what is in it is removed.
  init(scratch: String, log: any EventLog, thread: WorkThread) throws(NodeError) {
    self.scratch = scratch
    self.log = log
    self.thread = thread
    try Files.makeDirectory(scratch)
    try Files.empty(scratch)
  }

  /// One at a time, also where an operation waits for others.
  private func exclusively<Value: Sendable>(
    _ control: StateJobControl, _ body: () async throws(StatusError) -> Value
  ) async throws(StatusError) -> Value {
    if isBusy { await withCheckedContinuation { queue.append($0) } }
    isBusy = true
    defer {
      if queue.isEmpty { isBusy = false } else { queue.removeFirst().resume() }
    }
    try control.check()
    return try await body()
  }

  // MARK: Backing up

  func backUp(
    _ source: StateSource, to directory: String, control: StateJobControl
  ) async throws(StatusError) -> JSONValue {
    try await exclusively(control) { () async throws(StatusError) in
      let snapshots: [(any StateSnapshot)?]
      var writer: StateBackupWriter
      do throws(StateError) { writer = try StateBackupWriter(directory) } catch {
        throw StatusError(error.code == .invalidArgument ? .conflict : .unavailable, error.message)
      }
      do throws(StatusError) {
        snapshots = try await source.snapshots(0..<source.partitions)
      } catch {
        writer.abandon()
        throw error
      }
      defer { for snapshot in snapshots { snapshot?.end() } }
      do throws(StateError) {
        let taken = grape_realtime_ms()
        var backup = StateBackup(
          app: source.app, version: source.version, node: source.node, takenMs: taken, partitions: [])
        for (partition, snapshot) in snapshots.enumerated() {
          let partition = Int32(partition)
          backup.partitions.append(
            try writer.add(snapshot, partition: partition, taken: taken) { phase, done, total in
              control.tell(
                phase, partition: partition, of: source.partitions, done: Int64(done), total: Int64(total))
            })
          // Its pages are free again, while others are still copied.
          snapshot?.end()
        }
        try writer.finish(backup)
        return backup.json.with([
          "directory": .string(directory), "entries": JSONValue(backup.partitions.reduce(0) { $0 + $1.entries }),
          "bytes": JSONValue(backup.partitions.reduce(0) { $0 + $1.bytes }),
        ])
      } catch {
        writer.abandon()
        throw control.isCancelled ? StateJobControl.cancelled : StatusError(error)
      }
    }
  }

  // MARK: Verifying

  func verify(_ source: StateSource, control: StateJobControl) async throws(StatusError) -> JSONValue {
    try await exclusively(control) { () async throws(StatusError) in
      var problems: [JSONValue] = []
      var partitions: [JSONValue] = []
      var count = 0
      for partition in 0..<source.partitions {
        let found = try await verify(source, partition, control)
        count += found.count
        problems += found.lines.prefix(max(0, Self.linesTold - problems.count)).map {
          ["partition": JSONValue(partition), "message": .string($0)]
        }
        partitions.append(found.summary)
      }
      return [
        "app": .string(source.app), "sound": .bool(count == 0), "problemCount": JSONValue(count),
        "problems": .array(problems), "partitions": .array(partitions),
      ]
    }
  }

  private func verify(
    _ source: StateSource, _ partition: Int32, _ control: StateJobControl
  ) async throws(StatusError) -> (count: Int, lines: [String], summary: JSONValue) {
    let changelog = TopicPartition("\(source.app).state", partition)
    func tell(_ phase: String, _ done: Int64, _ total: Int64) -> Bool {
      control.tell(phase, partition: partition, of: source.partitions, done: done, total: total)
    }
    _ = tell("checking", 0, 0)
    let snapshot = try await source.snapshots(partition..<partition + 1)[0]
    defer { snapshot?.end() }
    let position = snapshot?.position ?? .start
    var lines: [String] = []
    do throws(StateError) { lines = try snapshot?.problems() ?? [] } catch { throw StatusError(error) }
    var count = lines.count
    try control.check()
    let path = "\(scratch)/verify-\(partition).mdb"
    do throws(StateError) {
      let replay = try StateReplay(path: path, upTo: position, batchLimit: FrameHeader.defaultLimit)
      defer { replay.remove() }
      try await replayAll(changelog, into: replay, tell)
      if lines.isEmpty {
        let found = try replay.differences(of: snapshot ?? EmptySnapshot(), limit: Self.linesTold) {
          tell("comparing", Int64($0), Int64(snapshot?.count ?? 0))
        }
        count += found.count
        lines += found.lines
      } else {
        lines.append("it was not compared with the changelog, as it is damaged")
      }
      return (
        count, lines,
        [
          "partition": JSONValue(partition), "entries": JSONValue(snapshot?.count ?? 0),
          "changelog": .int(position.changelog), "processed": .int(position.processed),
          "records": JSONValue(replay.records),
        ]
      )
    } catch {
      if control.isCancelled { throw StateJobControl.cancelled }
      guard error.code == .corrupt else { throw StatusError(error) }
      return (count + 1, lines + [error.message], ["partition": JSONValue(partition), "entries": .null])
    }
  }

  private func replayAll(
    _ changelog: TopicPartition, into replay: StateReplay, _ tell: (String, Int64, Int64) -> Bool
  ) async throws(StateError) {
    do throws(LogError) {
      let end = try await log.bounds(of: changelog).end
      var next = try await log.bounds(of: changelog).start
      while next < end {
        let read: ReadResult
        do throws(LogError) {
          read = try await log.read(changelog, from: next, maxBytes: Self.readBytes)
        } catch {
          // Its beginning was removed meanwhile.
          guard error.code == .offsetOutOfRange else { throw error }
          next = try await log.bounds(of: changelog).start
          continue
        }
        guard !read.batches.isEmpty else { break }
        do throws(StateError) { try replay.take(read.batches) } catch {
          throw LogError(error.code == .corrupt ? .corrupt : .failed, error.message)
        }
        next = read.nextOffset
        guard tell("replaying", next, end) else { throw LogError(.closed, "it was cancelled") }
      }
    } catch {
      throw StateError(error.code == .corrupt ? .corrupt : .unavailable, error.message)
    }
  }

  // MARK: Restoring

  func restore(
    _ source: StateSource, from directory: String, force: Bool, control: StateJobControl
  ) async throws(StatusError) -> JSONValue {
    try await exclusively(control) { () async throws(StatusError) in
      let backup = try StateBackup(directory: directory)
      guard backup.app == source.app || force else {
        throw StatusError(
          .conflict, "\(directory) is a backup of \(backup.app), not of \(source.app); --force restores it nevertheless"
        )
      }
      guard backup.partitions.count == Int(source.partitions) else {
        throw StatusError(
          .conflict,
          "\(directory) has \(backup.partitions.count) partitions, \(source.app) has \(source.partitions): keys would not be where their events go"
        )
      }
      let problems = try backup.problems(in: directory) { partition, done, total in
        control.tell("checking", partition: partition, of: source.partitions, done: Int64(done), total: Int64(total))
      }
      if let first = problems.first {
        throw StatusError(.badRequest, "\(directory) is damaged, nothing was changed: \(first.message)")
      }
      var (written, removed) = (0, 0)
      for partition in backup.partitions {
        let (more, fewer) = try await restore(source, partition, in: directory, control)
        written += more
        removed += fewer
      }
      return [
        "app": .string(source.app), "directory": .string(directory), "takenMs": .int(backup.takenMs),
        "entries": JSONValue(backup.partitions.reduce(0) { $0 + $1.entries }), "written": JSONValue(written),
        "removed": JSONValue(removed),
      ]
    }
  }

  private func restore(
    _ source: StateSource, _ backup: StateBackup.Partition, in directory: String, _ control: StateJobControl
  ) async throws(StatusError) -> (written: Int, removed: Int) {
    let snapshot = try await source.snapshots(backup.partition..<backup.partition + 1)[0] ?? EmptySnapshot()
    defer { snapshot.end() }
    var comparison = StateComparison(
      { (first, body) throws(StateError) in try snapshot.scan(from: first, body) },
      { (first, body) throws(StateError) in
        if let file = backup.file { try StateCopy.scan("\(directory)/\(file)", from: first, body) }
      })
    var (written, removed) = (0, 0)
    while true {
      var changes: [(key: ByteSlice, entry: ByteSlice?)] = []
      var bytes = 0
      do throws(StateError) {
        while bytes < Self.commitBytes, let difference = try comparison.next() {
          changes.append((difference.key, difference.right))
          bytes += difference.key.count + (difference.right?.count ?? 0) + 64
        }
      } catch {
        throw StatusError(error)
      }
      let isGoing = control.tell(
        "writing", partition: backup.partition, of: source.partitions, done: Int64(written + removed), total: 0)
      if changes.isEmpty { return (written, removed) }
      guard isGoing else { throw StateJobControl.cancelled }
      try await source.write(backup.partition, changes)
      let tombstones = changes.count { $0.entry == nil }
      removed += tombstones
      written += changes.count - tombstones
    }
  }
}

/// The state of a partition in which nothing was ever written.
private final class EmptySnapshot: StateSnapshot {
  var position: StatePosition { .start }
  var count: Int { 0 }
  var byteCount: Int { 0 }
  func problems() throws(StateError) -> [String] { [] }
  func scan(
    from first: ByteSlice, _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(StateError) -> Bool
  ) throws(StateError) {}
  func end() {}
}

extension JSONValue {
  /// An object with members added.
  func with(_ added: JSONValue) -> JSONValue {
    guard case .object(let members) = self, case .object(let more) = added else { return self }
    return .object(members + more)
  }
}
