import GrapeCore
import GrapeState
import GrapeWire
import Testing

@testable import Grape

/// What an entry is, for the model.
private struct Item: Equatable {
  var value: [UInt8]
  var tags: [String] = []
  var hasExpiry = false
}

/// A dictionary that knows the rules: what an event wrote counts once it has succeeded.
private struct Model: Equatable {
  var stores: [String: [ByteSlice: Item]] = ["": [:], "other": [:]]

  func range(_ store: String, _ isInside: (ByteSlice) -> Bool) -> [(key: ByteSlice, item: Item)] {
    stores[store]!.filter { isInside($0.key) }.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }

  /// Changes it as the changelog says.
  mutating func apply(_ records: StateRecords) throws {
    for record in records {
      let key = try StateKey(full: record.key)
      stores[key.store]![key.key] = try record.entry.map { bytes in
        let entry = try StateEntry(bytes.unsafeBytes)
        return Item(value: [UInt8](entry.value), tags: entry.tags, hasExpiry: entry.expiry != nil)
      }
    }
  }
}

/// A run of random events over one partition, with everything that a node may do in between.
private final class Scenario {
  struct Wrong: Error {}

  let seed: UInt64
  var random: SeededRandom
  let folder: TemporaryFolder
  let keeper: StateKeeperRig
  let authority: TestAuthority
  let run: DeliveryRun
  /// What counts now, and what the event being handled made of it.
  var model = Model()
  var draft = Model()
  var offset: Int64 = 0
  var keys: [[UInt8]] = []
  var failures = 0
  /// The handlers do without state.
  var isIdle = false
  var checks = 0

  init(seed: UInt64, kind: StateKeeperRig.Kind) throws {
    self.seed = seed
    random = SeededRandom(state: seed)
    folder = try TemporaryFolder()
    keeper = StateKeeperRig(kind, path: "\(folder.path)/0")
    authority = TestAuthority { [unowned keeper] _ in keeper.memory }
    let app = Application()
    let log = LogQueue()
    let info = WorkerInfo(
      worker: "w-1", app: "test", version: "v", node: "n", config: .null, routes: [:], slots: ["in"],
      limits: WorkerInfo.Limits())
    let state = StateSpace(
      info: WorkerInfo.State(topic: "test.state", partitions: 1, access: .ask), log: log
    ) { [keeper, authority] in (keeper.base(authority, partition: $0), nil) }
    nonisolated(unsafe) weak var scenario: Scenario?
    app.on("in") { event, context in try scenario!.handle(event, context) }
    run = DeliveryRun(session: try Session(info: info, application: app, log: log, state: state))
    scenario = self
    let alphabet: [UInt8] = [0, 0x61, 0x62, 0xff]
    while keys.count < 30 {
      let length = chance(10) ? Int.random(in: 100...480, using: &random) : Int.random(in: 1...4, using: &random)
      keys.append((0..<length).map { _ in alphabet.randomElement(using: &random)! })
    }
  }

  func chance(_ oneIn: Int) -> Bool { Int.random(in: 0..<oneIn, using: &random) == 0 }

  func expect(_ isSo: Bool, _ what: @autoclosure () -> String) {
    checks += 1
    if !isSo { Issue.record("\(what()); seed \(seed), \(keeper.kind)") }
  }

  // MARK: What a node does

  func runDelivery() throws {
    let events = (0..<Int.random(in: 1...12, using: &random)).map { FakeNode.Input(name: "in", value: "\($0)") }
    let batch = ByteSlice(try FakeNode.batch(events, base: offset))
    let end = offset + Int64(events.count)
    while offset < end {
      // In the middle the base catches up with earlier results.
      if keeper.kind == .ask { authority.beforeAnswer = { [unowned self] in if chance(8) { try catchUp() } } }
      let before = model
      isIdle = chance(6)
      try run.runToEnd(
        Delivery(id: 1, partition: 0, attempt: 1, first: offset, end: end, skips: [], batches: [batch]))
      authority.beforeAnswer = {}
      let records = try run.stateRecords("test.state")
      let processed = try run.resultProcessed()
      run.clear()
      expect(Set(records.map(\.key)).count == records.count, "a key is written twice in one result")
      if chance(30) {
        // The result is lost, and its events are delivered again.
        model = before
        continue
      }
      var after = before
      try after.apply(records)
      expect(after == model, "the result does not say what the handlers did")
      offset = processed
      if !records.isEmpty { keeper.keep(records, processed: processed) }
    }
    if chance(2) { try catchUp() }
    if chance(6) { try changeFromOutside() }
  }

