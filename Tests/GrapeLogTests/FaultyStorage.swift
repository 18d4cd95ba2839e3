import Foundation
import GrapeCommitLog
import GrapeLog
import Synchronization

/// A real directory whose writes and synchronisations can be made to fail, or to wait.
final class FaultyStorage: SegmentStorage {
  struct Faults: Sendable {
    var failWrites = false
    var failSyncs = false
    var failCreations = false
    /// Creating a file finds no space.
    var isFull = false
    /// Bytes free on the disk; nil: as many as there are.
    var available: Int64?
    /// Told when a synchronisation has begun, and waited for before it goes on.
    var gate: Gate?
  }

  let faults = Mutex(Faults())
  private let base: DirectoryStorage

  init(_ path: String) throws(LogError) { base = try DirectoryStorage(owning: path + "/log") }

  var directory: String { base.directory }
  func list() throws(LogError) -> [String] { try base.list() }
  func create(_ name: String) throws(LogError) -> any SegmentFile {
    if faults.withLock({ $0.failCreations }) { throw LogError(.failed, "create \(directory)/\(name): No space left") }
    if faults.withLock({ $0.isFull }) { throw LogError(.noSpace, "create \(directory)/\(name): No space left") }
    return FaultyFile(try base.create(name), self)
  }
  func open(_ name: String, writable: Bool) throws(LogError) -> any SegmentFile {
    FaultyFile(try base.open(name, writable: writable), self)
  }
  func rename(_ name: String, to newName: String) throws(LogError) { try base.rename(name, to: newName) }
  func replace(_ name: String, with newFile: String) throws(LogError) { try base.replace(name, with: newFile) }
  func remove(_ name: String) throws(LogError) { try base.remove(name) }
  func availableBytes() throws(LogError) -> Int64 {
    if let available = faults.withLock({ $0.available }) { return available }
    return try base.availableBytes()
  }
  func synchronizeDirectory() throws(LogError) { try base.synchronizeDirectory() }
  func close() { base.close() }

  static let clock = LogClock(
    wallMilliseconds: { Int64(Date().timeIntervalSince1970 * 1_000) },
    monotonicNanoseconds: { Int64(DispatchTime.now().uptimeNanoseconds) })
}

final class FaultyFile: SegmentFile {
  private let base: any SegmentFile
  private let storage: FaultyStorage

  init(_ base: any SegmentFile, _ storage: FaultyStorage) {
    self.base = base
    self.storage = storage
  }

  var path: String { base.path }
  func size() throws(LogError) -> Int64 { try base.size() }
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(LogError) {
    if storage.faults.withLock({ $0.failWrites }) {
      // As a full disk does: a part gets there.
      try base.write(UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count / 2)]), at: offset)
      throw LogError(.failed, "pwrite \(path): No space left on device")
    }
    try base.write(bytes, at: offset)
  }
  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int {
    try base.read(into: bytes, at: offset)
  }
  func synchronize() throws(LogError) {
    let (fail, gate) = storage.faults.withLock { ($0.failSyncs, $0.gate) }
    gate?.pass()
    if fail { throw LogError(.failed, "fdatasync \(path): Input/output error") }
    try base.synchronize()
  }
  func resize(to size: Int64) throws(LogError) { try base.resize(to: size) }
  func preallocate(to size: Int64) throws(LogError) { try base.preallocate(to: size) }
  func close() { base.close() }
}

/// Holds a thread until it is let through.
final class Gate: Sendable {
  private let arrived = DispatchSemaphore(value: 0)
  private let opened = DispatchSemaphore(value: 0)

  func pass() {
    arrived.signal()
    opened.wait()
  }

  /// Waits until somebody stands at the gate.
  func waitForArrival() { arrived.wait() }

  func letThrough() { opened.signal() }
}
