package import GrapeState

/// Looks through a closed LMDB file before LMDB does: LMDB trusts its pages, and a damaged one could end the process.
package enum LMDBFileCheck {
  /// Throws `corrupt` (or `notFound`) with what is wrong.
  package static func check(_ path: String) throws(StateError) {
    guard try fileSize(path) >= 2 * 4096 else { throw StateError(.corrupt, "\(path) is shorter than two pages") }
  }
}