  func catchUp() throws { try keeper.apply(Int.random(in: 0...max(0, keeper.pending.count), using: &random)) }

  /// Expiry, or a write from outside: the node applies all there is first.
  func changeFromOutside() throws {
    try keeper.apply(.max)
    let key = keys.randomElement(using: &random)!
    let item: Item? = chance(2) ? nil : Item(value: [1, 2, 3], tags: ["x"])
    model.stores[""]![ByteSlice(key)] = item
    try keeper.change([
      (try StateKey(key).bytes, try item.map { try StateEntry.encoded($0.value, tags: $0.tags) })
    ])
  }

  // MARK: What handlers do

  func handle(_ event: Event, _ context: Context) throws {
    draft = model
    // Sometimes nothing for a whole delivery.
    if !isIdle { for _ in 0..<Int.random(in: 0...8, using: &random) { try act(context) } }
    if keeper.kind == .map, chance(10) { try catchUp() }
    if chance(5) {
      failures += 1
      throw chance(2) ? Retry() : Reject(code: 1)
    }
    model = draft
  }

  private func value() -> [UInt8] {
    let size =
      switch Int.random(in: 0..<20, using: &random) {
      case 0: 0
      case 1: Int.random(in: 900...5000, using: &random)
      case 2: chance(6) ? 70_000 : 40
      default: Int.random(in: 1...40, using: &random)
      }
    let byte = UInt8.random(in: 0...255, using: &random)
    return [UInt8](repeating: byte, count: size)
  }

  private func tags() -> [String] { ["x", "y", "zz"].filter { _ in chance(3) } }

  private func act(_ context: Context) throws {
    let name = chance(4) ? "other" : ""
    let store = try context.store(name)
    let key = keys.randomElement(using: &random)!
    let slice = ByteSlice(key)
    let known = draft.stores[name]![slice]
    switch Int.random(in: 0..<16, using: &random) {
    case 0...3:
      let (value, tags, ttl) = (value(), tags(), chance(4) ? Duration.seconds(60) : nil)
      try store.put(key, value, ttl: ttl, tags: tags)
      draft.stores[name]![slice] = Item(value: value, tags: tags, hasExpiry: ttl != nil)
    case 4:
      try store.remove(key)
      draft.stores[name]![slice] = nil
    case 5, 6:
      let data = value()
      let size = try store.append(key, data)
      draft.stores[name]![slice, default: Item(value: [])].value += data
      expect(size == (known?.value.count ?? 0) + data.count, "append tells \(size) bytes")
    case 7:
      let isRight = chance(2)
      let expected = isRight ? known?.value : value()
      let new = chance(3) ? nil : value()
      let done = try store.compareAndSet(key, expected: expected, new: new)
      expect(done == (expected == known?.value), "compareAndSet of \(key) gave \(done)")
      if done { draft.stores[name]![slice] = new.map { Item(value: $0) } }
    case 8:
      // What is read may be what is written.
      try store.withValue(key) { bytes in
        expect(bytes.map { [UInt8]($0) } == known?.value, "withValue of \(key)")
        guard let bytes else { return }
        let other = keys.randomElement(using: &random)!
        let target = chance(3) ? key : other
        let part = UnsafeRawBufferPointer(rebasing: bytes[min(1, bytes.count)...])
        let copy = [UInt8](part)
        try store.put(target, part, ttl: chance(2) ? .seconds(9) : nil)
        let expiry = try store.expiry(of: target) != nil
        draft.stores[name]![ByteSlice(target)] = Item(value: copy, hasExpiry: expiry)
      }
    case 9:
      expect(try store.get(key) == known?.value, "get of \(key)")
      expect(try store.contains(key) == (known != nil), "contains of \(key)")
      expect(try store.size(key) == known?.value.count, "size of \(key)")
    case 10:
      expect(try store.tags(of: key) == known?.tags ?? [], "tags of \(key)")
      expect((try store.expiry(of: key) != nil) == (known?.hasExpiry ?? false), "expiry of \(key)")
      let part = try store.read(key, offset: 2, size: 5)
      expect(part == known.map { Array($0.value.dropFirst(2).prefix(5)) }, "read of \(key)")
    case 11, 12: try scan(store, name)
    case 13: try scanAndWrite(store, name)
    case 14:
      let tags = chance(2) ? ["x"] : ["x", "y"]
      let prefix = chance(2) ? [] : Array(key.prefix(1))
      let limit = chance(2) ? nil : Int.random(in: 0...4, using: &random)
      let all = draft.range(name) { $0.array.starts(with: prefix) }.filter { Set($0.item.tags).isSuperset(of: tags) }
      let found = Array(try store.find(tags: tags, prefix: prefix, limit: limit))
      expect(found.map(\.key) == all.prefix(limit ?? .max).map(\.key.array), "find of \(tags) with \(prefix)")
      expect(found.map(\.value) == all.prefix(limit ?? .max).map(\.item.value), "values found of \(tags)")
    default:
      let some = (0..<5).map { _ in keys.randomElement(using: &random)! }
      expect(try store.getMany(some) == some.map { draft.stores[name]![ByteSlice($0)]?.value }, "getMany of \(some)")
    }
  }

