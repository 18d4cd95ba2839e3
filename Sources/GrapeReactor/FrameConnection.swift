internal import CGrapeLinux
public import GrapeWire
internal import Glibc

/// A stream socket that carries frames, on a reactor.
///
/// Frames arrive as slices of the buffer they were received into, copied nowhere. What is sent during a turn is gathered and goes out in as few
/// system calls as it takes, at the turn's end. While more than `outputLimit` bytes wait to be sent nothing is read, so a peer that
/// does not read cannot make the node's memory grow.
public final class FrameConnection: FrameChannel {
  /// Largest frame taken, in bytes, header included.
  public var frameLimit = FrameHeader.openingLimit
  /// Called for each frame. The connection may be closed from within.
  public var onFrame: ((FrameHeader, ByteSlice) -> Void)?
  /// Called once, when the connection has ended for any reason but `close` by its owner; the text says why.
  public var onEnd: ((String) -> Void)?
  /// Bytes that may wait to be sent before reading pauses. To be raised for peers whose output is bounded by other means: one that first sends
  /// what it has to send, and then reads, would wait for ever for a node that waits for it to read.
  public var outputLimit: Int

  private let reactor: Reactor
  private let descriptor: Int32
  private var source: Reactor.SourceID?
  private var interest: Reactor.Interest = .read

  private static let smallBuffer = 16 * 1024
  private static let largeBuffer = 512 * 1024
  private var input = ByteStorage(capacity: 0)
  private var inputStart = 0
  private var inputEnd = 0
  private var isPaused = false

  private var gathered = ByteWriter(capacity: 1024)
  private var output: [ByteSlice] = []
  private var outputHead = 0
  private var outputOffset = 0
  /// Bytes waiting to be sent.
  public private(set) var outputBytes = 0
  private var flushScheduled = false
  private var closesWhenSent = false
  private unowned let flusher: ConnectionFlusher

  /// Whether the connection has ended.
  public private(set) var isClosed = false

  /// Takes over `descriptor` (non-blocking) and begins to read.
  public init(
    descriptor: Int32, reactor: Reactor, flusher: ConnectionFlusher, outputLimit: Int = 8 * 1024 * 1024
  ) throws(SystemError) {
    self.reactor = reactor
    self.descriptor = descriptor
    self.flusher = flusher
    self.outputLimit = outputLimit
    source = try reactor.watch(descriptor, for: .read) { [unowned self] in ready($0) }
  }

  deinit { if !isClosed { Glibc.close(descriptor) } }

  private func ready(_ readiness: Reactor.Interest) {
    if readiness.contains(.write) { flush() }
    if !isClosed, !readiness.isDisjoint(with: [.read, .hangup]), !isPaused || readiness.contains(.hangup) { receive() }
  }

  // MARK: Receiving

  private func receive() {
    // Bounded, so that one busy peer does not starve the others: the rest is reported again by the next turn.
    for _ in 0..<4 {
      makeRoom()
      let room = input.capacity - inputEnd
      let count = Glibc.read(descriptor, input.base + inputEnd, room)
      if count > 0 {
        inputEnd += count
        parse()
        if isClosed || count < room || outputBytes > outputLimit || isPaused { break }
      } else if count == 0 {
        return end("the peer closed the connection")
      } else if errno == EAGAIN {
        break
      } else if errno != EINTR {
        return end("read: \(String(cString: strerror(errno)))")
      }
    }
    if !isClosed { updateInterest() }
  }

  /// Sees to free space behind what was received: for the whole of a frame that has begun, or for a good read.
  private func makeRoom() {
    let pending = inputEnd - inputStart
    if pending == 0, isKnownUniquelyReferenced(&input) {
      inputStart = 0
      inputEnd = 0
    }
    var wanted = pending
    if pending >= 4 {
      let length = (input.base + inputStart).loadUnaligned(as: UInt32.self).bigEndian
      wanted = min(Int(length) + 4, frameLimit)
    }
    let filled = inputStart == 0 && inputEnd == input.capacity
    if input.capacity - inputStart >= wanted, input.capacity - inputEnd >= min(4096, Self.smallBuffer), !filled {
      return
    }
    // A connection that fills a small buffer gets a large one; quiet ones stay small.
    let base = input.capacity == 0 ? Self.smallBuffer : Self.largeBuffer
    let fresh = ByteStorage(capacity: max(base, wanted + 4096))
    if pending > 0 { fresh.base.copyMemory(from: input.base + inputStart, byteCount: pending) }
    input = fresh
    inputStart = 0
    inputEnd = pending
  }

  private func parse() {
    // What follows a refusal is not read any more, even if it has arrived.
    while !isClosed, !isPaused, !closesWhenSent {
      let bytes = UnsafeRawBufferPointer(start: input.base + inputStart, count: inputEnd - inputStart)
      do throws(WireError) {
        guard let header = try FrameHeader(bytes, limit: frameLimit) else { return }
        let size = FrameHeader.size + header.bodySize
        guard bytes.count >= size else { return }
        let body = ByteSlice(storage: input, offset: inputStart + FrameHeader.size, count: header.bodySize)
        inputStart += size
        onFrame?(header, body)
      } catch {
        return violation(error.message)
      }
    }
  }

  /// The peer broke the protocol: says so and closes.
  public func violation(_ message: String) { refuse(status: 9, name: "bad-request", message: message) }

  /// Sends an ERROR about the connection, then closes it.
  public func refuse(status: UInt16, name: String, message: String) {
    guard !isClosed, !closesWhenSent else { return }
    send(.error, id: 0) { writer in
      writer.bytes(Array("{\"status\":\(status),\"name\":\(quoted(name)),\"message\":\(quoted(message))}".utf8))
    }
    closeWhenSent(message)
  }

