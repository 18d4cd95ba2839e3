import ArgumentParser
import Grape
import GrapeCore

/// `grape cluster`
struct ClusterCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "cluster",
    abstract: "The nodes that share the log: which are up, and who works on which partitions.",
    discussion: """
      Every node tells the others every two seconds how it is. One that has said nothing for ten seconds is shown as
      silent; what it last said of itself is shown no more. On the embedded log there is one node.

      EXAMPLES
        grape cluster
        grape cluster --json
      """)
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    show(try node.ask("cluster")) { ClusterReport($0).lines }
  }
}

/// The answer of `cluster` as lines for a terminal.
struct ClusterReport {
  private let nodes: [JSONValue]
  private let own: String

  init(_ answer: JSONValue) {
    nodes = answer["nodes"]?.array ?? []
    own = answer["node"]?.string ?? ""
  }

  var lines: [String] {
    var lines = nodeLines
    let apps = appLines
    if !apps.isEmpty { lines += [""] + apps }
    return lines + problems
  }

  private func isUp(_ node: JSONValue) -> Bool { node["condition"]?.string == "up" }

  private var nodeLines: [String] {
    var table = Table([
      ("NODE", .left), ("STATE", .left), ("VERSION", .left), ("UP", .right), ("HEARD", .right), ("PARTITIONS", .right),
      ("LAG", .right), ("WORKERS", .right),
    ])
    for node in nodes {
      let apps = isUp(node) ? node["apps"]?.array ?? [] : []
      let name = node["node"]?.string ?? ""
      table.add([
        name == own ? "\(name) (this)" : name, node["condition"]?.string ?? "", node["version"]?.string ?? "",
        isUp(node) ? Format.milliseconds(node["uptimeMs"]?.double ?? 0) : "",
        node["heardMsAgo"]?.int.map { "\(Format.milliseconds(Double($0))) ago" } ?? "",
        "\(apps.reduce(0) { $0 + ($1["partitions"]?.array?.count ?? 0) })",
        Format.count(apps.reduce(Int64(0)) { $0 + ($1["lag"]?.int ?? 0) }),
        "\(apps.reduce(Int64(0)) { $0 + ($1["workers"]?.int ?? 0) })",
      ])
    }
    return table.lines
  }

  private var appLines: [String] {
    var table = Table([
      ("APPLICATION", .left), ("NODE", .left), ("VERSION", .left), ("STATE", .left), ("PARTITIONS", .left),
      ("LAG", .right),
    ])
    var rows: [(String, [String])] = []
    var assigned: [String: Set<Int64>] = [:]
    var counts: [String: Int64] = [:]
    for node in nodes where isUp(node) {
      for app in node["apps"]?.array ?? [] {
        let name = app["name"]?.string ?? ""
        let numbers = (app["partitions"]?.array ?? []).compactMap { $0["partition"]?.int }
        assigned[name, default: []].formUnion(numbers)
        counts[name] = app["of"]?.int
        rows.append(
          (
            name,
            [
              name, node["node"]?.string ?? "", String((app["version"]?.string ?? "").prefix(12)),
              app["state"]?.string ?? "", Self.ranges(numbers), Format.count(app["lag"]?.int ?? 0),
            ]
          ))
      }
    }
    if rows.isEmpty { return [] }
    for (name, count) in counts {
      let missing = (0..<count).filter { !assigned[name, default: []].contains($0) }
      if !missing.isEmpty { rows.append((name, [name, "nobody", "", "", Self.ranges(missing), ""])) }
    }
    for (_, row) in rows.sorted(by: { ($0.0, $0.1[1]) < ($1.0, $1.1[1]) }) { table.add(row) }
    return table.lines
  }

  private var problems: [String] {
    nodes.filter(isUp).flatMap { node -> [String] in
      let name = node["node"]?.string ?? ""
      let own = node["problem"]?.string.map { ["\(name): \($0)"] } ?? []
      return own + clockProblem(node)
        + (node["apps"]?.array ?? []).compactMap { app in
          app["problem"]?.string.map { "\(name), \(app["name"]?.string ?? ""): \($0)" }
        }
    }
  }

  private func clockProblem(_ node: JSONValue) -> [String] {
    guard let ahead = node["clockAheadMs"]?.int, abs(ahead) >= 1_000 else { return [] }
    let apart = Format.milliseconds(Double(abs(ahead)))
    return [
      "\(node["node"]?.string ?? ""): its clock is \(apart) \(ahead < 0 ? "behind" : "ahead of") this node's: set the clocks (NTP)"
    ]
  }

  /// Numbers as ranges: 0-3, 7.
  static func ranges(_ numbers: [Int64]) -> String {
    var parts: [String] = []
    var start: Int64?
    let sorted = numbers.sorted()
    for (place, number) in sorted.enumerated() {
      let first = start ?? number
      start = first
      if place + 1 < sorted.count, sorted[place + 1] == number + 1 { continue }
      parts.append(first == number ? "\(number)" : "\(first)-\(number)")
      start = nil
    }
    return parts.joined(separator: ", ")
  }
}
