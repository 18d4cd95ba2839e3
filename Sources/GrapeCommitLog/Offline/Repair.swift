public import GrapeLog
import GrapeWire

/// What a repair did, or would do.
public struct RepairReport: Sendable {
  /// A segment with damage in it.
  public struct Segment: Sendable {
    public var file: String
    /// What is wrong with it.
    public var reasons: [String]
    /// Bytes that are not part of any sound group.
    public var unreadableBytes: Int64
    /// Groups that were kept.
    public var keptGroups: UInt64
    /// Where the damaged file is kept; nil if there was none, or nothing was done.
    public var copy: String?
  }

  /// Records that are gone. In segments that retention or compaction rewrote, missing offsets cannot be told from removed ones, and
  /// are not listed; where damaged segments come before such a one, those between them are, though they may have been removed.
  public struct Loss: Sendable {
    public var partition: TopicPartition
    public var offsets: Range<Int64>
  }

  public var segments: [Segment] = []
  public var losses: [Loss] = []
  /// Topics whose creation was lost, under the names that they have now.
  public var recoveredTopics: [String] = []

  public init() {}
}

extension CommitLog {
  /// Makes a damaged log of the data directory `directory` usable again by giving up what cannot be read: every segment with damage is
  /// rewritten with the groups that are sound. The damaged files are kept beside them. A torn end is no damage: opening
  /// the log sees to it. Reads the whole log.
  ///
  /// - Parameter apply: false only tells what would be done.
  /// - Throws: `locked` if a node runs there; `failed` where reading or writing is impossible; `corrupt` if no segment
  ///   has a readable header.
  public static func repair(
    directory: String, apply: Bool, progress: (_ done: Int64, _ total: Int64) -> Void = { _, _ in }
  ) throws(LogError) -> RepairReport {
    let storage = try DirectoryStorage(owning: directory + "/log")
    defer { storage.close() }
    return try repair(storage: storage, apply: apply, progress: progress)
  }

  /// Repairs a log on storage of any kind, which stays open.
  package static func repair(
    storage: any SegmentStorage, apply: Bool, progress: (_ done: Int64, _ total: Int64) -> Void = { _, _ in }
  ) throws(LogError) -> RepairReport {
    var repair = Repair(storage)
    return try repair.run(apply: apply, progress: progress)
  }
}

/// Finds damage in one pass over the log, mends it in a second one over the damaged segments.
struct Repair {
  static let damagedSuffix = ".damaged"

  private struct Place: Hashable {
    var topic: TopicID
    var partition: Int32
  }

  /// A stretch of the log that one file holds, or should hold.
  private struct Stretch {
    var base: Int64
    var upperBound: Int64
    /// Nil if it is unreadable or missing.
    var header: SegmentHeader?
    /// The file with what there is; nil if there is none.
    var file: String?
    var reasons: [String] = []
    var unreadable: Int64 = 0
    var kept: UInt64 = 0
    var firstSequence: UInt64?
    var lastSequence: UInt64?
    /// Where partitions go on behind this stretch, as far as that is known.
    var nextOffsets: [Place: Int64] = [:]
    /// How partitions stood at its end, as far as that is known.
    var ends: [Place: IndexFile.Part] = [:]
    /// Topics to make at its end, because their creation was lost here or before and they are used behind it.
    var creations: [LostTopic] = []
    /// Topics to make before the group with a sequence, which uses them: not earlier, as an earlier topic may have had their name.
    var creationsBefore: [UInt64: [LostTopic]] = [:]
    /// Topics to delete at its end, because their deletion was lost here or before.
    var deletions: [TopicID] = []
    /// Topics to delete before the group with a sequence, because their deletion was lost here.
    var deletionsBefore: [UInt64: [TopicID]] = [:]
    /// Sequences that it stands for once it is rewritten.
    var sequences: ClosedRange<UInt64>?

    var isDamaged: Bool { !reasons.isEmpty }
  }

  /// A topic whose creation is lost, as it is made again.
  struct LostTopic {
    var id: TopicID
    var name: String
    var configuration: TopicConfiguration
  }

  /// Where a topic that was never made is used first.
  private struct UnknownTopic {
    var partitions: Int32
    var stretch: Int
    /// Of the group; nil: only a checkpoint knows of it.
    var sequence: UInt64?
  }

