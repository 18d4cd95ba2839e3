import Glibc
import Grape
import GrapeCore
import GrapeWire
import Testing

@testable import GrapeCLI

@Suite struct FailureTests {
  @Test func `every status has its exit code`() {
    let codes: [(Status, Int32)] = [
      (.ok, 0), (.handlerError, 10), (.noSuchApp, 11), (.noSuchSlot, 12), (.queueFull, 13), (.deadlineExceeded, 14),
      (.tooLarge, 15), (.gaveUp, 16), (.unavailable, 17), (.badRequest, 65), (.unauthorized, 20), (.internal, 70),
      (.conflict, 19),
      (.unsupportedVersion, 69), (.missingSlot, 1), (.notFound, 21), (.offsetOutOfRange, 21), (.hopLimit, 10),
      (Status(rawValue: 999), 1),
    ]
    for (status, code) in codes { #expect(GrapeExit(status).rawValue == code, "\(status)") }
    #expect(GrapeExit(ClientError.Code.unreachable).rawValue == 69)
    #expect(GrapeExit(ClientError.Code.deadlineExceeded).rawValue == 14)
  }

  @Test func `the documentation has every exit code with its meaning`() throws {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let text = try FileContent.read(path: "/\(root)/docs/cli.md", limit: 1 << 20).string
    for exit in GrapeExit.allCases {
      #expect(text.contains("| \(exit.rawValue) | \(exit.name) | \(exit.meaning) |"), "\(exit)")
    }
  }

  @Test func `a failure is one line for people and an object for programs`() {
    let failure = CommandFailure(StatusError(.handlerError, "out of stock", code: 7, ran: .yes))
    #expect(failure.line == "grape: handler-error: out of stock (code 7)")
    #expect(
      failure.json.text
        == #"{"error":{"status":"handler-error","statusCode":1,"code":7,"message":"out of stock","ran":"yes","exitCode":10}}"#
    )
    let unreachable = CommandFailure(ClientError(.unreachable, "cannot reach the node"))
    #expect(unreachable.line == "grape: cannot reach the node")
    #expect(
      unreachable.json.text
        == #"{"error":{"status":"unreachable","statusCode":null,"code":0,"message":"cannot reach the node","ran":"never","exitCode":69}}"#
    )
    #expect(CommandFailure(StatusError(.queueFull, "")).line == "grape: queue-full")
  }

  @Test func `a request whose connection broke may have run`() {
    #expect(CommandFailure(ClientError(.disconnected, "gone")).ran == .unknown)
  }
}

@Suite struct IngestStateTests {
  private let state = IngestState(
    run: "00112233445566778899aabbccddeeff",
    job: .init(
      target: "a@b", format: "auto", keyField: "k", eventField: nil, skipBad: true,
      files: [.init(path: "x.csv", prefixBytes: 12, prefixChecksum: .max)]),
    file: 0, position: InputPosition(offset: 1 << 40, line: 77), acknowledged: 500, sent: 700, ends: [1, 2, 3])

  @Test func `a state is read back as it was written`() throws {
    #expect(try IngestState(ByteSlice(state.json.text), path: "s") == state)
  }

  @Test(arguments: ["", "{}", "[]", "{\"version\":1}", "{\"version\":2}"])
  func `anything else is refused with the file's name`(text: String) {
    let error = #expect(throws: CommandFailure.self) { try IngestState(ByteSlice(text), path: "some.state") }
    #expect(error?.exit == .badInput)
    #expect(error?.message.contains("some.state") == true)
  }

  @Test func `a state whose figures contradict each other is refused`() {
    var wrong = state
    wrong.sent = 1
    #expect(throws: CommandFailure.self) { try IngestState(ByteSlice(wrong.json.text), path: "s") }
  }

  @Test func `frames that arrived become ranges of events`() {
    #expect(ArrivedEvents.ranges([:], in: 10..<20) == [])
    #expect(ArrivedEvents.ranges([10: 5, 0: 10, 18: 4, 30: 2], in: 10..<20) == [10..<15, 18..<20])
  }

  @Test func `events of an interrupted ingest are found by the header of their batches`() throws {
    let run: [UInt8] = Array(0..<16)
    func batch(_ baseOffset: Int64, count: Int, mark: (run: [UInt8], first: Int64)?) throws -> ByteSlice {
      var section = HeaderSection()
      section.append(HeaderName.event, Array("e".utf8))
      if let mark {
        section.append(
          EventProducer.provenanceHeader, mark.run + withUnsafeBytes(of: mark.first.bigEndian) { Array($0) })
      }
      let first = section.finish()
      var builder = RecordBatchBuilder()
      for number in 0..<count {
        let headers = number == 0 ? first : HeaderSection.empty
        builder.append(key: nil, value: nil, headerSection: headers.unsafeBytes, timestamp: 1)
      }
      let batch = try builder.take().bytes
      RecordBatch.setBaseOffset(
        baseOffset, in: UnsafeMutableRawBufferPointer(start: batch.storage.base + batch.offset, count: batch.count))
      return batch
    }
    let contents: [[ByteSlice]] = [
      [
        try batch(5, count: 3, mark: (run, 100)), try batch(8, count: 9, mark: nil),
        try batch(17, count: 4, mark: (run, 110)),
      ],
      [
        try batch(0, count: 7, mark: (run, 100)), try batch(7, count: 5, mark: ([UInt8](repeating: 9, count: 16), 105)),
      ],
    ]
    let ends: [Int64] = [21, 12]
    let node = try FakeNode { frame in
      var reader = ByteReader(frame.body.unsafeBytes)
      guard let fetch = try? (reader.string16(), reader.i32(), reader.i64()) else { return nil }
      let partition = Int(fetch.1)
      return [
        FakeNode.frame(.fetched, id: frame.id) { writer in
          writer.i64(0)
          writer.i64(ends[partition])
          writer.i64(ends[partition])
          if fetch.2 < ends[partition] { for batch in contents[partition] { writer.bytes(batch.unsafeBytes) } }
        }
      ]
    }
    let found = try ArrivedEvents(try NodeConnection(path: node.path), topic: "a.events", run: run).find(
      from: [5, 0], wanted: 100..<114)
    #expect(found == [100..<110, 110..<114])
  }
}
