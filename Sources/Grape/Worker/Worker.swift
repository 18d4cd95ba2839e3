internal import CGrapeLinux
internal import Glibc
internal import GrapeCore
internal import GrapeWire
internal import Synchronization

/// A worker's connection and the loop that serves it.
///
/// One thread reads frames, runs handlers and writes results; all state but what the heartbeat shares belongs to it.
final class Worker: @unchecked Sendable {
  private enum Phase {
    /// HELLO was said.
    case opening
    /// WELCOME has come, `onStart` is running; deliveries wait.
    case starting
    case running
    /// No delivery is left, `onStop` is running.
    case stopping
    case ended
  }

  /// Deliveries of one partition: one at a time.
  private struct Lane {
    var isBusy = false
    var waiting: [Delivery] = []
  }

  /// WELCOME must have come within this time, in milliseconds.
  private static let openingMilliseconds: Int64 = 30_000
  /// Batches up to this size are copied next to the frame's other fields, in bytes.
  private static let copyLimit = 8192

  private let application: Application
  private let environment: WorkerEnvironment
  private let end: @Sendable (WorkerEnd) -> Void
  private let hasEnded = Atomic<Bool>(false)
  let executor: LoopExecutor

  let descriptor: Int32
  var receiver: FrameReceiver
  /// Frames that came while a handler waited for an answer about state.
  var postponed: [FrameReceiver.Frame] = []
  /// Frames may be at hand though the socket holds nothing new.
  var mayHoldFrames = false
  /// Of the last question about state.
  var lastQuestion: UInt64 = 0
  let sender: FrameSender
  private let progress = Progress()
  let liveness = Liveness()
  private let log = LogQueue()
  private var heartbeat: Heartbeat?

  private var phase = Phase.opening
  private var openingEnds: Int64 = 0
  private var isDraining = false
  private var session: Session?
  /// Packs emitted events, if the profile wants it.
  private var compressor: ZstdCompressor?
  private var lanes: [Int32: Lane] = [:]
  /// Unanswered deliveries that were begun, oldest first.
  private var begun: [DeliveryRun] = []
  private var idle: [DeliveryRun] = []
  private var unanswered = 0
  private var hasUnflushedOutput = false

  // Reused for each RESULT.
  private var head = ByteWriter(capacity: 4096)
  private var pieces: [iovec] = []
  private var cuts: [(headEnd: Int, batch: UnsafeRawBufferPointer)] = []

  /// Takes over `descriptor`, a blocking socket connected to the node. `end` is called once, from the worker's or the
  /// heartbeat's thread.
  init(
    application: Application, environment: WorkerEnvironment, descriptor: Int32, executor: LoopExecutor,
    end: @escaping @Sendable (WorkerEnd) -> Void
  ) {
    self.application = application
    self.environment = environment
    self.descriptor = descriptor
    self.executor = executor
    self.end = end
    receiver = FrameReceiver(descriptor: descriptor)
    sender = FrameSender(descriptor: descriptor)
  }

  /// Serves the connection until the worker ends; to be called on the thread that becomes the worker's.
  func run() {
    executor.adoptThread()
    openingEnds = grape_monotonic_ns() / 1_000_000 + Self.openingMilliseconds
    sendHello()
    while phase != .ended, !hasEnded.load(ordering: .acquiring) {
      let isIdle = !receiveFrames()
      let hadJobs = executor.runJobs()
      if environment.obeysSignals, ProcessSignals.isTerminated { isDraining = true }
      drainIfDone()
      if phase == .ended { break }
      flush()
      if isIdle, !hadJobs { wait() }
    }
  }

  /// Asks the worker to end as SIGTERM does. Safe from any thread.
  func requestDrain() {
    drainRequested.store(true, ordering: .releasing)
    executor.wake()
  }
  private let drainRequested = Atomic<Bool>(false)

  // MARK: Waiting and reading

