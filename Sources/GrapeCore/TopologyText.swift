extension TopologyGraph {
  /// A drawing for terminals: the applications, then trees of slots, each beginning where events come in, then the
  /// loops.
  ///
  /// A slot's branches are drawn where it comes first; later it is marked `(above)`, or `(loop)` if it leads back to
  /// itself. `ascii`: no line-drawing characters.
  public func text(rates: Rates? = nil, ascii: Bool = false) -> String {
    if apps.isEmpty && edges.isEmpty { return "No application is deployed.\n" }
    var output = appTable()
    var drawing = TreeDrawing(self, rates: rates, ascii: ascii)
    output += "\n" + drawing.draw()
    let arrow = ascii ? " -> " : " → "
    let loops = cycles
    if !loops.isEmpty {
      output += "\nLoops:\n"
      for loop in loops { output += "  " + (loop + loop.prefix(1)).map(\.text).joined(separator: arrow) + "\n" }
    }
    return output
  }

  private func appTable() -> String {
    let rows = apps.map { [$0.name.text] + $0.notes }
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
      row.enumerated().map { index, cell in
        index == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[index] - cell.count)
      }.joined(separator: "  ") + "\n"
    }.joined()
  }
}

/// What a tree is made of.
private enum Place: Hashable, Comparable {
  case slot(EventAddress)
  /// A topic that is not Grape's.
  case topic(TopicName)

  var text: String {
    switch self {
    case .slot(let address): address.text
    case .topic(let name): "topic \(name)"
    }
  }
}

/// A way from one place to another.
private struct Way {
  var from: Place
  var to: Place
  var signal: EventName?
  var isOptional: Bool
  var isMissing: Bool
  /// nil: to or from a topic.
  var edge: Topology.Edge?

  init(_ edge: Topology.Edge) {
    from = .slot(edge.from)
    to = .slot(edge.to)
    signal = edge.signal
    isOptional = edge.isOptional
    isMissing = edge.isMissing
    self.edge = edge
  }

  init(_ edge: Topology.TopicEdge) {
    (from, to) =
      edge.direction == .source ? (.topic(edge.topic), .slot(edge.slot)) : (.slot(edge.slot), .topic(edge.topic))
    signal = edge.signal
    isOptional = edge.isOptional
    isMissing = edge.isMissing && edge.direction == .sink
  }
}

/// Lays out the trees.
private struct TreeDrawing {
  private let rates: TopologyGraph.Rates?
  private let addresses: [Place]
  private let successors: [Place: [Way]]
  private let entries: [Place]
  /// Topics that are read and are not there.
  private let missing: Set<Place>
  private let (branch, last, through, blank): (String, String, String, String)

  private var drawn: Set<Place> = []
  private var path: Set<Place> = []
  private var postponed: [Place] = []
  private var lines: [(text: String, rate: String)] = []

  /// Deeper branches are drawn as trees of their own.
  private static let depthLimit = 32

  init(_ graph: TopologyGraph, rates: TopologyGraph.Rates?, ascii: Bool) {
    self.rates = rates
    let ways = graph.edges.map { Way($0) } + graph.topics.map { Way($0) }
    addresses = Set(graph.topics.map { Place.topic($0.topic) }).sorted() + graph.addresses.map { .slot($0) }
    successors = Dictionary(grouping: ways, by: \.from)
    missing = Set(graph.topics.filter(\.isMissing).map { .topic($0.topic) })
    let targets = Set(ways.filter { $0.from != $0.to }.map(\.to))
    entries = addresses.filter { !targets.contains($0) }
    (branch, last, through, blank) = ascii ? ("|- ", "`- ", "|  ", "   ") : ("├─ ", "└─ ", "│  ", "   ")
  }

  mutating func draw() -> String {
    for entry in entries { tree(from: entry) }
    // What no entry leads to lies on a loop, or behind one.
    for address in addresses where !drawn.contains(address) { tree(from: address) }
    let width = lines.map(\.text.count).max() ?? 0
    let rateWidth = lines.map(\.rate.count).max() ?? 0
    return lines.map { line in
      if line.rate.isEmpty { return line.text + "\n" }
      let gap = width - line.text.count + rateWidth - line.rate.count + 2
      return line.text + String(repeating: " ", count: gap) + line.rate + "\n"
    }.joined()
  }

  private mutating func tree(from root: Place) {
    line("", root, notes: missing.contains(root) ? ["missing"] : [], rate: rate(of: root))
    branches(of: root, indent: "", depth: 0)
    while !postponed.isEmpty {
      let next = postponed.removeFirst()
      if !drawn.contains(next) { tree(from: next) }
    }
  }

  private func rate(of place: Place) -> Double? {
    guard case .slot(let address) = place else { return nil }
    return rates?.slots[address]
  }

  private mutating func branches(of address: Place, indent: String, depth: Int) {
    drawn.insert(address)
    path.insert(address)
    let edges = successors[address] ?? []
    for (index, edge) in edges.enumerated() {
      let isLast = index == edges.count - 1
      var notes: [String] = []
      if edge.isOptional { notes.append("optional") }
      if edge.isMissing { notes.append("missing") }
      let hasBranches = !(successors[edge.to] ?? []).isEmpty
      let isLoop = path.contains(edge.to)
      let isDrawn = drawn.contains(edge.to)
      let isTooDeep = depth == Self.depthLimit && hasBranches && !isDrawn
      if isLoop {
        notes.append("loop")
      } else if isDrawn, hasBranches {
        notes.append("above")
      } else if isTooDeep {
        notes.append("below")
        postponed.append(edge.to)
      }
      let rate = edge.edge.flatMap { rates?.edges[$0] } ?? (edge.isMissing ? nil : rate(of: edge.to))
      line(indent + (isLast ? last : branch), edge.to, signal: edge.signal, notes: notes, rate: rate)
      if !isLoop, !isDrawn, !isTooDeep {
        branches(of: edge.to, indent: indent + (isLast ? blank : through), depth: depth + 1)
      }
    }
    path.remove(address)
  }

  private mutating func line(
    _ indent: String, _ address: Place, signal: EventName? = nil, notes: [String], rate: Double?
  ) {
    var text = indent + address.text
    if let signal { text += " [\(signal)]" }
    if !notes.isEmpty { text += " (\(notes.joined(separator: ", ")))" }
    lines.append((text, rate.map { TopologyGraph.Rates.format($0) } ?? ""))
  }
}
