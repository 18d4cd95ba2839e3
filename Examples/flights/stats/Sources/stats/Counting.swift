import FlightStats
import Grape

// What is counted, in stores of the partition that the group's events go to: one entry per group and delay, so that an event changes
// one or two small entries however many flights there are.
enum StoreName {
  /// `CARRIER DELAY` or `CARRIER -` without a delay: number of flights.
  static let carriers = "carriers"
  /// `ORIGIN-DEST DELAY`: number of flights.
  static let routes = "routes"
  /// Class of delay: number of flights.
  static let classes = "classes"
  /// Carrier: the airline's name.
  static let airlines = "airlines"
}

/// Counts one more under `key`.
func countOne(_ key: String, in store: Store) throws {
  try store.put(key, encoding: (try store.get(key, as: Int.self) ?? 0) + 1)
}

/// The key of a group's flights of one delay.
func delayKey(_ group: String, _ delay: Int?) -> String { "\(group) \(delay.map(String.init) ?? "-")" }

/// All that was counted, of all partitions: what was committed a moment ago.
func board(_ context: Context) throws -> Board {
  var board = Board()
  try forEach(StoreName.carriers, context) { key, value in
    let (group, delay) = parts(of: key)
    board.carriers[group, default: DelayCounts()].add(delay, flights: Int(value) ?? 0)
  }
  try forEach(StoreName.routes, context) { key, value in
    let (group, delay) = parts(of: key)
    board.routes[group, default: DelayCounts()].add(delay, flights: Int(value) ?? 0)
  }
  try forEach(StoreName.classes, context) { key, value in board.classes[key, default: 0] += Int(value) ?? 0 }
  try forEach(StoreName.airlines, context) { key, value in board.airlines[key] = value }
  return board
}

private func parts(of key: String) -> (group: String, delay: Int?) {
  let end = key.lastIndex(of: " ") ?? key.endIndex
  return (String(key[..<end]), Int(key[end...].dropFirst()))
}

private func forEach(_ name: String, _ context: Context, _ body: (String, String) -> Void) throws {
  for store in try context.store(name).allPartitions() {
    for entry in try store.scan() {
      body(String(decoding: entry.key, as: UTF8.self), String(decoding: entry.value, as: UTF8.self))
    }
  }
}
