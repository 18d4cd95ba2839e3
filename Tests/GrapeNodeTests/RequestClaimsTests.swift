import GrapeCore
import GrapeWire
import Testing

@testable import GrapeNode

/// Requests of one name that come to several nodes, which see each other's records late, die and come back: one event at most, and one in the end.
@Suite("Claims to an idempotency key") struct RequestClaimsTests {
  private static let window = Profile.Idempotency(window: .seconds(86400), keys: 100_000)
  private static let lease: Int64 = 100
  private static let appendTime: Int64 = 30
  /// Longest time that a commit takes, or until it is certain that it will never be made.
  private static let commitTime: Int64 = 60

  private struct LogRecord {
    var name: UInt64
    var marker: RequestMarker
  }

  /// Does with the index what `RequestTable` does.
  private struct Node {
    var index = RequestIndex()
    var read = 0
    var loadedTo = 0
    /// When this node's claims were begun.
    var claims: [CorrelationID: Int64] = [:]
    /// What differs between the clocks of machines.
    var clockOffset: Int64

    mutating func restart(_ end: Int) {
      index = RequestIndex()
      read = 0
      loadedTo = end
      claims = [:]
    }
  }

  private struct World {
    var log: [LogRecord] = []
    var nodes: [Node]
    /// Commits under way, and when they must be made.
    var sent: [(record: LogRecord, by: Int64)] = []
    var now: Int64 = 0
    var nextID: UInt64 = 1

    /// Claims that were not read back in time are given up; they may be in the log, or come there, all the same.
    private mutating func giveUp(_ place: Int, _ clock: Int64) {
      for (id, since) in nodes[place].claims where clock - since >= appendTime {
        nodes[place].claims[id] = nil
        nodes[place].index.remove(id)
      }
    }

    mutating func request(_ name: UInt64, at place: Int) {
      let clock = now + nodes[place].clockOffset
      giveUp(place, clock)
      if nodes[place].read < nodes[place].loadedTo { return }
      let key = RequestClaimsTests.name(name)
      if let entry = nodes[place].index.find(key, now: 0, window: window), !entry.isForfeited(clock) { return }
      let marker = RequestMarker(
        id: CorrelationID(high: nextID, low: 0), isBlocking: false, fingerprint: name, partition: 0, offsetBound: 0)
      nextID += 1
      nodes[place].index.insert(key, .init(marker, time: 0, claim: .sent), now: 0, window: window)
      nodes[place].claims[marker.id] = clock
      sent.append((LogRecord(name: name, marker: marker.with(.claim)), now + commitTime))
    }

    /// Reads the next record.
    mutating func step(_ place: Int) {
      guard nodes[place].read < log.count else { return }
      let clock = now + nodes[place].clockOffset
      giveUp(place, clock)
      let record = log[nodes[place].read]
      let isLoading = nodes[place].read < nodes[place].loadedTo
      nodes[place].read += 1
      let key = RequestClaimsTests.name(record.name)
      switch record.marker.kind {
      case .claim:
        let entry = RequestIndex.Entry(
          record.marker.with(.placed), time: 0, claim: .held(until: clock + RequestClaimsTests.lease))
        let reading = nodes[place].index.readClaim(key, entry, clock: clock, now: 0, window: window)
        guard reading == .won, nodes[place].claims.removeValue(forKey: record.marker.id) != nil else { return }
        sent.append((LogRecord(name: record.name, marker: record.marker.with(.placed)), now + commitTime))
      case .placed:
        _ = nodes[place].index.readMarker(
          key, .init(record.marker, time: 0), isLoading: isLoading, now: 0, window: window)
      case .release: break
      }
    }

    mutating func commit(_ place: Int) { log.append(sent.remove(at: place).record) }
  }

  private static func name(_ number: UInt64) -> ByteSlice { ByteSlice("pay\0key-\(number)") }

  @Test("one event comes of it at most, and one in the end", arguments: (0..<20).map { UInt64($0) })
  func manyNodes(block: UInt64) {
    for seed in block * 500..<(block + 1) * 500 { run(seed: seed) }
  }

  private func run(seed: UInt64) {
    var random = SplitMix(state: seed)
    var world = World(nodes: (0..<3).map { _ in Node(clockOffset: Int64.random(in: 0...1_000, using: &random)) })
    let names: UInt64 = 2
    for _ in 0..<400 {
      let place = Int.random(in: 0..<3, using: &random)
      switch Int.random(in: 0..<20, using: &random) {
      case 0..<4: world.request(UInt64.random(in: 0..<names, using: &random), at: place)
      case 4..<11: world.step(place)
      case 11..<14:
        if let commit = world.sent.indices.randomElement(using: &random) { world.commit(commit) }
      case 14..<17: world.now += Int64.random(in: 0...25, using: &random)
      case 17:
        if Int.random(in: 0..<10, using: &random) == 0 { world.nodes[place].restart(world.log.count) }
      default:
        // It comes to nothing.
        if let commit = world.sent.indices.randomElement(using: &random) { world.sent.remove(at: commit) }
      }
      // No commit takes longer than it may.
      while let late = world.sent.firstIndex(where: { $0.by <= world.now }) { world.sent.remove(at: late) }
    }
    for name in 0..<names { #expect(events(world, name) <= 1, "seed \(seed), name \(name)") }
    // From now on nothing fails: a repeat that finds nobody at work on the request is a first itself.
    for _ in 0..<3 {
      world.now += Self.lease + Self.commitTime
      world.sent = []
      for place in 0..<3 { while world.nodes[place].read < world.log.count { world.step(place) } }
      world.now += Self.lease + 1
      for name in 0..<names { for place in 0..<3 { world.request(name, at: place) } }
      while !world.sent.isEmpty {
        world.commit(0)
        for place in 0..<3 { while world.nodes[place].read < world.log.count { world.step(place) } }
      }
    }
    for name in 0..<names { #expect(events(world, name) == 1, "seed \(seed), name \(name)") }
  }

  private func events(_ world: World, _ name: UInt64) -> Int {
    world.log.count { $0.name == name && $0.marker.kind == .placed }
  }
}