  /// Sleeps until the node or a job wants something.
  private func wait() {
    var entries = [
      pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: executor.wakeDescriptor, events: Int16(POLLIN), revents: 0),
    ]
    var timeout: Int32 = -1
    if phase == .opening {
      let left = openingEnds - grape_monotonic_ns() / 1_000_000
      guard left > 0 else { return finish(.unavailable("the node did not answer HELLO within 30 s")) }
      timeout = Int32(clamping: left)
    }
    let count = poll(&entries, 2, timeout)
    if count > 0, entries[1].revents != 0 {
      executor.clearWake()
      if drainRequested.load(ordering: .acquiring) { isDraining = true }
    }
  }

  /// Takes and handles what the socket holds. False if there was nothing.
  private func receiveFrames() -> Bool {
    let outcome = receiver.receive()
    switch outcome {
    case .wouldBlock where !mayHoldFrames: return false
    case .closed:
      finish(.unavailable("the connection to the node ended"))
      return true
    case .received, .wouldBlock:
      if case .received = outcome { liveness.hear() }
      mayHoldFrames = false
      do {
        while phase != .ended, let frame = try nextFrame() { try handle(frame) }
      } catch let error as WireError {
        finish(.protocolBroken("the node sent a frame that breaks the protocol: \(error.message)"))
      } catch {
        finish(.protocolBroken("the node broke the protocol: \(error)"))
      }
      return true
    }
  }

  /// Most frames that may be postponed.
  var postponedLimit: Int { (session?.info.limits.credits ?? 0) + 16 }

  private func nextFrame() throws(WireError) -> FrameReceiver.Frame? {
    if !postponed.isEmpty { return postponed.removeFirst() }
    return try receiver.next()
  }

  private func handle(_ frame: FrameReceiver.Frame) throws {
    switch (phase, frame.header.type) {
    case (_, .error) where isLate(frame.header.id), (_, .stated) where isLate(frame.header.id): break
    case (_, .error): refused(frame.body)
    case (.opening, .welcome): try welcome(frame.body)
    case (.opening, let type): throw ProtocolError(message: "\(type) came where WELCOME is expected")
    case (_, .deliver): try receive(try Delivery(id: frame.header.id, body: frame.body))
    case (_, .heartbeat): break  // `liveness` was told.
    case (_, .drain): isDraining = true
    case (_, .goodbye): finish(.unavailable("the node said goodbye"))
    case (_, let type): throw ProtocolError(message: "a frame of type \(type), which no worker takes")
    }
  }

  private func refused(_ body: ByteSlice) {
    let document = try? JSONValue(parsing: body.unsafeBytes)
    let name = document?["name"]?.string ?? "error"
    finish(.unavailable("the node refuses this worker: \(name): \(document?["message"]?.string ?? body.string)"))
  }

  // MARK: Beginning and ending

  private func sendHello() {
    let slots = application.registry.withLock { $0.handlers.map(\.name) }
    let hello: JSONValue = [
      "role": "worker", "protocol": [1], "agent": "grape-swift/0.1", "token": .string(environment.token),
      "pid": JSONValue(getpid()), "slots": JSONValue(strings: slots), "compression": ["none", "zstd"],
    ]
    head.truncate(to: 0)
    let start = head.beginFrame(.hello, id: 0)
    head.bytes(hello.utf8)
    head.endFrame(start)
    sendHead()
  }

  private func welcome(_ body: ByteSlice) throws {
    let document: JSONValue
    do throws(JSONError) {
      document = try body.withUnsafeBytes { (bytes) throws(JSONError) in try JSONValue(parsing: bytes) }
    } catch {
      throw ProtocolError(message: "WELCOME is not JSON: \(error)")
    }
    let info = try WorkerInfo(welcome: document)
    let state = info.state.map { StateSpace(info: $0, log: log, authority: self) }
    let session = try Session(info: info, application: application, log: log, state: state)
    self.session = session
    compressor = info.compression.level.map { ZstdCompressor(level: Int32($0)) }
    receiver.limit = info.limits.maxFrame
    phase = .starting
    let heartbeat = Heartbeat(
      descriptor: descriptor, intervalMilliseconds: info.limits.heartbeatMilliseconds, sender: sender,
      progress: progress, liveness: liveness, log: log,
      connectionLost: { [weak self] in self?.finishForced($0) })
    guard let heartbeat, let thread = SystemThread({ heartbeat.run() }) else {
      return finish(.system("no thread for the heartbeat: errno \(errno)"))
    }
    thread.detach()
    self.heartbeat = heartbeat
    start(session)
  }

  private func start(_ session: Session) {
    let handlers = application.registry.withLock { $0.start }
    guard !handlers.isEmpty else { return started() }
    nonisolated(unsafe) let context = Context(session: session)
    Task(executorPreference: executor) { [self] in
      do {
        for handler in handlers { try await handler(context) }
        started()
      } catch {
        log.append(.error, "onStart failed: \(error)", [:])
        flush()
        finish(.startFailed("onStart failed: \(error)"))
      }
    }
  }

  private func started() {
    guard phase == .starting else { return }
    phase = .running
    do {
      for partition in lanes.keys.sorted() { try beginNext(of: partition) }
    } catch {
      finish(.protocolBroken("the node sent what is no record batch: \(error)"))
    }
  }

  private func drainIfDone() {
    if drainRequested.load(ordering: .relaxed) { isDraining = true }
    guard isDraining, phase == .running, unanswered == 0, let session else { return }
    phase = .stopping
    let handlers = application.registry.withLock { $0.stop }
    guard !handlers.isEmpty else { return goodbye() }
    nonisolated(unsafe) let context = Context(session: session)
    Task(executorPreference: executor) { [self] in
      for handler in handlers {
        do { try await handler(context) } catch { log.append(.error, "onStop failed: \(error)", [:]) }
      }
      goodbye()
    }
  }

  private func goodbye() {
    guard phase == .stopping else { return }
    head.truncate(to: 0)
    head.bytes(log.take())
    let start = head.beginFrame(.goodbye, id: 0)
    head.bytes((["reason": "drained"] as JSONValue).utf8)
    head.endFrame(start)
    sendHead()
    finish(.drained)
  }

  private func finish(_ reason: WorkerEnd) {
    phase = .ended
    heartbeat?.stop()
    if !hasEnded.exchange(true, ordering: .acquiringAndReleasing) { end(reason) }
  }

  /// From the heartbeat's thread.
  private func finishForced(_ message: String) {
    if !hasEnded.exchange(true, ordering: .acquiringAndReleasing) {
      end(.unavailable(message, isForced: true))
      executor.wake()
    }
  }

  // MARK: Deliveries

  private func receive(_ delivery: Delivery) throws {
    guard let session else { return }
    unanswered += 1
    guard unanswered <= session.info.limits.credits else {
      throw ProtocolError(message: "\(unanswered) unanswered deliveries, \(session.info.limits.credits) are allowed")
    }
    lanes[delivery.partition, default: Lane()].waiting.append(delivery)
    if phase == .running { try beginNext(of: delivery.partition) }
  }

  /// Runs the deliveries of a partition that wait, up to one whose handler suspends.
  private func beginNext(of partition: Int32) throws {
    guard let session else { return }
    while phase != .ended, var lane = lanes[partition], !lane.isBusy, !lane.waiting.isEmpty {
      let delivery = lane.waiting.removeFirst()
      lane.isBusy = true
      lanes[partition] = lane
      let run = idle.popLast() ?? DeliveryRun(session: session)
      run.begin(delivery)
      begun.append(run)
      if begun.count == 1 { lead(with: run) }
      switch try run.advance() {
      case .finished: complete(run)
      case .await(let handler, let event): drive(run, handler, event)
      }
    }
  }

  /// Goes on with `run` in a task, from a handler that may suspend to its end.
  private func drive(_ run: DeliveryRun, _ handler: @escaping Handler.Async, _ event: Event) {
    nonisolated(unsafe) let run = run
    Task(executorPreference: executor) { [self] in
      var step = DeliveryRun.Step.await(handler, event)
      do {
        while case .await(let handler, let event) = step {
          var failure: (any Error)?
          do { try await handler(event, run.context) } catch { failure = error }
          try run.endAwaited(failure)
          step = try run.advance()
        }
        complete(run)
        try beginNext(of: run.partition)
      } catch {
        finish(.protocolBroken("the node sent what is no record batch: \(error)"))
      }
    }
  }

  private func complete(_ run: DeliveryRun) {
    sendResult(of: run)
    unanswered -= 1
    lanes[run.partition]?.isBusy = false
    if let index = begun.firstIndex(where: { $0 === run }) { begun.remove(at: index) }
    if run.progress != nil {
      run.progress = nil
      if let oldest = begun.first { lead(with: oldest) } else { progress.turn(to: 0, done: 0) }
    }
    run.clear()
    idle.append(run)
    hasUnflushedOutput = true
  }

  /// Heartbeats tell of `run` from now on.
  private func lead(with run: DeliveryRun) {
    run.progress = progress
    progress.turn(to: run.id, done: run.done)
  }

  // MARK: Writing

  private func sendResult(of run: DeliveryRun) {
    guard phase != .ended else { return }
    head.truncate(to: 0)
    cuts.removeAll(keepingCapacity: true)
    head.bytes(log.take())
    let start = head.beginFrame(.result, id: run.id)
    run.writeResult(to: &head)
    let countAt = head.count
    head.u32(0)
    var count: UInt32 = 0
    for output in run.context.outputs.active {
      output.forEachBatch(packedBy: compressor) { batch in
        count += 1
        head.string16(output.topic)
        head.i32(output.partition)
        head.u32(UInt32(batch.count))
        if batch.count <= Self.copyLimit { head.bytes(batch) } else { cuts.append((head.count, batch)) }
      }
    }
    head.patch(count, at: countAt)
    let size = head.count - start + cuts.reduce(0) { $0 + $1.batch.count }
    head.patch(UInt32(size - 4), at: start)
    sendHead()
    cuts.removeAll(keepingCapacity: true)
  }

  /// Sends `head`, with the batches of `cuts` in their places.
  private func sendHead() {
    pieces.removeAll(keepingCapacity: true)
    let base = UnsafeMutableRawPointer(mutating: head.unsafeBytes.baseAddress.unsafelyUnwrapped)
    var position = 0
    for cut in cuts {
      pieces.append(iovec(iov_base: base + position, iov_len: cut.headEnd - position))
      pieces.append(iovec(iov_base: UnsafeMutableRawPointer(mutating: cut.batch.baseAddress), iov_len: cut.batch.count))
      position = cut.headEnd
    }
    pieces.append(iovec(iov_base: base + position, iov_len: head.count - position))
    if sender.send(&pieces) == .closed { finish(.unavailable("the connection to the node ended")) }
  }

  /// Sends log messages that wait, and what handlers printed on standard output to where the node reads it.
  private func flush() {
    if hasUnflushedOutput {
      hasUnflushedOutput = false
      fflush(nil)
    }
    let frames = log.take()
    guard !frames.isEmpty, phase != .ended else { return }
    head.truncate(to: 0)
    cuts.removeAll(keepingCapacity: true)
    head.bytes(frames)
    sendHead()
  }
}
