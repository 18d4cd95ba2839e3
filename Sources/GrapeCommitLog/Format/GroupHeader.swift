import GrapeWire

/// What precedes the entries of a commit group. Layout: docs/data-format.md.
struct GroupHeader: Equatable {
  static let byteCount = 64
  static let magic: UInt32 = 0x4752_5047  // "GRPG"
  /// A group is never longer: larger values are damage, not data.
  static let maximumLength = (1 << 31) - 1

  /// Header and entries, without the zeros that align the next group.
  var length: Int
  var entryCount: Int
  /// 1 for the log's first group, then one more for each.
  var sequence: UInt64
  /// All groups up to this sequence were on the disk when this one was written. Damage in one of them is a loss, not
  /// a torn write.
  var durable: UInt64
  /// Milliseconds since 1970 UTC.
  var time: Int64
  /// Logical position of the group: bytes that belong elsewhere do not pass for a group here.
  var position: Int64
  /// Low half of the log's identity, for the same reason.
  var log: UInt64

  /// Fills in the header of the finished group that begins at `group`, its CRC last.
  func encode(into group: UnsafeMutableRawBufferPointer) {
    precondition(group.count == length)
    let to = group.baseAddress!
    to.store(bigEndian: Self.magic, at: 0)
    to.store(bigEndian: UInt32(length), at: 8)
    to.store(bigEndian: UInt32(entryCount), at: 12)
    to.store(bigEndian: sequence, at: 16)
    to.store(bigEndian: durable, at: 24)
    to.store(bigEndian: time, at: 32)
    to.store(bigEndian: position, at: 40)
    to.store(bigEndian: log, at: 48)
    to.store(bigEndian: UInt64(0), at: 56)
    to.store(bigEndian: CRC32C.checksum(UnsafeRawBufferPointer(group).part(8, length - 8)), at: 4)
  }

  /// Reads the fields without judging them; nil if the magic or the length is impossible.
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.byteCount, bytes.bigEndian(at: 0) == Self.magic else { return nil }
    length = Int(bytes.bigEndian(at: 8, as: UInt32.self))
    guard (Self.byteCount...Self.maximumLength).contains(length) else { return nil }
    entryCount = Int(bytes.bigEndian(at: 12, as: UInt32.self))
    sequence = bytes.bigEndian(at: 16)
    durable = bytes.bigEndian(at: 24)
    time = bytes.bigEndian(at: 32)
    position = bytes.bigEndian(at: 40)
    log = bytes.bigEndian(at: 48)
  }

  init(
    length: Int, entryCount: Int, sequence: UInt64, durable: UInt64, time: Int64, position: Int64, log: UInt64
  ) {
    self.length = length
    self.entryCount = entryCount
    self.sequence = sequence
    self.durable = durable
    self.time = time
    self.position = position
    self.log = log
  }

  /// True if `group`, the whole of it, has the CRC that it states.
  static func checks(_ group: UnsafeRawBufferPointer) -> Bool {
    group.bigEndian(at: 4) == CRC32C.checksum(group.part(8, group.count - 8))
  }
}
