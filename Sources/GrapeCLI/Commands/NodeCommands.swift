import ArgumentParser
import Glibc
import Grape
import GrapeCore

/// `grape node`
struct NodeCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node",
    abstract: "The node itself: look at it, stop it, wait for it.",
    discussion: """
      EXAMPLES
        grape node info
        grape node wait --timeout 10s
        grape node stop
      """,
    subcommands: [Info.self, Stop.self, Wait.self])

  struct Info: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show name, version, process, data directory and uptime.",
      discussion: """
        EXAMPLES
          grape node info
          grape node info --json
        """)
    @OptionGroup var options: NodeOptions

    func execute(_ node: NodeConnection) throws {
      show(try node.ask("node.info")) { info in
        [
          "node      \(info["node"]?.string ?? "")",
          "version   \(info["version"]?.string ?? "")",
          "process   \(info["pid"]?.int ?? 0)",
          "data      \(info["dataDirectory"]?.string ?? "")",
          "uptime    \(Format.milliseconds(info["uptimeMs"]?.double ?? 0))",
          "log       \(info["log"]?.string ?? "")",
          "protocol  \(info["protocol"]?.int ?? 0)",
        ]
      }
    }
  }

  struct Stop: NodeCommand {
    static let configuration = CommandConfiguration(
      abstract: "Stop the node in order and wait until it is gone.",
      discussion: """
        EXAMPLES
          grape node stop
          grape node stop --timeout 2m
        """)
    @Option(help: ArgumentHelp("How long to wait for its end.", valueName: "duration"), transform: parseTimeout)
    var timeout: Duration = .seconds(60)
    @OptionGroup var options: NodeOptions

    func execute(_ node: NodeConnection) throws {
      let deadline = ContinuousClock.now + timeout
      _ = try node.ask("node.stop")
      // The node ends this connection when it has stopped.
      do throws(ClientError) {
        while true { _ = try node.receive(until: deadline) }
      } catch {
        if error.code == .deadlineExceeded {
          throw CommandFailure(.deadlineExceeded, "the node is still stopping after \(Format.duration(timeout))")
        }
      }
      show([:]) { _ in ["the node has stopped"] }
    }
  }

  struct Wait: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Wait until the node answers.",
      discussion: """
        EXAMPLES
          grape serve --data ./node & grape node wait --node ./node --timeout 10s
        """)
    @Option(help: ArgumentHelp("How long to wait.", valueName: "duration"), transform: parseTimeout)
    var timeout: Duration = .seconds(30)
    @OptionGroup var options: NodeOptions

    func run() throws {
      try reporting(json: options.json) {
        let deadline = ContinuousClock.now + timeout
        while true {
          do {
            let info = try options.connect().ask("node.info")
            Output.line(options.json ? info.text : "the node \(info["node"]?.string ?? "") is up")
            return
          } catch {
            let failure = CommandFailure(error)
            guard failure.exit == .unreachable || failure.exit == .unavailable else { throw failure }
            guard ContinuousClock.now < deadline else {
              throw CommandFailure(
                .deadlineExceeded, "no node after \(Format.duration(timeout)): \(failure.message)")
            }
            // Nothing tells when a socket appears and is listened at, so it is tried every 20 ms.
            _ = poll(nil, 0, 20)
          }
        }
      }
    }
  }
}
