import CGrapeLinux
import CRawState
import Glibc
import Grape
import GrapeWire

// What state costs a worker of the Swift SDK.
//
//     swift run -c release --package-path Benchmarks/state state-bench [reads|counts] [ROUNDS]
//
// reads:  point reads in random order over a million entries, beside the same gets in C on bare LMDB.
// counts: keyed counting (get, add 1, put) of 10,000 keys in events of 100 bytes, beside handlers that do less. The base catches up with
//         results `lag` deliveries later.

private let folder = "/tmp/grape-state-bench-\(getpid())"

private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

private func rounded(_ value: Double) -> String {
  let hundredths = Int((value * 100).rounded())
  return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
}

private func makeState(_ name: String, entries: UInt32, value: String) throws -> String {
  let path = "\(folder)/\(name)"
  guard mkdir(path, 0o700) == 0 else { throw Failure("mkdir \(path)") }
  let error = raw_fill(path, entries, value)
  guard error == 0 else { throw Failure("LMDB error \(error)") }
  return path
}

/// Point reads. Prints the ratios to bare LMDB.
private func reads(_ rounds: Int) throws {
  mkdir("\(folder)/reads", 0o700)
  let path = try makeState("reads/0", entries: entryCount, value: "sixteen bytes ...")
  let keys = Keys(getCount, of: entryCount, seed: getSeed)
  var raw: [Double] = []
  var copied: [Double] = []
  var seen: [Double] = []
  let feeder = try Feeder("gets", state: "\(folder)/reads", partitions: 1)
  let delivery = try Delivery { builder, headers in
    builder.append(key: nil, value: ByteSlice(""), headerSection: headers, timestamp: 1_700_000_000_000)
    return 1
  }
  for round in 0..<rounds {
    var sum: UInt64 = 0
    let taken = raw_gets(path, keys.bytes, UInt32(keys.count), &sum)
    guard taken > 0 else { throw Failure("raw gets") }
    raw.append(Double(taken) / Double(keys.count))
    try feeder.send(delivery.placed(id: UInt64(round + 1), partition: 0, first: Int64(round)))
    let text = try feeder.result().body.string
    // The entry's value is the last of the result: two times and a sum, as text.
    let fields = text.split(whereSeparator: { !$0.isNumber && $0 != " " }).map { $0.split(separator: " ") }
    guard let figures = fields.last(where: { $0.count == 3 })?.compactMap({ Double($0) }), figures.count == 3,
      figures[2] == Double(sum)
    else { throw Failure("the worker measured nothing: \(text)") }
    copied.append(figures[0] / Double(keys.count))
    seen.append(figures[1] / Double(keys.count))
  }
  try feeder.end()
  print("bare LMDB in C       \(Int(median(raw))) ns per get")
  print("state.get            \(Int(median(copied))) ns, \(rounded(median(raw) / median(copied))) of LMDB's speed")
  print("state.withValue      \(Int(median(seen))) ns, \(rounded(median(raw) / median(seen))) of LMDB's speed")
}

/// Deliveries of 256 KiB, with keys in random order.
private func makeDeliveries() throws -> [Delivery] {
  let value = ByteSlice((0..<100).map { UInt8(0x61 + $0 % 26) })
  return try (0..<8).map { number in
    let keys = Keys(4096, of: 10_000, seed: UInt64(number))
    return try Delivery { builder, headers in
      var events = 0
      while builder.byteCount < 256 * 1024 {
        builder.append(
          key: keys.key(events), value: value.unsafeBytes, headerSection: headers.unsafeBytes,
          timestamp: 1_700_000_000_000)
        events += 1
      }
      return events
    }
  }
}

/// Nanoseconds of the worker's processor time per event.
private func count(_ handler: String, lag: Int, deliveries: [Delivery], name: String) throws -> Double {
  mkdir("\(folder)/\(name)", 0o700)
  let path = try makeState("\(name)/0", entries: 10_000, value: "1000")
  let feeder = try Feeder(handler, state: "\(folder)/\(name)", partitions: 1)
  var offset: Int64 = 0
  var processed: [Int64] = []
  var events = 0
  var before = 0.0
  let warm = 300
  for round in 0..<(warm + 2000) {
    if round == warm {
      before = try feeder.processorSeconds()
      events = 0
    }
    let delivery = deliveries[round % deliveries.count]
    try feeder.send(delivery.placed(id: UInt64(round + 1), partition: 0, first: offset))
    _ = try feeder.result()
    offset += Int64(delivery.events)
    events += delivery.events
    processed.append(offset)
    if processed.count > lag {
      let error = raw_set_processed(path, processed.removeFirst())
      guard error == 0 else { throw Failure("LMDB error \(error)") }
    }
  }
  let used = try feeder.processorSeconds() - before
  try feeder.end()
  return used / Double(events) * 1e9
}

private func counts(_ rounds: Int) throws {
  let deliveries = try makeDeliveries()
  var results: [(name: String, handler: String, lag: Int, times: [Double])] = [
    ("nothing", "ignore", 0, []), ("a dictionary of its own", "dictionary", 0, []),
    ("state, base up to date", "count", 0, []),
    ("state, base 2 behind", "count", 2, []), ("state, base 8 behind", "count", 8, []),
  ]
  for round in 0..<rounds {
    for index in results.indices {
      let result = results[index]
      results[index].times.append(
        try count(result.handler, lag: result.lag, deliveries: deliveries, name: "counts-\(round)-\(index)"))
    }
  }
  let base = median(results[0].times)
  for result in results {
    let time = median(result.times)
    print("\(result.name): \(Int(time)) ns per event, \(Int(time - base)) more than nothing")
  }
}

if getenv("GRAPE_SOCKET") != nil {
  try await worker(CommandLine.arguments.dropFirst().first ?? "ignore").run()
} else {
  let arguments = Array(CommandLine.arguments.dropFirst())
  let rounds = max(1, arguments.count > 1 ? Int(arguments[1]) ?? 3 : 3)
  mkdir(folder, 0o700)
  defer { raw_remove(folder) }
  if arguments.first != "counts" { try reads(rounds) }
  if arguments.first != "reads" { try counts(rounds) }
}
