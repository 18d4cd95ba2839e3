internal import GrapeState
internal import GrapeWire

/// Walks a part of a partition's state, in order of full keys: the base, with what the worker changed over it.
///
/// What it shows was so when it began. Its pointers are valid until the next step, and not beyond the event.
struct StateScan {
  /// What the worker wrote for a key; without entry: it hides what the base has.
  struct Change {
    var key: UnsafeRawBufferPointer
    var entry: UnsafeRawBufferPointer?
  }

  private let overlay: PartitionOverlay
  private var request: StatePageRequest
  private let changes: [Change]
  private var nextChange = 0
  private var page = StatePage(hasMore: true)
  private var nextEntry = 0
  /// Entries that may still come.
  private var left: Int
  /// The view may end between two steps: what is read is copied.
  private let copies: Bool
  private var pageSize = 32

  private static let largestPage = 512

  init(
    _ overlay: PartitionOverlay, _ request: StatePageRequest, changes: [Change], limit: Int, copies: Bool
  ) {
    self.overlay = overlay
    self.request = request
    self.changes = changes
    left = limit
    self.copies = copies
  }

  /// The next entry; nil: there is none.
  mutating func next() throws(StateError) -> (key: UnsafeRawBufferPointer, entry: UnsafeRawBufferPointer)? {
    while left > 0 {
      if nextEntry == page.entries.count, page.hasMore { try turnPage() }
      let read = nextEntry < page.entries.count ? page.entries[nextEntry] : nil
      guard nextChange < changes.count else {
        guard let read else { return nil }
        nextEntry += 1
        left -= 1
        return read
      }
      let change = changes[nextChange]
      if let read {
        if comesFirst(read.key, change.key) {
          nextEntry += 1
          left -= 1
          return read
        }
        if !comesFirst(change.key, read.key) { nextEntry += 1 }
      }
      nextChange += 1
      guard let entry = change.entry else { continue }
      left -= 1
      return (change.key, entry)
    }
    return nil
  }

  private func comesFirst(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    request.descending ? precedes(right, left) : precedes(left, right)
  }

  private mutating func turnPage() throws(StateError) {
    // Some of what is read may be hidden by changes.
    let wanted = left.addingReportingOverflow(changes.count - nextChange)
    request.limit = min(wanted.overflow ? .max : wanted.partialValue, pageSize)
    pageSize = min(2 * pageSize, Self.largestPage)
    let read = try overlay.base.page(request)
    page = copies ? StateScan.copy(read) : read
    nextEntry = 0
    guard page.hasMore, let last = page.entries.last else {
      page.hasMore = false
      return
    }
    if request.descending {
      request.range = request.range.lowerBound..<max(request.range.lowerBound, ByteSlice(copying: last.key))
    } else {
      let next = ByteSlice(after: last.key)
      request.range = min(next, request.range.upperBound)..<request.range.upperBound
    }
  }

  private static func copy(_ page: StatePage) -> StatePage {
    var copy = StatePage(hasMore: page.hasMore)
    var writer = ByteWriter(capacity: page.entries.reduce(16) { $0 + $1.key.count + $1.entry.count })
    for (key, entry) in page.entries {
      writer.bytes(key)
      writer.bytes(entry)
    }
    let bytes = writer.finish()
    var position = 0
    for (key, entry) in page.entries {
      let end = position + key.count + entry.count
      copy.entries.append(
        (bytes[position..<position + key.count].unsafeBytes, bytes[position + key.count..<end].unsafeBytes))
      position = end
    }
    copy.owners = [bytes]
    return copy
  }

  // MARK: Changes

  /// What `tables`, the newest first, say about the range, in the scan's order; no more than `limit` entries can come of it.
  static func changes(
    in tables: [UnsafeMutablePointer<StateTable>], _ request: StatePageRequest, limit: Int
  ) throws(StateError) -> [Change] {
    // Per table the positions, in order, that are left of the range.
    var spans: [(table: UnsafeMutablePointer<StateTable>, span: Range<Int>)] = []
    for table in tables where table.pointee.count > 0 {
      table.pointee.sort()
      let span =
        table.pointee.lowerBound(
          request.range.lowerBound.unsafeBytes)..<table.pointee.lowerBound(request.range.upperBound.unsafeBytes)
      if !span.isEmpty { spans.append((table, span)) }
    }
    var changes: [Change] = []
    var live = 0
    while live < limit {
      var first: StateTable.Entry?
      for (table, span) in spans where !span.isEmpty {
        let entry = table.pointee.entry(inOrder: request.descending ? span.upperBound - 1 : span.lowerBound)
        guard let known = first else {
          first = entry
          continue
        }
        let isBefore =
          request.descending ? precedes(known.keyBytes, entry.keyBytes) : precedes(entry.keyBytes, known.keyBytes)
        // Of equal keys the newest counts, which came first.
        if isBefore { first = entry }
      }
      guard let first else { break }
      for index in spans.indices where !spans[index].span.isEmpty {
        let span = spans[index].span
        let position = request.descending ? span.upperBound - 1 : span.lowerBound
        let key = spans[index].table.pointee.entry(inOrder: position).keyBytes
        guard !precedes(key, first.keyBytes), !precedes(first.keyBytes, key) else { continue }
        spans[index].span =
          request.descending ? span.lowerBound..<position : (position + 1)..<span.upperBound
      }
      var entry = first.block.bytes
      if let bytes = entry, !request.tags.isEmpty, !(try StateEntry(bytes).hasTags(request.tags)) { entry = nil }
      if entry != nil { live += 1 }
      changes.append(Change(key: first.keyBytes, entry: entry))
    }
    return changes
  }
}