  private let storage: any SegmentStorage
  private var stretches: [Stretch] = []
  private var identity: LogIdentity?
  private var report = RepairReport()
  private var topics: [TopicID: (name: String, partitions: Int32)] = [:]
  private var deleted: Set<TopicID> = []
  /// Topics whose creation is lost, as a later change calls them.
  private var altered: [TopicID: (name: String, TopicConfiguration)] = [:]
  private var unknownTopics: [TopicID: UnknownTopic] = [:]
  private var ends: [Place: IndexFile.Part] = [:]
  /// Offsets of records that are gone.
  private var losses: [(place: Place, offsets: Range<Int64>)] = []
  /// Names of topics whose creation is lost.
  private var recovered: [TopicID: String] = [:]
  /// The last stretch that shows something of a partition.
  private var seen: [Place: Int] = [:]
  private var sequence: UInt64 = 0
  private var unknownKind: UInt8?

  init(_ storage: any SegmentStorage) { self.storage = storage }

  mutating func run(apply: Bool, progress: (Int64, Int64) -> Void) throws(LogError) -> RepairReport {
    let names = try storage.list()
    try findStretches(names)
    var done: Int64 = 0
    let total = stretches.reduce(Int64(0)) { $0 + $1.upperBound - $1.base }
    for place in stretches.indices {
      try read(place)
      done += stretches[place].upperBound - stretches[place].base
      progress(done, total)
    }
    if let unknownKind {
      throw LogError(
        .unsupportedFormat,
        "\(storage.directory): an entry of kind \(unknownKind), unknown to this program: use a newer one")
    }
    let checkpoint = try newestCheckpoint(names)
    if let checkpoint { learnEnds(from: checkpoint) }
    nameUnknownTopics(checkpoint?.rebuilder)
    // What a topic had that was deleted later nobody misses; another may have its name.
    report.losses = losses.filter { !deleted.contains($0.place.topic) }.map { loss in
      let id = loss.place.topic
      return RepairReport.Loss(
        partition: TopicPartition(topics[id]?.name ?? recovered[id] ?? "#\(id)", loss.place.partition),
        offsets: loss.offsets)
    }
    let damaged = stretches.indices.filter { stretches[$0].isDamaged }
    if apply, !damaged.isEmpty {
      for place in damaged { try rewrite(place) }
      // They describe segments that are no more; the next start makes them anew. Not before: should this be interrupted, the next
      // repair needs to know what the checkpoint knows.
      for name in try storage.list() where name.hasSuffix(".index") || name.hasSuffix(".checkpoint") {
        try storage.remove(name)
      }
      try storage.synchronizeDirectory()
    }
    for place in damaged {
      let stretch = stretches[place]
      report.segments.append(
        RepairReport.Segment(
          file: "\(storage.directory)/\(SegmentHeader.fileName(base: stretch.base))", reasons: stretch.reasons,
          unreadableBytes: stretch.unreadable, keptGroups: stretch.kept,
          copy: apply && stretch.file != nil
            ? "\(storage.directory)/\(SegmentHeader.fileName(base: stretch.base))\(Self.damagedSuffix)" : nil))
    }
    return report
  }

  // MARK: Finding

  /// The newest sound checkpoint, and the position that it is for. Segments before it may be damaged.
  private func newestCheckpoint(_ names: [String]) throws(LogError) -> (base: Int64, rebuilder: StateRebuilder)? {
    for base in names.compactMap(Checkpoint.base(ofFile:)).sorted().reversed() {
      guard let place = stretches.firstIndex(where: { $0.base == base }),
        let next = stretches[place...].compactMap({ $0.header?.cleaned?.sequences.lowerBound ?? $0.firstSequence })
          .first,
        let snapshot = try storage.snapshot(before: base, of: identity!, names), snapshot.sequence + 1 == next,
        let rebuilder = StateRebuilder(snapshot)
      else { continue }
      return (base, rebuilder)
    }
    return nil
  }

