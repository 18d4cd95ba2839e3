import GrapeLog
import GrapeWire
import Synchronization

/// Freeing the space of records that nobody wants any more. Runs on the cleaner's thread, a run of segments at a time;
/// the writer never waits for it.
extension CommitLog {
  /// What the cleaner remembers from job to job.
  struct CleanerState {
    /// A chain of jobs is at work.
    var isBusy = false
    var pass: CompactionPass?
    /// What compaction may begin with now: all of it is on the disk.
    var settled: Settled?
    /// What the log was like when nothing was left to clean.
    var idleEpoch: UInt64?
    /// The last round of compaction left records alone that consumers had not had yet.
    var spared = false
    var attempts = Attempts()
    /// Segments with damage in them: left alone until somebody has mended them.
    var damaged: Set<Segment.Key> = []
    /// Segments that are full to the last byte and would not become smaller: left alone for this round.
    var tight: Set<Segment.Key> = []
  }

  /// What compaction has tried: what waits for its consumers must not be rewritten again and again to no effect.
  struct Attempts {
    /// How far consumers had come, and where the newest old segment ended.
    private var claims: UInt64 = 0
    private var end: Int64 = 0
    /// Numbers of dirty bytes that it began with since then.
    private var dirty: Set<UInt64> = []

    /// False if all is as it was when an attempt was made.
    func isNew(dirty: UInt64, claims: UInt64, end: Int64) -> Bool {
      claims != self.claims || end != self.end || !self.dirty.contains(dirty)
    }

    mutating func begin(dirty: UInt64, claims: UInt64, end: Int64) {
      if claims != self.claims || end != self.end { self = Attempts(claims: claims, end: end) }
      self.dirty.insert(dirty)
    }

    init() {}

    private init(claims: UInt64, end: Int64) {
      self.claims = claims
      self.end = end
    }
  }

  /// What the log was like at some moment, all that was visible then having been brought to the disk since: no loss of power takes
  /// back an offset that a group has committed in it.
  struct Settled {
    var liveness: Liveness
    /// Segments that were old before this position.
    var upperBound: Int64
  }

  /// What a step of cleaning came to.
  private enum Progress {
    /// There is nothing to clean.
    case nothing
    /// There may be more.
    case more
    /// Compaction is worth it once this is on the disk.
    case settle(Settled)
  }

  /// Compaction under way.
  struct CompactionPass {
    /// As of its beginning, so that what one segment spares the next one knows of; since then only narrowed.
    var liveness: Liveness
    var compaction: SegmentRewriter.Compaction
    /// Segments before this position are rewritten.
    var upperBound: Int64
    /// Done up to here.
    var done: Int64 = 0
  }

  /// Looks after free space, retention and cleaning, as happens now and then by itself. `completion` is called when a
  /// round is over; trims found in it free their space in the next.
  package func maintain(completion: @escaping @Sendable () -> Void = {}) {
    let added = cleaner.add {
      self.checkSpace()
      self.retain()
      let isBusy = self.cleaning.withLock { state in
        if state.isBusy { return true }
        state.isBusy = true
        state.tight = []
        return false
      }
      if isBusy { completion() } else { self.cleanStep(completion) }
    }
    if !added { completion() }
  }

  /// Cleans one run of segments, then leaves the rest to another job.
  private func cleanStep(_ completion: @escaping @Sendable () -> Void) {
    do throws(SegmentIndexes.Fault) {
      switch try cleanOnce() {
      case .nothing: break
      case .more: if cleaner.add({ self.cleanStep(completion) }) { return }
      case .settle(let state): return settle(state, completion)
      }
    } catch {
      cleaning.withLock { state in
        state.pass = nil
        state.attempts = Attempts()
      }
      if case .failed(let error) = error { note(error) }
    }
    endRound(completion)
  }

  private func endRound(_ completion: @Sendable () -> Void) {
    cleaning.withLock { $0.isBusy = false }
    completion()
  }

  /// Goes on once everything that was visible is on the disk: an empty commit is behind it.
  private func settle(_ state: Settled, _ completion: @escaping @Sendable () -> Void) {
    submit(
      Operation(
        // What waits in the queue must not keep the log alive.
        .commit(Transaction(durability: .disk)) { [weak self] result in
          guard let self else { return completion() }
          switch result {
          case .success:
            let added = self.cleaner.add {
              self.cleaning.withLock { $0.settled = state }
              self.cleanStep(completion)
            }
            if added { return }
          case .failure(let error): if error.code != .closed { self.note(error) }
          }
          self.endRound(completion)
        }))
  }

