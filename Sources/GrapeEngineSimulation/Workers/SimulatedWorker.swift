import Grape
import GrapeCommitLogSimulation
import GrapeCore
import GrapeReactor
import GrapeState
import GrapeWire
import GrapeWorkers

/// A worker process: the Swift SDK's part that runs deliveries, with a process around it that can die between any two steps, and a
/// connection of which the node may see the end before or after what was sent.
final class SimulatedWorker: RunningWorker, @unchecked Sendable {
  // A simulation lives on one thread.
  enum Phase: Equatable {
    /// It has not connected yet.
    case starting
    /// HELLO was said.
    case greeting
    case running
    /// Dead; the node does not know yet.
    case dead(ExitStatus)
    /// The node knows.
    case gone
  }

  let pid: Int32
  let app: Int
  let token: String
  let channel = SimulatedChannel()
  private(set) var phase = Phase.starting
  /// Told of its end, on the node's reactor.
  private(set) var onExit: ((ExitStatus) -> Void)?
  private let setting: WorkerSetting
  private let fate = ProgramHandler.Fate()
  private var core: WorkerCore?
  private var deliveries: [SimulatedChannel.Frame] = []
  /// Made and not sent yet.
  private var result: (id: UInt64, body: ByteSlice)?
  private var isDraining = false
  /// A handler never returns.
  private(set) var isHung = false
  /// It sends no heartbeats any more.
  var isSilent = false
  private var heartbeat: Int64 = 0
  private var lastBeat: Int64 = 0
  /// The node has been told that the connection ended.
  private var isEndTold = false
  /// It waits for an answer in the middle of a handler: nothing else is done meanwhile.
  private var isAsking = false
  /// Questions asked so far.
  private var lastQuestion: UInt64 = 0

  /// Its own: others draw theirs while it waits for answers.
  private var random: SimulationRandom

  init(
    _ setting: WorkerSetting, seed: UInt64, pid: Int32, app: Int, token: String, onExit: @escaping (ExitStatus) -> Void
  ) {
    self.setting = setting
    random = SimulationRandom(seed: seed)
    self.pid = pid
    self.app = app
    self.token = token
    self.onExit = onExit
  }

  var isAlive: Bool {
    switch phase {
    case .starting, .greeting, .running: true
    case .dead, .gone: false
    }
  }

  func signal(_ number: Int32) { if isAlive { die(.signalled(number)) } }

  func die(_ status: ExitStatus) {
    guard isAlive else { return }
    phase = .dead(status)
    deliveries = []
    result = nil
  }

  /// The node's process is gone, and with it everybody who would be told.
  func vanish() {
    phase = .gone
    channel.close()
    channel.toWorker = []
    onExit = nil
  }

  // MARK: Steps

  /// Whether it, or what it sent, would go on.
  var hasWork: Bool {
    switch phase {
    case .starting: true
    case .greeting where isAsking, .running where isAsking: false
    case .greeting, .running:
      !channel.toWorker.isEmpty || !channel.toNode.isEmpty || result != nil || (!deliveries.isEmpty && !isHung)
        || ((isDraining || isLeaving) && !isHung) || channel.isClosed
    case .dead: true
    case .gone: false
    }
  }

  /// Takes a step, one of those that are possible.
  func step() {
    switch phase {
    case .starting: start()
    case .greeting, .running: stepAlive()
    case .dead(let status): stepDead(status)
    case .gone: break
    }
  }

  private func start() {
    if random.chance(1, in: 40) { return die(.exited(1)) }
    phase = .greeting
    setting.connect(self)
  }

  private func stepAlive() {
    if !channel.toNode.isEmpty, random.chance(1, in: 2) { return transfer() }
    if let result, !isHung {
      self.result = nil
      return channel.sendToNode(.result, id: result.id, result.body)
    }
    if !channel.toWorker.isEmpty, random.chance(1, in: 2) || deliveries.isEmpty {
      let frame = channel.toWorker.removeFirst()
      return receive(frame)
    }
    if !deliveries.isEmpty, !isHung { return runDelivery() }
    if !channel.toNode.isEmpty { return transfer() }
    // The node has closed the connection: a worker exits then, whatever it does.
    if channel.isClosed, channel.toWorker.isEmpty { return die(.exited(0)) }
    if isDraining, phase == .running, !isHung {
      channel.sendToNode(.goodbye, id: 0, ByteSlice("{\"reason\":\"drained\"}"))
      isDraining = false
      isLeaving = true
    } else if isLeaving {
      die(.exited(0))
    }
  }

  private var isLeaving = false

