import Glibc

/// Measures the embedded log. Each command does one thing once and prints what it found as one line of JSON;
/// `Benchmarks/log_bench.py` calls them in rounds beside the machine's limits and makes the report.
@main
enum Bench {
  static let usage = """
    usage: GrapeCommitLogBench COMMAND DIRECTORY [OPTION VALUE ...]

    The log is in the folder `log` of DIRECTORY, which is made if needed and never removed. Every command takes
    --seconds N, after which it is ended by SIGALRM (300).

      append      --batches FILE --mib N [--partitions N] [--in-flight N] [--group-kib N] [--segment-mib N]
                  durable appends of the record batches in FILE; --group-kib: most bytes per commit group
      compress    --mib N [--producers N] [--batch-kib N] [--level N]
                  durable appends of JSON events in batches of N KiB (256), packed by each producer with that level of
                  zstd (1)
      latency     --count N [--assist 1]
                  durable appends of 256 bytes, one in flight; --assist: written by the thread that commits
      concurrent  --count N [--in-flight N]
                  durable appends of 256 bytes, each sent when one before it is answered
      replay      [--partition N] [--read-kib N]
                  reads a partition, or all of them at once, from the beginning to the end
      memory      --batches FILE --records N
                  decodes records that the log holds in memory
      lookups     --count N
                  reads at the log's end and at places chosen at random
      open        opens and closes
      victim      --batches FILE
                  appends until it is killed, and says after each MiB how much is durable
      follow      [--batches FILE] [--in-flight N] [--mib-per-second N]
                  appends, single records of 256 bytes unless there is a FILE, by turns alone and beside a replay of
                  the log, as fast as it goes or at that pace

    """

  static func main() {
    guard let arguments = Arguments(CommandLine.arguments.dropFirst()) else { fail(usage) }
    alarm(UInt32(arguments.integer("seconds", or: 300)))
    switch arguments.command {
    case "append": Appending.run(arguments)
    case "compress": Compressing.run(arguments)
    case "latency": Latency.run(arguments)
    case "concurrent": Concurrency.run(arguments)
    case "replay": Replay.run(arguments)
    case "memory": Decoding.run(arguments)
    case "lookups": Lookups.run(arguments)
    case "open": Opening.run(arguments)
    case "victim": Victim.run(arguments)
    case "follow": Following.run(arguments)
    default: fail(usage)
    }
  }
}

/// Ends the program: what goes wrong in a measurement leaves nothing to report.
func fail(_ message: String) -> Never {
  send("GrapeCommitLogBench: \(message)\n", to: STDERR_FILENO)
  exit(1)
}

/// Writes the whole text. If nobody reads it, there is nobody to tell.
func send(_ text: String, to descriptor: Int32) {
  var rest = Array(text.utf8)[...]
  while !rest.isEmpty {
    let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress!, $0.count) }
    if count < 0 && errno == EINTR { continue }
    if count <= 0 { return }
    rest = rest.dropFirst(count)
  }
}

/// A command, its directory, and options with their values.
struct Arguments {
  let command: String
  let directory: String
  private var values: [String: String] = [:]

  init?(_ words: ArraySlice<String>) {
    var words = words
    guard let command = words.popFirst(), let directory = words.popFirst() else { return nil }
    self.command = command
    self.directory = directory
    while let name = words.popFirst() {
      guard name.hasPrefix("--"), let value = words.popFirst() else { return nil }
      values[String(name.dropFirst(2))] = value
    }
  }

  func has(_ name: String) -> Bool { values[name] != nil }

  func string(_ name: String) -> String {
    guard let value = values[name] else { fail("\(command) needs --\(name)") }
    return value
  }

  /// Without a value to fall back on, the option must be there.
  func integer(_ name: String, or other: Int? = nil) -> Int {
    guard let value = values[name] else { return other ?? integer(string(name), name) }
    return integer(value, name)
  }

  /// As `integer`, and it may be below zero.
  func signed(_ name: String, or other: Int) -> Int {
    guard let value = values[name] else { return other }
    guard let number = Int(value) else { fail("--\(name) \(value): a number is expected") }
    return number
  }

  private func integer(_ value: String, _ name: String) -> Int {
    guard let number = Int(value), number >= 0 else { fail("--\(name) \(value): a number is expected") }
    return number
  }
}
