import ArgumentParser
import Grape
import Glibc
import GrapeCore
import GrapeWire

/// `grape exec`
struct ExecCommand: NodeCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec",
    abstract: "Send one event.",
    discussion: """
      Without --block the command returns as soon as the event is durable, and prints where it went. With --block it
      waits for the handlers' answer and prints its bytes, and nothing else, on standard output; a failure prints
      its status, the handler's code and message on standard error.

      --data takes the data itself, @FILE for a file's content, - for standard input (@@ for data that begins with @).

      EXAMPLES
        grape exec shop@order --key customer-7 --data '{"item": "tea"}'
        grape exec shop@price --data @item.json --block --timeout 2s
        grape exec shop@pay --data @bill.json --block --idempotency-key bill-4711
        date | grape exec clock@tick --data - --header source=cron --durability os
      """)

  @Argument(help: ArgumentHelp("The event: app@event.", valueName: "target"), transform: parseTarget)
  var target: EventTarget

  @Option(help: "The key: events of one key are in order. Without it any partition is taken.")
  var key: String?

  @Option(help: ArgumentHelp("The data: TEXT, @FILE, or - for standard input.", valueName: "data"))
  var data: String?

  @Option(help: ArgumentHelp("A header; may be given several times.", valueName: "name=value"), transform: parseHeader)
  var header: [OutgoingEvent.Header] = []

  @Option(
    help: ArgumentHelp(
      "Names this request: sent again with the same key, data and target it is not run again, and the answer is that of the first.",
      valueName: "text"))
  var idempotencyKey: String?

  @Option(
    help: ArgumentHelp("disk, os or memory; the application's own if not given.", valueName: "level"),
    transform: parseDurability)
  var durability: AckDurability?

  @Flag(help: "Wait for the handlers' answer and print it.")
  var block = false

  @Option(
    help: ArgumentHelp(
      "How long to wait: for the answer with --block, for the acknowledgement without (default 30s).",
      valueName: "duration"),
    transform: parseTimeout)
  var timeout: Duration?

  @Option(
    help: ArgumentHelp(
      "The event is not started any more when this has passed. Not with --block.", valueName: "duration"),
    transform: parseTimeout)
  var expiry: Duration?

  @OptionGroup var options: NodeOptions

  func validate() throws {
    if block, expiry != nil {
      throw ValidationError("--expiry is for events that nobody waits for; with --block use --timeout")
    }
  }

  func execute(_ node: NodeConnection) throws {
    let value = try data.map { try readData($0, limit: node.welcome.maxEvent) } ?? ByteSlice([])
    var event = OutgoingEvent(target.text, key: key.map { ByteSlice($0) }, value: value, headers: header)
    if let idempotencyKey { event.idempotencyKey = idempotencyKey }
    guard event.byteCount <= node.welcome.maxEvent else {
      throw StatusError(
        .tooLarge,
        "the event has \(Format.count(event.byteCount)) bytes, the node takes \(Format.count(node.welcome.maxEvent))")
    }
    let durability = durability ?? .applicationDefault
    let timeout = timeout ?? .seconds(30)
    if block {
      let reply = try node.call(event, durability: durability, timeout: timeout) { try print($0) }
      if let failure = reply.failure { throw failure }
      try print(reply)
    } else {
      let receipt = try node.exec(event, durability: durability, expiry: expiry, timeout: timeout)
      show([
        "topic": .string(receipt.topic), "partition": JSONValue(receipt.partition), "offset": JSONValue(receipt.offset),
        "durability": .string(receipt.durability.name),
      ]) { _ in
        ["\(receipt.topic), partition \(receipt.partition), offset \(receipt.offset): \(receipt.durability.inWords)"]
      }
    }
  }

  /// The bytes as they are, or an object per reply. Progressive replies are shown as they come.
  private func print(_ reply: CallReply) throws {
    guard options.json else {
      Output.write(reply.value.unsafeBytes)
      // For people only: what goes into a file or a pipe is the reply's bytes and nothing else.
      if isatty(1) == 1, reply.value.unsafeBytes.last != UInt8(ascii: "\n") { Output.line("") }
      return try Output.flush()
    }
    var members: [JSONValue.Member] = [
      .init("status", .string(reply.status.name)), .init("statusCode", JSONValue(reply.status.rawValue)),
      .init("code", JSONValue(reply.code)), .init("message", .string(reply.message)),
      Payload.member("value", reply.value.unsafeBytes),
    ]
    if !reply.isFinal { members.append(.init("final", false)) }
    Output.line(JSONValue.object(members).text)
    try Output.flush()
  }
}

extension AckDurability {
  /// What was reached, as a sentence's end.
  var inWords: String {
    switch self {
    case .applicationDefault: "accepted"
    case .memory: "in the node's memory"
    case .os: "written to the operating system"
    case .disk: "on disk"
    }
  }
}

/// Bytes in JSON output.
enum Payload {
  /// `name: "text"` if the bytes are UTF-8, `nameBase64: "…"` otherwise; null for no bytes at all.
  static func member(_ name: String, _ bytes: UnsafeRawBufferPointer?) -> JSONValue.Member {
    guard let bytes else { return .init(name, .null) }
    if let text = String(validating: bytes, as: UTF8.self) { return .init(name, .string(text)) }
    return .init(name + "Base64", .string(base64(bytes)))
  }

  /// RFC 4648, with padding.
  static func base64(_ bytes: UnsafeRawBufferPointer) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var output: [UInt8] = []
    output.reserveCapacity((bytes.count + 2) / 3 * 4)
    var position = 0
    while position < bytes.count {
      let rest = bytes.count - position
      let group =
        UInt32(bytes[position]) << 16 | (rest > 1 ? UInt32(bytes[position + 1]) << 8 : 0)
        | (rest > 2 ? UInt32(bytes[position + 2]) : 0)
      output.append(alphabet[Int(group >> 18)])
      output.append(alphabet[Int(group >> 12 & 63)])
      output.append(rest > 1 ? alphabet[Int(group >> 6 & 63)] : UInt8(ascii: "="))
      output.append(rest > 2 ? alphabet[Int(group & 63)] : UInt8(ascii: "="))
      position += 3
    }
    return String(decoding: output, as: UTF8.self)
  }
}
