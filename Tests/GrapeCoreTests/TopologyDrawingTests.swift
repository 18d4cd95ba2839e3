import GrapeCore
import Testing

@Suite struct TopologyDrawingTests {
  private func graph() throws -> TopologyGraph {
    try Topology().deploying(try flightsAndStats()).graph(notes: [
      try AppName("flights"): ["4be1c0ffee12", "running"], try AppName("stats"): ["77aa0bb1ccdd", "stopped"],
    ])
  }

  private func rates() throws -> TopologyGraph.Rates {
    let graph = try graph()
    var rates = TopologyGraph.Rates(slots: [
      try EventAddress("flights@raw"): 1204.4, try EventAddress("flights@parsed"): 12.34,
      try EventAddress("stats@flight"): 0.25,
      try EventAddress("stats@ranking"): 0,
    ])
    let route = try EventAddress("stats@route")
    for edge in graph.edges where edge.to == route { rates.edges[edge] = 1_234_567 }
    return rates
  }

  @Test func text() throws {
    #expect(
      try graph().text() == """
        flights  4be1c0ffee12  running
        stats    77aa0bb1ccdd  stopped

        flights@raw
        └─ flights@parsed
           ├─ audit@seen (optional, missing)
           ├─ stats@flight [enriched]
           └─ stats@route [enriched]
        stats@ranking

        """)
    #expect(
      try graph().text(rates: try rates(), ascii: true) == """
        flights  4be1c0ffee12  running
        stats    77aa0bb1ccdd  stopped

        flights@raw                               1,204/s
        `- flights@parsed                          12.3/s
           |- audit@seen (optional, missing)
           |- stats@flight [enriched]              0.25/s
           `- stats@route [enriched]          1,234,567/s
        stats@ranking                                 0/s

        """)
    #expect(Topology().graph().text() == "No application is deployed.\n")
  }

  @Test func textWithLoopsAndSharedBranches() throws {
    let topology = Topology([
      try app("a", ["one": "two, four", "two": "three", "three": "one, four", "four": "five", "five": ""]),
      try app("b", ["in": "a@one"]),
    ])
    #expect(
      topology.graph().text() == """
        a
        b

        b@in
        └─ a@one
           ├─ a@four
           │  └─ a@five
           └─ a@two
              └─ a@three
                 ├─ a@four (above)
                 └─ a@one (loop)

        Loops:
          a@one → a@two → a@three → a@one

        """)
  }

  @Test func everySlotIsDrawnThoughNoEntryLeadsToIt() throws {
    let text = Topology([try app("a", ["x": "y", "y": "x", "z": "z"])]).graph().text()
    #expect(
      text == """
        a

        a@z
        └─ a@z (loop)
        a@x
        └─ a@y
           └─ a@x (loop)

        Loops:
          a@x → a@y → a@x
          a@z → a@z

        """)
  }

  @Test func mermaid() throws {
    #expect(
      try graph().mermaid(rates: try rates()) == """
        flowchart LR
          subgraph app0["flights 4be1c0ffee12 running"]
            n0["raw<br/>1,204/s"]
            n1["parsed<br/>12.3/s"]
          end
          subgraph app1["stats 77aa0bb1ccdd stopped"]
            n2["flight<br/>0.25/s"]
            n3["route"]
            n4["ranking<br/>0/s"]
          end
          n5["audit@seen"]:::missing
          n1 -.-> n5
          n1 -->|"enriched"| n2
          n1 -->|"enriched 1,234,567/s"| n3
          n0 --> n1
          classDef missing stroke-dasharray: 4 4

        """)
  }

  @Test func dot() throws {
    #expect(
      try graph().dot() == """
        digraph grape {
          rankdir=LR;
          node [shape=box, style=rounded];
          subgraph cluster_0 {
            label="flights 4be1c0ffee12 running";
            "flights@raw" [label="raw"];
            "flights@parsed" [label="parsed"];
          }
          subgraph cluster_1 {
            label="stats 77aa0bb1ccdd stopped";
            "stats@flight" [label="flight"];
            "stats@route" [label="route"];
            "stats@ranking" [label="ranking"];
          }
          "audit@seen" [style="rounded,dashed"];
          "flights@parsed" -> "audit@seen" [style=dashed];
          "flights@parsed" -> "stats@flight" [label="enriched"];
          "flights@parsed" -> "stats@route" [label="enriched"];
          "flights@raw" -> "flights@parsed";
        }

        """)
  }

  @Test func theOrderOfDeploymentDoesNotShow() throws {
    let manifests = try flightsAndStats()
    #expect(Topology(manifests).graph().text() == Topology(manifests.reversed()).graph().text())
    #expect(Topology(manifests).graph().dot() == Topology(manifests.reversed()).graph().dot())
  }
}
