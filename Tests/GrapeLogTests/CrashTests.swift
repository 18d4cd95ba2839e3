import Foundation
import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import GrapeWire
import Testing

@Suite("Death of the process") struct CrashTests {
  /// GRAPE_CRASH_RUNS=N kills the writer N times instead of a few.
  private static let runs = ProcessInfo.processInfo.environment["GRAPE_CRASH_RUNS"].flatMap { Int($0) } ?? 100

  @Test("kill -9 at random moments loses, doubles and tears nothing that was acknowledged")
  func killed() async throws {
    var random = SystemRandomNumberGenerator()
    let files = LogFiles()
    var acknowledged: [String: (partition: Int32, offset: Int64)] = [:]
    for run in 0..<Self.runs {
      let limit = Int.random(in: 0...400, using: &random)
      for line in try runUntilKilled(files.path, run: run, lines: limit) {
        let parts = line.split(separator: " ")
        if parts.first == "recovered" { continue }
        let place = (try #require(Int32(parts[0])), try #require(Int64(parts[1])))
        #expect(acknowledged.updateValue(place, forKey: String(parts[2])) == nil)
      }
      if run % 5 == 4 { try await check(files, acknowledged) }
    }
    #expect(acknowledged.count > 500)
    // Byte 59 tells a rewritten segment: the writer was cleaning when it died.
    #expect(try files.segments().contains { try files.read($0)[59] == 1 })
    #expect(try CommitLog.verify(directory: files.path).problems.map(\.description) == [])
  }

  /// Starts the writer, reads `count` lines of it, kills it, and returns all whole lines that it got out.
  private func runUntilKilled(_ directory: String, run: Int, lines count: Int) throws -> [String] {
    let own = URL(filePath: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
    let besides = [own.deletingLastPathComponent(), Bundle.main.bundleURL.deletingLastPathComponent()] + searchPaths()
    let writers = besides.map { $0.appending(path: "GrapeLogCrashWriter") }
    let writer = writers.first { FileManager.default.isExecutableFile(atPath: $0.path) }
    let program = try #require(writer, "no GrapeLogCrashWriter beside \(own.path)")
    let process = try CrashingProcess(program.path, [directory, "\(run)"])
    var output: [UInt8] = []
    var lines = 0
    while lines <= count {
      let piece = try process.read()
      if piece.isEmpty { break }
      output += piece
      lines += piece.count { $0 == UInt8(ascii: "\n") }
    }
    #expect(lines > count, "the writer ended by itself")
    output += try process.kill()
    let whole = output.prefix((output.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)
    return String(decoding: whole, as: UTF8.self).split(separator: "\n").map(String.init)
  }

  /// Where the test bundle lies, if the test runner is elsewhere.
  private func searchPaths() -> [URL] {
    CommandLine.arguments.filter { $0.contains(".xctest") || $0.contains("/debug/") }
      .map { URL(filePath: $0).deletingLastPathComponent() }
  }

  private func check(_ files: LogFiles, _ acknowledged: [String: (partition: Int32, offset: Int64)]) async throws {
    try await files.withLog { log, _ in
      var found: [String: (partition: Int32, offset: Int64)] = [:]
      var twins: Set<String> = []
      var next: [String: Int] = [:]
      for partition: Int32 in 0..<3 {
        for (offset, value) in try await values(log, TopicPartition("crash", partition)).enumerated() {
          if value.hasPrefix("twin of ") {
            #expect(twins.insert(String(value.dropFirst(8))).inserted, "\(value) is there twice")
          } else if value.contains(":") {
            #expect(found.updateValue((partition, Int64(offset)), forKey: value) == nil, "\(value) is there twice")
            let parts = value.split(separator: ":")
            let committer = "\(parts[0]):\(parts[1])"
            #expect(Int(parts[2]) == next[committer, default: 0], "order of \(committer)")
            next[committer, default: 0] += 1
          }
        }
      }
      for (value, place) in acknowledged {
        #expect(found[value]?.partition == place.partition && found[value]?.offset == place.offset, "\(value) is lost")
      }
      #expect(Set(found.keys) == twins, "transactions are whole")
      for (committer, count) in next {
        let offsets = try await log.committedOffsets(group: committer)
        #expect(
          offsets.values.map(\.offset) == [Int64(count - 1)], "the offsets of \(committer) are those of its records")
      }
    }
  }
}
