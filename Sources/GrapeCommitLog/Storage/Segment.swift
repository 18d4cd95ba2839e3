import GrapeLog
import Synchronization

/// A segment of the log as readers and cleaners name it. A cleaned one is another segment, even under the same file
/// name.
final class Segment: Sendable {
  /// Names a segment for good.
  struct Key: Hashable, Sendable {
    var base: Int64
    var fingerprint: UInt64
  }

  let header: SegmentHeader
  let key: Key
  /// True once its files' names mean those of its replacement.
  let replaced = Atomic(false)
  private let last: Atomic<UInt64>

  /// `lastSequence`: of its last group; nil if groups are still added.
  init(_ header: SegmentHeader, lastSequence: UInt64?) {
    self.header = header
    last = Atomic(lastSequence ?? 0)
    key = Key(base: header.base, fingerprint: header.fingerprint)
  }

  var base: Int64 { header.base }
  var upperBound: Int64 { header.upperBound }

  /// Of its last group. Not before it is sealed.
  var lastSequence: UInt64 { last.load(ordering: .relaxed) }

  /// No more groups are added.
  func seal(lastSequence: UInt64) { last.store(lastSequence, ordering: .relaxed) }
}

/// The segments of a log, in order of position, and the opening of their files: a file's name may come to mean another
/// file while the log is open.
struct SegmentTable: Sendable {
  private(set) var segments: [Segment] = []
  /// Batches before this position are found through index files only.
  private(set) var memoryFloor: Int64 = 0

  init(_ segments: [Segment] = []) {
    self.segments = segments
    memoryFloor = segments.first?.base ?? 0
  }

  mutating func append(_ segment: Segment) { segments.append(segment) }

  mutating func raiseFloor(to position: Int64) { memoryFloor = max(memoryFloor, position) }

  /// Puts one segment in the place of those that it replaces.
  mutating func replace(with cleaned: Segment) {
    let first = segments.firstIndex { $0.base >= cleaned.base }!
    let last = segments.firstIndex { $0.base >= cleaned.upperBound } ?? segments.endIndex
    segments.replaceSubrange(first..<last, with: [cleaned])
  }

  /// Those whose batches are found through index files.
  var cold: ArraySlice<Segment> { segments[..<partition(segments.count) { segments[$0].base < memoryFloor }] }

  /// The segment that holds a position. O(log n).
  func place(of position: Int64) -> Int { max(partition(segments.count) { segments[$0].base <= position } - 1, 0) }

  func contains(_ segment: Segment) -> Bool {
    let place = partition(segments.count) { segments[$0].base < segment.base }
    return place < segments.count && segments[place] === segment
  }
}
