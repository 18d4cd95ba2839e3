import CGrapeLinux
import CRawState
import Glibc
import Grape
import Synchronization

/// Keys in an order that is the same in all processes, each as the default store's full key: a 0, then the key.
struct Keys: @unchecked Sendable {
  static let size = 1 + Int(RAW_KEY_SIZE)
  let bytes: UnsafeMutablePointer<CChar>
  let count: Int

  init(_ count: Int, of entries: UInt32, seed: UInt64) {
    self.count = count
    bytes = .allocate(capacity: count * Self.size)
    var state = seed
    for index in 0..<count {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      bytes[index * Self.size] = 0
      raw_key(UInt32(truncatingIfNeeded: (state >> 33) % UInt64(entries)), bytes + index * Self.size + 1)
    }
  }

  /// Without the store.
  func key(_ index: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: bytes + index * Self.size + 1, count: Self.size - 1)
  }
}

/// Entries that are read, and how many of them.
let entryCount: UInt32 = 1_000_000
let getCount = 1_000_000
let getSeed: UInt64 = 42

/// The worker under test. What it measures itself it puts into the state, as text.
func worker(_ handler: String) -> Application {
  let app = Application()
  switch handler {
  case "ignore":
    app.on("in") { _, _ in }
  case "dictionary":
    let counts = Mutex<[ByteSlice: Int]>([:])
    app.on("in") { event, _ in
      guard let key = event.key else { return }
      counts.withLock { counts in
        if let index = counts.index(forKey: key) {
          counts.values[index] += 1
        } else {
          counts[ByteSlice(copying: key.unsafeBytes)] = 1
        }
      }
    }
  case "count":
    app.on("in") { event, context in
      let count = try context.state.get(event.key, as: Int.self) ?? 0
      try context.state.put(event.key, encoding: count + 1)
    }
  case "gets":
    let keys = Keys(getCount, of: entryCount, seed: getSeed)
    app.on("in") { event, context in
      let state = context.state
      var sum = 0
      var copied = 0
      let begin = grape_monotonic_ns()
      for index in 0..<keys.count { sum += Int(try state.get(keys.key(index))?.last ?? 0) }
      let middle = grape_monotonic_ns()
      for index in 0..<keys.count {
        copied += try state.withValue(keys.key(index)) { Int($0?.last ?? 0) }
      }
      let end = grape_monotonic_ns()
      guard sum == copied else { throw Reject(message: "the sums differ") }
      try context.state.put("result", "\(middle - begin) \(end - middle) \(sum)")
    }
  default: fatalError("no such handler: \(handler)")
  }
  return app
}
