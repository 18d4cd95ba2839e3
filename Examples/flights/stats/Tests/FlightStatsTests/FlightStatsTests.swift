import Testing

@testable import FlightStats

@Suite struct FlightStatsTests {
  @Test func `mean and median are those of the known delays`() {
    var counts = DelayCounts()
    for delay in [5, -3, nil, 5, 100, nil, -20] { counts.add(delay) }
    #expect(counts.flights == 7)
    #expect(counts.missing == 2)
    #expect(counts.sum == 87)
    #expect(counts.mean == 87.0 / 5)
    #expect(counts.median == 5)
  }

  @Test func `an even number of delays has the mean of the two middle ones as median`() {
    var counts = DelayCounts()
    for delay in [4, 1, -2, 3] { counts.add(delay) }
    #expect(counts.median == 2)
    counts.add(-2)
    counts.add(-2)
    #expect(counts.median == -0.5)
  }

  @Test func `the median is what sorting gives`() {
    let seed = UInt64.random(in: 1 ... .max)
    var random = SplitMix(state: seed)
    for _ in 0..<200 {
      let delays = (0..<Int.random(in: 1...60, using: &random)).map { _ in Int.random(in: -9...9, using: &random) }
      var counts = DelayCounts()
      for delay in delays { counts.add(delay) }
      let sorted = delays.sorted()
      let expected = Double(sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
      #expect(counts.median == expected, "seed \(seed), delays \(delays)")
    }
  }

  @Test func `a group without known delays has neither mean nor median and no rank`() {
    var board = Board()
    board.carriers["AA", default: DelayCounts()].add(nil)
    board.carriers["UA", default: DelayCounts()].add(3)
    #expect(board.totals().carriers["AA"] == Figures(DelayCounts(flights: 1, missing: 1)))
    #expect(board.ranking(Question()).places.map(\.group) == ["UA"])
  }

  @Test func `a ranking puts the smallest delay first and equal ones in order of name`() {
    var board = Board()
    for (carrier, delay) in [("UA", 10), ("B6", -1), ("AA", 10), ("DL", 0)] {
      board.carriers[carrier, default: DelayCounts()].add(delay)
    }
    #expect(board.ranking(Question(by: .mean)).places.map(\.group) == ["B6", "DL", "AA", "UA"])
    #expect(board.ranking(Question(top: 2)).places.map(\.rank) == [1, 2])
  }

  @Test func `the table is aligned and keeps the sign of small delays`() {
    var board = Board()
    for delay in [0, -1] { board.routes["EWR-IAH", default: DelayCounts()].add(delay) }
    #expect(
      board.ranking(Question(of: .route)).table == """
        Arrival delay by route, minutes, in order of the median
        rank  route    flights  missing  median  mean
           1  EWR-IAH        2        0    -0.5  -0.5

        """)
  }
}

extension DelayCounts {
  fileprivate init(flights: Int, missing: Int) {
    self.init()
    for number in 0..<flights { add(number < missing ? nil : 0) }
  }
}

/// A small generator with a seed that can be printed (splitmix64, Steele, Lea and Flood 2014).
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
