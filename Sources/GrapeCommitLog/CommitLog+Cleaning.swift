import GrapeLog
import GrapeWire
import Synchronization

/// Freeing the space of records that nobody wants any more. Runs on the cleaner's thread, a run of segments at a time;
/// the writer never waits for it.
extension CommitLog {
  /// Compaction under way. Only jobs of the cleaner touch it.
  struct CleanerState {
    var pass: CompactionPass?
    /// What the log was like when nothing was left to clean.
    var idleEpoch: UInt64?
    /// The last round of compaction left records alone that consumers had not had yet.
    var spared = false
    /// What compaction had to do when it began last: nothing new, nothing to do.
    var fruitless: DirtySignature?
  }

  struct DirtySignature: Equatable {
    var dirty: UInt64
    var claims: UInt64
  }

  struct CompactionPass {
    var map: CompactionMap
    /// Segments before this position are rewritten with the map.
    var upperBound: Int64
    /// Done up to here.
    var done: Int64 = 0
    var tombstonesBefore: Int64
  }

  /// Looks after free space, retention and cleaning, as happens now and then by itself. `completion` is called when a
  /// round is over; trims found in it free their space in the next.
  package func maintain(completion: @escaping @Sendable () -> Void = {}) {
    let added = cleaner.add {
      self.checkSpace()
      self.retain()
      self.cleanStep(completion)
    }
    if !added { completion() }
  }

  /// Cleans one run of segments, then leaves the rest to another job.
  private func cleanStep(_ completion: @escaping @Sendable () -> Void) {
    do throws(SegmentIndexes.Fault) {
      if try cleanOnce(), cleaner.add({ self.cleanStep(completion) }) { return }
    } catch {
      cleaning.withLock { $0.pass = nil }
      if case .failed(let error) = error { note(error) }
    }
    completion()
  }

  /// False if there is nothing to clean.
  private func cleanOnce() throws(SegmentIndexes.Fault) -> Bool {
    let (segments, liveness, epoch) = shared.withLock { ($0.table.cold, Liveness($0.state), $0.epoch) }
    if cleaning.withLock({ $0.idleEpoch == epoch && $0.pass == nil }) { return false }
    var candidates: [CleaningPlan.Candidate] = []
    for place in segments.indices { candidates.append(try candidate(segments, place, liveness)) }
    if try compactNext(segments, candidates, liveness) { return true }
    let plan = CleaningPlan(segmentBytes: Int64(options.segmentBytes), share: options.cleanableShare)
    if let run = plan.next(candidates) {
      let first = segments.startIndex
      let chosen = segments[first + run.lowerBound..<first + run.upperBound]
      let compacted = zip(chosen, candidates[run]).allSatisfy { segment, candidate in
        candidate.weight.compacted == 0 || segment.header.cleaned?.compacted == true
      }
      try rewrite(segments, chosen.indices, liveness, nil, compacted: compacted)
      return true
    }
    // What was spared for a consumer becomes free without any of the changes that the epoch counts.
    cleaning.withLock { $0.idleEpoch = $0.spared ? nil : epoch }
    return false
  }

  private func candidate(
    _ segments: ArraySlice<Segment>, _ place: Int, _ liveness: Liveness
  ) throws(SegmentIndexes.Fault) -> CleaningPlan.Candidate {
    let index = try indexes.index(segments, place)
    let cleaned = segments[place].header.cleaned
    return CleaningPlan.Candidate(
      weight: SegmentWeight(index, liveness), isCleaned: cleaned != nil,
      bytes: cleaned?.end ?? segments[place].header.capacity,
      hasGroups: cleaned != nil || segments[place].lastSequence >= firstSequence(segments, place))
  }

  // MARK: Compaction

  /// Goes on with compaction, or begins it if it is worth it; false if there is nothing to do.
  private func compactNext(
    _ segments: ArraySlice<Segment>, _ candidates: [CleaningPlan.Candidate], _ liveness: Liveness
  ) throws(SegmentIndexes.Fault) -> Bool {
    var pass = cleaning.withLock { $0.pass }
    if pass == nil { pass = try beginCompaction(segments, candidates, liveness) }
    guard var pass else { return false }
    let next = segments.indices.first { place in
      segments[place].base >= pass.done && segments[place].upperBound <= pass.upperBound
        && candidates[place - segments.startIndex].weight.compacted > 0
    }
    guard let next else {
      cleaning.withLock { $0.pass = nil }
      return true
    }
    let compaction = SegmentRewriter.Compaction(map: pass.map, tombstonesBefore: pass.tombstonesBefore)
    pass.done = segments[next].upperBound
    try rewrite(segments, next..<next + 1, liveness, compaction, compacted: true)
    cleaning.withLock { $0.pass = pass }
    return true
  }