  /// Pauses reading: backpressure. What has arrived stays unparsed.
  public func pause() {
    guard !isPaused else { return }
    isPaused = true
    updateInterest()
  }

  /// Reads again.
  public func resume() {
    guard isPaused, !isClosed else { return }
    isPaused = false
    updateInterest()
    reactor.deferred { [self] in if !isClosed { parse() } }
  }

  // MARK: Sending

  /// Sends a frame whose body `body` writes.
  public func send(_ type: FrameType, flags: UInt8, id: UInt64, body: (inout ByteWriter) -> Void) {
    guard !isClosed, !closesWhenSent else { return }
    let before = gathered.count
    let start = gathered.beginFrame(type, flags: flags, id: id)
    body(&gathered)
    gathered.endFrame(start)
    outputBytes += gathered.count - before
    scheduleFlush()
  }

  /// Sends a frame whose body is what `head` writes followed by `slices`, which are not copied unless they are small.
  public func send(
    _ type: FrameType, flags: UInt8, id: UInt64, slices: [ByteSlice], head: (inout ByteWriter) -> Void
  ) {
    guard !isClosed, !closesWhenSent else { return }
    let before = gathered.count
    let start = gathered.beginFrame(type, flags: flags, id: id)
    head(&gathered)
    let total = slices.reduce(0) { $0 + $1.count }
    gathered.patch(UInt32(gathered.count - start - 4 + total), at: start)
    outputBytes += gathered.count - before + total
    for slice in slices {
      if slice.count <= 4096 {
        gathered.bytes(slice.unsafeBytes)
      } else {
        seal()
        output.append(slice)
      }
    }
    scheduleFlush()
  }

  private func seal() {
    if gathered.count > 0 { output.append(gathered.take(nextCapacity: 1024)) }
  }

  private func scheduleFlush() {
    guard !flushScheduled else { return }
    flushScheduled = true
    flusher.add(self)
  }

  func flushAtTurnEnd() {
    flushScheduled = false
    flush()
  }

  private func flush() {
    guard !isClosed else { return }
    seal()
    while outputHead < output.count {
      let sent = sendPieces()
      if sent < 0 {
        if errno == EINTR { continue }
        if errno == EAGAIN { break }
        return end("write: \(String(cString: strerror(errno)))")
      }
      advance(sent)
    }
    if outputHead == output.count {
      output.removeAll(keepingCapacity: true)
      outputHead = 0
      if closesWhenSent { return end(nil) }
    } else if outputHead > 256 {
      output.removeFirst(outputHead)
      outputHead = 0
    }
    updateInterest()
  }

  private func sendPieces() -> Int {
    let count = min(output.count - outputHead, 64)
    return withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: 64) { bases in
      withUnsafeTemporaryAllocation(of: Int.self, capacity: 64) { sizes in
        for index in 0..<count {
          let slice = output[outputHead + index]
          let skip = index == 0 ? outputOffset : 0
          bases[index] = slice.unsafeBytes.baseAddress! + skip
          sizes[index] = slice.count - skip
        }
        return grape_send_pieces(descriptor, bases.baseAddress!, sizes.baseAddress!, Int32(count))
      }
    }
  }

  private func advance(_ sent: Int) {
    outputBytes -= sent
    var rest = sent + outputOffset
    while outputHead < output.count, rest >= output[outputHead].count {
      rest -= output[outputHead].count
      output[outputHead] = .none
      outputHead += 1
    }
    outputOffset = rest
  }

  private func updateInterest() {
    guard !isClosed, let source else { return }
    var wanted: Reactor.Interest = []
    if outputHead < output.count { wanted.insert(.write) }
    if !isPaused, outputBytes <= outputLimit, !closesWhenSent { wanted.insert(.read) }
    guard wanted != interest else { return }
    interest = wanted
    do throws(SystemError) { try reactor.update(source, for: wanted) } catch { end(error.description) }
  }

  // MARK: Ending

  /// Closes once everything sent so far has left.
  public func closeWhenSent(_ reason: String) {
    guard !isClosed, !closesWhenSent else { return }
    closesWhenSent = true
    endReason = reason
    scheduleFlush()
  }

  private var endReason: String?

  private func end(_ reason: String?) {
    guard !isClosed else { return }
    let callback = onEnd
    close()
    callback?(reason ?? endReason ?? "closed")
  }

  /// Closes now. `onEnd` is not called.
  public func close() {
    guard !isClosed else { return }
    isClosed = true
    if let source { reactor.unwatch(source) }
    source = nil
    Glibc.close(descriptor)
    onFrame = nil
    onEnd = nil
    output.removeAll()
    outputHead = 0
    outputBytes = 0
  }

  /// Process and user at the other end.
  public func peerCredentials() throws(SystemError) -> (pid: Int32, uid: UInt32) {
    var pid: pid_t = 0
    var uid: uid_t = 0
    try system("getsockopt SO_PEERCRED") { grape_peer_credentials(descriptor, &pid, &uid) }
    return (pid, uid)
  }
}

extension ByteSlice {
  /// Stands where a slice was sent, so that its memory is free at once.
  fileprivate static let none = ByteSlice([])
}

/// Flushes at each turn's end the connections that have something to send.
public final class ConnectionFlusher {
  private var waiting: [FrameConnection] = []

  public init() {}

  func add(_ connection: FrameConnection) { waiting.append(connection) }

  /// To be called at the end of each turn.
  public func flush() {
    guard !waiting.isEmpty else { return }
    let connections = waiting
    waiting.removeAll(keepingCapacity: true)
    for connection in connections { connection.flushAtTurnEnd() }
  }
}

private func quoted(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case _ where scalar.value < 0x20:
      let digits = String(scalar.value, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}
