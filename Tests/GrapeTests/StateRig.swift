import Glibc
import GrapeCore
import GrapeState
import GrapeWire
import Testing

@testable import Grape

/// SplitMix64.
struct SeededRandom: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// A folder that goes with its owner.
final class TemporaryFolder {
  let path: String

  init() throws {
    var template = Array("/tmp/grape-state-XXXXXX".utf8CString)
    guard template.withUnsafeMutableBufferPointer({ mkdtemp($0.baseAddress!) != nil }) else {
      throw FakeNode.Failure(description: "mkdtemp: errno \(errno)")
    }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    // Two levels: what the tests put there.
    for entry in Self.list(path) {
      for file in Self.list("\(path)/\(entry)") { unlink("\(path)/\(entry)/\(file)") }
      if rmdir("\(path)/\(entry)") != 0 { unlink("\(path)/\(entry)") }
    }
    rmdir(path)
  }

  private static func list(_ path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }
}

/// Writes of state that a result carries, in order.
typealias StateRecords = [(key: ByteSlice, entry: ByteSlice?)]

/// What a node does with state, for one partition: results are kept back until they are applied.
final class StateKeeperRig {
  enum Kind: CaseIterable, CustomTestStringConvertible {
    case map, ask, memory
    var testDescription: String { "\(self)" }
  }

  let kind: Kind
  private let path: String
  private(set) var environment: LMDBEnvironment?
  let memory = MemoryBase()
  private(set) var pending: [(processed: Int64, records: StateRecords)] = []
  private(set) var processed: Int64 = 0
  private var changelog: Int64 = 0

  init(_ kind: Kind, path: String) {
    self.kind = kind
    self.path = path
  }

  func keep(_ records: StateRecords, processed: Int64) { pending.append((processed, records)) }

  /// Applies the oldest results.
  func apply(_ count: Int) throws {
    for result in pending.prefix(count) {
      try change(result.records, processed: result.processed)
    }
    pending.removeFirst(min(count, pending.count))
  }

  /// Changes the base, as a node does with a result or on its own account.
  func change(_ records: StateRecords, processed: Int64? = nil) throws {
    self.processed = processed ?? self.processed
    guard kind == .map else {
      for record in records { memory.set(record.key, record.entry) }
      memory.processed = self.processed
      return
    }
    if environment == nil {
      mkdir(path, 0o700)
      environment = try LMDBEnvironment(path: path, mapSize: 1 << 26)
    }
    changelog += Int64(records.count)
    var writer = try StateWriter(try #require(environment))
    for record in records { try writer.set(record.key.unsafeBytes, record.entry?.unsafeBytes) }
    try writer.commit(
      StatePosition(processed: self.processed, changelog: changelog, lastOffset: changelog - 1, fingerprint: 0))
  }

  /// What a worker reads.
  func base(_ authority: any StateAuthority, partition: Int32) -> any StateBase {
    switch kind {
    case .memory: memory
    case .ask: AskBase(partition: partition, authority: authority)
    case .map:
      // LMDB takes a file once per process.
      MapBase(path: path) { [unowned self] (_) throws(StateError) in
        guard let environment else { throw StateError(.notFound, "nothing was written") }
        return environment
      }
    }
  }
}

/// Answers STATE frames from memory, as docs/protocol.md says.
final class TestAuthority: StateAuthority {
  let base: (Int32) -> MemoryBase
  /// Called before each answer.
  var beforeAnswer: () throws -> Void = {}
  private(set) var questions = 0

  init(_ base: @escaping (Int32) -> MemoryBase) { self.base = base }

  func ask(_ question: ByteSlice) throws(StateError) -> ByteSlice {
    questions += 1
    do {
      try beforeAnswer()
      return try TestAuthority.answer(question, base)
    } catch {
      throw StateError(.unavailable, "\(error)")
    }
  }

  static func answer(_ question: ByteSlice, _ base: (Int32) -> MemoryBase) throws -> ByteSlice {
    var reader = ByteReader(question.unsafeBytes)
    let operation = try reader.u8()
    let flags = try reader.u8()
    #expect(try reader.u16() == 0)
    let base = base(try reader.i32())
    let limit = try reader.u32()
    let maxBytes = Int(try reader.u32())
    let key = ByteSlice(copying: try #require(try reader.bytes32()))
    let end = try reader.bytes32().map { ByteSlice(copying: $0) }
    let tags = try (0..<(try reader.u8())).map { _ in
      String(decoding: try reader.bytes(Int(reader.u8())), as: UTF8.self)
    }
    #expect(reader.remaining == 0)
    #expect((operation == 1) == (end == nil) && (operation == 3) == !tags.isEmpty)
    var found: [(key: ByteSlice, entry: ByteSlice)] = []
    var hasMore = false
    if operation == 1 {
      if let entry = base.entries[key] { found.append((key, entry)) }
    } else {
      let page = try base.page(
        StatePageRequest(
          range: key..<(try #require(end)), descending: flags == 1, tags: tags,
          limit: limit == 0 ? .max : Int(limit)))
      var bytes = 0
      for (key, entry) in page.entries {
        bytes += key.count + entry.count
        if !found.isEmpty, bytes > maxBytes { break }
        found.append((ByteSlice(copying: key), ByteSlice(copying: entry)))
      }
      hasMore = page.hasMore || found.count < page.entries.count
    }
    var answer = ByteWriter()
    answer.i64(base.processed)
    answer.u8(hasMore ? 1 : 0)
    answer.u8(0)
    answer.u16(0)
    answer.u32(UInt32(found.count))
    for (key, entry) in found {
      answer.bytes32(key.unsafeBytes)
      answer.bytes32(entry.unsafeBytes)
    }
    return answer.finish()
  }
}

extension DeliveryRun {
  /// Runs a delivery whose handlers do not suspend.
  func runToEnd(_ delivery: Delivery) throws {
    begin(delivery)
    guard case .finished = try advance() else { throw FakeNode.Failure(description: "a handler suspends") }
  }

  /// RESULT's `processed`.
  func resultProcessed() throws -> Int64 {
    var writer = ByteWriter()
    writeResult(to: &writer)
    var reader = ByteReader(writer.unsafeBytes)
    return try reader.i64()
  }

  /// The writes of state in the result.
  func stateRecords(_ topic: String) throws -> StateRecords {
    var records: StateRecords = []
    for output in context.outputs.active where output.topic == topic {
      var batches: [ByteSlice] = []
      output.forEachBatch { batches.append(ByteSlice(copying: $0)) }
      for batch in batches {
        _ = try RecordBatch.validate(batch, checkingCRC: true, limit: 1 << 30) { (record) throws(WireError) in
          var headers = record.headers
          guard try headers.next() == nil, let key = record.key else {
            throw WireError(.malformed, "a write of state has headers, or no key")
          }
          records.append((ByteSlice(copying: key), record.value.map { ByteSlice(copying: $0) }))
        }
      }
    }
    return records
  }
}