  private func stepDead(_ status: ExitStatus) {
    if !channel.toNode.isEmpty, random.chance(2, in: 3) { return transfer() }
    if !isEndTold, channel.toNode.isEmpty, random.chance(1, in: 2) {
      isEndTold = true
      return setting.post { [self] in channel.end() }
    }
    phase = .gone
    setting.exited(self, status)
  }

  /// What was sent first arrives at the node.
  private func transfer() {
    let frame = channel.toNode.removeFirst()
    setting.post { [self] in channel.deliver(frame) }
  }

  private func receive(_ frame: SimulatedChannel.Frame) {
    switch frame.header.type {
    case .welcome:
      do {
        let welcome = try frame.body.withUnsafeBytes { try JSONValue(parsing: $0) }
        heartbeat = welcome["heartbeatMs"]?.int ?? 2_000
        lastBeat = setting.now()
        core = try WorkerCore(
          ProgramHandler.application(setting.library, apps: setting.apps, fate: fate), welcome: welcome,
          now: setting.wallTime,
          base: { [unowned self] in base($0, isMapped: welcome["state"]?["access"]?.string == "map") })
        phase = .running
      } catch {
        setting.report("WELCOME is not to be understood: \(error)")
      }
    case .deliver: deliveries.append(frame)
    case .drain: isDraining = true
    case .heartbeat, .stated: break
    default: setting.report("a worker gets a frame of type \(frame.header.type)")
    }
  }

  private func base(_ partition: Int32, isMapped: Bool) -> any StateBase {
    isMapped
      ? SimulatedMap(setting.stores, app: setting.apps[app], partition: partition)
      : AskBase(partition: partition, authority: self)
  }

  private func runDelivery() {
    guard let core else { return }
    let frame = deliveries.removeFirst()
    do {
      let body = try core.result(of: frame.header.id, frame.body)
      guard isAlive else { return }
      switch fate.end {
      case .crashed: die(.exited(70))
      case .hung: isHung = true
      case nil:
        setting.failed(app, frame.body, try Self.failures(in: body))
        result = (frame.header.id, body)
      }
    } catch {
      setting.report("a delivery cannot be run: \(error)")
    }
  }

  /// Offsets of the events that failed or are to be run again.
  private static func failures(in result: ByteSlice) throws(WireError) -> [Int] {
    var reader = ByteReader(result.unsafeBytes)
    _ = try reader.i64()
    var offsets: [Int] = []
    for _ in 0..<(try reader.u32()) {
      let offset = try reader.i64()
      let verdict = try reader.u8()
      _ = try reader.bytes(11)
      _ = try reader.string16()
      if verdict == 2 || verdict == 4 { offsets.append(Int(offset)) }
    }
    return offsets
  }

  // MARK: Time

  /// Says that it lives, if it is time to.
  func beat() {
    guard phase == .running, !isSilent, heartbeat > 0, setting.now() - lastBeat >= heartbeat * 1_000_000 else { return }
    lastBeat = setting.now()
    var body = ByteWriter(capacity: 16)
    body.u64(isHung ? 1 : 0)
    body.u32(0)
    body.u32(0)
    channel.sendToNode(.heartbeat, id: 0, body.finish())
  }
}

/// Questions about state: everything else goes on while the worker waits for the answer.
extension SimulatedWorker: StateAuthority {
  func ask(_ question: ByteSlice) throws(StateError) -> ByteSlice {
    isAsking = true
    defer { isAsking = false }
    lastQuestion += 1
    let id = lastQuestion
    channel.sendToNode(.state, id: id, question)
    for _ in 0..<2_000 {
      if !isAlive || channel.isClosed { break }
      if let place = channel.toWorker.firstIndex(where: {
        $0.header.id == id && [.stated, .error].contains($0.header.type)
      }) {
        let answer = channel.toWorker.remove(at: place)
        guard answer.header.type == .stated else {
          throw StateError(.unavailable, answer.body.string)
        }
        return answer.body
      }
      if !channel.toNode.isEmpty { transfer() }
      setting.goOn()
    }
    throw StateError(.unavailable, "the node does not answer")
  }
}

/// What workers know of the world.
struct WorkerSetting {
  var apps: [String]
  var library: ProgramLibrary
  var stores: SimulatedStores
  var now: () -> Int64
  var wallTime: @Sendable () -> Int64
  /// Runs something on the node's reactor.
  var post: (@escaping @Sendable () -> Void) -> Void
  /// Connects, and says HELLO.
  var connect: (SimulatedWorker) -> Void
  var exited: (SimulatedWorker, ExitStatus) -> Void
  /// Events of a delivery failed.
  var failed: (_ app: Int, _ delivery: ByteSlice, _ offsets: [Int]) -> Void
  /// A step of somebody else.
  var goOn: () -> Void
  var report: (String) -> Void
}
