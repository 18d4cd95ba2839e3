import GrapeCore
import Testing

@Suite("Topics that are not Grape's") struct ExternalTopicTests {
  private func shop() throws -> Manifest {
    var shop = try app("shop", ["order": "shipped", "note": "shop@order"], signals: ["shipped": "stats@flight?"])
    shop.signals[0].topics = [try TopicName("shipments"), try TopicName("Audit.log")]
    shop.sources = [Manifest.Source(topic: try TopicName("orders"), slot: try EventName("order"))]
    return shop
  }

  private func refusal(_ body: () throws -> Void) -> String {
    do {
      try body()
      return ""
    } catch {
      return "\(error)"
    }
  }

  @Test("Names are those of Kafka, and tell whose topic it could be")
  func names() throws {
    for name in ["orders", "Orders_2.x-y", ".a", String(repeating: "x", count: 249)] {
      #expect(try TopicName(name).text == name)
    }
    for name in ["", ".", "..", "a b", "ä", "a/b", String(repeating: "x", count: 250)] {
      #expect(throws: NameError.self) { try TopicName(name) }
    }
    #expect(try TopicName("orders.events").possibleOwner == AppName("orders"))
    #expect(try TopicName("a.b.events").possibleOwner == nil)
    #expect(try TopicName("orders").possibleOwner == nil)
    #expect(try TopicName("_grape.registry").isSystem)
    #expect(try AppName("shop").topics == ["shop.events", "shop.dead", "shop.state", "shop.writes", "shop.requests"])
  }

  @Test("Routes of a signal name its topics behind its slots, with their partitions")
  func routes() throws {
    let topology = try Topology().deploying([shop()] + flightsAndStats())
    let topics = [try TopicName("shipments"): Int32(6), try TopicName("Audit.log"): 1]
    let signal = Manifest.Target.local(try EventName("shipped"))
    let routes = try #require(topology.routes(of: AppName("shop"), topics: topics)[signal])
    #expect(routes.map(\.topic) == ["stats.events", "Audit.log", "shipments"])
    #expect(routes.map(\.partitions) == [2, 1, 6] && routes.map(\.isExternal) == [false, true, true])
    // One that is missing: the name may not be emitted, so that nothing is lost.
    #expect(try topology.routes(of: AppName("shop"), topics: [TopicName("shipments"): 6])[signal] == nil)
  }

  @Test("Topics must be there, unless they are optional sources")
  func missing() throws {
    #expect(
      refusal { _ = try Topology().deploying([shop()], topics: ["shipment", "order"]) } == """
        shop: sources.orders: there is no topic orders: did you mean order? Otherwise create it first, or write \
        "optional: true", and records come once it is there
        shop: signals.shipped.topics[0]: there is no topic shipments: did you mean shipment? Otherwise create it first
        shop: signals.shipped.topics[1]: there is no topic Audit.log: create it first
        """)
    var optional = try shop()
    optional.sources[0].isOptional = true
    _ = try Topology().deploying([optional], topics: ["shipments", "Audit.log"])
  }

  @Test("Topics of deployed applications are none of others', in whatever order they are deployed")
  func owned() throws {
    var other = try app("other", ["x": ""])
    other.sources = [Manifest.Source(topic: try TopicName("shop.events"), slot: try EventName("x"))]
    #expect(
      refusal { _ = try Topology([shop()]).deploying([other]) }.hasPrefix(
        "other: sources.shop.events: shop.events belongs to the application shop: connect"))
    // There is no application shop: its name is just a name.
    let topology = try Topology().deploying([other], topics: ["shop.events"])
    #expect(
      refusal { _ = try topology.deploying([shop()]) }
        == "shop: needs the topic shop.events, which other uses as one that is not Grape's: deploy under another name")
    #expect(try topology.ownership(of: TopicName("shop.events")) == nil)
    #expect(try topology.ownership(of: TopicName("other.state")) == "other.state belongs to the application other")
    #expect(try topology.ownership(of: TopicName("_grape.x")) == "_grape.x belongs to Grape's nodes")
  }

  @Test("They are drawn, and a loop through one is a loop")
  func drawings() throws {
    var shop = try shop()
    #expect(
      Topology([shop]).graph().text() == """
        shop

        topic orders
        └─ shop@order
           ├─ stats@flight [shipped] (optional, missing)
           ├─ topic Audit.log [shipped]
           └─ topic shipments [shipped]
        shop@note
        └─ shop@order (above)

        """)
    let dot = Topology([shop]).graph().dot()
    #expect(dot.contains("\"topic orders\" [label=\"orders\", shape=cylinder];"))
    #expect(dot.contains("\"topic orders\" -> \"shop@order\";"))
    #expect(dot.contains("\"shop@order\" -> \"topic shipments\" [label=\"shipped\"];"))
    let mermaid = Topology([shop]).graph().mermaid()
    #expect(mermaid.contains("[(\"shipments\")]") && mermaid.contains("-->|\"shipped\"| t"))
    #expect(Topology([shop]).cycles.isEmpty)
    shop.signals[0].topics.append(try TopicName("orders"))
    #expect(Topology([shop]).cycles == [[try EventAddress("shop@order")]])
    #expect(Topology([shop]).graph().cycles == [[try EventAddress("shop@order")]])
  }
}
