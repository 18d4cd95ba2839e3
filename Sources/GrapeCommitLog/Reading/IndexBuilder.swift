import GrapeLog
import GrapeWire

/// Makes a segment's index from the segment itself.
struct IndexBuilder {
  fileprivate struct Partition {
    var end: Int64 = 0
    var greatestTimestamp: Int64 = .min
    var bytes: UInt64 = 0
    var run: [PartitionIndex.Location] = []
  }

  private struct Key: Hashable {
    var topic: TopicID
    var partition: Int32
  }

  private var partitions: [Key: Partition] = [:]

  /// What the partitions had come to before the segment.
  init(after parts: [IndexFile.Part]) {
    for part in parts {
      partitions[Key(topic: part.topic, partition: part.partition)] = Partition(
        end: part.end, greatestTimestamp: part.greatestTimestamp, bytes: part.bytes)
    }
  }

  /// Reads a whole segment. Errors: `corrupt` where it does not check out; `failed`.
  static func parts(
    of segment: Segment, _ file: any SegmentFile, after parts: [IndexFile.Part]
  ) throws(LogError) -> [IndexFile.Part] {
    var builder = IndexBuilder(after: parts)
    let scanner = try SegmentScanner(file: file, base: segment.base)
    var sequence: UInt64?
    while true {
      switch try scanner.next() {
      case .group(let group, let bytes, let offset):
        sequence = group.sequence
        do throws(EntryDecoder.Malformed) {
          var decoder = EntryDecoder(group: bytes)
          while let entry = try decoder.next() { builder.add(entry, position: group.position, bytes) }
        } catch {
          throw LogError(
            .corrupt,
            "\(file.path): the group at byte \(offset) makes no sense at byte \(error.offset): \(error.reason)")
        }
      case .end:
        // A segment that ends early would pass for one that held no more.
        if segment.header.cleaned == nil, let sequence, sequence != segment.lastSequence {
          throw LogError(
            .corrupt,
            "\(file.path): ends with sequence \(sequence) where \(segment.lastSequence) was the last; run grape log verify"
          )
        }
        return builder.parts()
      case .bad(let reason):
        throw LogError(.corrupt, "\(file.path): damaged at byte \(scanner.offset) (\(reason)); run grape log verify")
      }
    }
  }

  /// Adds what an entry of the group at `position` did.
  mutating func add(_ entry: Entry, position: Int64, _ group: UnsafeRawBufferPointer) {
    switch entry {
    case .append(let topic, let partition, let baseOffset, let range):
      guard let header = try? RecordBatchHeader(group.part(range.lowerBound, range.count)) else { return }
      partitions[Key(topic: topic, partition: partition), default: Partition()].append(
        PartitionIndex.Location(
          baseOffset: baseOffset, position: position + Int64(range.lowerBound), length: range.count,
          maxTimestamp: header.maxTimestamp), end: header.lastOffset + 1)
    case .topicCreated(let id, _, let configuration):
      for partition in 0..<max(configuration.partitions, 0) {
        partitions[Key(topic: id, partition: partition), default: Partition()].end += 0
      }
    case .topicDeleted(let id):
      partitions = partitions.filter { $0.key.topic != id }
    case .partitionState(let topic, let partition, let state):
      partitions[Key(topic: topic, partition: partition), default: Partition()].raise(to: state)
    case .trimmed(let topic, let partition, let start):
      partitions[Key(topic: topic, partition: partition), default: Partition()].raise(to: PartitionState(end: start))
    case .offsetCommit, .topicAltered, .topicIDs, .groupDeleted, .unknown: break
    }
  }

  /// In order of topic and partition.
  func parts() -> [IndexFile.Part] {
    partitions.map { key, value in
      IndexFile.Part(
        topic: key.topic, partition: key.partition, end: value.end, greatestTimestamp: value.greatestTimestamp,
        bytes: value.bytes, run: value.run)
    }.sorted { $0.key < $1.key }
  }
}

extension IndexBuilder.Partition {
  fileprivate mutating func append(_ location: PartitionIndex.Location, end: Int64) {
    run.append(location)
    self.end = max(self.end, end)
    greatestTimestamp = max(greatestTimestamp, location.maxTimestamp)
    bytes += UInt64(location.length)
  }

  fileprivate mutating func raise(to state: PartitionState) {
    end = max(end, state.end)
    greatestTimestamp = max(greatestTimestamp, state.greatestTimestamp)
    bytes = max(bytes, state.bytes)
  }
}
