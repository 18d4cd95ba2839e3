public import GrapeLog

/// How the embedded log uses disk and memory. The defaults suit one node on one machine.
public struct CommitLogOptions: Sendable {
  /// Bytes preallocated per segment file: 1 MiB to 64 GiB. Default 64 MiB. A commit group that is larger gets a segment
  /// of its own size.
  public var segmentBytes = 64 << 20
  /// Bytes of commits that may wait or be in the making; beyond it `commit` answers `busy`. Default 64 MiB.
  public var queueBytes = 64 << 20
  /// Bytes of waiting commits that are put into one group. Default 4 MiB. A larger transaction is a group alone.
  public var groupBytes = 4 << 20
  /// Largest transaction, in bytes; beyond it `commit` answers `tooLarge`. Default 128 MiB, at most 1 GiB.
  public var transactionBytes = 128 << 20
  /// Memory for the newest groups, from which readers that keep up are served. Default 32 MiB.
  public var tailCacheBytes = 32 << 20
  /// `assist()` writes at most this many bytes on its caller's thread. Default 32 KiB.
  public var assistBytes = 32 << 10
  /// Reads from disk that may wait; beyond it `read` answers `busy`. Default 1,024.
  public var readQueue = 1_024
  /// Segment files kept open for reading. Default 128.
  public var openSegments = 128

  /// Memory for indexes of old segments. Default 16 MiB; one index may exceed it.
  public var indexCacheBytes = 16 << 20
  /// Memory for the keys of compacted topics while they are compacted; those of one segment may exceed it. Default
  /// 32 MiB.
  public var compactionBytes = 32 << 20
  /// Share of a segment's batch bytes that must be dead before it is rewritten, and of compacted topics' bytes that must
  /// be new before they are compacted again: 0.01 to 1. Default 0.5.
  public var cleanableShare = 0.5
  /// How long a tombstone of a compacted topic is kept, so that everybody sees it, counted from its commit,
  /// milliseconds. Default a day.
  public var tombstoneMilliseconds: Int64 = 24 * 3_600_000
  /// Retention, compaction and the disk's free space are looked after this often, milliseconds: 10 ms to a day.
  /// Default 10 s.
  public var maintenanceMilliseconds: Int64 = 10_000
  /// With fewer bytes free on the disk new records are refused, while work on those that are there goes on. Nil: two
  /// segments.
  public var lowSpaceBytes: Int64?

  public init() {}

  /// Segments as small as a simulation likes them.
  package var smallestSegment = 1 << 20

  /// Checks the values. Errors: `invalidArgument`, naming the option and its bounds.
  public func check() throws(LogError) {
    try check(segmentBytes, "segmentBytes", smallestSegment...64 << 30)
    try check(queueBytes, "queueBytes", 1...Int.max)
    try check(groupBytes, "groupBytes", 4_096...1 << 30)
    try check(transactionBytes, "transactionBytes", 4_096...1 << 30)
    try check(tailCacheBytes, "tailCacheBytes", 0...Int.max)
    try check(assistBytes, "assistBytes", 0...Int.max)
    try check(readQueue, "readQueue", 1...1 << 20)
    try check(openSegments, "openSegments", 1...1 << 20)
    try check(indexCacheBytes, "indexCacheBytes", 0...Int.max)
    try check(compactionBytes, "compactionBytes", 1 << 16...1 << 40)
    try check(Int(clamping: tombstoneMilliseconds), "tombstoneMilliseconds", 0...Int.max)
    try check(Int(clamping: maintenanceMilliseconds), "maintenanceMilliseconds", 10...86_400_000)
    try check(Int(clamping: lowSpaceBytes ?? 0), "lowSpaceBytes", 0...Int.max)
    guard (0.01...1).contains(cleanableShare) else {
      throw LogError(.invalidArgument, "log option cleanableShare is \(cleanableShare); must be 0.01 to 1")
    }
  }

  private func check(_ value: Int, _ name: String, _ bounds: ClosedRange<Int>) throws(LogError) {
    guard bounds.contains(value) else {
      throw LogError(
        .invalidArgument, "log option \(name) is \(value); must be \(bounds.lowerBound) to \(bounds.upperBound)")
    }
  }
}