  private mutating func findStretches(_ names: [String]) throws(LogError) {
    var files: [Int64: String] = [:]
    for name in names where name.hasSuffix(Self.damagedSuffix) {
      // A repair that was interrupted between setting the damaged file aside and putting another in its place.
      if let base = SegmentHeader.base(ofFile: String(name.dropLast(Self.damagedSuffix.count))) { files[base] = name }
    }
    for name in names { if let base = SegmentHeader.base(ofFile: name) { files[base] = name } }
    var expected: Int64 = 0
    let bases = files.keys.sorted()
    for (place, base) in bases.enumerated() {
      if base < expected, stretches.last?.header?.cleaned != nil { continue }
      if base > expected {
        stretches.append(
          Stretch(base: expected, upperBound: base, reasons: ["the file is missing"]))
      }
      let name = files[base]!
      let file = try storage.open(name, writable: false)
      defer { file.close() }
      var stretch = Stretch(base: base, upperBound: base, file: name)
      do throws(LogError) {
        let header = try SegmentHeader.read(file, base: base)
        try header.check(follows: base, of: identity, path: file.path)
        identity = header.identity
        stretch.header = header
        stretch.upperBound = header.upperBound
      } catch {
        if error.code == .unsupportedFormat { throw error }
        stretch.reasons.append(error.message)
        let size = (try file.size() + 4_095) & ~4_095
        stretch.upperBound = place + 1 < bases.count ? bases[place + 1] : base + size
      }
      if name.hasSuffix(Self.damagedSuffix) { stretch.reasons.append("a repair of it was interrupted") }
      expected = stretch.upperBound
      stretches.append(stretch)
    }
    guard identity != nil else {
      throw LogError(
        .corrupt, "\(storage.directory): there is no segment with a readable header; nothing can be repaired")
    }
  }

  /// The scanner for a stretch whose header is lost looks for groups all the same.
  private func scanner(_ stretch: Stretch, _ file: any SegmentFile) throws(LogError) -> SegmentScanner {
    if let header = stretch.header { return try SegmentScanner(file: file, header: header) }
    return try SegmentScanner(
      file: file,
      header: SegmentHeader(
        identity: identity!, base: stretch.base, capacity: stretch.upperBound - stretch.base, created: 0))
  }

  private mutating func read(_ place: Int) throws(LogError) {
    guard let name = stretches[place].file else {
      stretches[place].ends = ends
      return
    }
    let file = try storage.open(name, writable: false)
    defer { file.close() }
    let scanner = try scanner(stretches[place], file)
    let isLast = place == stretches.count - 1
    // It stands for all of them, whether groups are left or not.
    defer { sequence = max(sequence, stretches[place].header?.cleaned?.sequences.upperBound ?? 0) }
    while true {
      let at = scanner.offset
      switch try scanner.next() {
      case .group(let header, let bytes, _):
        take(header, bytes, place)
      case .end:
        if try endsEarly(place, isLast: isLast) {
          stretches[place].reasons.append("groups are missing behind byte \(at)")
        }
        stretches[place].ends = ends
        return
      case .bad(let reason):
        if let next = try scanner.findGroup(knowing: 0, from: at + 1) {
          // In the last segment, what no later group knows to have been on the disk is a torn end.
          var isLoss = !isLast
          if isLast { isLoss = try scanner.findGroup(knowing: sequence + 1, from: at + 1) != nil }
          if isLoss {
            stretches[place].reasons.append("byte \(at): \(reason)")
            stretches[place].unreadable += next - at
            try scanner.seek(to: next)
            continue
          }
        } else {
          var isLoss = stretches[place].header?.cleaned != nil
          if !isLoss, !isLast { isLoss = try laterGroups(place) }
          if isLoss {
            stretches[place].reasons.append("byte \(at): \(reason)")
            stretches[place].unreadable += max(scanner.size - at, 0)
          }
        }
        stretches[place].ends = ends
        return
      }
    }
  }

  /// True if the next segment's first group shows that this one held more than was found.
  private func endsEarly(_ place: Int, isLast: Bool) throws(LogError) -> Bool {
    if isLast || stretches[place].header?.cleaned != nil { return false }
    for next in stretches[(place + 1)...] {
      if let cleaned = next.header?.cleaned { return cleaned.sequences.lowerBound != sequence + 1 }
      // A file that is missing is damage of its own.
      guard let name = next.file else { return false }
      let file = try storage.open(name, writable: false)
      defer { file.close() }
      let scanner = try scanner(next, file)
      switch try scanner.next() {
      case .group(let header, _, _): return header.sequence != sequence + 1
      case .end: continue
      case .bad: return false
      }
    }
    return false
  }

