import GrapeLog
import GrapeWire

/// Reads the groups of one segment file in order, in large pieces.
final class SegmentScanner {
  enum Step {
    /// A group that checks out. `bytes` is valid until the next step.
    case group(GroupHeader, bytes: UnsafeRawBufferPointer, offset: Int64)
    /// Nothing but zeros, or nothing, from here on.
    case end
    /// Something that is not a whole group.
    case bad(String)
  }

  private static let windowBytes = 4 << 20

  let file: any SegmentFile
  let header: SegmentHeader
  /// Bytes of the file when it was opened or last sought in.
  private(set) var size: Int64
  /// Where the next group is looked for.
  private(set) var offset: Int64
  private var window: ByteStorage
  private var windowStart: Int64
  private var windowCount: Int

  convenience init(file: any SegmentFile, base: Int64) throws(LogError) {
    try self.init(file: file, header: try SegmentHeader.read(file, base: base))
  }

  /// Reads a segment whose header is known.
  init(file: any SegmentFile, header: SegmentHeader) throws(LogError) {
    let size = try file.size()
    self.file = file
    self.header = header
    self.size = header.cleaned.map { min($0.end, size) } ?? size
    offset = Int64(SegmentHeader.reservedBytes)
    window = ByteStorage(capacity: Self.windowBytes)
    windowStart = 0
    windowCount = 0
  }

  /// Goes on at `place`, with what the file has now.
  func seek(to place: Int64) throws(LogError) {
    offset = place
    windowCount = 0
    let now = try file.size()
    size = header.cleaned.map { min($0.end, now) } ?? now
  }

  /// The group at `offset`; steps over it if it is one.
  func next() throws(LogError) -> Step {
    let left = size - offset
    if let cleaned = header.cleaned {
      if offset == cleaned.end { return .end }
      if left < Int64(GroupHeader.byteCount) {
        return .bad("the file has \(size) bytes where it should have \(cleaned.end)")
      }
    } else if left < Int64(GroupHeader.byteCount) {
      return try isZero(from: offset) ? .end : .bad("\(left) bytes are no group")
    }
    let start = try bytes(at: offset, count: GroupHeader.byteCount)
    guard let group = GroupHeader(start) else {
      if header.cleaned == nil, try isZero(from: offset) { return .end }
      return .bad("no group header where one was expected")
    }
    if let fault = fault(of: group, at: offset) { return .bad(fault) }
    let whole = try bytes(at: offset, count: group.length)
    guard GroupHeader.checks(whole) else { return .bad("the group of \(group.length) bytes has a wrong CRC") }
    defer { offset += Int64(aligned(group.length)) }
    return .group(group, bytes: whole, offset: offset)
  }

  private func fault(of group: GroupHeader, at offset: Int64) -> String? {
    if Int64(group.length) > size - offset {
      return "the group says it has \(group.length) bytes, but the file ends after \(size - offset)"
    }
    if group.position != header.base + offset { return "the group belongs to position \(group.position)" }
    if group.log != header.identity.low { return "the group belongs to another log" }
    return nil
  }

  /// Looks for a whole group at or behind `from` which says that sequence `sequence` had been brought to the disk; with
  /// sequence 0, for any whole group.
  func findGroup(knowing sequence: UInt64, from: Int64) throws(LogError) -> Int64? {
    var place = (from + 7) & ~7
    while place + Int64(GroupHeader.byteCount) <= size {
      let start = try bytes(at: place, count: GroupHeader.byteCount)
      if let group = GroupHeader(start), group.durable >= sequence, fault(of: group, at: place) == nil,
        GroupHeader.checks(try bytes(at: place, count: group.length))
      {
        return place
      }
      place += 8
    }
    return nil
  }

  /// True if the file holds only zeros from `from` on.
  func isZero(from: Int64) throws(LogError) -> Bool { try lastNonZero(from: from) == nil }

  /// Where the last byte that is not zero stands, from `from` on.
  func lastNonZero(from: Int64) throws(LogError) -> Int64? {
    var place = from
    var last: Int64?
    while place < size {
      let count = Int(min(Int64(Self.windowBytes), size - place))
      let piece = try bytes(at: place, count: count)
      if !piece.isZero { last = place + Int64(piece.lastIndex { $0 != 0 }!) }
      place += Int64(count)
    }
    return last
  }

  /// A part of the file, valid until the next call. Precondition: it lies within.
  func bytes(at place: Int64, count: Int) throws(LogError) -> UnsafeRawBufferPointer {
    if place < windowStart || place + Int64(count) > windowStart + Int64(windowCount) {
      if count > window.capacity { window = ByteStorage(capacity: count) }
      let target = UnsafeMutableRawBufferPointer(start: window.base, count: window.capacity)
      windowCount = try file.read(into: target, at: place)
      windowStart = place
      guard windowCount >= count else {
        windowCount = 0
        throw LogError(.failed, "\(file.path): became shorter while it was read")
      }
    }
    return UnsafeRawBufferPointer(start: window.base + Int(place - windowStart), count: count)
  }
}
