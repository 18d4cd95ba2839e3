public import GrapeCore
public import GrapeWire

/// What the node said in WELCOME.
public struct NodeWelcome: Sendable, Hashable {
  public var node: String
  public var version: String
  /// Largest frame, in bytes.
  public var maxFrame: Int
  /// Largest event (key, value and headers), in bytes.
  public var maxEvent: Int
}

/// A connection to a node for one thread at a time: sends frames, receives frames, any number of them under way.
///
/// While it waits for room to send it goes on receiving, so that neither side can hold up the other for ever; what
/// comes meanwhile is kept, and is bounded by what was asked for.
public final class NodeConnection {
  /// The socket's path.
  public let path: String
  public let welcome: NodeWelcome
  /// A descriptor that ends every wait with `interrupted` once it is readable; -1: none.
  public var interruptDescriptor: Int32 = -1

  /// For poll(2) beside other descriptors: readable when an answer or the connection's end has come.
  public var descriptor: Int32 { socket.descriptor }

  private let socket: NodeSocket
  private var assembler: FrameAssembler
  private var inbox: [ReceivedFrame] = []
  private var inboxHead = 0
  private var lastID: UInt64 = 0
  private var ending: ClientError?

  /// Connects to the node's socket and says HELLO.
  ///
  /// - Parameter source: if given, earlier connections of the same source are over once this returns: all that the node
  ///   read from them is in the log or refused, and it reads no more of them.
  ///
  /// Throws `ClientError`: `unreachable` if nobody listens at `path`, `refused` if the node does not want this client,
  /// `fenced` if the source has come with this epoch or a greater one before, `deadlineExceeded` if the node does not answer in time.
  public init(
    path: String, agent: String = "grape-swift/0.1", source: SourceEpoch? = nil, timeout: Duration = .seconds(10)
  ) throws(ClientError) {
    self.path = path
    let deadline = ContinuousClock.now + timeout
    let socket = try NodeSocket(path: path)
    var assembler = FrameAssembler()
    welcome = try Self.handshake(socket, &assembler, agent: agent, source: source, until: deadline, path: path)
    self.socket = socket
    self.assembler = assembler
  }

  /// A number for the next request, unused on this connection.
  public func nextID() -> UInt64 {
    lastID += 1
    return lastID
  }

  // MARK: Sending

  /// Sends a frame. Throws `deadlineExceeded` if the node does not take it in time; the connection is then of no more use.
  public func send(_ frame: ByteSlice, until deadline: ContinuousClock.Instant? = nil) throws(ClientError) {
    try send([frame], until: deadline)
  }

  /// Sends pieces of frames one after the other.
  public func send(_ pieces: [ByteSlice], until deadline: ContinuousClock.Instant? = nil) throws(ClientError) {
    if let ending { throw ending }
    var outgoing = OutgoingBytes()
    outgoing.append(pieces)
    while true {
      switch outgoing.write(to: socket) {
      case .moved: return
      case .ended(let reason):
        // The node's reason, if it gave one, tells more than a broken pipe does.
        drainQuietly()
        throw end(ending ?? ClientError(.disconnected, "\(reason) (\(path))"))
      case .wouldBlock:
        let (events, interrupt) = Poll.wait(
          socket.descriptor, Poll.readable | Poll.writable, or: interruptDescriptor, until: deadline)
        if interrupt != 0 { throw ClientError(.interrupted, "interrupted") }
        guard events != 0 else {
          throw end(ClientError(.deadlineExceeded, "the node at \(path) did not take a request in time"))
        }
        if events & Poll.readable != 0 { _ = try receiveAvailable() }
      }
    }
  }

  // MARK: Receiving

  /// The next frame, whatever it answers. Without a deadline it waits for as long as the connection lasts.
  public func receive(until deadline: ContinuousClock.Instant? = nil) throws(ClientError) -> ReceivedFrame {
    while true {
      if let frame = try receiveIfReady() { return frame }
      let (events, interrupt) = Poll.wait(socket.descriptor, Poll.readable, or: interruptDescriptor, until: deadline)
      if interrupt != 0, events == 0 { throw ClientError(.interrupted, "interrupted") }
      guard events != 0 else {
        throw ClientError(.deadlineExceeded, "the node at \(path) did not answer in time")
      }
    }
  }

  /// Waits until `deadline` while nothing is due from the node. Throws if the connection ends or is interrupted.
  public func pause(until deadline: ContinuousClock.Instant) throws(ClientError) {
    do throws(ClientError) {
      let frame = try receive(until: deadline)
      throw ClientError(.protocolViolation, "the node answered request \(frame.id), which was not sent")
    } catch {
      guard error.code == .deadlineExceeded else { throw error }
    }
  }

  /// The next frame if one has come.
  public func receiveIfReady() throws(ClientError) -> ReceivedFrame? {
    if let frame = takeFromInbox() { return frame }
    if let ending { throw ending }
    _ = try receiveAvailable()
    if let frame = takeFromInbox() { return frame }
    if let ending { throw ending }
    return nil
  }

