internal import GrapeCore
internal import GrapeWire

/// How an event ended that did not simply succeed.
struct Verdict {
  enum Kind: UInt8 {
    case rejected = 1
    case retry = 2
    case expired = 3
    case failed = 4
  }

  var kind: Kind
  /// The handler's own, or the number of `status` where the SDK refused.
  var code: Int32 = 0
  /// Retry only: not before.
  var delayMilliseconds: UInt32 = 0
  var message: String
  /// What a waiting caller is told; `code` goes along with a handler's error only.
  var status: Status
  var ran: Ran

  /// Most bytes of a message that are sent on.
  private static let messageLimit = 2048

  private init(
    _ kind: Kind, code: Int32 = 0, delayMilliseconds: UInt32 = 0, message: String, status: Status = .handlerError,
    ran: Ran = .yes
  ) {
    self.kind = kind
    self.code = code
    self.delayMilliseconds = delayMilliseconds
    self.message =
      message.utf8.count <= Self.messageLimit
      ? message : String(decoding: message.utf8.prefix(Self.messageLimit), as: UTF8.self)
    self.status = status
    self.ran = ran
  }

  /// What a handler's error means.
  init(_ error: any Error) {
    switch error {
    case let reject as Reject: self.init(.rejected, code: reject.code, message: reject.message)
    case let retry as Retry: self.init(.retry, delayMilliseconds: retry.milliseconds, message: retry.message)
    case let error as EmitError where error.code == .hopLimit:
      self.init(
        .rejected, code: Int32(Status.hopLimit.rawValue), message: error.message, status: .hopLimit)
    default: self.init(.failed, message: "\(error)")
    }
  }

  /// Makes of a wish to be run again a failure.
  mutating func giveUp() {
    kind = .failed
    delayMilliseconds = 0
  }

  static let expired = Verdict(
    .expired, message: "the deadline passed before the event was started", status: .deadlineExceeded, ran: .never)

  static func noSuchSlot(_ name: String) -> Verdict {
    Verdict(
      .rejected, code: Int32(Status.noSuchSlot.rawValue), message: "the application has no slot \"\(name)\"",
      status: .noSuchSlot, ran: .never)
  }

  /// The final reply to a caller who waits.
  var reply: ReplyStatus {
    ReplyStatus(status, ran: ran, code: status == .handlerError ? code : 0, message: message)
  }

  /// Size in RESULT, in bytes.
  var size: Int { 22 + message.utf8.count }

  func write(offset: Int64, to writer: inout ByteWriter) {
    writer.i64(offset)
    writer.u8(kind.rawValue)
    writer.u8(0)
    writer.u16(0)
    writer.i32(code)
    writer.u32(delayMilliseconds)
    writer.string16(message)
  }
}