  private func cleanOnce() throws(SegmentIndexes.Fault) -> Progress {
    let (table, epoch) = shared.withLock { ($0.table, $0.epoch) }
    let settled = cleaning.withLock { state in
      defer { state.settled = nil }
      return state.settled
    }
    if cleaning.withLock({ $0.idleEpoch == epoch && $0.pass == nil }) { return .nothing }
    let segments = table.cold
    let liveness = shared.withLock { Liveness($0.state) }
    var candidates: [CleaningPlan.Candidate] = []
    for place in segments.indices { candidates.append(try candidate(segments, place, liveness)) }
    switch try compactNext(segments, candidates, liveness, settled) {
    case .nothing: break
    case .more: return .more
    case .settle(let state): return .settle(state)
    }
    let plan = CleaningPlan(segmentBytes: Int64(options.segmentBytes), share: options.cleanableShare)
    if let run = plan.next(candidates) {
      let first = segments.startIndex
      let chosen = segments[first + run.lowerBound..<first + run.upperBound]
      // What holds nothing of compacted topics now may do so when a topic is changed: it is not called compacted.
      let compacted = chosen.allSatisfy { $0.header.cleaned?.compacted == true }
      _ = try rewrite(segments, chosen.indices, liveness, nil, compacted: compacted)
      return .more
    }
    // What was spared for a consumer becomes free without any of the changes that the epoch counts.
    cleaning.withLock { $0.idleEpoch = $0.spared ? nil : epoch }
    return .nothing
  }

  private func candidate(
    _ segments: ArraySlice<Segment>, _ place: Int, _ liveness: Liveness
  ) throws(SegmentIndexes.Fault) -> CleaningPlan.Candidate {
    let segment = segments[place]
    let cleaned = segment.header.cleaned
    var weight = SegmentWeight()
    var isDamaged = cleaning.withLock { $0.damaged.contains(segment.key) || $0.tight.contains(segment.key) }
    if !isDamaged {
      do throws(SegmentIndexes.Fault) {
        weight = SegmentWeight(try indexes.index(segments, place), liveness)
      } catch {
        guard case .failed(let cause) = error, cause.code == .corrupt else { throw error }
        isDamaged = true
        setAside(segment, cause)
      }
    }
    return CleaningPlan.Candidate(
      weight: weight, isCleaned: cleaned != nil, bytes: cleaned?.end ?? segment.header.capacity,
      hasGroups: !isDamaged
        && (cleaned != nil || segment.lastSequence >= firstSequence(segments, place)),
      isDamaged: isDamaged)
  }

  /// A segment that cannot be read must not keep the others from being cleaned.
  private func setAside(_ segment: Segment, _ cause: LogError) {
    cleaning.withLock { _ = $0.damaged.insert(segment.key) }
    note(cause)
  }

  // MARK: Compaction

  /// Goes on with compaction, or begins it if it is worth it.
  private func compactNext(
    _ segments: ArraySlice<Segment>, _ candidates: [CleaningPlan.Candidate], _ liveness: Liveness, _ settled: Settled?
  ) throws(SegmentIndexes.Fault) -> Progress {
    var pass = cleaning.withLock { $0.pass }
    if pass == nil {
      if let settled {
        pass = try beginCompaction(segments, candidates, settled)
      } else {
        guard let dirt = dirt(segments, candidates) else { return .nothing }
        let state = Settled(liveness: liveness, upperBound: segments.last!.upperBound)
        let isNew = cleaning.withLock {
          $0.attempts.isNew(dirty: dirt.bytes, claims: liveness.claims, end: state.upperBound)
        }
        return isNew ? .settle(state) : .nothing
      }
    }
    guard var pass else { return .nothing }
    pass.liveness.narrow(to: liveness)
    let next = segments.indices.first { place in
      segments[place].base >= pass.done && segments[place].upperBound <= pass.upperBound
        && candidates[place - segments.startIndex].weight.compacted > 0
    }
    guard let next else {
      cleaning.withLock { $0.pass = nil }
      return .more
    }
    pass.done = segments[next].upperBound
    if let kept = try rewrite(segments, next..<next + 1, pass.liveness, pass.compaction, compacted: true) {
      pass.compaction.kept = kept
    } else {
      // It stays as it was: nothing that covers what is in it may go.
      pass.compaction.tombstonesBefore = .min
    }
    cleaning.withLock { $0.pass = pass }
    return .more
  }