  private func laterGroups(_ place: Int) throws(LogError) -> Bool {
    for next in stretches[(place + 1)...] {
      if next.header?.cleaned != nil { return true }
      guard let name = next.file else { continue }
      let file = try storage.open(name, writable: false)
      defer { file.close() }
      let scanner = try scanner(next, file)
      if try scanner.findGroup(knowing: 0, from: Int64(SegmentHeader.reservedBytes)) != nil { return true }
    }
    return false
  }

  private mutating func take(_ header: GroupHeader, _ group: UnsafeRawBufferPointer, _ place: Int) {
    if header.sequence <= sequence { return }
    sequence = header.sequence
    stretches[place].kept += 1
    if stretches[place].firstSequence == nil { stretches[place].firstSequence = header.sequence }
    stretches[place].lastSequence = header.sequence
    do throws(EntryDecoder.Malformed) {
      var decoder = EntryDecoder(group: group)
      while let entry = try decoder.next() { take(entry, group, place) }
    } catch {
      stretches[place].reasons.append(
        "the group with sequence \(header.sequence) makes no sense at byte \(error.offset): \(error.reason)")
    }
  }

  private mutating func take(_ entry: Entry, _ group: UnsafeRawBufferPointer, _ place: Int) {
    switch entry {
    case .topicCreated(let id, let name, let configuration):
      // Its name is free again: the deletion of the topic that had it is lost.
      for (old, topic) in topics where topic.name == name && old != id {
        topics[old] = nil
        deleted.insert(old)
        ends = ends.filter { $0.key.topic != old }
        if stretches[place].isDamaged {
          stretches[place].deletionsBefore[sequence, default: []].append(old)
        } else if let damaged = stretches[..<place].lastIndex(where: \.isDamaged) {
          stretches[damaged].deletions.append(old)
        }
      }
      topics[id] = (name, configuration.partitions)
      // What is missing of its partitions later cannot have been before it.
      for partition in 0..<configuration.partitions { seen[Place(topic: id, partition: partition)] = place }
    case .topicDeleted(let id):
      meet(id, 0, place, sequence)
      topics[id] = nil
      deleted.insert(id)
      ends = ends.filter { $0.key.topic != id }
    case .append(let topic, let partition, let baseOffset, let range):
      guard let header = try? RecordBatchHeader(group.part(range.lowerBound, range.count)) else { return }
      meet(topic, partition, place, sequence)
      let key = Place(topic: topic, partition: partition)
      let expected = ends[key]?.end ?? 0
      // They were in one of the segments since the last that shows some of the partition.
      let suspects = ((seen[key] ?? 0)..<place).filter { stretches[$0].isDamaged }
      if baseOffset > expected, !suspects.isEmpty || stretches[place].header?.cleaned == nil {
        losses.append((key, expected..<baseOffset))
        for earlier in suspects {
          stretches[earlier].nextOffsets[key] = stretches[earlier].nextOffsets[key] ?? baseOffset
        }
      }
      note(key, place, end: header.lastOffset + 1, timestamp: header.maxTimestamp, bytes: UInt64(range.count))
    case .partitionState(let topic, let partition, let state):
      meet(topic, partition, place, sequence)
      note(
        Place(topic: topic, partition: partition), place, end: state.end, timestamp: state.greatestTimestamp, bytes: 0)
    case .trimmed(let topic, let partition, let start):
      meet(topic, partition, place, sequence)
      // The records before it are of no concern any more. Those between it and the end may be lost all the same.
      note(Place(topic: topic, partition: partition), nil, end: start, timestamp: .min, bytes: 0)
    case .offsetCommit(let topic, let partition, _, _): meet(topic, partition, place, sequence)
    case .topicAltered(let id, let name, let configuration):
      meet(id, configuration.partitions - 1, place, sequence)
      if topics[id] == nil { altered[id] = (name, configuration) }
    case .unknown(let kind, _): unknownKind = kind
    case .topicIDs, .groupDeleted: break
    }
  }

