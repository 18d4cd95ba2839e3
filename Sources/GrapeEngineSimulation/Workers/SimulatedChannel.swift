import GrapeReactor
import GrapeWire

/// Frames between a node and a worker, which travel when the simulation says so.
final class SimulatedChannel: FrameChannel, @unchecked Sendable {
  // A simulation lives on one thread.
  typealias Frame = (header: FrameHeader, body: ByteSlice)

  var frameLimit = FrameHeader.openingLimit
  var outputLimit = 0
  var onFrame: ((FrameHeader, ByteSlice) -> Void)?
  var onEnd: ((String) -> Void)?
  /// Sent by the node and not received yet.
  var toWorker: [Frame] = []
  /// Sent by the worker and not received yet.
  var toNode: [Frame] = []
  /// The node has closed it.
  private(set) var isClosed = false
  /// Deliveries whose results the node has not received.
  private(set) var unanswered: [UInt64: ByteSlice] = [:]
  /// Told of each delivery that the node sends.
  var willDeliver: ((ByteSlice) -> Void)?

  func send(_ type: FrameType, flags: UInt8, id: UInt64, body: (inout ByteWriter) -> Void) {
    send(type, flags: flags, id: id, slices: [], head: body)
  }

  func send(_ type: FrameType, flags: UInt8, id: UInt64, slices: [ByteSlice], head: (inout ByteWriter) -> Void) {
    guard !isClosed else { return }
    var writer = ByteWriter(capacity: 256)
    head(&writer)
    for slice in slices { writer.bytes(slice.unsafeBytes) }
    let body = writer.finish()
    let header = FrameHeader(type: type, flags: flags, id: id, bodySize: body.count)
    if type == .deliver {
      unanswered[id] = body
      willDeliver?(body)
    }
    toWorker.append((header, body))
  }

  /// The worker sends.
  func sendToNode(_ type: FrameType, id: UInt64, _ body: ByteSlice) {
    toNode.append((FrameHeader(type: type, id: id, bodySize: body.count), body))
  }

  func violation(_ message: String) { close() }

  func close() {
    isClosed = true
    onFrame = nil
    onEnd = nil
    toNode = []
  }

  /// Hands the first frame that the worker has sent to the node. On the node's reactor.
  func deliver(_ frame: Frame) {
    guard !isClosed else { return }
    if FrameHeader.size + frame.body.count > frameLimit { return violation("a frame is too large") }
    if frame.header.type == .result { unanswered[frame.header.id] = nil }
    onFrame?(frame.header, frame.body)
  }

  /// Tells the node that the worker's end is closed.
  func end() {
    guard !isClosed else { return }
    let callback = onEnd
    close()
    callback?("the peer closed the connection")
  }
}