  /// How much of compacted topics was not compacted yet, and the first segment with some of it; nil if compaction is not worth it.
  private func dirt(
    _ segments: ArraySlice<Segment>, _ candidates: [CleaningPlan.Candidate]
  ) -> (bytes: UInt64, first: Int)? {
    var dirty: UInt64 = 0
    var clean: UInt64 = 0
    var first: Int?
    for (place, candidate) in zip(segments.indices, candidates) {
      if segments[place].header.cleaned?.compacted == true {
        clean += candidate.weight.compacted
      } else if candidate.weight.compacted > 0 {
        dirty += candidate.weight.compacted
        first = first ?? place
      }
    }
    guard let first, Double(dirty) >= options.cleanableShare * Double(dirty + clean) else { return nil }
    return (dirty, first)
  }

  /// Learns the last offsets of keys, in segments without a gap between them, as far as memory allows: from the first
  /// one on or, if they are too many, from the first that was not compacted yet.
  private func beginCompaction(
    _ segments: ArraySlice<Segment>, _ candidates: [CleaningPlan.Candidate], _ settled: Settled
  ) throws(SegmentIndexes.Fault) -> CompactionPass? {
    // A later segment may supersede records for consumers that have committed nothing on the disk yet.
    let segments = segments.prefix { $0.upperBound <= settled.upperBound }
    guard let dirt = dirt(segments, candidates) else { return nil }
    let liveness = settled.liveness
    cleaning.withLock {
      $0.attempts.begin(dirty: dirt.bytes, claims: liveness.claims, end: settled.upperBound)
    }
    var learned = try learn(segments, candidates, from: segments.startIndex, liveness)
    if learned.next <= dirt.first { learned = try learn(segments, candidates, from: dirt.first, liveness) }
    cleaning.withLock { $0.spared = false }
    guard learned.next > dirt.first else { return nil }
    let covered = candidates[..<(learned.next - segments.startIndex)]
    return CompactionPass(
      liveness: liveness,
      compaction: SegmentRewriter.Compaction(
        map: learned.map,
        // What cannot be read may hold what a tombstone covers.
        tombstonesBefore: covered.contains(where: \.isDamaged)
          ? .min : clock.wallMilliseconds() - options.tombstoneMilliseconds),
      upperBound: segments[learned.next - 1].upperBound)
  }

  /// The keys of the segments from `first` on; `next` is the first segment that is not among them.
  private func learn(
    _ segments: ArraySlice<Segment>, _ candidates: [CleaningPlan.Candidate], from first: Int, _ liveness: Liveness
  ) throws(SegmentIndexes.Fault) -> (map: CompactionMap, next: Int) {
    var map = CompactionMap()
    for place in first..<segments.endIndex {
      let candidate = candidates[place - segments.startIndex]
      if candidate.isDamaged { return (map, place) }
      if candidate.weight.compacted == 0 { continue }
      let later: CompactionMap
      do throws(SegmentIndexes.Fault) {
        later = try keys(segments, place, liveness)
      } catch {
        guard case .failed(let cause) = error, cause.code == .corrupt else { throw error }
        setAside(segments[place], cause)
        return (map, place)
      }
      if map.bytes > 0, map.bytes + later.bytes > options.compactionBytes { return (map, place) }
      map.add(later)
    }
    return (map, segments.endIndex)
  }

  /// The keys of compacted topics in one segment.
  private func keys(
    _ segments: ArraySlice<Segment>, _ place: Int, _ liveness: Liveness
  ) throws(SegmentIndexes.Fault) -> CompactionMap {
    var map = CompactionMap()
    let index = try indexes.index(segments, place)
    let file = try indexes.open(segments[place])
    defer { file.close() }
    for number in 0..<index.count {
      let record = index.record(number)
      guard record.runCount > 0, liveness.isCompacted(record.topic) else { continue }
      for location in try indexes.run(segments, place, record) {
        let storage = ByteStorage(capacity: location.length)
        let target = UnsafeMutableRawBufferPointer(start: storage.base, count: location.length)
        do throws(LogError) {
          guard try file.read(into: target, at: location.position - segments[place].base) == location.length else {
            throw LogError(.corrupt, "\(file.path): ends before byte \(location.position - segments[place].base)")
          }
          do throws(WireError) {
            try map.add(
              ByteSlice(storage: storage, offset: 0, count: location.length), topic: record.topic,
              partition: record.partition)
          } catch {
            throw LogError(
              .corrupt,
              "\(file.path): the record batch at byte \(location.position - segments[place].base) is damaged "
                + "(\(error.message)); run grape log verify")
          }
        } catch {
          throw .failed(error)
        }
      }
    }
    return map
  }

  // MARK: Rewriting

