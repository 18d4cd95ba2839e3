import GrapeCore
import Testing

/// `app("a", ["x": "y, b@z, w?"])`: slots in the order given; `?` marks what is optional.
func app(
  _ name: String, partitions: Int = 4, _ slots: KeyValuePairs<String, String>,
  signals: KeyValuePairs<String, String> = [:]
) throws -> Manifest {
  func targets(_ text: String, optional: Bool) throws -> [Manifest.Target] {
    try text.split(separator: ",").map { $0.drop { $0 == " " } }.filter { $0.hasSuffix("?") == optional }.map {
      try Manifest.Target(String(optional ? $0.dropLast() : $0))
    }
  }
  return Manifest(
    name: try AppName(name), runtime: .python(entry: "app.py"), partitions: partitions,
    slots: try slots.map { slot in
      Manifest.Slot(
        name: try EventName(slot.key), emits: try targets(slot.value, optional: false),
        optional: try targets(slot.value, optional: true))
    },
    signals: try signals.map { signal in
      Manifest.Signal(
        name: try EventName(signal.key), slots: try targets(signal.value, optional: false),
        optional: try targets(signal.value, optional: true))
    })
}

func flightsAndStats() throws -> [Manifest] {
  [
    try app("stats", partitions: 2, ["flight": "", "route": "", "ranking": ""]),
    try app(
      "flights", ["raw": "parsed", "parsed": "enriched, audit@seen?"],
      signals: ["enriched": "stats@flight, stats@route"]),
  ]
}

@Suite struct TopologyTests {
  private func refusal(_ body: () throws -> Void) -> String {
    do {
      try body()
      return ""
    } catch {
      return "\(error)"
    }
  }

