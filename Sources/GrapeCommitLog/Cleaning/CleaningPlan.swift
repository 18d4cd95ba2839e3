/// Which neighbouring segments to rewrite into one. Pure.
struct CleaningPlan {
  /// A segment as the plan sees it.
  struct Candidate {
    var weight: SegmentWeight
    /// True if it is a rewritten one already.
    var isCleaned: Bool
    /// Bytes of its file in use; of one not rewritten yet, all that it may have.
    var bytes: Int64
    /// False for a segment that was left empty because the group meant for it was too large. A rewritten one would claim
    /// a sequence, and there is nothing to gain.
    var hasGroups = true
    /// It cannot be read whole: it stays as it is.
    var isDamaged = false
  }

  /// Neighbours that are not worth rewriting by themselves are merged when there are so many of them.
  static let mergeCount = 4

  var segmentBytes: Int64
  /// Share of dead bytes from which on a segment is rewritten.
  var share: Double

  /// The oldest run of segments to rewrite; nil if nothing is worth it.
  func next(_ candidates: [Candidate]) -> Range<Int>? {
    var first = 0
    while first < candidates.count {
      guard isMovable(candidates[first]) else {
        first += 1
        continue
      }
      var last = first
      var live: Int64 = 0
      while last < candidates.count, isMovable(candidates[last]),
        last == first || live + Int64(candidates[last].weight.live) <= segmentBytes
      {
        live += Int64(candidates[last].weight.live)
        last += 1
      }
      if candidates[first..<last].contains(where: needsCleaning) || last - first >= Self.mergeCount {
        return first..<last
      }
      first = last
    }
    return nil
  }

  func needsCleaning(_ candidate: Candidate) -> Bool {
    let weight = candidate.weight
    if !candidate.hasGroups || candidate.isDamaged { return false }
    if weight.dead + weight.live == 0 { return !candidate.isCleaned }
    return weight.dead > 0 && Double(weight.dead) >= share * Double(weight.dead + weight.live)
  }

  /// Rewriting it costs little, or gains much.
  private func isMovable(_ candidate: Candidate) -> Bool {
    needsCleaning(candidate) || (!candidate.isDamaged && candidate.isCleaned && candidate.bytes < segmentBytes / 2)
  }
}