  private func scan(_ store: Store, _ name: String) throws {
    let descending = chance(2)
    let limit = chance(2) ? nil : Int.random(in: 0...8, using: &random)
    var expected: [(key: ByteSlice, item: Item)]
    var found: [StoreEntry]
    if chance(2) {
      let prefix = Array(keys.randomElement(using: &random)!.prefix(Int.random(in: 0...2, using: &random)))
      expected = draft.range(name) { $0.array.starts(with: prefix) }
      found = Array(try store.scan(prefix: prefix, descending: descending, limit: limit))
    } else {
      let first = chance(4) ? nil : keys.randomElement(using: &random)!
      let end = chance(4) ? nil : keys.randomElement(using: &random)!
      expected = draft.range(name) { key in
        (first.map { ByteSlice($0) <= key } ?? true) && (end.map { key < ByteSlice($0) } ?? true)
      }
      found = Array(try store.scan(from: first, to: end, descending: descending, limit: limit))
    }
    if descending { expected.reverse() }
    if let limit { expected = Array(expected.prefix(limit)) }
    expect(
      found.map(\.key) == expected.map(\.key.array), "keys of a scan, descending \(descending), limit \(limit ?? -1)")
    expect(found.map(\.value) == expected.map(\.item.value), "values of a scan")
    expect(found.map(\.tags) == expected.map(\.item.tags), "tags of a scan")
    expect(found.map { $0.expiry != nil } == expected.map(\.item.hasExpiry), "expiries of a scan")
  }

  /// A scan shows what was there when it began.
  private func scanAndWrite(_ store: Store, _ name: String) throws {
    let descending = chance(2)
    var expected = draft.range(name) { _ in true }
    if descending { expected.reverse() }
    var seen: [(key: [UInt8], value: [UInt8])] = []
    try store.forEach(descending: descending) { key, value in
      seen.append(([UInt8](key), [UInt8](value)))
      if chance(2) { try act(name, store) }
      return .goOn
    }
    expect(seen.map(\.key) == expected.map(\.key.array), "keys of a scan with writes")
    expect(seen.map(\.value) == expected.map(\.item.value), "values of a scan with writes")
  }

  private func act(_ name: String, _ store: Store) throws {
    let key = keys.randomElement(using: &random)!
    switch Int.random(in: 0..<3, using: &random) {
    case 0:
      let value = value()
      try store.put(key, value)
      draft.stores[name]![ByteSlice(key)] = Item(value: value)
    case 1:
      try store.remove(key)
      draft.stores[name]![ByteSlice(key)] = nil
    default:
      try store.append(key, "more")
      draft.stores[name]![ByteSlice(key), default: Item(value: [])].value += Array("more".utf8)
    }
  }
}

@Suite struct RandomStateTests {
  @Test(arguments: StateKeeperRig.Kind.allCases, 0..<6)
  func `what handlers read and write is what a dictionary says`(kind: StateKeeperRig.Kind, round: Int) throws {
    let seed = UInt64.random(in: .min ... .max)
    do {
      let scenario = try Scenario(seed: seed, kind: kind)
      for _ in 0..<120 { try scenario.runDelivery() }
      #expect(scenario.checks > 1000 && scenario.failures > 20)
    } catch {
      Issue.record("\(error); seed \(seed), \(kind)")
    }
  }
}
