import GrapeCore
import GrapeWire
import Testing

@testable import GrapeNode

@Suite struct RequestIndexTests {
  private static func id(_ number: UInt64) -> CorrelationID { CorrelationID(high: number, low: ~number) }

  private static func marker(_ number: UInt64) -> RequestMarker {
    RequestMarker(id: id(number), isBlocking: true, fingerprint: number, partition: 0, offsetBound: 0)
  }

  private static func name(_ number: UInt64) -> ByteSlice { ByteSlice("pay\0key-\(number)") }

  private static let day = Profile.Idempotency(window: .seconds(86400), keys: 1000)

  @Test func aMarkerIsReadAsItWasWritten() throws {
    let marker = RequestMarker(
      id: CorrelationID(high: .max, low: 1), isBlocking: false, fingerprint: 0x0123_4567_89ab_cdef, partition: 7,
      offsetBound: 1 << 40)
    let bytes = marker.encoded
    #expect(try RequestMarker(bytes.unsafeBytes) == marker)
    for count in 0..<bytes.count {
      let cut = bytes[0..<count]
      #expect(throws: WireError.self) { try RequestMarker(cut.unsafeBytes) }
    }
    withExtendedLifetime(bytes) {}
  }

  @Test func fingerprintsTellWhereTheKeyEndsAndTheDataBegins() {
    let (ab, c, a, bc) = (ByteSlice("ab"), ByteSlice("c"), ByteSlice("a"), ByteSlice("bc"))
    let first = RequestMarker.fingerprint(key: ab.unsafeBytes, value: c.unsafeBytes)
    #expect(first != RequestMarker.fingerprint(key: a.unsafeBytes, value: bc.unsafeBytes))
    #expect(first == RequestMarker.fingerprint(key: ab.unsafeBytes, value: c.unsafeBytes))
    let empty = UnsafeRawBufferPointer(start: nil, count: 0)
    #expect(
      RequestMarker.fingerprint(key: nil, value: c.unsafeBytes)
        != RequestMarker.fingerprint(key: empty, value: c.unsafeBytes))
    withExtendedLifetime((ab, c, a, bc)) {}
  }

  @Test func aNameIsOfOneEventAndOneKey() throws {
    let key = ByteSlice([0, 1, 0])
    let name = IdempotencyKey.name(event: "pay", key: key.unsafeBytes)
    let parts = try #require(IdempotencyKey.split(name))
    #expect(parts.event == ByteSlice("pay") && parts.key == key)
  }

  @Test func aRequestIsRememberedUpToItsAge() {
    var index = RequestIndex()
    index.insert(Self.name(1), .init(Self.marker(1), time: 1000), now: 1000, window: Self.day)
    #expect(index.find(Self.name(1), now: 1000 + 86_399_999, window: Self.day) != nil)
    #expect(index.find(Self.name(2), now: 1000, window: Self.day) == nil)
    #expect(index.find(Self.name(1), now: 1000 + 86_400_000, window: Self.day) == nil)
    #expect(index.count == 0)
  }

  @Test func theNewestAreRememberedAndTheOldestForgotten() {
    var index = RequestIndex()
    let window = Profile.Idempotency(window: .seconds(60), keys: 10)
    for number in 0..<25 as Range<UInt64> {
      index.insert(
        Self.name(number), .init(Self.marker(number), time: 0, markerOffset: Int64(number)), now: 0, window: window)
    }
    #expect(index.count == 10)
    #expect(index.dropped == 15)
    for number in 0..<25 as Range<UInt64> {
      #expect((index.find(Self.name(number), now: 0, window: window) != nil) == (number >= 15))
    }
    #expect(index.oldestMarker() == 15)
    #expect(index.dropped == 0)
  }

  @Test func whatNeverRanIsForgottenAndWhatRanIsNot() {
    var index = RequestIndex()
    index.insert(Self.name(1), .init(Self.marker(1), time: 0), now: 0, window: Self.day)
    index.insert(Self.name(2), .init(Self.marker(2), time: 0), now: 0, window: Self.day)
    index.replied(Self.id(1), at: 5, ReplyStatus(.deadlineExceeded, ran: .never))
    index.replied(Self.id(2), at: 6, ReplyStatus(.handlerError, ran: .yes))
    #expect(index.find(Self.name(1), now: 0, window: Self.day) == nil)
    #expect(index.find(Self.name(2), now: 0, window: Self.day)?.finalReply == 6)
    // A reply to what is forgotten changes nothing.
    index.replied(Self.id(1), at: 7, ReplyStatus())
    #expect(index.count == 1)
  }

  @Test func theFirstOfSeveralRepliesAndTheFirstFinalOneAreKept() {
    var index = RequestIndex()
    index.insert(Self.name(1), .init(Self.marker(1), time: 0), now: 0, window: Self.day)
    index.replied(Self.id(1), at: 3, ReplyStatus(isFinal: false))
    index.replied(Self.id(1), at: 4, ReplyStatus(isFinal: false))
    index.replied(Self.id(1), at: 8, ReplyStatus())
    index.replied(Self.id(1), at: 9, ReplyStatus())
    let entry = index.find(Self.name(1), now: 0, window: Self.day)
    #expect(entry?.firstReply == 3)
    #expect(entry?.finalReply == 8)
  }

  @Test func aNameThatIsUsedAgainBelongsToTheLaterRequest() {
    var index = RequestIndex()
    index.insert(Self.name(1), .init(Self.marker(1), time: 0), now: 0, window: Self.day)
    index.remove(Self.id(1))
    index.insert(Self.name(1), .init(Self.marker(2), time: 10), now: 10, window: Self.day)
    index.replied(Self.id(1), at: 3, ReplyStatus())
    #expect(index.find(Self.name(1), now: 10, window: Self.day)?.firstReply == nil)
    // The first one's age no longer counts.
    #expect(index.find(Self.name(1), now: 86_400_005, window: Self.day)?.marker.id == Self.id(2))
  }

  /// Against a list that is searched from its end.
  @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
  func randomRequestsAreRememberedAsAListWould(seed: UInt64) {
    var random = SplitMix(state: seed)
    var index = RequestIndex()
    var list: [(name: UInt64, id: UInt64, time: Int64)] = []
    let window = Profile.Idempotency(window: .milliseconds(500), keys: 20)
    var now: Int64 = 0
    for step in 0..<20_000 as Range<UInt64> {
      now += Int64(random.next() % 20)
      let name = random.next() % 40
      let alive = list.filter { now - $0.time < 500 }
      let expected = alive.last { $0.name == name }
      let found = index.find(Self.name(name), now: now, window: window)
      #expect(found?.marker.id == expected.map { Self.id($0.id) }, "seed \(seed), step \(step)")
      switch random.next() % 4 {
      case 0 where expected != nil:
        index.replied(Self.id(expected!.id), at: Int64(step), ReplyStatus(.unavailable, ran: .never))
        list.removeAll { $0.id == expected!.id }
      case 1, 2:
        list.removeAll { $0.name == name || now - $0.time >= 500 }
        list.append((name, step, now))
        if list.count > 20 { list.removeFirst() }
        index.insert(Self.name(name), .init(Self.marker(step), time: now), now: now, window: window)
      default: break
      }
    }
  }
}

/// Random numbers that a seed repeats.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
