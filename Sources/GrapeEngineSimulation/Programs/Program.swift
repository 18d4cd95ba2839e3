/// What the handler of one event does: a list of steps. The event's value names it.
struct Program {
  enum Step {
    case get(Int)
    /// Adds to a number, and notes the event in the entry: so order and repetition show.
    case add(Int, Int)
    case append(Int)
    case remove(Int)
    case put(Int, ttl: Int?, tagged: Bool)
    /// Compare-and-set with what is there, or with something else.
    case compareAndSet(Int, matching: Bool)
    case scan(descending: Bool, limit: Int)
    case find
    case emit(app: Int, key: Int, child: Int, detached: Bool)
    case reply(isFinal: Bool)
    /// The handler throws, the first so many times.
    case fail(times: Int)
    /// It asks to be run again, the first so many times.
    case retry(times: Int, milliseconds: Int)
    case reject
    /// The worker dies of it, the first so many times.
    case crash(times: Int)
    /// The handler never returns, the first so many times.
    case hang(times: Int)
  }

  let number: Int
  var steps: [Step]

  /// Times that stand for always.
  static let always = 1_000_000

  /// Reads the number that a value begins with.
  static func number(in value: [UInt8]) -> Int? {
    Int(String(decoding: value.prefix { $0 != UInt8(ascii: " ") }, as: UTF8.self))
  }
}

/// Keys of state: few, so that handlers meet.
enum StateName {
  static let count = 6
  static let tag = "t"

  /// The store, and the key in it.
  static func name(_ key: Int) -> (store: String, key: String) {
    key < 4 ? ("", "k\(key)") : ("other", "o\(key)")
  }
}

/// Sums up what a handler has seen: what it reads wrongly shows in all that it does afterwards.
struct Digest {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func mix(_ bytes: some Sequence<UInt8>) {
    for byte in bytes { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
    value = (value ^ 0xff) &* 0x100_0000_01b3
  }

  mutating func mix(_ bytes: [UInt8]?) { if let bytes { mix(bytes) } else { mix("-".utf8) } }
  mutating func mix(_ number: Int) { mix(String(number).utf8) }

  var text: String { String(value, radix: 16) }

  /// A number in an entry after `amount` was added by the event with value `event`.
  static func added(_ amount: Int, to old: [UInt8]?, by event: [UInt8]) -> [UInt8] {
    let parts = String(decoding: old ?? [], as: UTF8.self).split(separator: " ")
    let sum = parts.count == 3 ? Int(parts[0]) ?? 0 : 0
    let count = parts.count == 3 ? Int(parts[1]) ?? 0 : 0
    var chain = Digest()
    chain.mix(old)
    chain.mix(event)
    return Array("\(sum &+ amount) \(count + 1) \(chain.text)".utf8)
  }
}
