internal import Glibc
internal import GrapeState

/// What one delivery writes of one partition's state: the last write of each key, and what it takes to drop those of the event that is being
/// handled. A hash table with open addressing; keys and small values lie in an arena, so that writing allocates nothing once it has grown.
///
/// Kept behind a pointer, which costs neither reference counts nor checks of exclusive access.
struct StateTable: ~Copyable {
  /// Where a value (an entry as docs/protocol.md describes it) lies. Without a base: the entry is removed.
  struct Block {
    var base: UnsafeMutableRawPointer?
    var count: UInt32 = 0
    var capacity: UInt32 = 0

    var isOnHeap: Bool { capacity > StateTable.smallLimit }
    var bytes: UnsafeRawBufferPointer? {
      base.map { UnsafeRawBufferPointer(start: $0, count: Int(count)) }
    }
  }

  struct Entry {
    let key: UnsafeMutableRawPointer
    var block: Block
    let hash: UInt32
    /// Number of the event that wrote it last.
    var stamp: UInt32
    /// Scans that had begun when the block was made: what they see must stay.
    var scans: UInt32
    let keyCount: UInt16
    /// The event that wrote it last has only appended to it.
    var wasExtended = false

    var keyBytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: key, count: Int(keyCount)) }
  }

  /// How one entry is made again what it was before the event.
  private struct Undo {
    enum Kind { case block, content, length }
    var entry: Int
    var kind: Kind
    var block: Block
    /// content: the bytes as they were.
    var saved: UnsafeMutableRawPointer?
  }

  /// Blocks up to this size lie in the arena and are saved by copying, in bytes.
  static let smallLimit: UInt32 = 1024
  /// Framing of a record at most, in bytes.
  static let recordMargin = 24
  private static let fewestSlots = 64

  private var entries: UnsafeMutablePointer<Entry>
  private var entryCapacity: Int
  private(set) var count = 0
  /// Upper half: of the hash; lower half: index of the entry plus 1; 0 is empty.
  private var slots: UnsafeMutablePointer<UInt64>
  private var slotMask: Int

  private var arena = StateArena()
  private var savedArena = StateArena()
  private var undos: [Undo] = []
  /// Blocks on the heap that nothing refers to but what the handler may be looking at.
  private var garbage: [UnsafeMutableRawPointer] = []
  private var heapBlocks = 0

  /// What the entries take as records, in bytes.
  private(set) var byteCount = 0
  private var byteCountAtEvent = 0
  private var countAtEvent = 0
  /// The event that wrote last, 0: none.
  private var event: UInt64 = 0
  private var stamp: UInt32 = 0
  private var scans: UInt32 = 0

  /// Entries in order of their keys, as far as scans wanted it.
  private var ordered: [UInt32] = []

  init() {
    entryCapacity = 32
    entries = .allocate(capacity: entryCapacity)
    slotMask = Self.fewestSlots - 1
    slots = .allocate(capacity: Self.fewestSlots)
    slots.initialize(repeating: 0, count: Self.fewestSlots)
  }

  deinit {
    for index in 0..<count where entries[index].block.isOnHeap { entries[index].block.base?.deallocate() }
    for undo in undos where undo.kind == .block && undo.block.isOnHeap { undo.block.base?.deallocate() }
    for block in garbage { block.deallocate() }
    entries.deallocate()
    slots.deallocate()
  }

  // MARK: Looking up

  /// Index of the entry of a full key; -1: there is none.
  @inline(__always)
  func find(_ key: UnsafeRawBufferPointer, _ hash: UInt64) -> Int {
    if count == 0 { return -1 }
    var slot = Int(truncatingIfNeeded: hash) & slotMask
    while true {
      let held = slots[slot]
      if held == 0 { return -1 }
      if held >> 32 == hash >> 32 {
        let index = Int(truncatingIfNeeded: held & 0xffff_ffff) &- 1
        let entry = entries + index
        if Int(entry.pointee.keyCount) == key.count,
          memcmp(entry.pointee.key, key.baseAddress.unsafelyUnwrapped, key.count) == 0
        {
          return index
        }
      }
      slot = (slot &+ 1) & slotMask
    }
  }

  /// An entry; valid until the next change. Precondition: `index < count`.
  @inline(__always)
  subscript(index: Int) -> Entry { entries[index] }

  // MARK: Writing

  /// What is written from here on belongs to `event`.
  @inline(__always)
  mutating func enter(_ event: UInt64) {
    if self.event != event { begin(event) }
  }

  private mutating func begin(_ event: UInt64) {
    settle()
    self.event = event
    stamp &+= 1
    countAtEvent = count
    byteCountAtEvent = byteCount
  }

  /// Makes room for an entry of `size` bytes, which the caller writes. What was there may be where it was or not; it is still readable at
  /// its old place as long as the event lasts, but for what is written over it.
  ///
  /// - Parameter known: what `find` gave.
  @inline(__always)
  mutating func place(
    _ key: UnsafeRawBufferPointer, _ hash: UInt64, known: Int, size: Int
  ) -> UnsafeMutableRawPointer {
    guard known >= 0 else {
      let entry = insert(key, hash)
      entry.pointee.block = makeBlock(size, room: size)
      byteCount &+= Self.recordMargin + key.count + size
      return entry.pointee.block.base.unsafelyUnwrapped
    }
    let entry = entries + known
    byteCount &+= size &- Int(entry.pointee.block.count)
    let fits =
      size <= Int(entry.pointee.block.capacity) && entry.pointee.scans == scans && entry.pointee.block.base != nil
    if entry.pointee.stamp == stamp {
      if fits, !entry.pointee.wasExtended {
        entry.pointee.block.count = UInt32(truncatingIfNeeded: size)
        return entry.pointee.block.base.unsafelyUnwrapped
      }
      abandonBlock(of: known)
    } else {
      if fits, !entry.pointee.block.isOnHeap {
        save(known)
        entry.pointee.block.count = UInt32(truncatingIfNeeded: size)
        return entry.pointee.block.base.unsafelyUnwrapped
      }
      keepBlock(of: known)
    }
    entry.pointee.block = makeBlock(size, room: size)
    entry.pointee.scans = scans
    return entry.pointee.block.base.unsafelyUnwrapped
  }

  /// Notes that a key is removed.
  mutating func remove(_ key: UnsafeRawBufferPointer, _ hash: UInt64, known: Int) {
    guard known >= 0 else {
      insert(key, hash).pointee.block = Block()
      byteCount += Self.recordMargin + key.count
      return
    }
    byteCount -= Int(entries[known].block.count)
    if entries[known].stamp == stamp { abandonBlock(of: known) } else { keepBlock(of: known) }
    entries[known].block = Block()
  }

  /// Makes an entry `extra` bytes longer. Where they are to be written. Precondition: the entry is there and not removed.
  mutating func extend(_ index: Int, by extra: Int) -> UnsafeMutableRawPointer {
    let entry = entries + index
    let old = entry.pointee.block
    if entry.pointee.stamp != stamp {
      undos.append(Undo(entry: index, kind: .length, block: old))
      entry.pointee.stamp = stamp
      entry.pointee.wasExtended = true
    }
    let size = Int(old.count) + extra
    if size > Int(old.capacity) {
      let larger = makeBlock(size, room: min(2 * size, StateLimits.value + 2048))
      larger.base.unsafelyUnwrapped.copyMemory(from: old.base.unsafelyUnwrapped, byteCount: Int(old.count))
      drop(old)
      entry.pointee.block = larger
      entry.pointee.scans = scans
    }
    entry.pointee.block.count = UInt32(size)
    byteCount += extra
    return entry.pointee.block.base.unsafelyUnwrapped + Int(old.count)
  }

  @inline(__always)
  private mutating func insert(_ key: UnsafeRawBufferPointer, _ hash: UInt64) -> UnsafeMutablePointer<Entry> {
    if (count &+ 1) &* 8 > (slotMask &+ 1) &* 5 { growSlots() }
    if count == entryCapacity { growEntries() }
    var slot = Int(truncatingIfNeeded: hash) & slotMask
    while slots[slot] != 0 { slot = (slot &+ 1) & slotMask }
    let copy = arena.allocate(key.count)
    copy.copyMemory(from: key.baseAddress.unsafelyUnwrapped, byteCount: key.count)
    let entry = entries + count
    // The lower half of the hash says where it stands: the table can grow without hashing anew.
    entry.initialize(
      to: Entry(
        key: copy, block: Block(), hash: UInt32(truncatingIfNeeded: hash), stamp: stamp, scans: scans,
        keyCount: UInt16(truncatingIfNeeded: key.count)))
    count &+= 1
    slots[slot] = hash & 0xffff_ffff_0000_0000 | UInt64(truncatingIfNeeded: count)
    return entry
  }

  @inline(never)
  private mutating func growEntries() {
    let larger = UnsafeMutablePointer<Entry>.allocate(capacity: 2 * entryCapacity)
    larger.moveInitialize(from: entries, count: count)
    entries.deallocate()
    entries = larger
    entryCapacity *= 2
  }

  @inline(never)
  private mutating func growSlots() {
    let old = (slots: slots, count: slotMask + 1)
    slotMask = 2 * old.count - 1
    slots = .allocate(capacity: 2 * old.count)
    slots.initialize(repeating: 0, count: 2 * old.count)
    // In order of the entries, so that the last ones can be taken out again.
    var uppers = [UInt64](repeating: 0, count: count)
    for slot in 0..<old.count where old.slots[slot] != 0 {
      let held = old.slots[slot]
      uppers[Int(held & 0xffff_ffff) - 1] = held & 0xffff_ffff_0000_0000
    }
    old.slots.deallocate()
    for index in 0..<count {
      var slot = Int(entries[index].hash) & slotMask
      while slots[slot] != 0 { slot = (slot &+ 1) & slotMask }
      slots[slot] = uppers[index] | UInt64(index + 1)
    }
  }

  // MARK: Blocks

  @inline(__always)
  private mutating func makeBlock(_ size: Int, room: Int) -> Block {
    let capacity = max(16, (room &+ 15) & ~15)
    if capacity <= Int(Self.smallLimit) {
      return Block(
        base: arena.allocate(capacity), count: UInt32(truncatingIfNeeded: size),
        capacity: UInt32(truncatingIfNeeded: capacity))
    }
    heapBlocks &+= 1
    return Block(
      base: .allocate(byteCount: capacity, alignment: 16), count: UInt32(truncatingIfNeeded: size),
      capacity: UInt32(truncatingIfNeeded: capacity))
  }

  private mutating func drop(_ block: Block) {
    guard block.isOnHeap, let base = block.base else { return }
    garbage.append(base)
    heapBlocks -= 1
  }

  /// Before an entry is written over for the first time in an event: its bytes are copied.
  @inline(__always)
  private mutating func save(_ index: Int) {
    let block = entries[index].block
    let saved = savedArena.allocate(Int(block.count))
    saved.copyMemory(from: block.base.unsafelyUnwrapped, byteCount: Int(block.count))
    undos.append(Undo(entry: index, kind: .content, block: block, saved: saved))
    entries[index].stamp = stamp
    entries[index].wasExtended = false
  }

  /// Before an entry gets another block for the first time in an event: the present one stays as it is.
  private mutating func keepBlock(of index: Int) {
    undos.append(Undo(entry: index, kind: .block, block: entries[index].block))
    entries[index].stamp = stamp
    entries[index].wasExtended = false
  }

  /// Before an entry gets another block again.
  private mutating func abandonBlock(of index: Int) {
    guard entries[index].wasExtended else { return drop(entries[index].block) }
    // It was only appended to so far: its beginning is what it was before the event.
    let undo = undos.lastIndex { $0.entry == index }.unsafelyUnwrapped
    undos[undo].kind = .block
    let length = undos[undo].block.count
    undos[undo].block = entries[index].block
    undos[undo].block.count = length
    entries[index].wasExtended = false
  }

  // MARK: Events

  /// What was written so far stays.
  mutating func settle() {
    if undos.isEmpty, garbage.isEmpty { return }
    for undo in undos where undo.kind == .block { drop(undo.block) }
    undos.removeAll(keepingCapacity: true)
    savedArena.reset()
    collect()
  }

  private mutating func collect() {
    for block in garbage { block.deallocate() }
    garbage.removeAll(keepingCapacity: true)
  }

  /// Drops what `event` wrote.
  mutating func rollBack(_ event: UInt64) {
    guard self.event == event else { return }
    self.event = 0
    for undo in undos.reversed() {
      let entry = entries + undo.entry
      switch undo.kind {
      case .length: entry.pointee.block.count = undo.block.count
      case .block, .content:
        if entry.pointee.block.base != undo.block.base { drop(entry.pointee.block) }
        entry.pointee.block = undo.block
        if let saved = undo.saved {
          undo.block.base.unsafelyUnwrapped.copyMemory(from: saved, byteCount: Int(undo.block.count))
        }
      }
    }
    undos.removeAll(keepingCapacity: true)
    savedArena.reset()
    if count > countAtEvent {
      if ordered.count > countAtEvent { ordered.removeAll { $0 >= countAtEvent } }
      // Latest first: each leaves the table as it found it.
      for index in (countAtEvent..<count).reversed() {
        drop(entries[index].block)
        var slot = Int(entries[index].hash) & slotMask
        while slots[slot] & 0xffff_ffff != UInt64(index + 1) { slot = (slot + 1) & slotMask }
        slots[slot] = 0
      }
      count = countAtEvent
    }
    byteCount = byteCountAtEvent
    collect()
  }

  /// Forgets everything; keeps some of the memory.
  mutating func clear() {
    settle()
    if heapBlocks > 0 {
      for index in 0..<count { drop(entries[index].block) }
      collect()
    }
    let slotCount = slotMask + 1
    if slotCount > 16_384, count * 8 < slotCount {
      // One great delivery is no reason to clear so much for ever.
      slots.deallocate()
      slotMask = Self.fewestSlots - 1
      slots = .allocate(capacity: Self.fewestSlots)
    }
    slots.initialize(repeating: 0, count: slotMask + 1)
    count = 0
    arena.reset()
    ordered.removeAll(keepingCapacity: true)
    byteCount = 0
    event = 0
    stamp = 0
    scans = 0
  }

  // MARK: Order

  /// A scan begins: what it sees stays until the event's end.
  mutating func beginScan() { scans &+= 1 }

  /// Makes sure that all entries are in order.
  mutating func sort() {
    let known = ordered.count
    guard known < count else { return }
    ordered.reserveCapacity(count)
    if count - known <= 4 {
      for index in known..<count {
        ordered.insert(UInt32(index), at: lowerBound(entries[index].keyBytes))
      }
    } else {
      ordered.append(contentsOf: UInt32(known)..<UInt32(count))
      let entries = entries
      ordered.sort { precedes(entries[Int($0)].keyBytes, entries[Int($1)].keyBytes) }
    }
  }

  /// Position, in order, of the first entry that does not precede `key`. `sort` comes first.
  func lowerBound(_ key: UnsafeRawBufferPointer) -> Int {
    var low = 0
    var high = ordered.count
    while low < high {
      let middle = (low + high) / 2
      if precedes(entries[Int(ordered[middle])].keyBytes, key) { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// The entry at a position in order.
  func entry(inOrder position: Int) -> Entry { entries[Int(ordered[position])] }
}
