/// A handler in the two shapes the worker tells apart; answers are turned into calls of `reply` at registration.
@usableFromInline
enum Handler: Sendable {
  @usableFromInline typealias Sync = @Sendable (Event, Context) throws -> Void
  @usableFromInline typealias Async = @Sendable (Event, Context) async throws -> Void

  case sync(Sync)
  case async(Async)

  @inlinable
  init<Output>(_ body: @escaping @Sendable (Event, Context) throws -> Output) {
    Handler.check(Output.self)
    self =
      Output.self == Void.self
      ? .sync { event, context in _ = try body(event, context) }
      : .sync { event, context in try context.answer(with: try body(event, context)) }
  }

  @inlinable
  init<Output>(_ body: @escaping @Sendable (Event, Context) async throws -> Output) {
    Handler.check(Output.self)
    self =
      Output.self == Void.self
      ? .async { event, context in _ = try await body(event, context) }
      : .async { event, context in try context.answer(with: try await body(event, context)) }
  }

  @usableFromInline
  static func check(_ output: Any.Type) {
    let answers = output == Reply.self || output == Reply?.self || output is any EventData.Type || output == Void.self
    precondition(answers, "a handler returns nothing, a Reply, text or bytes; this one returns \(output)")
  }
}

/// One of the application's slots as the node numbers them.
final class Slot: Sendable {
  let name: String
  let index: Int
  let handler: Handler

  init(name: String, index: Int, handler: Handler) {
    self.name = name
    self.index = index
    self.handler = handler
  }
}

extension Context {
  /// Sends what a handler returned to the caller, if one waits; nil is no answer.
  @usableFromInline
  func answer(with output: some Any) throws {
    if let optional = output as? any OptionalOutput, optional.isNone { return }
    switch output {
    case let reply as Reply: try self.reply(reply.data)
    case let data as any EventData: try self.reply(data)
    default: return
    }
  }
}

private protocol OptionalOutput {
  var isNone: Bool { get }
}

extension Optional: OptionalOutput {
  fileprivate var isNone: Bool { if case .none = self { true } else { false } }
}
