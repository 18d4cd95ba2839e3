internal import CGrapeLinux
internal import Glibc
internal import GrapeCore
internal import GrapeWire
internal import Synchronization

/// The thread and the socket behind a `Client`. Requests are written by whoever submits them while the socket takes them at once; the
/// thread writes the rest, reads all answers, and watches the deadlines.
final class ClientLoop: Sendable {
  private struct State {
    var window: ClientWindow
    var outgoing = OutgoingBytes()
    var lastID: UInt64 = 0
    /// Set once, by the first reason to stop.
    var ending: ClientError?
  }

  let path: String
  let welcome: NodeWelcome
  private let socket: NodeSocket
  private let wake: WakeDescriptor
  private let state: Mutex<State>

  private init(
    path: String, welcome: NodeWelcome, socket: NodeSocket, wake: WakeDescriptor, configuration: Client.Configuration
  ) {
    self.path = path
    self.welcome = welcome
    self.socket = socket
    self.wake = wake
    state = Mutex(
      State(window: ClientWindow(limit: configuration.window, byteLimit: configuration.windowBytes)))
  }

  /// Connects on the loop's own thread (connecting may block) and leaves it running.
  static func start(path: String, configuration: Client.Configuration) async throws -> ClientLoop {
    try await withCheckedThrowingContinuation { continuation in
      let started = ClientThread.start {
        var assembler = FrameAssembler()
        let loop: ClientLoop
        do throws(ClientError) {
          let deadline = ContinuousClock.now + configuration.connectTimeout
          let socket = try NodeSocket(path: path)
          let welcome = try NodeConnection.handshake(
            socket, &assembler, agent: configuration.agent, until: deadline, path: path)
          let wake = try WakeDescriptor()
          loop = ClientLoop(
            path: path, welcome: welcome, socket: socket, wake: wake, configuration: configuration)
        } catch {
          continuation.resume(throwing: error)
          return
        }
        continuation.resume(returning: loop)
        loop.run(&assembler)
      }
      if !started {
        continuation.resume(throwing: ClientError(.unreachable, "no thread could be started for the client"))
      }
    }
  }

  func nextID() -> UInt64 {
    state.withLock {
      $0.lastID += 1
      return $0.lastID
    }
  }

  // MARK: From any thread

  func submit(_ request: ClientRequest) {
    let (refusal, mustWake) = state.withLock { state -> ((any Error)?, Bool) in
      if let ending = state.ending { return (ending, false) }
      // Checked under the lock: a cancellation after this finds the request registered.
      if Task.isCancelled { return (CancellationError(), false) }
      let earliest = state.window.earliestDeadline
      send(state.window.submit(request), &state)
      // The loop must learn of a deadline earlier than those it waits for, and of bytes that are left.
      return (nil, state.window.earliestDeadline != earliest || !state.outgoing.isEmpty)
    }
    if let refusal { return request.fail(refusal) }
    if mustWake { wake.signal() }
  }

  func cancel(_ id: UInt64) { giveUp(id, CancellationError()) }

  /// Ends a request from the client's side, and tells the node where that means something.
  func giveUp(_ id: UInt64, _ error: any Error) {
    let removed = state.withLock { state in
      let removed = state.window.remove(id)
      if let removed, removed.wasSent, removed.request.isCancellable { send([ClientFrame.cancel(id: id)], &state) }
      send(state.window.admitWaiting(), &state)
      return removed
    }
    removed?.request.fail(error)
    wake.signal()
  }

  func close() {
    end(ClientError(.closed, "the client was closed"))
  }

  private func end(_ reason: ClientError) {
    let abandoned = state.withLock { state -> [ClientRequest] in
      guard state.ending == nil else { return [] }
      state.ending = reason
      return state.window.removeAll()
    }
    for request in abandoned { request.fail(reason) }
    socket.shutDown()
    wake.signal()
  }

  private func send(_ frames: [ByteSlice], _ state: inout State) {
    guard !frames.isEmpty else { return }
    let mayWrite = state.outgoing.isEmpty
    state.outgoing.append(frames)
    // An end of the connection seen here is found by the loop as well, which then tells everyone.
    if mayWrite { _ = state.outgoing.write(to: socket) }
  }

  // MARK: The thread

  private func run(_ assembler: inout FrameAssembler) {
    while true {
      let (wanted, deadline, ended) = state.withLock { state -> (Int16, ContinuousClock.Instant?, Bool) in
        let wanted = state.outgoing.isEmpty ? Poll.readable : Poll.readable | Poll.writable
        return (wanted, state.window.earliestDeadline, state.ending != nil)
      }
      if ended { return }
      let (events, woken) = Poll.wait(socket.descriptor, wanted, or: wake.descriptor, until: deadline)
      if woken != 0 { wake.clear() }
      if events & Poll.writable != 0 {
        state.withLock { state in _ = state.outgoing.write(to: socket) }
      }
      if events & ~Poll.writable != 0 {
        do throws(ClientError) {
          try receive(&assembler)
        } catch {
          return end(error)
        }
      }
      expire()
    }
  }

  private func receive(_ assembler: inout FrameAssembler) throws(ClientError) {
    switch socket.read(into: assembler.room()) {
    case .wouldBlock: return
    case .ended(let reason): throw ClientError(.disconnected, "\(reason) (\(path))")
    case .moved(let count): assembler.received(count)
    }
    while let frame = try nextFrame(&assembler) {
      guard frame.id != 0 else {
        if let failure = frame.failure {
          throw ClientError(.refused, "the node at \(path) ends the connection: \(failure)")
        }
        throw ClientError(.disconnected, "the node at \(path) is stopping")
      }
      take(frame)
    }
  }

  private func nextFrame(_ assembler: inout FrameAssembler) throws(ClientError) -> ReceivedFrame? {
    do throws(WireError) {
      return try assembler.next()
    } catch {
      throw ClientError(.protocolViolation, "the node at \(path) sent a bad frame: \(error.message)")
    }
  }

  private func take(_ frame: ReceivedFrame) {
    // An answer to a request that was given up may still come.
    guard let request = state.withLock({ $0.window.request(frame.id) }) else { return }
    // A final answer leaves the window before its waiter runs: whoever removes the request resumes it, nobody else.
    let isFinal = frame.type != .reply || frame.flags & 1 != 0
    if isFinal {
      let removed = state.withLock { state in
        let removed = state.window.remove(frame.id)
        send(state.window.admitWaiting(), &state)
        return removed
      }
      _ = removed?.request.take(frame)
    } else if request.take(frame) == .giveUp {
      giveUp(frame.id, StatusError(.queueFull, "replies come faster than they are read", ran: .unknown))
    }
  }

  private func expire() {
    let expired = state.withLock { state -> [(request: ClientRequest, wasSent: Bool)] in
      let expired = state.window.removeExpired(at: .now)
      for (request, wasSent) in expired where wasSent && request.isCancellable {
        send([ClientFrame.cancel(id: request.id)], &state)
      }
      if !expired.isEmpty { send(state.window.admitWaiting(), &state) }
      return expired
    }
    for (request, wasSent) in expired {
      let message =
        wasSent ? "the node did not answer in time" : "the request did not get its turn in time: too many are under way"
      request.fail(StatusError(.deadlineExceeded, message, ran: wasSent ? .unknown : .never))
    }
  }
}
