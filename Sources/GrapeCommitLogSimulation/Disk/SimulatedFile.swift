import GrapeCommitLog
import GrapeLog

/// An open file of a simulated disk.
final class SimulatedFile: SegmentFile, @unchecked Sendable {
  // A simulation lives on one thread.
  private let inode: SimulatedInode
  private let name: String
  private let writable: Bool
  private let directory: SimulatedDirectory
  private var closed = false

  init(_ inode: SimulatedInode, _ name: String, writable: Bool, _ directory: SimulatedDirectory) {
    self.inode = inode
    self.name = name
    self.writable = writable
    self.directory = directory
  }

  var path: String { "\(directory.directory)/\(name)" }

  private var disk: SimulatedDisk { directory.disk }

  private func run<Result>(
    _ call: SimulatedDisk.Call, _ subject: @autoclosure () -> String = "", partly: (Bool) -> Void = { _ in },
    _ body: () throws(LogError) -> Result
  ) throws(LogError) -> Result {
    if closed { disk.violate("\(call) on \(name), which was closed before") }
    if call.changes && !writable { disk.violate("\(call) on \(name), which was opened for reading") }
    let subject = disk.trace == nil ? name : "\(name) \(subject())"
    return try directory.run(call, subject, partly: partly, body)
  }

  func size() throws(LogError) -> Int64 {
    try run(.size) { () throws(LogError) in Int64(inode.current.size) }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(LogError) {
    try run(.write, "\(bytes.count) at \(offset)", partly: { _ in writePart(bytes, at: Int(offset)) }) {
      () throws(LogError) in
      let needed = Int(offset) + bytes.count - inode.current.size
      if needed > 0 && needed > disk.available {
        writePart(bytes, at: Int(offset))
        throw disk.noSpace(.write, name)
      }
      inode.write(bytes, at: Int(offset))
    }
  }

  private func writePart(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    let most = min(bytes.count, max(inode.current.size - offset, 0) + disk.available)
    let count = disk.random.below(most + 1)
    inode.write(UnsafeRawBufferPointer(rebasing: bytes[..<count]), at: offset)
  }

  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int {
    try run(.read, "\(bytes.count) at \(offset)") { () throws(LogError) in
      guard let base = bytes.baseAddress else { return 0 }
      return inode.current.read(into: base, count: bytes.count, at: Int(offset))
    }
  }

  func synchronize() throws(LogError) {
    try run(
      .synchronize,
      partly: { failing in
        if failing {
          disk.failedSynchronizations += 1
          inode.failSynchronization(evicting: disk.random.chance(1, in: 3), &disk.random)
        } else if disk.random.chance(1, in: 2) {
          inode.synchronize()
        }
      }
    ) { () throws(LogError) in inode.synchronize() }
  }

  func resize(to size: Int64) throws(LogError) { try change(.resize, to: Int(size)) }

  func preallocate(to size: Int64) throws(LogError) {
    // A file that is longer stays as it is.
    try change(.preallocate, to: max(Int(size), inode.current.size))
  }

  private func change(_ call: SimulatedDisk.Call, to size: Int) throws(LogError) {
    try run(
      call, "to \(size)", partly: { failing in if !failing && disk.random.chance(1, in: 2) { inode.resize(to: size) } }
    ) { () throws(LogError) in
      if call == .preallocate && size - inode.current.size > disk.available {
        throw disk.noSpace(call, name)
      }
      if size != inode.current.size { inode.resize(to: size) }
    }
  }

  func close() { closed = true }
}
