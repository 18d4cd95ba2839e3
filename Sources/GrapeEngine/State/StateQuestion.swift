internal import GrapeStore
internal import GrapeWire

/// The body of a STATE frame, and how it is answered (docs/protocol.md).
struct StateQuestion: Sendable {
  enum Operation: UInt8, Sendable { case get = 1, scan = 2, find = 3 }

  var operation: Operation
  var isDescending: Bool
  var partition: Int32
  var limit: Int
  var maxBytes: Int
  var key: ByteSlice
  var end: ByteSlice?
  var tags: [String] = []

  /// Bytes of entries in one answer at most: a frame holds them, with one entry of the greatest size.
  static let mostBytes = 1024 * 1024

  init(_ body: ByteSlice) throws(WireError) {
    var reader = ByteReader(body.unsafeBytes)
    let code = try reader.u8()
    guard let operation = Operation(rawValue: code) else {
      throw WireError(.malformed, "operation \(code): 1 to 3 is legal")
    }
    self.operation = operation
    isDescending = try reader.u8() & 1 != 0
    _ = try reader.u16()
    partition = try reader.i32()
    limit = Int(try reader.u32())
    maxBytes = min(Int(try reader.u32()), Self.mostBytes)
    guard let key = try reader.bytes32() else { throw WireError(.malformed, "the key is null") }
    self.key = ByteSlice(copying: key)
    end = try reader.bytes32().map { ByteSlice(copying: $0) }
    for _ in 0..<(try reader.u8()) {
      let length = Int(try reader.u8())
      guard let tag = String(validating: try reader.bytes(length), as: UTF8.self) else {
        throw WireError(.malformed, "a tag is not UTF-8")
      }
      tags.append(tag)
    }
    guard reader.remaining == 0 else { throw WireError(.malformed, "\(reader.remaining) bytes behind the tags") }
    if operation != .get {
      guard let end, self.key <= end else { throw WireError(.malformed, "the range ends before it begins") }
    }
    guard (operation == .find) == !tags.isEmpty else {
      throw WireError(.malformed, "tags are for find, which needs some")
    }
    if maxBytes == 0 { maxBytes = Self.mostBytes }
    if limit == 0 { limit = .max }
  }

  /// STATED's body.
  func answer(_ view: (any StateView)?, _ position: StatePosition) throws(StateError) -> ByteSlice {
    let answer = Answer(processed: position.processed, limit: limit, maxBytes: maxBytes)
    if let view {
      switch operation {
      case .get:
        if let entry = try view.entry(key.unsafeBytes) { _ = answer.take(key.unsafeBytes, entry) }
      case .scan:
        try view.scan(key..<end!, descending: isDescending) { (key, entry) throws(StateError) in
          answer.take(key, entry)
        }
      case .find:
        for key in try view.keys(in: key..<end!, tags: tags, descending: isDescending, limit: limit) {
          guard let entry = try view.entry(key.unsafeBytes) else { continue }
          if !answer.take(key.unsafeBytes, entry) { break }
        }
      }
    }
    return answer.finish()
  }

  /// Gathers entries up to the limits.
  private final class Answer {
    private var writer = ByteWriter(capacity: 256)
    private let limit: Int
    private let maxBytes: Int
    private var count = 0
    private var hasMore = false

    init(processed: Int64, limit: Int, maxBytes: Int) {
      self.limit = limit
      self.maxBytes = maxBytes
      writer.i64(processed)
      writer.u32(0)
      writer.u32(0)
    }

    /// Takes an entry in; false: it does not fit, nor does any other.
    func take(_ key: UnsafeRawBufferPointer, _ entry: UnsafeRawBufferPointer) -> Bool {
      guard count == 0 || (count < limit && writer.count + key.count + entry.count + 8 <= maxBytes) else {
        hasMore = true
        return false
      }
      writer.bytes32(key)
      writer.bytes32(entry)
      count += 1
      return true
    }

    func finish() -> ByteSlice {
      writer.patch(UInt8(hasMore ? 1 : 0), at: 8)
      writer.patch(UInt32(count), at: 12)
      return writer.take(nextCapacity: 16)
    }
  }
}
