internal import GrapeCore
internal import GrapeWire
internal import Synchronization

/// LOG frames that wait to be sent, encoded. Filled by handlers, emptied by whichever thread writes next.
final class LogQueue: Sendable {
  /// Most bytes that may wait.
  static let byteLimit = 1024 * 1024
  /// Most bytes of one message with its fields; a longer one is cut.
  static let messageLimit = 32_768

  private struct State {
    var frames: [UInt8] = []
    var dropped = 0
  }

  private let state = Mutex(State())

  func append(_ level: LogLevel, _ message: String, _ fields: [String: JSONValue]) {
    let frame = LogQueue.encode(level, message, fields)
    state.withLock { state in
      if state.frames.count + frame.count > LogQueue.byteLimit {
        state.dropped += 1
      } else {
        state.frames += frame
      }
    }
  }

  /// All frames that wait; empty if none do.
  func take() -> [UInt8] {
    state.withLock { state in
      guard !state.frames.isEmpty else { return [] }
      var frames: [UInt8] = []
      swap(&frames, &state.frames)
      if state.dropped > 0 {
        frames += LogQueue.encode(
          .warning, "log messages dropped: they came faster than the node took them",
          ["count": JSONValue(state.dropped)])
        state.dropped = 0
      }
      return frames
    }
  }

  /// Frames that were taken and could not be sent.
  func putBack(_ frames: [UInt8]) {
    state.withLock { $0.frames.insert(contentsOf: frames, at: 0) }
  }

  private static func encode(_ level: LogLevel, _ message: String, _ fields: [String: JSONValue]) -> [UInt8] {
    var body = document(level, message, fields)
    if body.count > messageLimit {
      body = document(level, String(decoding: message.utf8.prefix(messageLimit / 2), as: UTF8.self), ["cut": true])
    }
    var writer = ByteWriter(capacity: FrameHeader.size + body.count)
    let start = writer.beginFrame(.log, id: 0)
    writer.bytes(body)
    writer.endFrame(start)
    return writer.finish().array
  }

  private static func document(_ level: LogLevel, _ message: String, _ fields: [String: JSONValue]) -> [UInt8] {
    let members = fields.sorted { $0.key < $1.key }.map { JSONValue.Member($0.key, $0.value) }
    return (["level": .string(level.rawValue), "message": .string(message), "fields": .object(members)] as JSONValue)
      .utf8
  }
}
