import Grape
import Synchronization

/// What can be measured: see `worker`.
let handlers = ["ignore", "count", "uppercase", "uppercase-bytes", "forward", "by-name", "async", "reply"]

/// The worker under test.
func worker(_ handler: String) -> Application {
  let app = Application()
  let out = app.signal("out")
  switch handler {
  case "ignore":
    app.on("in") { _, _ in }
  case "count":
    let counts = Mutex<[ByteSlice: Int]>([:])
    app.on("in") { event, _ in
      guard let key = event.key else { return }
      counts.withLock { counts in
        // A key that is kept is copied: a slice of the delivery would keep all of it.
        if let index = counts.index(forKey: key) {
          counts.values[index] += 1
        } else {
          counts[ByteSlice(copying: key.unsafeBytes)] = 1
        }
      }
    }
  case "uppercase":
    app.on("in") { event, context in try context.emit(out, capitals(event.value), key: event.key) }
  case "uppercase-bytes":
    // Without an array: the capitals are made on the stack.
    app.on("in") { event, context in
      let value = event.value
      try withUnsafeTemporaryAllocation(byteCount: value.count, alignment: 8) { bytes in
        value.withUnsafeBytes { source in
          for index in 0..<source.count { bytes[index] = capital(source[index]) }
        }
        try context.emit(out, UnsafeRawBufferPointer(bytes), key: event.key)
      }
    }
  case "forward":
    app.on("in") { event, context in try context.emit(out, event.value, key: event.key) }
  case "by-name":
    app.on("in") { event, context in try context.emit("out", event.value, key: event.key) }
  case "async":
    app.on("in") { event, context async throws in try context.emit(out, event.value, key: event.key) }
  case "reply":
    app.on("in") { event, _ in Reply(event.value) }
  default:
    fatalError("no such handler: \(handler); there are \(handlers)")
  }
  return app
}

@inline(__always)
func capital(_ byte: UInt8) -> UInt8 { byte &- 0x61 < 26 ? byte ^ 0x20 : byte }

/// The bytes with ASCII letters as capitals.
func capitals(_ text: ByteSlice) -> [UInt8] {
  text.withUnsafeBytes { bytes in
    [UInt8](unsafeUninitializedCapacity: bytes.count) { result, count in
      for index in 0..<bytes.count { result[index] = capital(bytes[index]) }
      count = bytes.count
    }
  }
}
