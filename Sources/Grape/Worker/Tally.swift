internal import CGrapeLinux
internal import GrapeWire

/// Counts and times per slot for one delivery. The clock is read when the slot changes, not for each event.
struct Tally {
  private struct Entry {
    var succeeded: UInt32 = 0
    var failed: UInt32 = 0
    var nanoseconds: Int64 = 0
    var isEmpty: Bool { succeeded == 0 && failed == 0 }
  }

  private var entries: [Entry]
  /// -1: no handler is being timed.
  private var current = -1
  private var began: Int64 = 0

  init(slots: Int) { entries = Array(repeating: Entry(), count: slots) }

  mutating func reset() {
    for index in entries.indices { entries[index] = Entry() }
    current = -1
  }

  /// From now on time goes to `slot`; -1: to none.
  mutating func run(slot: Int) {
    let now = grape_monotonic_ns()
    if current >= 0 { entries[current].nanoseconds += now - began }
    current = slot
    began = now
  }

  mutating func add(succeeded: UInt32, slot: Int) { entries[slot].succeeded += succeeded }
  mutating func addFailed(slot: Int) { entries[slot].failed += 1 }

  /// `u16` count, then an entry for each slot that ran.
  func write(to writer: inout ByteWriter) {
    writer.u16(UInt16(entries.count { !$0.isEmpty }))
    for (slot, entry) in entries.enumerated() where !entry.isEmpty {
      writer.u16(UInt16(slot))
      writer.u32(entry.succeeded)
      writer.u32(entry.failed)
      writer.u64(UInt64(max(0, entry.nanoseconds)))
    }
  }
}
