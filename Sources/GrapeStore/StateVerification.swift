package import GrapeState
internal import GrapeWire

/// Holds entries against their checksums, and indexes against entries.
package enum StateVerification {
  /// Lines told at most.
  static let limit = 100

  /// What is wrong, a line each.
  package static func problems(in reader: StateReader) throws(StateError) -> [String] {
    var problems: [String] = []
    func note(_ problem: String) -> Bool {
      problems.append(problem)
      return problems.count < limit
    }
    var expiries = 0
    var tags = 0
    try reader.forEachStored { (key, stored) throws(StateError) in
      do throws(StateError) {
        _ = try StateKey.split(key)
        guard StateReader.isSound(stored, of: key) else { throw StateError(.corrupt, "its checksum does not fit") }
        let entry = try StateEntry(StateReader.entry(in: stored))
        if entry.expiry != nil { expiries += 1 }
        entry.forEachTag { _ in tags += 1 }
      } catch {
        return note("entry \(readable(key)): \(error.message)")
      }
      return true
    }
    try reader.expiring { (time, key) throws(StateError) in
      expiries -= 1
      let expiry = try reader.entry(key).flatMap { (entry) throws(StateError) in try StateEntry(entry).expiry }
      return expiry == time || note("the expiry \(time) of \(readable(key)) is not that of its entry")
    }
    try reader.forEachTag { (store, tag, key) throws(StateError) in
      tags -= 1
      let full = try StateKey(store: store, key)
      let has = try reader.entry(full.bytes.unsafeBytes).map { (entry) throws(StateError) in
        try StateEntry(entry).hasTags([tag])
      }
      return has == true || note("the tag \(tag) of \(full) is not one of its entry")
    }
    if expiries != 0 { _ = note("\(expiries) expiries more in entries than in their index") }
    if tags != 0 { _ = note("\(tags) tags more in entries than in their index") }
    return problems
  }
}