  private func takeFromInbox() -> ReceivedFrame? {
    guard inboxHead < inbox.count else { return nil }
    let frame = inbox[inboxHead]
    inboxHead += 1
    if inboxHead == inbox.count {
      inbox.removeAll(keepingCapacity: true)
      inboxHead = 0
    }
    return frame
  }

  /// Moves whole frames that are there to the inbox. An end of the connection is remembered until the inbox is empty.
  private func receiveAvailable() throws(ClientError) -> Bool {
    switch socket.read(into: assembler.room()) {
    case .wouldBlock: return false
    case .ended(let reason):
      _ = end(ClientError(.disconnected, "\(reason) (\(path))"))
      return false
    case .moved(let count):
      assembler.received(count)
      do throws(WireError) {
        while let frame = try assembler.next() {
          if frame.id == 0 { takeConnectionFrame(frame) } else { inbox.append(frame) }
        }
      } catch {
        throw end(ClientError(.protocolViolation, "the node at \(path) sent a bad frame: \(error.message)"))
      }
      return true
    }
  }

  private func drainQuietly() {
    while (try? receiveAvailable()) == true {}
  }

  /// Frames with id 0 are about the connection: the node ends it.
  private func takeConnectionFrame(_ frame: ReceivedFrame) {
    if let failure = frame.failure {
      _ = end(
        ClientError(
          failure.status == .fenced ? .fenced : .refused, "the node at \(path) ends the connection: \(failure)"))
    } else if frame.type == .goodbye {
      _ = end(ClientError(.disconnected, "the node at \(path) is stopping"))
    } else {
      _ = end(ClientError(.protocolViolation, "the node at \(path) sent a frame \(frame.type) without a request"))
    }
  }

  /// Remembers why the connection is of no more use; the first reason counts.
  private func end(_ error: ClientError) -> ClientError {
    if ending == nil { ending = error }
    return ending ?? error
  }

  // MARK: Opening

  /// Says HELLO and waits for WELCOME.
  static func handshake(
    _ socket: NodeSocket, _ assembler: inout FrameAssembler, agent: String, source: SourceEpoch? = nil,
    until deadline: ContinuousClock.Instant, path: String
  ) throws(ClientError) -> NodeWelcome {
    var hello = OutgoingBytes()
    hello.append(ClientFrame.hello(agent: agent, source: source))
    while true {
      var wanted = Poll.readable
      switch hello.write(to: socket) {
      case .moved: break
      case .wouldBlock: wanted |= Poll.writable
      case .ended(let reason): throw ClientError(.disconnected, "\(reason) (\(path))")
      }
      switch socket.read(into: assembler.room()) {
      case .moved(let count): assembler.received(count)
      case .ended(let reason): throw ClientError(.disconnected, "\(reason) (\(path))")
      case .wouldBlock:
        guard Poll.wait(socket.descriptor, wanted, until: deadline).first != 0 else {
          throw ClientError(.deadlineExceeded, "the node at \(path) did not answer HELLO in time")
        }
      }
      let frame: ReceivedFrame
      do throws(WireError) {
        guard let next = try assembler.next() else { continue }
        frame = next
      } catch {
        throw ClientError(.protocolViolation, "what listens at \(path) is no Grape node: \(error.message)")
      }
      if let failure = frame.failure {
        throw ClientError(
          failure.status == .fenced ? .fenced : .refused, "the node at \(path) refuses the connection: \(failure)")
      }
      do throws(WireError) {
        let welcome = try readWelcome(frame, source: source)
        assembler.limit = welcome.maxFrame
        return welcome
      } catch {
        throw ClientError(.protocolViolation, "what listens at \(path) is no Grape node: \(error.message)")
      }
    }
  }

  private static func readWelcome(_ frame: ReceivedFrame, source: SourceEpoch?) throws(WireError) -> NodeWelcome {
    guard frame.type == .welcome else { throw WireError(.malformed, "it answered HELLO with a frame \(frame.type)") }
    let json: JSONValue
    do throws(JSONError) {
      json = try JSONValue(parsing: frame.body.unsafeBytes)
      withExtendedLifetime(frame.body) {}
    } catch {
      throw WireError(.malformed, "its WELCOME does not parse: \(error)")
    }
    guard json["protocol"]?.int == 1 else { throw WireError(.unsupported, "its WELCOME names no protocol version 1") }
    guard let maxFrame = json["maxFrame"]?.int, let maxEvent = json["maxEvent"]?.int,
      (4096...Int64(UInt32.max)).contains(maxFrame), (1...maxFrame).contains(maxEvent)
    else { throw WireError(.malformed, "its WELCOME has no usable maxFrame and maxEvent") }
    // A node that does not know of sources would leave them unfenced.
    if let source, json["epoch"]?.int != source.epoch {
      throw WireError(.unsupported, "its WELCOME does not confirm the source's epoch")
    }
    return NodeWelcome(
      node: json["node"]?.string ?? "", version: json["version"]?.string ?? "", maxFrame: Int(maxFrame),
      maxEvent: Int(maxEvent))
  }
}