  /// - Parameter place: the stretch that shows it; nil: it shows no end.
  private mutating func note(_ key: Place, _ place: Int?, end: Int64, timestamp: Int64, bytes: UInt64) {
    if let place { seen[key] = place }
    var part =
      ends[key]
      ?? IndexFile.Part(
        topic: key.topic, partition: key.partition, end: 0, greatestTimestamp: .min, bytes: 0, run: [])
    part.end = max(part.end, end)
    part.greatestTimestamp = max(part.greatestTimestamp, timestamp)
    part.bytes += bytes
    ends[key] = part
  }

  /// Remembers topics that are used without having been made.
  private mutating func meet(_ topic: TopicID, _ partition: Int32, _ place: Int, _ sequence: UInt64?) {
    if topics[topic] != nil { return }
    unknownTopics[topic, default: UnknownTopic(partitions: 1, stretch: place, sequence: sequence)].partitions =
      max(unknownTopics[topic]?.partitions ?? 1, partition + 1)
  }

  /// Offsets that were given out must not be given out again, even if nothing behind the damage shows them.
  private mutating func learnEnds(from checkpoint: (base: Int64, rebuilder: StateRebuilder)) {
    guard let place = stretches.lastIndex(where: { $0.isDamaged && $0.base < checkpoint.base }) else { return }
    let state = checkpoint.rebuilder.state
    // What was deleted behind the checkpoint is of no concern any more.
    for id in state.ids.values where !deleted.contains(id) {
      for (number, partition) in state.topics[Int(id)]!.partitions.enumerated() {
        let key = Place(topic: id, partition: Int32(number))
        let known = ends[key]?.end ?? 0
        guard partition.bounds.end > known, stretches[place].nextOffsets[key] == nil else { continue }
        if topics[id] == nil { meet(id, Int32(number), place, nil) }
        stretches[place].nextOffsets[key] = partition.bounds.end
        losses.append((key, known..<partition.bounds.end))
      }
    }
  }

  private mutating func nameUnknownTopics(_ rebuilder: StateRebuilder?) {
    if unknownTopics.isEmpty { return }
    var catalogue = altered
    if let rebuilder {
      for (name, id) in rebuilder.state.ids { catalogue[id] = (name, rebuilder.state.topics[Int(id)]!.configuration) }
    }
    var taken = Set(topics.values.map(\.name))
    for (id, use) in unknownTopics.sorted(by: { $0.key < $1.key }) {
      // Lost in the last damaged stretch before its first use, at the latest.
      guard let place = stretches[...use.stretch].lastIndex(where: \.isDamaged) else { continue }
      var (name, configuration) =
        catalogue[id] ?? ("recovered.\(id)", TopicConfiguration(partitions: min(use.partitions, 10_000)))
      if taken.contains(name) { name = "recovered.\(id)" }
      taken.insert(name)
      let topic = LostTopic(id: id, name: name, configuration: configuration)
      if use.stretch == place, let sequence = use.sequence {
        stretches[place].creationsBefore[sequence, default: []].append(topic)
      } else {
        stretches[place].creations.append(topic)
      }
      for earlier in 0..<place {
        stretches[earlier].nextOffsets = stretches[earlier].nextOffsets.filter { $0.key.topic != id }
      }
      report.recoveredTopics.append(name)
      recovered[id] = name
    }
  }

  // MARK: Mending