  /// Rewrites a run of segments into one. Nil if one of them is damaged, or if there is no room for the result: they stay as they are.
  private func rewrite(
    _ segments: ArraySlice<Segment>, _ run: Range<Int>, _ liveness: Liveness,
    _ compaction: SegmentRewriter.Compaction?, compacted: Bool
  ) throws(SegmentIndexes.Fault) -> CompactionMap.Kept? {
    let last = try indexes.index(segments, run.upperBound - 1)
    var current = run.lowerBound
    do throws(LogError) {
      return try rewrite(segments, run, &current, last.parts(), liveness, compaction, compacted: compacted)
    } catch {
      switch error.code {
      case .corrupt: setAside(segments[current], error)
      case .tooLarge: cleaning.withLock { state in state.tight.formUnion(segments[run].map(\.key)) }
      default: throw .failed(error)
      }
      return nil
    }
  }

  /// `current` tells which segment is being read.
  private func rewrite(
    _ segments: ArraySlice<Segment>, _ run: Range<Int>, _ current: inout Int, _ parts: [IndexFile.Part],
    _ liveness: Liveness, _ compaction: SegmentRewriter.Compaction?, compacted: Bool
  ) throws(LogError) -> CompactionMap.Kept {
    let base = segments[run.lowerBound].base
    let draft = "\(SegmentHeader.fileName(base: base)).clean.tmp"
    try storage.removeIfThere(draft)
    let file = try storage.create(draft)
    defer { file.close() }
    let result: SegmentRewriter.Rewritten
    do throws(LogError) {
      var rewriter = SegmentRewriter(
        into: file, base: base, identity: segments[run.lowerBound].header.identity, liveness: liveness,
        compaction: compaction)
      for place in run {
        current = place
        let source = try openSource(segments[place])
        defer { source.close() }
        try rewriter.add(segments[place], first: firstSequence(segments, place), source)
      }
      let first = firstSequence(segments, run.lowerBound)
      result = try rewriter.finish(
        replacing: segments[run], parts: parts,
        sequences: first...max(first, segments[run.upperBound - 1].lastSequence), compacted: compacted,
        now: clock.wallMilliseconds())
    } catch {
      // The originals are untouched; the draft's space may be the last.
      try? storage.remove(draft)
      throw error
    }
    try swap(segments[run], for: result, draft)
    if result.kept.spared { cleaning.withLock { $0.spared = true } }
    return result.kept
  }

  private func openSource(_ segment: Segment) throws(LogError) -> any SegmentFile {
    do throws(SegmentIndexes.Fault) {
      return try indexes.open(segment)
    } catch {
      if case .failed(let error) = error { throw error }
      preconditionFailure("only the cleaner replaces segments, and it takes them from the table")
    }
  }

  /// Sequence of a segment's first group, or of the next one if it has none.
  private func firstSequence(_ segments: ArraySlice<Segment>, _ place: Int) -> UInt64 {
    if let cleaned = segments[place].header.cleaned { return cleaned.sequences.lowerBound }
    return place == segments.startIndex ? 1 : segments[place - 1].lastSequence + 1
  }

  private func swap(
    _ old: ArraySlice<Segment>, for result: SegmentRewriter.Rewritten, _ draft: String
  ) throws(LogError) {
    let segment = Segment(result.header, lastSequence: result.header.cleaned!.sequences.upperBound)
    let before = old.reduce(Int64(0)) { $0 + ($1.header.cleaned?.end ?? $1.header.capacity) }
    do throws(LogError) {
      try indexes.replace(old) { () throws(LogError) in
        try storage.replace(SegmentHeader.fileName(base: segment.base), with: draft)
        shared.withLock { $0.table.replace(with: segment) }
      }
    } catch {
      try? storage.remove(draft)
      throw error
    }
    counters.withLock { counters in
      counters.cleanedSegments += UInt64(old.count)
      counters.reclaimedBytes += UInt64(max(before - result.header.cleaned!.end, 0))
    }
    _ = reader.add { self.reader.closeReplaced() }
    do throws(LogError) {
      // What was merged may only go when the new file's name is sure to stay.
      try storage.synchronizeDirectory()
      try indexes.write(IndexFile.encode(result.index, of: segment), of: segment)
      for gone in old.dropFirst() {
        for name in [
          SegmentHeader.fileName(base: gone.base), IndexFile.fileName(base: gone.base),
          Checkpoint.fileName(base: gone.base),
        ] { try storage.removeIfThere(name) }
      }
    } catch {
      // The index is made anew when it is needed, the files are removed at the next start.
      note(error)
    }
  }
}
