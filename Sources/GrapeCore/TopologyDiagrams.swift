extension TopologyGraph {
  /// A Mermaid flow chart: a box per application, an arrow per connection, dotted if it is optional.
  public func mermaid(rates: Rates? = nil) -> String {
    let numbers = numbered
    func node(_ address: EventAddress) -> String {
      let rate = rates?.slots[address].map { "<br/>" + Rates.format($0) } ?? ""
      return "n\(numbers[address] ?? 0)[\"\(address.event)\(rate)\"]"
    }
    var lines = ["flowchart LR"]
    for (index, app) in apps.enumerated() {
      let title = Self.escaped(([app.name.text] + app.notes).joined(separator: " "), quote: "#quot;")
      lines.append("  subgraph app\(index)[\"\(title)\"]")
      lines += app.slots.map { "    " + node(EventAddress(app: app.name, event: $0)) }
      lines.append("  end")
    }
    for address in missing {
      lines.append("  n\(numbers[address] ?? 0)[\"\(address)\"]:::missing")
    }
    for edge in edges {
      let label = label(of: edge, rates)
      let arrow = edge.isOptional ? "-.->" : "-->"
      let text = label.isEmpty ? "" : "|\"\(label)\"|"
      lines.append("  n\(numbers[edge.from] ?? 0) \(arrow)\(text) n\(numbers[edge.to] ?? 0)")
    }
    for (number, topic) in topicNames.enumerated() {
      lines.append("  t\(number)[(\"\(topic)\")]\(isMissing(topic) ? ":::missing" : "")")
      for edge in topics where edge.topic == topic {
        let slot = "n\(numbers[edge.slot] ?? 0)"
        let text = edge.signal.map { "|\"\($0)\"|" } ?? ""
        let arrow = edge.isOptional ? "-.->" : "-->"
        lines.append(
          edge.direction == .source ? "  t\(number) \(arrow) \(slot)" : "  \(slot) \(arrow)\(text) t\(number)")
      }
    }
    if !missing.isEmpty || topics.contains(where: \.isMissing) {
      lines.append("  classDef missing stroke-dasharray: 4 4")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// A graph in the language of Graphviz: a cluster per application, an edge per connection, dashed if it is optional.
  public func dot(rates: Rates? = nil) -> String {
    var lines = ["digraph grape {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for (index, app) in apps.enumerated() {
      lines.append("  subgraph cluster_\(index) {")
      let title = Self.escaped(([app.name.text] + app.notes).joined(separator: " "), quote: "\\\"")
      lines.append("    label=\"\(title)\";")
      for slot in app.slots {
        let address = EventAddress(app: app.name, event: slot)
        let rate = rates?.slots[address].map { "\\n" + Rates.format($0) } ?? ""
        lines.append("    \"\(address)\" [label=\"\(slot)\(rate)\"];")
      }
      lines.append("  }")
    }
    for address in missing { lines.append("  \"\(address)\" [style=\"rounded,dashed\"];") }
    for edge in edges {
      var attributes: [String] = []
      let label = label(of: edge, rates)
      if !label.isEmpty { attributes.append("label=\"\(label)\"") }
      if edge.isOptional { attributes.append("style=dashed") }
      let list = attributes.isEmpty ? "" : " [\(attributes.joined(separator: ", "))]"
      lines.append("  \"\(edge.from)\" -> \"\(edge.to)\"\(list);")
    }
    for topic in topicNames {
      lines.append(
        "  \"topic \(topic)\" [label=\"\(topic)\", shape=cylinder\(isMissing(topic) ? ", style=dashed" : "")];")
    }
    for edge in topics {
      var attributes: [String] = []
      if let signal = edge.signal { attributes.append("label=\"\(signal)\"") }
      if edge.isOptional { attributes.append("style=dashed") }
      let list = attributes.isEmpty ? "" : " [\(attributes.joined(separator: ", "))]"
      let (slot, topic) = ("\"\(edge.slot)\"", "\"topic \(edge.topic)\"")
      lines.append(edge.direction == .source ? "  \(topic) -> \(slot)\(list);" : "  \(slot) -> \(topic)\(list);")
    }
    return lines.joined(separator: "\n") + "\n}\n"
  }

  /// Topics that are not Grape's.
  private var topicNames: [TopicName] { Set(topics.map(\.topic)).sorted() }

  private func isMissing(_ topic: TopicName) -> Bool { topics.contains { $0.topic == topic && $0.isMissing } }

  private var numbered: [EventAddress: Int] {
    var numbers: [EventAddress: Int] = [:]
    for (number, address) in addresses.enumerated() { numbers[address] = number }
    return numbers
  }

  /// Addresses that connections lead to though no slot is there.
  private var missing: [EventAddress] {
    let known = Set(apps.flatMap { app in app.slots.map { EventAddress(app: app.name, event: $0) } })
    return addresses.filter { !known.contains($0) }
  }

  private func label(of edge: Topology.Edge, _ rates: Rates?) -> String {
    [edge.signal?.text, rates?.edges[edge].map { Rates.format($0) }].compactMap { $0 }.joined(separator: " ")
  }

  /// Text between double quotes. Names need no escape; notes may be anything.
  private static func escaped(_ text: String, quote: String) -> String {
    text.map { character in
      switch character {
      case "\"": quote
      case "\\": "/"
      case "\n", "\r", "\t": " "
      default: String(character)
      }
    }.joined()
  }
}
