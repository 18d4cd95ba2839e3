internal import GrapeStore

/// Finds those who hold the state of one moment for so long that its store grows: space that they may see is not used again. Pure.
struct LongViews {
  /// What is too long.
  struct Limit: Sendable {
    /// Nanoseconds.
    var time: Int64 = 30_000_000_000
    /// Bytes by which the store has grown meanwhile; a quarter of it, if that is more.
    var growth = 64 * 1024 * 1024
    /// The store is looked at so often at most, nanoseconds.
    var interval: Int64 = 2_000_000_000
  }

  private struct Sight {
    var since: Int64
    var size: Int
    var isTold = false
  }

  private var seen: [StaleView: Sight] = [:]
  private var lookedAt: Int64 = .min

  /// Whether to look now.
  func isDue(_ now: Int64, _ limit: Limit) -> Bool { lookedAt == .min || now - lookedAt >= limit.interval }

  /// What was seen at a store of `size` bytes. Tells those that are held for too long, each once, and for how many nanoseconds.
  mutating func look(
    _ views: [StaleView], size: Int, now: Int64, limit: Limit
  ) -> [(view: StaleView, held: Int64)] {
    lookedAt = now
    var kept: [StaleView: Sight] = [:]
    var found: [(view: StaleView, held: Int64)] = []
    for view in views {
      var sight = seen[view] ?? Sight(since: now, size: size)
      if !sight.isTold, now - sight.since >= limit.time, size - sight.size >= max(limit.growth, sight.size / 4) {
        sight.isTold = true
        found.append((view, now - sight.since))
      }
      kept[view] = sight
    }
    seen = kept
    return found
  }
}