  private mutating func rewrite(_ place: Int) throws(LogError) {
    let stretch = stretches[place]
    let name = SegmentHeader.fileName(base: stretch.base)
    let draft = name + ".repair.tmp"
    if try storage.list().contains(draft) { try storage.remove(draft) }
    let target = try storage.create(draft)
    defer { target.close() }
    var rewriter = SegmentRewriter(
      into: target, base: stretch.base, identity: identity!, liveness: .everything, compaction: nil)
    let before =
      stretches[..<place].compactMap { ($0.sequences ?? $0.header?.cleaned?.sequences)?.upperBound ?? $0.lastSequence }
      .last ?? 0
    let after = stretches[(place + 1)...].compactMap { $0.header?.cleaned?.sequences.lowerBound ?? $0.firstSequence }
      .first
    let first = stretch.header?.cleaned?.sequences.lowerBound ?? before + 1
    let last =
      stretch.header?.cleaned?.sequences.upperBound ?? lastSequence(of: place, from: first, before: after)
    if last < first {
      // It never had a group, and a rewritten one would claim a sequence.
      try SegmentHeader(
        identity: identity!, base: stretch.base, capacity: stretch.upperBound - stretch.base, created: 0
      ).write(to: target)
      try target.synchronize()
      return try putInPlace(stretch, draft, name)
    }
    stretches[place].sequences = first...last
    if let source = stretch.file {
      let file = try storage.open(source, writable: false)
      defer { file.close() }
      try salvage(try scanner(stretch, file), into: &rewriter, within: first...last, mending: stretch)
    }
    for topic in stretch.creations { rewriter.create(topic) }
    var parts = stretch.ends
    for (key, offset) in stretch.nextOffsets {
      var part =
        parts[key]
        ?? IndexFile.Part(
          topic: key.topic, partition: key.partition, end: 0, greatestTimestamp: .min, bytes: 0, run: [])
      part.end = max(part.end, offset)
      parts[key] = part
      rewriter.state(topic: key.topic, partition: key.partition)
    }
    for id in stretch.deletions { rewriter.delete(id) }
    _ = try rewriter.finish(
      base: stretch.base, capacity: stretch.upperBound - stretch.base, generation: 1,
      parts: parts.values.sorted { $0.key < $1.key }, sequences: first...last, compacted: false, now: 0)
    try putInPlace(stretch, draft, name)
  }

  /// The last sequence that a damaged segment stands for: up to the next group that is there, but for what must be left to a segment between
  /// of which nothing is, and which has to tell what was lost in it, too.
  private func lastSequence(of place: Int, from first: UInt64, before after: UInt64?) -> UInt64 {
    let own = stretches[place].lastSequence
    guard let after else { return own ?? first }
    if place + 1 < stretches.count {
      let next = stretches[place + 1]
      if next.isDamaged, next.firstSequence == nil, next.header?.cleaned == nil {
        return min(max(own ?? first, first), after - 1)
      }
    }
    return after - 1
  }

  private func putInPlace(_ stretch: Stretch, _ draft: String, _ name: String) throws(LogError) {
    if stretch.file == name {
      if try storage.list().contains(name + Self.damagedSuffix) { try storage.remove(name + Self.damagedSuffix) }
      try storage.rename(name, to: name + Self.damagedSuffix)
    }
    try storage.rename(draft, to: name)
    try storage.synchronizeDirectory()
  }

  private func salvage(
    _ scanner: SegmentScanner, into rewriter: inout SegmentRewriter, within sequences: ClosedRange<UInt64>,
    mending stretch: Stretch
  ) throws(LogError) {
    var sequence: UInt64 = sequences.lowerBound - 1
    while true {
      let at = scanner.offset
      switch try scanner.next() {
      case .group(let header, let bytes, _):
        guard header.sequence > sequence, sequences.contains(header.sequence) else { continue }
        sequence = header.sequence
        // A group that makes no sense in spite of its CRC is given up as a whole.
        if Self.isSound(bytes) {
          do throws(WireError) {
            try rewriter.add(
              header, bytes, deleting: stretch.deletionsBefore[sequence] ?? [],
              creating: stretch.creationsBefore[sequence] ?? [])
          } catch {
            throw LogError(.failed, "\(scanner.file.path): byte \(at): \(error.message)")
          }
          try rewriter.flushIfLarge()
        }
      case .end: return
      case .bad:
        guard let next = try scanner.findGroup(knowing: 0, from: at + 1) else { return }
        try scanner.seek(to: next)
      }
    }
  }

  private static func isSound(_ group: UnsafeRawBufferPointer) -> Bool {
    var decoder = EntryDecoder(group: group)
    while true {
      do throws(EntryDecoder.Malformed) {
        guard let entry = try decoder.next() else { return true }
        if case .append(_, _, _, let range) = entry,
          (try? RecordBatchHeader(group.part(range.lowerBound, range.count))) == nil
        {
          return false
        }
        if case .unknown = entry { return false }
      } catch {
        return false
      }
    }
  }
}
