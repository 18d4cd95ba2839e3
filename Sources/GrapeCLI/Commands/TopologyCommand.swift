import ArgumentParser
import Grape
import GrapeCore

/// `grape topology`
struct TopologyCommand: NodeCommand {
  enum Form: String, CaseIterable { case text, mermaid, dot }

  static let configuration = CommandConfiguration(
    commandName: "topology",
    abstract: "Draw the applications, their slots and who emits to whom.",
    discussion: """
      Slots that are busy show their events per second.

      EXAMPLES
        grape topology
        grape topology --format dot | dot -Tsvg > topology.svg
        grape topology --format mermaid
        grape topology --json
      """)

  @Option(help: ArgumentHelp("text, mermaid or dot.", valueName: "format"), transform: parseForm)
  var format: Form = .text
  @Flag(help: "In the text form: no line-drawing characters.") var ascii = false
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    let answer = try node.ask("topology")
    if options.json { return Output.line(answer.text) }
    let (graph, rates) = try TopologyAnswer(answer).graph()
    switch format {
    case .text: Output.write(graph.text(rates: rates, ascii: ascii))
    case .mermaid: Output.write(graph.mermaid(rates: rates))
    case .dot: Output.write(graph.dot(rates: rates))
    }
  }
}

private func parseForm(_ text: String) throws -> TopologyCommand.Form {
  guard let form = TopologyCommand.Form(rawValue: text) else {
    throw ValidationError("a format is text, mermaid or dot")
  }
  return form
}

/// The answer of the operation `topology` as what can be drawn.
struct TopologyAnswer {
  private let answer: JSONValue

  init(_ answer: JSONValue) { self.answer = answer }

  /// The graph, and the slots' rates if any event moved lately.
  func graph() throws -> (TopologyGraph, TopologyGraph.Rates?) {
    do {
      var rates = TopologyGraph.Rates()
      let apps = try (answer["apps"]?.array ?? []).map { app -> TopologyGraph.App in
        let name = try AppName(app["name"]?.string ?? "")
        let slots = try (app["slots"]?.array ?? []).map { slot -> EventName in
          let event = try EventName(slot["name"]?.string ?? "")
          if let rate = slot["rate"]?.double, rate > 0 { rates.slots[EventAddress(app: name, event: event)] = rate }
          return event
        }
        return TopologyGraph.App(
          name: name, notes: [short(app["version"]?.string), app["state"]?.string ?? ""], slots: slots)
      }
      let known = Set(apps.flatMap { app in app.slots.map { EventAddress(app: app.name, event: $0) } })
      let edges = try (answer["edges"]?.array ?? []).map { edge -> Topology.Edge in
        let to = try EventAddress(edge["to"]?.string ?? "")
        return Topology.Edge(
          from: try EventAddress(edge["from"]?.string ?? ""), to: to,
          signal: try edge["signal"]?.string.map { try EventName($0) }, isOptional: edge["optional"]?.bool ?? false,
          isMissing: !known.contains(to))
      }
      let topics = try (answer["topics"]?.array ?? []).map { edge in
        Topology.TopicEdge(
          edge["direction"]?.string == "sink" ? .sink : .source, topic: try TopicName(edge["topic"]?.string ?? ""),
          slot: try EventAddress(edge["slot"]?.string ?? ""),
          signal: try edge["signal"]?.string.map { try EventName($0) }, isOptional: edge["optional"]?.bool ?? false,
          isMissing: edge["missing"]?.bool ?? false)
      }
      return (TopologyGraph(apps: apps, edges: edges, topics: topics), rates.slots.isEmpty ? nil : rates)
    } catch let error as NameError {
      throw CommandFailure(.internal, "the node's topology has a bad name: \(error.message)")
    }
  }
}