  /// Learns the last offsets of keys in segments that were not compacted yet, oldest first, as far as memory allows.
  private func beginCompaction(
    _ segments: ArraySlice<Segment>, _ candidates: [CleaningPlan.Candidate], _ liveness: Liveness
  ) throws(SegmentIndexes.Fault) -> CompactionPass? {
    var dirty: UInt64 = 0
    var clean: UInt64 = 0
    for (segment, candidate) in zip(segments, candidates) {
      if segment.header.cleaned?.compacted == true {
        clean += candidate.weight.compacted
      } else {
        dirty += candidate.weight.compacted
      }
    }
    guard dirty > 0, Double(dirty) >= options.cleanableShare * Double(dirty + clean) else { return nil }
    // What waits for its consumers would be rewritten again and again to no effect.
    let signature = DirtySignature(dirty: dirty, claims: liveness.claims)
    if cleaning.withLock({ $0.fruitless == signature }) { return nil }
    var map = CompactionMap()
    var upperBound: Int64 = 0
    for place in segments.indices {
      let candidate = candidates[place - segments.startIndex]
      if segments[place].header.cleaned?.compacted != true, candidate.weight.compacted > 0 {
        let later = try keys(segments, place, liveness)
        if map.bytes > 0, map.bytes + later.bytes > options.compactionBytes { break }
        map.add(later)
      }
      upperBound = segments[place].upperBound
    }
    cleaning.withLock { state in
      state.fruitless = signature
      state.spared = false
    }
    return CompactionPass(
      map: map, upperBound: upperBound,
      tombstonesBefore: clock.wallMilliseconds() - options.tombstoneMilliseconds)
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

  private func rewrite(
    _ segments: ArraySlice<Segment>, _ run: Range<Int>, _ liveness: Liveness,
    _ compaction: SegmentRewriter.Compaction?, compacted: Bool
  ) throws(SegmentIndexes.Fault) {
    let chosen = segments[run]
    let last = try indexes.index(segments, run.upperBound - 1)
    let base = chosen.first!.base
    let draft = "\(SegmentHeader.fileName(base: base)).clean.tmp"
    do throws(LogError) {
      if try storage.list().contains(draft) { try storage.remove(draft) }
      let file = try storage.create(draft)
      defer { file.close() }
      do {
        var rewriter = SegmentRewriter(
          into: file, base: base, identity: chosen.first!.header.identity, liveness: liveness, compaction: compaction)
        for segment in chosen {
          let source: any SegmentFile
          do throws(SegmentIndexes.Fault) {
            source = try indexes.open(segment)
          } catch {
            if case .failed(let error) = error { throw error }
            // Only this thread replaces segments, and the table is its own.
            preconditionFailure("a segment was replaced by somebody else")
          }
          defer { source.close() }
          try rewriter.add(segment.header, source)
        }
        let first = chosen.first!.header.cleaned?.sequences.lowerBound ?? firstSequence(segments, run.lowerBound)
        let result = try rewriter.finish(
          replacing: chosen, parts: last.parts(), sequences: first...max(first, chosen.last!.lastSequence),
          compacted: compacted, now: clock.wallMilliseconds())
        try swap(chosen, for: result, draft)
        if result.spared { cleaning.withLock { $0.spared = true } }
      } catch {
        // The originals are untouched; the draft's space may be the last.
        try? storage.remove(draft)
        throw error as! LogError
      }
    } catch {
      throw .failed(error)
    }
  }

  /// Sequence of a segment's first group.
  private func firstSequence(_ segments: ArraySlice<Segment>, _ place: Int) -> UInt64 {
    place == segments.startIndex ? 1 : segments[place - 1].lastSequence + 1
  }

  private func swap(
    _ old: ArraySlice<Segment>, for result: SegmentRewriter.Rewritten, _ draft: String
  ) throws(LogError) {
    let segment = Segment(result.header, lastSequence: result.header.cleaned!.sequences.upperBound)
    let before = old.reduce(Int64(0)) { $0 + ($1.header.cleaned?.end ?? $1.header.capacity) }
    try indexes.replace(old) { () throws(LogError) in
      try storage.replace(SegmentHeader.fileName(base: segment.base), with: draft)
      shared.withLock { $0.table.replace(with: segment) }
      try storage.synchronizeDirectory()
    }
    counters.withLock { counters in
      counters.cleanedSegments += UInt64(old.count)
      counters.reclaimedBytes += UInt64(max(before - result.header.cleaned!.end, 0))
    }
    _ = reader.add { self.reader.closeReplaced() }
    do throws(LogError) {
      try indexes.write(IndexFile.encode(result.index, of: segment), of: segment)
      let names = Set(try storage.list())
      for gone in old.dropFirst() {
        for name in [
          SegmentHeader.fileName(base: gone.base), IndexFile.fileName(base: gone.base),
          Checkpoint.fileName(base: gone.base),
        ] where names.contains(name) { try storage.remove(name) }
      }
    } catch {
      // The index is made anew when it is needed, the files are removed at the next start.
      note(error)
    }
  }
}
