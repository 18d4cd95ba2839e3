package import GrapeCommitLog
package import GrapeLog

/// A process's view of a simulated disk: what a log is opened on.
package final class SimulatedDirectory: SegmentStorage, @unchecked Sendable {
  // A simulation lives on one thread.
  package let directory = "/simulated"
  let disk: SimulatedDisk
  private let observing: Bool
  /// False once the process has died or closed it: no call has any effect then.
  package private(set) var isAlive = true
  package private(set) var isClosed = false
  /// Its process ended without closing it.
  package private(set) var hasDied = false

  init(disk: SimulatedDisk, observing: Bool) {
    self.disk = disk
    self.observing = observing
  }

  func die() {
    guard isAlive else { return }
    isAlive = false
    hasDied = true
  }

  private static let dead = LogError(.failed, "the process is dead")

  /// Carries a call out, or what there is instead. `partly`: what a call that dies or fails does before.
  func run<Result>(
    _ call: SimulatedDisk.Call, _ subject: String, partly: (_ failing: Bool) -> Void = { _ in },
    _ body: () throws(LogError) -> Result
  ) throws(LogError) -> Result {
    if observing { return try body() }
    if isClosed { disk.violate("\(call) \(subject) after the directory was closed") }
    guard isAlive else { throw Self.dead }
    if let interlude = disk.interlude {
      interlude(subject)
      guard isAlive else { throw Self.dead }
    }
    switch disk.judge(call, subject) {
    case .proceed: return try body()
    case .fail(let error):
      partly(true)
      throw error
    case .die:
      partly(false)
      throw Self.dead
    }
  }

  /// A call that dies has its effect or has not.
  private func runWhole(
    _ call: SimulatedDisk.Call, _ subject: String, _ body: () throws(LogError) -> Void
  ) throws(LogError) {
    try run(call, subject, partly: { failing in if !failing && disk.random.chance(1, in: 2) { try? body() } }, body)
  }

  package func list() throws(LogError) -> [String] {
    try run(.list, directory) { () throws(LogError) in disk.names.map(\.name) }
  }

  package func create(_ name: String) throws(LogError) -> any SegmentFile {
    try runWhole(.create, name) { () throws(LogError) in
      guard disk.find(name) == nil else { throw LogError(.failed, "create \(name): File exists") }
      disk.add(name, SimulatedInode())
    }
    return SimulatedFile(disk.find(name)!, name, writable: true, self)
  }

  package func open(_ name: String, writable: Bool) throws(LogError) -> any SegmentFile {
    try run(.open, name) { () throws(LogError) in
      guard let inode = disk.find(name) else { throw LogError(.failed, "open \(name): No such file or directory") }
      return SimulatedFile(inode, name, writable: writable, self)
    }
  }

  package func rename(_ name: String, to newName: String) throws(LogError) {
    try runWhole(.rename, "\(name) to \(newName)") { () throws(LogError) in
      guard disk.find(newName) == nil else { throw LogError(.failed, "rename \(name) to \(newName): File exists") }
      try require(name, "rename")
      disk.rename(name, to: newName)
    }
  }

  package func replace(_ name: String, with newFile: String) throws(LogError) {
    try runWhole(.replace, "\(name) with \(newFile)") { () throws(LogError) in
      try require(newFile, "replace")
      disk.rename(newFile, to: name)
    }
  }

  package func remove(_ name: String) throws(LogError) {
    try runWhole(.remove, name) { () throws(LogError) in
      try require(name, "remove")
      disk.remove(name)
    }
  }

  package func synchronizeDirectory() throws(LogError) {
    try runWhole(.synchronizeDirectory, directory) { () throws(LogError) in disk.synchronizeNames() }
  }

  package func availableBytes() throws(LogError) -> Int64 {
    try run(.availableBytes, directory) { () throws(LogError) in Int64(disk.available) }
  }

  package func close() {
    if isClosed { disk.violate("the directory is closed twice") }
    isClosed = true
    isAlive = false
  }

  private func require(_ name: String, _ call: String) throws(LogError) {
    if disk.find(name) == nil { throw LogError(.failed, "\(call) \(name): No such file or directory") }
  }
}
