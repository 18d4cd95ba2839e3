import ArgumentParser
import Grape
import GrapeCore
import GrapeWire

/// `grape state export`
struct StateExportCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "export",
    abstract: "Write entries as lines of JSON.",
    discussion: """
      One object a line: store, partition, key (or keyBase64), size, value (or valueBase64), and tags and expiresMs where
      there are any. All stores, unless --store names one ("" is the default store), and all partitions, unless one is
      named. What is written while the export runs may or may not be in it.

      EXAMPLES
        grape state export flights > flights.ndjson
        grape state export shop --store sessions | gzip > sessions.ndjson.gz
      """)

  @OptionGroup var place: StatePlace
  @Option(help: StateConsistency.help) var consistency = StateConsistency.linearizable
  @OptionGroup var options: NodeOptions

  func execute(_ node: NodeConnection) throws {
    var progress = IngestProgress(isShown: Output.errorIsTerminal && !Output.isTerminal, noun: "entries")
    defer { progress.end() }
    var (entries, bytes) = (Int64(0), Int64(0))
    let members: [(String, JSONValue)] = place.store == nil ? [("allStores", true)] : []
    try StatePages(node, place, members, consistency: consistency).forEach { row in
      Output.line(row.json.text)
      entries += 1
      bytes += Int64(row.size)
      progress.acknowledgedHere = entries
      if entries & 0xff == 0 || row.size > 1 << 20 {
        // What could not be written ends the export now, not after reading all of it.
        try Output.flush()
        progress.update(bytes: bytes, events: entries, acknowledged: entries)
      }
      return true
    }
  }
}
