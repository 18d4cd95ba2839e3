import Grape

/// Counts events by key in state: exactly once, whatever happens to the worker or the node.
let app = Application()

app.on("word") { event, context in
  guard let key = event.key else { throw Reject(code: 1, message: "a word without key cannot be counted") }
  try context.state.put(key, encoding: (context.state.get(key, as: Int.self) ?? 0) + 1)
}

// The same without state: what the counting costs shows in the difference.
app.on("pass") { _, _ in }

app.on("total") { _, context in
  var total = 0
  for store in try context.state.allPartitions() {
    for entry in try store.scan() { total += Int(String(decoding: entry.value, as: UTF8.self)) ?? 0 }
  }
  return Reply(String(total))
}

try await app.run()
