@testable import GrapeCommitLog
import Testing

@Suite("The index of a partition") struct PartitionIndexTests {
  @Test("a search by time finds later batches though dropped ones had greater timestamps")
  func droppedTimestamps() {
    var index = PartitionIndex()
    for (place, timestamp) in [900, 100, 500].enumerated() {
      index.append(
        .init(baseOffset: Int64(place), position: Int64(place) * 100, length: 61, maxTimestamp: Int64(timestamp)),
        segment: Int64(place) * 100)
    }
    index.drop(before: 100)
    #expect(index.firstLocation(at: 300)?.baseOffset == 2)
    #expect(index.firstLocation(at: 50)?.baseOffset == 1)
    #expect(index.firstLocation(at: 600) == nil)
  }

  @Test("finds by offset and by time what a plain list finds, however the batches lie")
  func againstList() {
    for seed in UInt64(0)..<30 {
      var random = SplitMix(state: seed)
      var index = PartitionIndex()
      var list: [PartitionIndex.Location] = []
      var offset: Int64 = 0
      var position: Int64 = 4_096
      for _ in 0..<Int(random.next() % 12_000 + 1) {
        let timestamp: Int64 =
          switch random.next() % (seed % 3 == 0 ? 10 : 2_000) {
          case 0: Int64(bitPattern: random.next())
          case 1: .max
          default: 1_700_000_000_000 + offset
          }
        let location = PartitionIndex.Location(
          baseOffset: offset, position: position, length: Int(random.next() % 1_000 + 61), maxTimestamp: timestamp)
        index.append(location, segment: position >> 22)
        list.append(location)
        offset += Int64(random.next() % 100 + 1)
        position += Int64(location.length) + (random.next() % 500 == 0 ? Int64(random.next() % (1 << 34)) : 0)
      }
      #expect(index.count == list.count)
      for _ in 0..<200 {
        let wanted = Int64(random.next() % UInt64(offset))
        let expected = list.lastIndex { $0.baseOffset <= wanted }!
        var place = index.place(of: wanted)!
        for location in list[expected...].prefix(5) {
          #expect(index.next(&place) == location, "seed \(seed), offset \(wanted)")
        }
      }
      for timestamp in [.min, 0, 1_700_000_000_000 + offset / 2, 1_700_000_000_000 + offset, .max] as [Int64] {
        #expect(
          index.firstLocation(at: timestamp) == list.first { $0.maxTimestamp >= timestamp },
          "seed \(seed), \(timestamp)")
      }
      var place = index.place(of: 0)!
      var count = 0
      while let location = index.next(&place) {
        #expect(location == list[count])
        count += 1
      }
      #expect(count == list.count, "seed \(seed)")

      // What index files know is forgotten; the rest is found as before.
      let segment = list[Int(random.next() % UInt64(list.count))].position >> 22
      index.drop(before: segment)
      let kept = list.filter { $0.position >> 22 >= segment }
      let dropped = list.filter { $0.position >> 22 < segment }
      #expect(index.count == kept.count && index.firstOffset == kept.first?.baseOffset, "seed \(seed)")
      #expect(index.droppedTimestamp == dropped.map(\.maxTimestamp).max() ?? .min)
      #expect(index.greatestTimestamp == list.map(\.maxTimestamp).max()!)
      let pages = index.pages(of: segment).flatMap { page in (0..<page.count).map(page.location) }
      #expect(pages == kept.filter { $0.position >> 22 == segment }, "seed \(seed)")
    }
  }

  @Test("an empty index has nothing, and an offset before the first batch leads to that")
  func empty() {
    var index = PartitionIndex()
    #expect(index.place(of: 0) == nil)
    #expect(index.firstLocation(at: .min) == nil)
    index.append(.init(baseOffset: 5, position: 0, length: 61, maxTimestamp: 1), segment: 0)
    for offset in [4, 5, 6] as [Int64] {
      var place = index.place(of: offset)!
      #expect(index.next(&place)?.baseOffset == 5)
    }
  }
}

@Suite("Durations counted in buckets") struct DurationHistogramTests {
  @Test("percentiles are within an eighth of the truth")
  func percentiles() {
    var random = SplitMix(state: 1)
    var histogram = DurationHistogram()
    var values: [Int64] = []
    for _ in 0..<10_000 {
      let value = Int64(random.next() >> (20 + random.next() % 40))
      values.append(value)
      histogram.add(nanoseconds: value)
    }
    values.sort()
    for share in [0.01, 0.5, 0.9, 0.99, 1] {
      let exact = values[max(Int((10_000 * share).rounded(.up)) - 1, 0)]
      let found = histogram.percentile(share)
      #expect(found >= exact && Double(found) <= Double(exact) * 1.126 + 1, "\(share): \(found) for \(exact)")
    }
    #expect(DurationHistogram().percentile(0.5) == 0)
  }
}
