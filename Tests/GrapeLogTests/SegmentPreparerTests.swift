@testable import GrapeCommitLog
import GrapeLog
import GrapeWire
import Testing

@Suite("Preparing segments ahead") struct SegmentPreparerTests {
  private func preparer(_ files: LogFiles) throws -> (SegmentPreparer, DirectoryStorage) {
    let storage = try DirectoryStorage(owning: files.path + "/log")
    let identity = LogIdentity(high: 1, low: 2)
    return (SegmentPreparer(storage: storage, clock: FaultyStorage.clock, identity: identity), storage)
  }

  @Test("a preparation that comes after its segment was taken leaves that segment alone")
  func late() throws {
    let files = LogFiles()
    let (preparer, storage) = try preparer(files)
    defer { storage.close() }
    let taken = try preparer.take(base: 0, capacity: 1 << 20)
    let bytes: [UInt8] = [1, 2, 3, 4]
    try bytes.withUnsafeBytes { try taken.file.write($0, at: 8_192) }
    // The thread that prepares was slow: the writer had to make the segment itself, and is writing to it.
    try preparer.prepare(base: 0, capacity: 1 << 20)
    #expect(Array(try files.read("00000000000000000000.log")[8_192..<8_196]) == bytes)
    let next = try preparer.take(base: 1 << 20, capacity: 1 << 20)
    #expect(next.base == 1 << 20)
    taken.file.close()
    next.file.close()
  }

  @Test("no segment file ever takes the place of another")
  func noReplacement() throws {
    let files = LogFiles()
    let (preparer, storage) = try preparer(files)
    defer { storage.close() }
    let bytes: [UInt8] = [1, 2, 3, 4]
    try files.write(bytes, to: "00000000000000000000.log")
    #expect(throws: LogError.self) { try preparer.take(base: 0, capacity: 1 << 20) }
    #expect(try files.read("00000000000000000000.log") == bytes)
  }
}
