package import GrapeState
package import GrapeWire

/// Somebody who answers questions about state.
package protocol StateAuthority: AnyObject {
  /// Asks with the body of a STATE frame. The body of STATED.
  func ask(_ question: ByteSlice) throws(StateError) -> ByteSlice
}

/// A partition's state, asked from the node. Each answer is of its own moment; between two of a delivery only what this worker wrote is added.
package final class AskBase: StateBase {
  private let partition: Int32
  private unowned let authority: any StateAuthority

  private enum Operation: UInt8 { case get = 1, scan, find }
  /// Most bytes of a page's entries.
  private static let pageBytes: UInt32 = 1024 * 1024

  package init(partition: Int32, authority: any StateAuthority) {
    self.partition = partition
    self.authority = authority
  }

  package func begin(telling: Bool) throws(StateError) -> Int64 {
    guard telling else { return 0 }
    // Any key will do: each answer says what the base has.
    let key = ByteSlice([0, 0])
    return try ask(.get, key: key.unsafeBytes, end: nil).processed
  }

  package func end() {}

  package func entry(_ key: UnsafeRawBufferPointer) throws(StateError) -> StateFound? {
    let answer = try ask(.get, key: key, end: nil)
    return answer.page.entries.first.map { StateFound(entry: $0.entry, owner: answer.page.owners[0]) }
  }

  package func page(_ wanted: StatePageRequest) throws(StateError) -> StatePage {
    try ask(
      wanted.tags.isEmpty ? .scan : .find, key: wanted.range.lowerBound.unsafeBytes,
      end: wanted.range.upperBound.unsafeBytes, descending: wanted.descending, limit: wanted.limit, tags: wanted.tags
    ).page
  }

  private func ask(
    _ operation: Operation, key: UnsafeRawBufferPointer, end: UnsafeRawBufferPointer?, descending: Bool = false,
    limit: Int = 0, tags: [String] = []
  ) throws(StateError) -> (processed: Int64, page: StatePage) {
    var question = ByteWriter(capacity: key.count + (end?.count ?? 0) + 64)
    question.u8(operation.rawValue)
    question.u8(descending ? 1 : 0)
    question.u16(0)
    question.i32(partition)
    question.u32(UInt32(clamping: limit))
    question.u32(operation == .get ? 0 : Self.pageBytes)
    question.bytes32(key)
    question.bytes32(end)
    question.u8(UInt8(tags.count))
    for tag in tags {
      question.u8(UInt8(tag.utf8.count))
      question.bytes(Array(tag.utf8))
    }
    let answer = try authority.ask(question.finish())
    do throws(WireError) {
      return try AskBase.read(answer)
    } catch {
      throw StateError(.unavailable, "the node's answer about state is malformed: \(error.message)")
    }
  }

  private static func read(_ answer: ByteSlice) throws(WireError) -> (Int64, StatePage) {
    var reader = ByteReader(answer.unsafeBytes)
    let processed = try reader.i64()
    var page = StatePage(owners: [answer])
    page.hasMore = try reader.u8() != 0
    _ = try reader.u8()
    _ = try reader.u16()
    let count = Int(try reader.u32())
    guard count <= reader.remaining / 8 else { throw WireError(.truncated, "\(count) entries") }
    page.entries.reserveCapacity(count)
    for _ in 0..<count {
      guard let key = try reader.bytes32(), let entry = try reader.bytes32() else {
        throw WireError(.malformed, "an entry without key or value")
      }
      page.entries.append((key, entry))
    }
    return (processed, page)
  }
}