  @Test func routesNameTopicsAndPartitions() throws {
    let topology = try Topology().deploying(try flightsAndStats())
    let routes = topology.routes(of: try AppName("flights"))
    let shown = Dictionary(
      uniqueKeysWithValues: routes.map { key, value in
        (key.description, value.map { "\($0.topic) \($0.address?.event.text ?? "-") \($0.partitions)" })
      })
    #expect(
      shown == [
        "parsed": ["flights.events parsed 4"],
        "enriched": ["stats.events flight 2", "stats.events route 2"],
        "audit@seen": [],
      ])
    #expect(topology.routes(of: try AppName("stats")).isEmpty)
  }

  @Test func anOptionalTargetIsRoutedOnceItIsThere() throws {
    let topology = try Topology().deploying(try flightsAndStats()).deploying([try app("audit", ["seen": ""])])
    let routes = topology.routes(of: try AppName("flights"))
    #expect(routes[try Manifest.Target("audit@seen")]?.map(\.topic) == ["audit.events"])
  }

  @Test func emittingToWhatIsNotThereIsRefused() throws {
    let base = try Topology().deploying(try flightsAndStats())
    #expect(
      refusal { _ = try base.deploying([try app("a", ["x": "statz@flight, stats@fligth, flights@enriched, b@y"])]) }
        == """
        a: slots.x.emits[0]: there is no application statz: did you mean stats? Otherwise deploy it before or together with this one, or list statz@flight under "optional"
        a: slots.x.emits[1]: stats has no slot fligth: did you mean "flight"?
        a: slots.x.emits[2]: enriched is a signal of flights, and only its own handlers emit it: name one of its slots
        a: slots.x.emits[3]: there is no application b: deploy it before or together with this one, or list b@y under "optional"
        """)
    #expect(
      refusal { _ = try base.deploying([try app("a", ["x": "s"], signals: ["s": "b@y, c@z?"])]) }
        == "a: signals.s.slots[0]: there is no application b: deploy it before or together with this one, or list b@y under \"optional\""
    )
  }

  @Test func applicationsDeployedTogetherMayEmitToEachOther() throws {
    let topology = try Topology().deploying([try app("a", ["x": "b@y"]), try app("b", ["y": "a@x"])])
    #expect(topology.edges.map { "\($0.from)>\($0.to)" } == ["a@x>b@y", "b@y>a@x"])
    #expect(
      refusal { _ = try Topology().deploying([try app("a", ["x": ""]), try app("a", ["y": ""])]) }
        == "a: is to be deployed twice at once")
  }

  @Test func anUpdateMustKeepTheSlotsThatOthersUse() throws {
    let base = try Topology().deploying(try flightsAndStats())
    let smaller = try app("stats", partitions: 2, ["flight": ""])
    #expect(
      refusal { _ = try base.deploying([smaller]) }
        == "stats: slots.route: is gone in this version, but flights@parsed emits to it by the signal enriched: keep the slot, or deploy flights first without that connection"
    )
    // Together with a version of the other that no longer needs it, it goes.
    let other = try app("flights", ["raw": "stats@flight"])
    #expect(try base.deploying([smaller, other]).edges.count == 1)
  }

  @Test func partitionsAreFixed() throws {
    let base = try Topology().deploying([try app("a", partitions: 4, ["x": ""])])
    #expect(
      refusal { _ = try base.deploying([try app("a", partitions: 8, ["x": ""])]) }
        == "a: partitions: is 8, but a is deployed with 4: the number is fixed once deployed, because keys would move between partitions; write 4, or deploy under a new name"
    )
  }

  @Test func removingWhatOthersEmitToIsRefusedUnlessForced() throws {
    let base = try Topology().deploying(try flightsAndStats())
    let stats = try AppName("stats")
    #expect(
      refusal { _ = try base.removing(stats) } == """
        stats: cannot be removed: flights@parsed emits to stats@flight by the signal enriched
        stats: cannot be removed: flights@parsed emits to stats@route by the signal enriched
        """)
    let forced = try base.removing(stats, force: true)
    let routes = forced.routes(of: try AppName("flights"))
    #expect(routes[try Manifest.Target("enriched")] == nil, "emitting to nowhere must fail, not lose the event")
    #expect(routes[try Manifest.Target("parsed")]?.count == 1)
    #expect(try base.removing(try AppName("flights")).manifests.map(\.name) == [stats])
    #expect(refusal { _ = try base.removing(try AppName("stat")) } == "stat: is not deployed: did you mean \"stats\"?")
    #expect(base.dependents(on: stats).map(\.text) == ["flights"])
  }

  @Test func loopsAreFound() throws {
    let topology = try Topology().deploying([
      try app("a", ["one": "two", "two": "three", "three": "one, two", "self": "self", "out": "one"]),
      try app("b", ["x": "s"], signals: ["s": "c@y"]), try app("c", ["y": "b@x"]),
    ])
    #expect(
      topology.cycles.map { $0.map(\.text).joined(separator: " ") } == [
        "a@one a@two a@three", "a@self", "a@three a@two", "b@x c@y",
      ])
    #expect(try Topology().deploying(try flightsAndStats()).cycles.isEmpty)
  }

  @Test func everySlotOnALoopIsInOneThatIsListedAndNoOther() throws {
    let seed = UInt64.random(in: 0 ... .max)
    print("seed \(seed)")
    var random = Seeded(seed)
    for _ in 0..<200 {
      let count = Int.random(in: 1...8, using: &random)
      var edges: Set<[Int]> = []
      for _ in 0..<Int.random(in: 0...12, using: &random) {
        edges.insert([Int.random(in: 0..<count, using: &random), Int.random(in: 0..<count, using: &random)])
      }
      let names = try (0..<count).map { try EventName("s\($0)") }
      let manifest = Manifest(
        name: try AppName("a"), runtime: .python(entry: "a.py"),
        slots: names.indices.map { from in
          Manifest.Slot(name: names[from], emits: edges.filter { $0[0] == from }.map { .local(names[$0[1]]) })
        })
      // Reachability by brute force.
      var reach = [[Bool]](repeating: [Bool](repeating: false, count: count), count: count)
      for edge in edges { reach[edge[0]][edge[1]] = true }
      for k in 0..<count {
        for i in 0..<count { for j in 0..<count where reach[i][k] && reach[k][j] { reach[i][j] = true } }
      }
      let expected = Set((0..<count).filter { reach[$0][$0] }.map { names[$0] })
      let cycles = Topology([manifest]).cycles
      #expect(Set(cycles.flatMap { $0.map(\.event) }) == expected, "seed \(seed)")
      for cycle in cycles {
        for (index, slot) in cycle.enumerated() {
          let next = cycle[(index + 1) % cycle.count]
          let from = names.firstIndex(of: slot.event) ?? -1
          let to = names.firstIndex(of: next.event) ?? -1
          #expect(edges.contains([from, to]), "seed \(seed)")
        }
        #expect(Set(cycle).count == cycle.count)
      }
    }
  }

  @Test func aLongChainNeedsNoDeepStack() throws {
    let names = try (0..<1000).map { try EventName("s\($0)") }
    let manifest = Manifest(
      name: try AppName("a"), runtime: .python(entry: "a.py"),
      slots: names.indices.map { Manifest.Slot(name: names[$0], emits: [.local(names[($0 + 1) % names.count])]) })
    let topology = Topology([manifest])
    #expect(topology.cycles.map(\.count) == [1000])
    #expect(topology.graph().text().split(separator: "\n").count > 1000)
  }
}

/// A small generator with a seed.
struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
