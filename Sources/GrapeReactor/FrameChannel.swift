public import GrapeWire

/// One end of a stream of frames. What is sent is received in its order, unless the channel ends before.
public protocol FrameChannel: AnyObject {
  /// Largest frame taken, in bytes, header included.
  var frameLimit: Int { get set }
  /// Bytes that may wait to be sent before reading pauses.
  var outputLimit: Int { get set }
  /// Called for each frame. The channel may be closed from within.
  var onFrame: ((FrameHeader, ByteSlice) -> Void)? { get set }
  /// Called once, when the channel has ended for any reason but `close` by its owner; the text says why.
  var onEnd: ((String) -> Void)? { get set }

  /// Sends a frame whose body `body` writes.
  func send(_ type: FrameType, flags: UInt8, id: UInt64, body: (inout ByteWriter) -> Void)

  /// Sends a frame whose body is what `head` writes followed by `slices`.
  func send(_ type: FrameType, flags: UInt8, id: UInt64, slices: [ByteSlice], head: (inout ByteWriter) -> Void)

  /// The peer broke the protocol: says so and closes.
  func violation(_ message: String)

  /// Closes now. `onEnd` is not called.
  func close()
}

extension FrameChannel {
  /// Sends a frame without flags whose body `body` writes.
  public func send(_ type: FrameType, id: UInt64, body: (inout ByteWriter) -> Void) {
    send(type, flags: 0, id: id, body: body)
  }

  /// Sends a frame without flags whose body is what `head` writes followed by `slices`.
  public func send(_ type: FrameType, id: UInt64, slices: [ByteSlice], head: (inout ByteWriter) -> Void) {
    send(type, flags: 0, id: id, slices: slices, head: head)
  }
}
