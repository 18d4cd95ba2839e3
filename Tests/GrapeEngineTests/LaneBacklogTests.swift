import Testing

@testable import GrapeEngine

@Suite struct LaneBacklogTests {
  private func figures(_ backlog: LaneBacklog, slots: Int = 2) -> (counts: [Int], oldest: [Int64?]) {
    var counts = [Int](repeating: 0, count: slots)
    var oldest = [Int64?](repeating: nil, count: slots)
    backlog.report(counts: &counts, oldest: &oldest)
    return (counts, oldest)
  }

  @Test func countsAndAgesAreKeptBySlot() {
    var backlog = LaneBacklog(first: 0, end: 0, slots: 2)
    backlog.appended([3, 0], timestamp: 100)
    backlog.appended([0, 2], timestamp: 200)
    #expect(figures(backlog).counts == [3, 2])
    #expect(figures(backlog).oldest == [100, 200])
    backlog.advance(to: 3, handled: [3, 0]) { _ in nil }
    #expect(figures(backlog).counts == [0, 2])
    #expect(figures(backlog).oldest == [nil, 200])
    backlog.advance(to: 5, handled: [0, 2]) { _ in nil }
    #expect(backlog.count == 0)
    #expect(figures(backlog).oldest == [nil, nil])
  }

  @Test func partOfABatchIsTakenByWhatRanOrElseByLooking() {
    var backlog = LaneBacklog(first: 0, end: 0, slots: 2)
    backlog.appended([4, 4], timestamp: 1)
    backlog.advance(to: 3, handled: [1, 2]) { _ in
      Issue.record("what ran adds up")
      return nil
    }
    #expect(figures(backlog).counts == [3, 2])
    // One event ran that is to run again: 2 tallied, 1 passed.
    backlog.advance(to: 4, handled: [2, 0]) { range in
      #expect(range == 3..<4)
      return [0, 1]
    }
    #expect(figures(backlog).counts == [3, 1])
  }

  @Test func whatWaitedAtTheStartIsCountedBesideWhatComesAndGoes() {
    var backlog = LaneBacklog(first: 10, end: 30, slots: 2)
    #expect(backlog.count == 20)
    #expect(backlog.isCounting)
    backlog.appended([5, 0], timestamp: 500)
    backlog.counted([0, 10], upTo: 20, timestamp: 50)
    #expect(figures(backlog).counts == [5, 10])
    #expect(figures(backlog).oldest == [500, 50])
    // Delivered faster than counted.
    backlog.advance(to: 25, handled: [10, 5]) { _ in nil }
    #expect(figures(backlog).counts == [5, 0])
    backlog.counted([5, 0], upTo: 30, timestamp: 60)
    #expect(!backlog.isCounting)
    #expect(figures(backlog).counts == [10, 0])
    #expect(figures(backlog).oldest == [60, nil])
    #expect(backlog.count == 10)
  }

  @Test func whatTheLogRefusedDoesNotWait() {
    var backlog = LaneBacklog(first: 0, end: 0, slots: 2)
    backlog.appended([3, 1], timestamp: 100)
    backlog.appended([1, 1], timestamp: 200)
    backlog.withdrawn([3, 1])
    #expect(backlog.count == 2)
    #expect(figures(backlog).counts == [1, 1])
    backlog.advance(to: 2, handled: [1, 1]) { _ in nil }
    #expect(backlog.count == 0)
    #expect(figures(backlog).counts == [0, 0])
  }

  @Test func anotherVersionsSlotsTakeOverTheCountsOfTheirNames() {
    var backlog = LaneBacklog(first: 0, end: 0, slots: 2)
    backlog.appended([3, 4], timestamp: 100)
    backlog.rearrange([2, nil], count: 3)
    #expect(figures(backlog, slots: 3).counts == [0, 0, 3])
    backlog.appended([1, 0, 0], timestamp: 101)
    #expect(figures(backlog, slots: 3).counts == [1, 0, 3])
  }

  @Test func timestampsOfAnyValueAreTaken() {
    var backlog = LaneBacklog(first: 0, end: 0, slots: 1)
    for number in 0..<2000 {
      backlog.appended([1], timestamp: number % 2 == 0 ? .max : .min)
    }
    #expect(figures(backlog, slots: 1).counts == [2000])
    backlog.advance(to: 2000, handled: [2000]) { _ in nil }
    #expect(backlog.count == 0)
  }

  /// Random appends and progress against a list of all events.
  @Test(arguments: 0..<20) func countsAreExactAndAgesAlmostHoweverLongTheBacklog(round: Int) {
    let seed = UInt64.random(in: .min ... .max)
    var generator = SeededGenerator(seed: seed)
    let slots = Int.random(in: 1...4, using: &generator)
    var events: [(slot: Int, time: Int64)] = []
    var first = 0
    var now: Int64 = 1_000_000
    var backlog = LaneBacklog(first: 0, end: 0, slots: slots)
    for _ in 0..<3000 {
      now += Int64.random(in: 0...20, using: &generator)
      if Int.random(in: 0...9, using: &generator) < 7 {
        var counts = [Int](repeating: 0, count: slots)
        for _ in 0..<Int.random(in: 1...5, using: &generator) {
          let slot = Int.random(in: 0..<slots, using: &generator)
          events.append((slot, now))
          counts[slot] += 1
        }
        backlog.appended(counts, timestamp: now)
      } else if first < events.count {
        let next = Int.random(in: first...min(events.count, first + 30), using: &generator)
        var handled = [Int](repeating: 0, count: slots)
        for event in events[first..<next] { handled[event.slot] += 1 }
        // Sometimes an event was tallied that is not done.
        if Bool.random(using: &generator) { handled[0] += 1 }
        backlog.advance(to: Int64(next), handled: handled) { range in
          var counts = [Int](repeating: 0, count: slots)
          for event in events[Int(range.lowerBound)..<Int(range.upperBound)] { counts[event.slot] += 1 }
          return counts
        }
        first = next
      }
      let (counts, oldest) = figures(backlog, slots: slots)
      let left = events[first...]
      let span = (left.last?.time ?? 0) - (left.first?.time ?? 0)
      for slot in 0..<slots {
        let expected = left.filter { $0.slot == slot }
        guard counts[slot] == expected.count else {
          Issue.record("slot \(slot): \(counts[slot]) counted, \(expected.count) wait; seed \(seed)")
          return
        }
        guard let time = expected.first?.time else { continue }
        guard let reported = oldest[slot], reported <= time, time - reported <= max(20, span / 30) else {
          Issue.record("slot \(slot): oldest \(oldest[slot] ?? -1), really \(time), span \(span); seed \(seed)")
          return
        }
      }
    }
  }
}
