import Grape
import GrapeCore
import GrapeState
import GrapeWire

/// What an application's worker runs: programs, by way of the Swift SDK.
enum ProgramHandler {
  /// The handler has ended its worker, or will never return.
  enum End: Error { case crashed, hung }

  struct Failed: Error {}

  /// How a handler that must not return says so: the worker looks at it when the delivery has been run.
  final class Fate: @unchecked Sendable {
    // A simulation lives on one thread.
    var end: End?
  }

  static let slot = "run"
  /// The slot that writes from outside trigger.
  static let trigger = "told"

  static func application(_ library: ProgramLibrary, apps: [String], fate: Fate) -> Application {
    let application = Application()
    application.on(slot) { event, context in
      guard fate.end == nil else { throw Failed() }
      let value = event.value.array
      guard let number = Program.number(in: value), number < library.programs.count else { throw Reject(code: 99) }
      let run = library.began(value)
      do {
        try perform(library.programs[number], event: value, run: run, context, apps: apps)
      } catch {
        if let end = error as? End { fate.end = end }
        throw error
      }
    }
    application.on(trigger) { event, context in
      guard fate.end == nil else { throw Failed() }
      let value = event.value.array
      let old = try context.state.get("told")
      try context.state.put("told", Digest.added(1, to: old, by: (event.key?.array ?? []) + value))
    }
    return application
  }

  private static func perform(
    _ program: Program, event: [UInt8], run: Int, _ context: Context, apps: [String]
  ) throws {
    var digest = Digest()
    func store(_ key: Int) throws -> (Store, String) {
      let name = StateName.name(key)
      return (name.store.isEmpty ? context.state : try context.store(name.store), name.key)
    }
    for step in program.steps {
      switch step {
      case .get(let key):
        let (store, name) = try store(key)
        digest.mix(try store.get(name))
      case .add(let key, let amount):
        let (store, name) = try store(key)
        let old = try store.get(name)
        digest.mix(old)
        try store.put(name, Digest.added(amount, to: old, by: event))
      case .append(let key):
        let (store, name) = try store(key)
        digest.mix(try store.append(name, "\(program.number),"))
      case .remove(let key):
        let (store, name) = try store(key)
        try store.remove(name)
      case .put(let key, let ttl, let tagged):
        let (store, name) = try store(key)
        try store.put(
          name, "p\(program.number) \(digest.text)", ttl: ttl.map { .milliseconds($0) },
          tags: tagged ? [StateName.tag] : [])
      case .compareAndSet(let key, let matching):
        let (store, name) = try store(key)
        let present = try store.get(name)
        let new = Array("c\(program.number)".utf8)
        let expected = matching ? present : Array("something else".utf8)
        digest.mix(try store.compareAndSet(name, expected: expected, new: new) ? 1 : 0)
      case .scan(let descending, let limit):
        for entry in try context.state.scan(prefix: "k", descending: descending, limit: limit) {
          digest.mix(entry.key)
          digest.mix(entry.value)
        }
      case .find:
        for entry in try context.state.find(tags: [StateName.tag]) { digest.mix(entry.key) }
      case .emit(let app, let key, let child, let detached):
        try context.emit("\(apps[app])@\(slot)", "\(child) \(digest.text)", key: "e\(key)", detached: detached)
      case .reply(let isFinal): try context.reply("\(program.number) \(digest.text)", isFinal: isFinal)
      case .fail(let times): if run <= times { throw Failed() }
      case .retry(let times, let milliseconds):
        if run <= times { throw Retry(after: .milliseconds(milliseconds)) }
      case .reject: throw Reject(code: 7, message: "no")
      case .crash(let times): if run <= times { throw End.crashed }
      case .hang(let times): if run <= times { throw End.hung }
      }
    }
  }
}
