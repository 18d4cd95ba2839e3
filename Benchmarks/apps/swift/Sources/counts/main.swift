import Grape
import Synchronization

/// How many events came per key. Events of different partitions may be handled at the same time.
let counts = Mutex<[[UInt8]: Int]>([:])
let app = Application()

app.on("word") { event, _ in
  let key = event.key?.array ?? []
  counts.withLock { $0[key, default: 0] += 1 }
}

app.on("total") { _, _ in
  Reply(String(counts.withLock { $0.values.reduce(0, +) }))
}

try await app.run()
