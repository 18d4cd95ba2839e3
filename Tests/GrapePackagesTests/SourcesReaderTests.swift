import GrapeCore
import Testing

@testable import GrapePackages

@Suite("Sources and sinks in a manifest") struct SourcesReaderTests {
  @Test("Both forms are read, and a signal's topics")
  func read() throws {
    let manifest = try Manifest(
      yaml: head + """
        slots: {order: {emits: [shipped]}, note: }
        sources:
          orders: order
          Payments.v2:
            slot: note
            start: 2026-11-01T00:00:00Z
            key: header:ce_subject
            optional: true
          clicks: {slot: note, start: latest, key: record, optional: false}
        signals:
          shipped:
            slots: [note]
            topics: [shipments, audit.log]
        """)
    let order = try EventName("order")
    let note = try EventName("note")
    #expect(
      manifest.sources == [
        Manifest.Source(topic: try TopicName("orders"), slot: order),
        Manifest.Source(
          topic: try TopicName("Payments.v2"), slot: note, start: .time(1_793_491_200_000),
          key: .header("ce_subject"), isOptional: true),
        Manifest.Source(topic: try TopicName("clicks"), slot: note, start: .latest),
      ])
    #expect(manifest.signals[0].topics.map(\.text) == ["shipments", "audit.log"])
    #expect(manifest.sinkTopics.map(\.text) == ["audit.log", "shipments"])
    #expect(manifest.sources.map(\.start.description) == ["earliest", "2026-11-01T00:00:00.000Z", "latest"])
  }

  @Test(
    "What is wrong is named with its place and what would be right",
    arguments: [
      Case(
        head + "slots: {raw: }\nsources: [orders]\n",
        "grape.yaml:6:10: sources: is a list: write a mapping, for instance \"orders: order\""),
      Case(
        head + "slots: {raw: }\nsources:\n  orders: ray\n",
        "grape.yaml:7:11: sources.orders: ray is no slot of flights: did you mean \"raw\"? (a source leads to a slot of its own application)"
      ),
      Case(
        head + "slots: {raw: }\nsources:\n  orders: {start: latest}\n",
        "grape.yaml:7:3: sources.orders: the field \"slot\" is missing: name the slot that the topic's records come to, for instance \"slot: order\""
      ),
      Case(
        head
          + "slots: {raw: }\nsources:\n  orders:\n    slot: raw\n    start: yesterday\n    key: subject\n    optional: maybe\n    from: latest\n",
        """
        grape.yaml:9:12: sources.orders.start: "yesterday" is no start: use earliest, latest or a time (2026-11-01T00:00:00Z)
        grape.yaml:10:10: sources.orders.key: "subject" is no source of keys: use record (the record's own key) or header:NAME
        grape.yaml:11:15: sources.orders.optional: write true or false
        grape.yaml:12:5: sources.orders: unknown field "from": use start
        """),
      Case(
        head + "slots: {raw: }\nsources:\n  a b: raw\n  _grape.registry: raw\n  flights.dead: raw\n",
        """
        grape.yaml:7:3: sources: topic name "a b": use letters, digits, ".", "_" and "-", for instance orders
        grape.yaml:8:3: sources._grape.registry: _grape.registry belongs to Grape's nodes: name a topic that is not Grape's
        grape.yaml:9:3: sources.flights.dead: flights.dead belongs to flights itself: events for a slot of it are emitted to the slot
        """),
      Case(
        head
          + "slots: {raw: {emits: [s]}}\nsignals:\n  s: {topics: [x, x, flights.events, ä]}\n",
        """
        grape.yaml:7:19: signals.s.topics[1]: x is connected twice: once is enough
        grape.yaml:7:22: signals.s.topics[2]: flights.events belongs to flights itself: events for a slot of it are emitted to the slot
        grape.yaml:7:38: signals.s.topics[3]: topic name "ä": use letters, digits, ".", "_" and "-", for instance orders
        """),
      Case(
        head + "slots: {raw: }\nsinks: {x: y}\n",
        "grape.yaml:6:1: unknown field \"sinks\": use signals (a signal's \"topics\" are where its events go besides slots)"
      ),
    ])
  func problems(_ example: Case) {
    #expect(GrapePackagesTests.problems(example.yaml) == example.expected)
  }
}
