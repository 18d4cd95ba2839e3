import Grape

let app = Application()

app.on("word") { event, context in
  try context.emit("counts@word", capitals(event.value), key: event.key)
}

app.on("echo") { event, _ in
  Reply(event.value.array)
}

try await app.run()

/// The bytes with ASCII letters as capitals.
func capitals(_ text: ByteSlice) -> [UInt8] {
  text.withUnsafeBytes { bytes in
    [UInt8](unsafeUninitializedCapacity: bytes.count) { result, count in
      for index in 0..<bytes.count {
        let byte = bytes[index]
        result[index] = byte &- 0x61 < 26 ? byte ^ 0x20 : byte
      }
      count = bytes.count
    }
  }
}
