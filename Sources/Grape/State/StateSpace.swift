internal import GrapeCore
internal import GrapeState

/// All of the state that a worker can see: partition by partition, opened as they are used. Lives on the worker's thread.
final class StateSpace {
  let info: WorkerInfo.State
  let tables = StateTablePool()
  private let makeBase: (Int32) -> (base: any StateBase, spare: (any StateBase)?)
  private let log: LogQueue
  private var partitions: [Int32: PartitionOverlay] = [:]

  init(
    info: WorkerInfo.State, log: LogQueue,
    makeBase: @escaping (Int32) -> (base: any StateBase, spare: (any StateBase)?)
  ) {
    self.info = info
    self.log = log
    self.makeBase = makeBase
  }

  /// As WELCOME says.
  convenience init(info: WorkerInfo.State, log: LogQueue, authority: any StateAuthority) {
    self.init(info: info, log: log) { [unowned authority] partition in
      let asking = AskBase(partition: partition, authority: authority)
      switch info.access {
      case .ask: return (asking, nil)
      case .map(let path): return (MapBase(path: "\(path)/\(partition)"), asking)
      }
    }
  }

  /// One partition's, if it was opened before.
  func known(_ number: Int32) -> PartitionOverlay? { partitions[number] }

  /// One partition's. `invalidArgument` if there is no such partition.
  func partition(_ number: Int32) throws(StateError) -> PartitionOverlay {
    if let known = partitions[number] { return known }
    guard (0..<info.partitions).contains(number) else {
      throw StateError(
        .invalidArgument, "there is no partition \(number): the application's state has 0 to \(info.partitions - 1)")
    }
    let (base, spare) = makeBase(number)
    let log = log
    let made = PartitionOverlay(partition: number, base: base, spare: spare, tables: tables) { error in
      log.append(
        .warning, "the state's map cannot be read, the node is asked instead: \(error.message)",
        ["partition": JSONValue(number)])
    }
    partitions[number] = made
    return made
  }
}

extension WorkerInfo {
  /// Where the application's state is.
  struct State: Sendable {
    enum Access: Sendable, Hashable {
      /// LMDB environments, in folders by partition.
      case map(path: String)
      /// STATE frames.
      case ask
    }

    /// The changelog.
    var topic: String
    var partitions: Int32
    var access: Access
    /// Bytes.
    var maxKey = StateLimits.key
    var maxValue = StateLimits.value
  }
}

extension WorkerInfo.State {
  /// Reads WELCOME's `state`.
  init(_ value: JSONValue) throws(ProtocolError) {
    guard let topic = value["topic"]?.string, let partitions = value["partitions"]?.int,
      (1...65_536).contains(partitions)
    else { throw ProtocolError(message: "\"state\" in WELCOME is incomplete: \(value.text)") }
    self.topic = topic
    self.partitions = Int32(partitions)
    switch (value["access"]?.string, value["path"]?.string) {
    case ("map", .some(let path)) where !path.isEmpty: access = .map(path: path)
    case ("ask", _): access = .ask
    default: throw ProtocolError(message: "\"state\" in WELCOME names no access that this worker knows: \(value.text)")
    }
    func bounded(_ name: String, _ most: Int) throws(ProtocolError) -> Int {
      guard let member = value[name] else { return most }
      guard let limit = member.int, limit >= 1 else {
        throw ProtocolError(message: "\"\(name)\" in WELCOME's state is \(member.text)")
      }
      return Int(min(limit, Int64(most)))
    }
    maxKey = try bounded("maxKey", StateLimits.key)
    maxValue = try bounded("maxValue", StateLimits.value)
  }
}
