import GrapeCore
import Testing

@testable import GrapeNode

@Suite("What is known of the nodes of a cluster")
struct NodeTableTests {
  private let second: Int64 = 1_000_000_000

  private func description(_ partitions: [Int]) -> JSONValue {
    [
      "version": "1",
      "apps": [
        ["name": "shop", "partitions": .array(partitions.map { ["partition": JSONValue($0), "lag": 0] })]
      ],
    ]
  }

  @Test("a node is up while it speaks, silent when it stops to, and gone when it says so")
  func conditions() throws {
    var table = NodeTable(now: 0)
    table.heard("n1", description([0]), now: second, time: 0, isOld: false)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 2 * second) == .up)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 12 * second) == .silent)
    table.heard("n1", ["left": true], now: 13 * second, time: 0, isOld: false)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 13 * second) == .left)
  }

  @Test("a node that was only read of in the log counts as up until it could have spoken")
  func old() throws {
    var table = NodeTable(now: 0)
    table.heard("n1", description([0]), now: second, time: 0, isOld: true)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 9 * second) == .up)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 11 * second) == .silent)
  }

  @Test("the owner of a partition is a node that is up")
  func owner() {
    var table = NodeTable(now: 0)
    table.heard("n1", description([0, 1]), now: 0, time: 0, isOld: false)
    table.heard("n2", description([2]), now: 0, time: 0, isOld: false)
    #expect(table.owner(of: 2, app: "shop", otherThan: "n1", now: second) == "n2")
    #expect(table.owner(of: 2, app: "shop", otherThan: "n2", now: second) == nil)
    #expect(table.owner(of: 2, app: "other", otherThan: "n1", now: second) == nil)
    #expect(table.owner(of: 2, app: "shop", otherThan: "n1", now: 20 * second) == nil)
  }

  @Test("of too many nodes those heard of longest ago are forgotten")
  func bounded() {
    var table = NodeTable(now: 0)
    for number in 0...NodeTable.limit { table.heard("n\(number)", [:], now: Int64(number), time: 0, isOld: false) }
    #expect(table.entries.count == NodeTable.limit)
    #expect(table.entries["n0"] == nil && table.entries["n1"] != nil)
  }

  @Test("what a node says of itself cannot take another's place")
  func names() throws {
    var table = NodeTable(now: 0)
    table.heard("n1", ["node": "n2", "version": "7"], now: 0, time: 0, isOld: false)
    let entry = try #require(table.json(now: 0).array?.first)
    #expect(entry["node"]?.string == "n1" && entry["version"]?.string == "7" && entry["condition"]?.string == "up")
  }

  @Test("clocks are apart by what the quickest word of late says")
  func clocks() {
    var table = NodeTable(now: 0)
    // Its clock is ahead by 5,000; its words are under way for longer or shorter.
    for (number, delay) in [900, 40, 700, 2_000].enumerated() {
      let now = Int64(number)
      table.heard("n2", ["timeMs": .int(now + 5_000)], now: now, time: now + Int64(delay), isOld: false)
    }
    table.heard("n3", ["timeMs": 0], now: 0, time: 1_000_000, isOld: true)
    table.heard("n4", ["timeMs": .int(.min)], now: 0, time: 1, isOld: false)
    table.heard("n1", ["timeMs": 0], now: 0, time: 0, isOld: false)
    #expect(table.clocks(otherThan: "n1", now: second).map(\.node) == ["n2"])
    #expect(table.clocks(otherThan: "n1", now: second).map(\.ahead) == [4_960])
    // The clock is set: after a few words that is known.
    for number in 0..<5 { table.heard("n2", ["timeMs": 0], now: Int64(number), time: 30, isOld: false) }
    #expect(table.clocks(otherThan: "n1", now: second).map(\.ahead) == [-30])
    #expect(table.clocks(otherThan: "n1", now: 60 * second).isEmpty)
  }
}
