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
    table.heard("n1", description([0]), now: second, isOld: false)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 2 * second) == .up)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 12 * second) == .silent)
    table.heard("n1", ["left": true], now: 13 * second, isOld: false)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 13 * second) == .left)
  }

  @Test("a node that was only read of in the log counts as up until it could have spoken")
  func old() throws {
    var table = NodeTable(now: 0)
    table.heard("n1", description([0]), now: second, isOld: true)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 9 * second) == .up)
    #expect(table.condition(of: try #require(table.entries["n1"]), now: 11 * second) == .silent)
  }

  @Test("the owner of a partition is a node that is up")
  func owner() {
    var table = NodeTable(now: 0)
    table.heard("n1", description([0, 1]), now: 0, isOld: false)
    table.heard("n2", description([2]), now: 0, isOld: false)
    #expect(table.owner(of: 2, app: "shop", otherThan: "n1", now: second) == "n2")
    #expect(table.owner(of: 2, app: "shop", otherThan: "n2", now: second) == nil)
    #expect(table.owner(of: 2, app: "other", otherThan: "n1", now: second) == nil)
    #expect(table.owner(of: 2, app: "shop", otherThan: "n1", now: 20 * second) == nil)
  }

  @Test("of too many nodes those heard of longest ago are forgotten")
  func bounded() {
    var table = NodeTable(now: 0)
    for number in 0...NodeTable.limit { table.heard("n\(number)", [:], now: Int64(number), isOld: false) }
    #expect(table.entries.count == NodeTable.limit)
    #expect(table.entries["n0"] == nil && table.entries["n1"] != nil)
  }

  @Test("what a node says of itself cannot take another's place")
  func names() throws {
    var table = NodeTable(now: 0)
    table.heard("n1", ["node": "n2", "version": "7"], now: 0, isOld: false)
    let entry = try #require(table.json(now: 0).array?.first)
    #expect(entry["node"]?.string == "n1" && entry["version"]?.string == "7" && entry["condition"]?.string == "up")
  }
}
