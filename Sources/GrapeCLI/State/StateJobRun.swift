import Grape
import GrapeCore

/// Runs a long operation on state in the node, showing how far it is. Ctrl-C cancels it there, too.
struct StateJobRun {
  private let node: NodeConnection
  private let interrupts: Interrupts
  private let showsProgress = Output.errorIsTerminal

  init(_ node: NodeConnection) throws {
    self.node = node
    interrupts = try Interrupts()
  }

  /// Returns its result; throws what it failed with.
  func run(_ op: String, _ members: [(String, JSONValue)]) throws -> JSONValue {
    guard let job = try node.ask(op, members)["job"] else {
      throw CommandFailure(.internal, "the node does not say how the operation is called")
    }
    defer { if showsProgress { Output.writeError("\r\u{1b}[K") } }
    while true {
      let answer: JSONValue
      do {
        answer = try node.ask("state.job", [("job", job), ("waitMs", 250)])
      } catch  where interrupts.pending {
        throw CommandFailure(.interrupted, "interrupted; the operation was cancelled")
      }
      if answer["done"]?.bool == true { return answer["result"] ?? .null }
      if interrupts.pending { _ = try node.ask("state.cancel", [("job", job)]) }
      if showsProgress, let progress = answer["progress"] { Output.writeError("\r" + line(progress) + "\u{1b}[K") }
    }
  }

  private func line(_ progress: JSONValue) -> String {
    var text = progress["phase"]?.string ?? ""
    if let partition = progress["partition"]?.int {
      text += " partition \(partition) of \(progress["partitions"]?.int ?? 0)"
    }
    let (done, total) = (progress["done"]?.int ?? 0, progress["total"]?.int ?? 0)
    if total > 0 {
      text += ": \(min(100, done * 100 / total)) %"
    } else if done > 0 {
      text += ": \(Format.count(done))"
    }
    return text
  }
}
