import CGrapeLinux
import Glibc

/// One line of JSON.
struct Report {
  private var members: [String] = []

  mutating func add(_ name: String, _ value: Int) { members.append("\"\(name)\":\(value)") }
  mutating func add(_ name: String, _ value: Double) { members.append("\"\(name)\":\(value)") }

  /// The median and the 99th percentile of durations in nanoseconds, as microseconds.
  mutating func add(_ name: String, nanoseconds: [Int64]) {
    let sorted = nanoseconds.sorted()
    guard let last = sorted.last else { return }
    let high = sorted.count * 99 / 100
    add(name + "P50Micros", Double(sorted[sorted.count / 2]) / 1e3)
    add(name + "P99Micros", Double(high < sorted.count ? sorted[high] : last) / 1e3)
  }

  /// Bytes, records and how many of them per second.
  mutating func add(bytes: Int, records: Int, nanoseconds: Int64) {
    let seconds = Double(nanoseconds) / 1e9
    add("bytes", bytes)
    add("records", records)
    add("seconds", seconds)
    add("bytesPerSecond", Double(bytes) / seconds)
    add("recordsPerSecond", Double(records) / seconds)
  }

  /// Memory of this process: now, and at most so far.
  mutating func addMemory() {
    add("residentBytes", ProcessStatus.bytes("VmRSS"))
    add("residentPeakBytes", ProcessStatus.bytes("VmHWM"))
  }

  func write() { send("{\(members.joined(separator: ","))}\n", to: STDOUT_FILENO) }
}

/// What the kernel says about this process.
enum ProcessStatus {
  /// A field of /proc/self/status that is given in kB.
  static func bytes(_ field: String) -> Int {
    for line in read("/proc/self/status").split(separator: "\n") where line.hasPrefix(field + ":") {
      let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
      if words.count > 1, let kilobytes = Int(words[1]) { return kilobytes << 10 }
    }
    fail("/proc/self/status has no \(field)")
  }

  /// Processor time of the threads of that name, seconds.
  static func processorSeconds(_ threadName: String) -> Double {
    guard let stream = opendir("/proc/self/task") else { fail("/proc/self/task: \(String(cString: strerror(errno)))") }
    defer { closedir(stream) }
    var ticks = 0
    while let entry = readdir(stream) {
      let id = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      let text = read("/proc/self/task/\(id)/stat")
      guard text.contains("(\(threadName))") else { continue }
      let fields = text.split(separator: ")").last!.split(separator: " ")
      ticks += (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0)
    }
    return Double(ticks) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// Empty if there is no such file: threads come and go.
  private static func read(_ path: String) -> String {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    if file < 0 { return "" }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 8_192)
    let count = Glibc.read(file, &bytes, bytes.count)
    return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
  }
}

func nanoseconds(_ body: () -> Void) -> Int64 {
  let began = grape_monotonic_ns()
  body()
  return grape_monotonic_ns() - began
}
