import GrapeLog

/// A disk with one directory. Writes and changes of names are pending until they are synchronised; the simulation decides when the
/// process dies, when the power goes, which calls fail, and which bits decay.
package final class SimulatedDisk: @unchecked Sendable {
  // A simulation lives on one thread.
  struct Entry {
    var name: String
    let inode: SimulatedInode
  }

  private enum NameChange {
    case add(String, SimulatedInode)
    case rename(String, to: String)
    case remove(String)
  }

  /// What programs see, and what is on the disk.
  private(set) var names: [Entry] = []
  private var durableNames: [Entry] = []
  private var pendingNames: [NameChange] = []
  var random: SimulationRandom

  /// Bytes that the disk can hold, in files that have a name.
  package var capacity = Int.max {
    didSet { if capacity < .max { isTight = true } }
  }
  /// Space was short since the directory was mounted.
  package private(set) var isTight = false
  /// Calls made by mounted directories so far.
  package private(set) var calls = 0
  /// Faults that occurred since the directory was mounted.
  package private(set) var faults = 0
  /// Synchronisations of files that failed since then: what they concerned may be lost although the process lives on.
  package internal(set) var failedSynchronizations = 0
  /// What a program did that it must not do, such as using a closed file.
  package private(set) var violation: String?
  /// Called before a call is carried out, with what it concerns: other threads may do something meanwhile.
  package var interlude: ((String) -> Void)?
  /// Told of every call, if somebody wants to know.
  package var trace: ((String) -> Void)?

  private var callsToDeath: Int?
  private var fault: Fault?
  private weak var owner: SimulatedDirectory?

  private struct Fault {
    var calls: Int
    var noSpace: Bool
    /// From then on all calls of that kind fail.
    var stays: Bool
    /// Only calls that change something.
    var changesOnly: Bool
  }

  package init(seed: UInt64) { random = SimulationRandom(seed: seed) }

  // MARK: What the simulation does to it

  /// Opens the directory as a process that is to own it.
  package func mount() -> SimulatedDirectory {
    if let owner, owner.isAlive { violate("the directory is opened while another process owns it") }
    let directory = SimulatedDirectory(disk: self, observing: false)
    owner = directory
    forgetFaults()
    return directory
  }

  /// Opens the directory as somebody who looks on, to whom nothing bad happens.
  package func observe() -> SimulatedDirectory { SimulatedDirectory(disk: self, observing: true) }

  /// Lets the process die in one of its next calls: the `calls`th from now.
  package func armDeath(in calls: Int) { callsToDeath = calls }

  /// Lets a call fail: the `calls`th from now, and if `stays` all from then on.
  package func armFault(in calls: Int, noSpace: Bool, stays: Bool, changesOnly: Bool) {
    fault = Fault(calls: calls, noSpace: noSpace, stays: stays, changesOnly: changesOnly)
  }

  /// What failed so far is settled: the log was opened anew.
  package func forgetFaults() {
    faults = 0
    isTight = capacity < .max
    failedSynchronizations = 0
  }

  /// Nothing bad is ahead any more.
  package func disarm() {
    callsToDeath = nil
    fault = nil
    capacity = .max
  }

  /// The process dies between two calls.
  package func kill() { owner?.die() }

  /// The machine stops. What comes up again has what was synchronised, and some of the rest.
  package func losePower() {
    owner?.die()
    var weather = PowerLoss(&random)
    let kept = weather.survival == 100 ? pendingNames.count : random.below(pendingNames.count + 1)
    if kept == 0 && random.chance(1, in: 2) { weather.survival = 0 }
    for change in pendingNames.prefix(kept) { Self.apply(change, to: &durableNames) }
    pendingNames = []
    names = durableNames
    for entry in names { entry.inode.losePower(weather, &random) }
  }

  /// Names and sizes of all files.
  package var files: [(name: String, size: Int)] { names.map { ($0.name, $0.inode.current.size) } }

  /// Turns a bit over, as decay does; once more undoes it.
  package func flip(bit: Int, at offset: Int, of name: String) {
    find(name)?.flip(bit: bit, at: offset)
  }

  /// The byte at a place of a file.
  package func byte(at offset: Int, of name: String) -> UInt8? {
    var byte: UInt8 = 0
    guard let inode = find(name), inode.current.read(into: &byte, count: 1, at: offset) == 1 else { return nil }
    return byte
  }

  // MARK: What directories and files do with it

  /// What becomes of a call.
  enum Verdict {
    case proceed
    case fail(LogError)
    case die
  }

  func judge(_ call: Call, _ subject: String) -> Verdict {
    calls += 1
    trace?("\(call) \(subject)")
    if let left = callsToDeath {
      callsToDeath = left - 1
      if left <= 1 {
        callsToDeath = nil
        trace?("the process dies in it")
        owner?.die()
        return .die
      }
    }
    guard let armed = fault, !armed.changesOnly || call.changes else { return .proceed }
    if armed.calls > 1 {
      fault!.calls -= 1
      return .proceed
    }
    if armed.noSpace && !call.takesSpace { return .proceed }
    if !armed.stays { fault = nil }
    return .fail(armed.noSpace ? noSpace(call, subject) : failure(call, subject, "Input/output error"))
  }

  func failure(
    _ call: Call, _ subject: String, _ reason: String, _ code: LogError.Code = .failed
  ) -> LogError {
    faults += 1
    trace?("it fails: \(reason)")
    return LogError(code, "\(call) \(subject): \(reason)")
  }

  func noSpace(_ call: Call, _ subject: String) -> LogError {
    isTight = true
    return failure(call, subject, "No space left on device", .noSpace)
  }

  func violate(_ text: String) { if violation == nil { violation = text } }

  func find(_ name: String) -> SimulatedInode? { names.first { $0.name == name }?.inode }

  /// Bytes that may still be taken.
  var available: Int {
    if capacity == .max { return 1 << 50 }
    return max(capacity - names.reduce(0) { $0 + $1.inode.current.size }, 0)
  }

  func add(_ name: String, _ inode: SimulatedInode) { change(.add(name, inode)) }
  func rename(_ name: String, to newName: String) { change(.rename(name, to: newName)) }
  func remove(_ name: String) { change(.remove(name)) }

  /// Everything is written, as it is some time after the last change.
  package func synchronize() {
    synchronizeNames()
    for name in names { name.inode.synchronize() }
  }

  func synchronizeNames() {
    pendingNames.removeAll(keepingCapacity: true)
    durableNames = names
  }

  private func change(_ change: NameChange) {
    pendingNames.append(change)
    Self.apply(change, to: &names)
  }

  private static func apply(_ change: NameChange, to names: inout [Entry]) {
    switch change {
    case .add(let name, let inode): names.append(Entry(name: name, inode: inode))
    case .rename(let name, let newName):
      names.removeAll { $0.name == newName }
      if let place = names.firstIndex(where: { $0.name == name }) { names[place].name = newName }
    case .remove(let name): names.removeAll { $0.name == name }
    }
  }
}

extension SimulatedDisk {
  /// The calls that a log makes.
  enum Call: String, CustomStringConvertible {
    case list, create, open, rename, replace, remove
    case synchronizeDirectory = "fsync"
    case availableBytes = "statvfs"
    case size = "fstat"
    case write = "pwrite"
    case read = "pread"
    case synchronize = "fdatasync"
    case resize = "ftruncate"
    case preallocate = "fallocate"

    var description: String { rawValue }

    var changes: Bool {
      switch self {
      case .list, .open, .availableBytes, .size, .read: false
      default: true
      }
    }

    /// May answer that there is no space.
    var takesSpace: Bool {
      switch self {
      case .create, .write, .preallocate, .resize, .synchronize: true
      default: false
      }
    }
  }
}
